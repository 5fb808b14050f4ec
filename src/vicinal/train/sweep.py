"""Many runs in one compiled loop: every combination of some numbers, with every seed."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vicinal._lock import locked
from vicinal._memory import explained
from vicinal.graph import Graph
from vicinal.interruption import signals_end_training
from vicinal.roles import Where
from vicinal.train.advance import TrainingState
from vicinal.train.combinations import Build, Value, combinations_of, runs_of, seeds_of, shared_programs
from vicinal.train.compiled import CompiledSteps, Examples, Make
from vicinal.train.files import Files
from vicinal.train.given import given, in_memory
from vicinal.train.hooks.base import AnyHook
from vicinal.train.loop import train_members
from vicinal.train.options import Options, Schedule
from vicinal.train.part import Part
from vicinal.train.placing import Room, place
from vicinal.train.progress import TrainingProgress
from vicinal.train.results import Member, Sweep
from vicinal.train.wave import Wave


def sweep(
    make: Make,
    build: Build,
    data: Any,
    numbers: Mapping[str, Sequence[Value]] | Sequence[Mapping[str, Value]],
    *,
    seeds: int | Sequence[int] = 1,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    test: Any = None,
    validation: Any = None,
    evaluate_every: int | None = None,
    graph: Graph | None = None,
    fixed: Where | None = None,
    group_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    memory: int | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    keep: int = 1,
    progress: bool | None = None,
    on_record: Callable[[dict[str, Any], TrainingState], None] | None = None,
    hooks: Sequence[AnyHook] = (),
    metrics: Mapping[str, Callable] | None = None,
) -> Sweep:
    """Trains every combination of numbers with every seed, in as few compiled loops over all devices as possible.

    Each member equals `fit` with the same rule, optimiser and model and the key `keys_of(seed)[1]`, but for the order
    in which members that are mapped side by side sum. A member whose next step would make a number that is not finite
    is frozen at its last good state, and the others continue.

    On a CPU, the members of a group of one run as they would alone, one group on each device at a time: make devices
    with `jax.config.update("jax_num_cpu_devices", cores)` before JAX starts. Whether larger groups are faster is
    found by a short calibration; each size that is tried is one compilation.

    Members that differ in numbers that can be traced share a program. What decides the program itself (a word, as the
    name of a rule; a count of inference steps; whatever `make` cannot be traced with) parts them: the parts are
    compiled and trained one after another, and may have other models.

    Args:
        make: `make(**numbers) -> (rule, optimizer)`; it is called with traced numbers, and once for each combination
            with plain ones, so that a value out of its range is found before anything runs.
        build: From a key to a model; all models must have the same structure. If it has further parameters with names
            of numbers, it gets them, `build(key, width=...)`, and models differ. Models that differ only in the numbers
            in their arrays, such as those of a `vicinal.hardware.Device`, share a program.
        data: As for `fit`, but arrays: a `Dataset`, a DataFrame, a pair or a dictionary of arrays.
        numbers: For each name the values (numbers, words, True, False, None), every combination of which is run; or
            the combinations themselves. A number, whole or not, reaches `make` as a traced floating-point one if `make`
            takes that, so `make` must not ask for its Python type.
        seeds: How many, from 0; or which. See `keys_of`.
        epochs: Passes through the arrays; or give `steps`.
        steps: Updates of each member.
        batch_size: Examples in a batch.
        test: Arrays to evaluate on; by default the data's own test part.
        validation: The same, or a share of the training arrays, as for `fit`; all members have the same one.
        evaluate_every: Steps between evaluations; by default an epoch. The last step is always evaluated.
        graph: The captured graph, if you have one.
        fixed: As for `fit`.
        group_size: Members in a group; None calibrates it, if there are enough steps for that to pay.
        devices: Where to run; by default all that JAX has.
        memory: Bytes that may be used; by default what is free. Members that do not fit at once run in waves.
        folder: Where `metrics.jsonl` and checkpoints go; None writes nothing. One sweep at a time has a folder.
        resume: Whether to resume from the folder's checkpoints, if there are any.
        checkpoint_seconds: Time between checkpoints; one is also written at the end and on interruption. A resumed
            run may have another.
        keep: Checkpoints to keep, as for `fit`.
        progress: As for `fit`.
        on_record: Called with each record of each member (and may add to it) and the member's state.
        hooks: As for `fit`, a copy for each member. A member that a hook stops is frozen, also in a resumed sweep.
        metrics: Custom metrics, as for `fit`.

    Returns:
        The sweep.

    Raises:
        ValueError: If an argument does not fit the others or the data, one member alone needs more than `memory`, or
            the folder holds another sweep or one that is under way.
        TypeError: If an argument is of the wrong kind.
        KeyboardInterrupt: As for `fit`; SIGTERM and SIGHUP too.

    Example:
        >>> import jax, optax, vicinal as vc
        >>> digits = vc.data.load("digits").flattened()
        >>> done = vc.train.sweep(
        ...     lambda learning_rate: (vc.rules.Backprop(), optax.sgd(learning_rate)),
        ...     lambda key: vc.nn.MLP((64, 16, 10), key=key),
        ...     digits, {"learning_rate": [0.01, 0.1]}, seeds=2, steps=50, group_size=4, progress=False)
        >>> [(member.numbers["learning_rate"], member.seed) for member in done.members]
        [(0.01, 0), (0.01, 1), (0.1, 0), (0.1, 1)]
        >>> done.members[3].records[-1]["test_loss"] < done.members[1].records[-1]["test_loss"]
        True
    """
    begun = time.monotonic()
    options = Options(
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        evaluate_every=evaluate_every,
        folder=folder,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        keep=keep,
        progress=progress,
        on_record=on_record,
        hooks=hooks,
        metrics=metrics,
    )
    examples = Examples(*in_memory(given(data, test, validation, batch_size=batch_size, key=None)))
    runs = runs_of(combinations_of(make, build, numbers), seeds_of(seeds))
    room = Room(jax.devices() if devices is None else devices, memory, group_size)
    programs = shared_programs(make, build, runs)
    if graph is not None and any(program.of_build for program in programs):
        raise ValueError("expected no graph with a build that takes numbers, got one; leave it out")
    parts: list[Part] = []
    for program in programs:
        own = not parts or bool(program.of_build)  # the first of its model; the others share its graph
        captured = graph if own else parts[0].graph
        parts.append(Part(program, runs, examples, options, list(room.devices), captured, fixed if own else None))
    schedule = options.schedule(parts[0].steps_per_epoch)
    settings = {
        "batch_size": parts[0].batch_size,
        "steps_per_epoch": schedule.steps_per_epoch,
        "members": [{"seed": seed, "numbers": row} for row, seed in runs],
        "evaluate_every": schedule.interval,
    }
    with locked(folder) as held, held.written():
        folders = [Files(options, held, schedule.steps, settings, part.fingerprint, part.members) for part in parts]
        done = []
        for i, (part, files) in enumerate(zip(parts, folders, strict=True)):
            title = f"sweep, part {i + 1} of {len(parts)}" if len(parts) > 1 else "sweep"
            shown = TrainingProgress(schedule.steps, 0, progress, title)
            with signals_end_training(files.folder), files, shown:
                done.append(_train(part, files, schedule, options, room, shown))
    return _joined(parts, done, time.monotonic() - begun)


def _joined(parts: list[Part], done: list[Sweep], seconds: float) -> Sweep:
    """The sweep of all parts: the members in their order, the layout of the part that has the most."""
    places = itertools.chain.from_iterable(part.members for part in parts)
    members = dict(zip(places, (member for run in done for member in run.members), strict=True))
    return Sweep(
        [members[i] for i in range(len(members))],
        max(done, key=lambda run: len(run.members)).layout,
        sum(run.waves for run in done),
        seconds,
        sum(run.seconds_to_start for run in done),
        sum(run.compilations for run in done),
        any(run.resumed for run in done),
        len(parts),
    )


def _train(
    part: Part, files: Files, schedule: Schedule, options: Options, room: Room, shown: TrainingProgress
) -> Sweep:
    """Trains the members that share a program, wave by wave."""
    begun = time.monotonic()
    if files.found:  # in the same layout: another one would round otherwise
        waves, size = files.found[-1]["waves"], files.found[-1]["group_size"]
        compiled = part.compiled(len(waves[0]), size)
    else:
        with explained("the first states of the members", "give a smaller memory or group_size"):
            waves, compiled = _place(part, room, schedule.steps)
    ready = time.monotonic()
    members: list[Member] = []
    shown.total = schedule.steps * len(waves)
    for i, ids in enumerate(waves):
        wave = Wave(part, compiled, ids, waves)
        files.restore(wave)
        shown.before = i * schedule.steps
        train_members(wave, schedule, options, files, shown)
        members += [_member(part, files, own, wave.state(row)) for row, own in enumerate(ids)]
    timing = time.monotonic() - begun, ready - begun, part.compilations, bool(files.found)
    return Sweep(members, compiled.layout, len(waves), *timing)


def _place(part: Part, room: Room, steps: int) -> tuple[list[list[int]], CompiledSteps]:
    """As `place`; a word in the place of a number, as of a learning rate, is found where it is first computed with."""
    try:
        return place(part, room, steps)
    except TypeError as error:
        words = {name: value for name, value in part.runs[part.members[0]][0].items() if isinstance(value, str)}
        if not words:
            raise
        said = ", ".join(f"{name}={value!r}" for name, value in words.items())
        raise TypeError(
            f"expected words only where make looks something up by them, got {said}; write numbers without quotes "
            f"(what failed: {str(error).splitlines()[0]})"
        ) from error


def _member(part: Part, files: Files, own: int, state: TrainingState) -> Member:
    (numbers, seed), ending = part.runs[own], files.ending_of(own)
    stopped, stopped_by = ending.get("stopped"), ending.get("stopped_by")
    records, best = files.records_of(own), files.best_of(own)
    return Member(numbers, seed, records, int(state.step), stopped, state.model, stopped_by, best)
