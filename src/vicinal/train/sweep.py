"""Many runs in one compiled loop: every combination of some numbers, with every seed."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from vicinal.graph import Graph
from vicinal.roles import Where
from vicinal.train.advance import TrainingState
from vicinal.train.arguments import at_least_one, total_steps
from vicinal.train.combinations import Build, Value, combinations_of, groups_of, seeds_of
from vicinal.train.evaluate import means
from vicinal.train.fleet import Make
from vicinal.train.given import given, in_memory
from vicinal.train.hooks.base import AnyHook, Start, Watch, hooks_of
from vicinal.train.member import Member as Member, Sweep as Sweep
from vicinal.train.plan import Plan, free_bytes, keys_of as keys_of
from vicinal.train.progress import TrainingProgress
from vicinal.train.sweep_files import SweepFiles
from vicinal.train.wave import Wave

_FIRST_CHUNK, _CHUNK_SECONDS = 32, 2.0  # steps; most divergences come early, and a short chunk finds one cheaply


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
    progress: bool | None = None,
    on_record: Callable[[dict[str, Any], TrainingState], None] | None = None,
    hooks: Sequence[AnyHook] = (),
    metrics: Mapping[str, Callable] | None = None,
) -> Sweep:
    """Trains every combination of numbers with every seed, in as few compiled loops over all devices as possible.

    Each member equals `fit` with the same rule, optimiser and model and the key `keys_of(seed)[1]`, but for the order
    in which members that are mapped side by side sum. A member whose next step would make a number that is not finite
    is frozen at its last good state, and the others go on.

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
            of numbers, it gets them, `build(key, width=...)`, and models differ.
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
        graph: The captured graph, if you have it.
        fixed: As for `fit`.
        group_size: Members side by side; None calibrates, if the steps are so many that it can pay.
        devices: Where to run; by default all that JAX has.
        memory: Bytes that may be used; by default what is free. Members that do not fit at once run in waves.
        folder: Where `metrics.jsonl` and checkpoints go; None writes nothing.
        resume: Whether to go on from the folder's checkpoints if there are any.
        checkpoint_seconds: Time between checkpoints; one is also written at the end and on interruption.
        progress: As for `fit`.
        on_record: Called with each record of each member (and may add to it) and the member's state.
        hooks: As for `fit`, a copy for each member. A member that one stops is frozen, and stays so when the sweep is
            resumed.
        metrics: Metrics of one's own, as for `fit`.

    Returns:
        The sweep.

    Raises:
        ValueError: If an argument does not fit the others or the data, or one member alone needs more than `memory`.
        TypeError: If an argument is of the wrong kind.

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
    arrays = in_memory(given(data, test, validation, batch_size=batch_size, key=None))
    runs = list(itertools.product(combinations_of(make, build, numbers), seeds_of(seeds)))
    devices = jax.devices() if devices is None else devices
    if not isinstance(devices, list | tuple) or not devices:
        raise ValueError(f"expected at least one device, in a list, got {devices!r}")
    groups = groups_of(make, build, runs)
    if graph is not None and any(group.own_model for group in groups):
        raise ValueError("expected no graph with a build that takes numbers, got one; leave it out")
    plans: list[Plan] = []
    for group in groups:
        first = not plans or group.own_model  # of its model; the others share its graph
        common = (arrays, batch_size, runs, graph if first else plans[0].graph, list(devices), metrics)
        plans.append(Plan(group.make, group.build, *common, fixed if first else None, group))
    total = total_steps(epochs, steps, plans[0].steps_per_epoch)
    every = plans[0].steps_per_epoch if evaluate_every is None else at_least_one("evaluate_every", evaluate_every)
    if memory is not None and not isinstance(memory, int | float):
        raise TypeError(f"expected memory as a number of bytes, got {memory!r}; write int(4e9) for 4 GB")
    if memory is not None and not 0 < memory < math.inf:
        raise ValueError(f"expected memory as a number of bytes above 0, got {memory}")
    size = None if group_size is None else at_least_one("group_size", group_size)
    hooks_of(hooks)  # before anything runs
    description = plans[0].description | {"evaluate_every": every}
    folders = [SweepFiles(folder, resume, description, total, plan.fingerprint, plan.members) for plan in plans]
    parts = []
    for i, (plan, files) in enumerate(zip(plans, folders, strict=True)):
        if i:
            plan.share(plans[i - 1])
        title = f"sweep, part {i + 1} of {len(plans)}" if len(plans) > 1 else "sweep"
        with TrainingProgress(total, 0, progress, title) as shown:
            job = _Job(total, every, size, memory, checkpoint_seconds, resume, hooks, on_record, shown)
            parts.append(_train(plan, files, job))
    return _joined(parts, time.monotonic() - begun)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What the parts of a sweep have in common."""

    total: int
    every: int
    size: int | None
    memory: int | None
    checkpoint_seconds: float
    resume: bool
    hooks: Sequence[AnyHook]
    on_record: Callable[[dict[str, Any], TrainingState], None] | None
    shown: TrainingProgress


def _joined(parts: list[tuple[dict[int, Member], Sweep]], seconds: float) -> Sweep:
    """The sweep of all parts: the members in their order, the layout of the part that has the most."""
    members = {i: member for own, _ in parts for i, member in own.items()}
    done = [part for _, part in parts]
    return Sweep(
        [members[i] for i in range(len(members))],
        max(done, key=lambda part: len(part.members)).layout,
        sum(part.waves for part in done),
        seconds,
        sum(part.seconds_to_start for part in done),
        sum(part.compilations for part in done),
        any(part.resumed for part in done),
        len(parts),
    )


def _train(plan: Plan, files: SweepFiles, job: _Job) -> tuple[dict[int, Member], Sweep]:
    """Trains the members that share a program."""
    begun, total, every, hooks, shown = time.monotonic(), job.total, job.every, job.hooks, job.shown
    if files.waves is None:
        free = free_bytes(plan.devices) if job.memory is None else int(job.memory)
        try:
            waves, chosen = plan.choose(free, job.size, total)
        except TypeError as error:
            _blame_words(plan, error)
            raise
        files.waves = waves
    else:  # as it was begun: another layout would round otherwise
        waves = files.waves
        chosen = plan.fleet(len(waves[0]), files.group_size or 1)
    ready = time.monotonic()

    members: dict[int, Member] = {}
    shown.total = total * len(waves)
    with files:
        for i, ids in enumerate(waves):
            wave = plan.wave(chosen, ids)
            files.restore(i, wave)
            with contextlib.ExitStack() as stack:
                watches = []
                for row, j in enumerate(ids):
                    start = _start(plan, wave, row, j, files, job.resume, hooks)
                    watches.append(stack.enter_context(Watch(hooks_of(hooks), start, job.on_record)))
                loop = _Loop(plan, wave, ids, total, every, files, watches)
                while loop.goes_on:
                    mark = wave.mark()
                    try:
                        loop.advance()
                    except BaseException:  # the steps count once their records are written
                        wave.back_to(mark)
                        files.save(i, wave)
                        raise
                    files.save(i, wave, unless_within=job.checkpoint_seconds)
                    shown.update(i * total + loop.step, loop.loss, loop.accuracy, loop.rate)
                files.save(i, wave)
            for row, j in enumerate(ids):
                members[j] = _member(plan, j, wave.state(row), files.records_of(j), watches[row].best.model)
    ended = time.monotonic()
    return members, Sweep(
        list(members.values()),
        chosen.layout,
        len(waves),
        ended - begun,
        ready - begun,
        plan.compilations,
        files.group_size is not None,
    )


def _blame_words(plan: Plan, error: TypeError) -> None:
    """A word where a number should be, as in a learning rate, is found when it is first counted with."""
    words = {name: value for name, value in plan.runs[plan.members[0]][0].items() if isinstance(value, str)}
    if words:
        said = ", ".join(f"{name}={value!r}" for name, value in words.items())
        raise TypeError(
            f"expected words only where make looks something up by them, got {said}; write numbers without quotes "
            f"(what failed: {str(error).splitlines()[0]})"
        ) from error


class _Loop:
    """A wave under way."""

    def __init__(
        self,
        plan: Plan,
        wave: Wave,
        ids: list[int],
        total: int,
        every: int,
        files: SweepFiles,
        watches: list[Watch],
    ):
        self._plan, self._wave, self._ids, self._total, self._every = plan, wave, ids, total, every
        self._files, self._watches, self._chunk = files, watches, _FIRST_CHUNK
        self.step = int(wave.steps()[wave.live].max(initial=0))
        self.loss, self.rate = math.nan, 0.0
        self.accuracy: float | None = None
        self._stop()

    @property
    def goes_on(self) -> bool:
        """Whether there are steps to take, and somebody to take them."""
        return self.step < self._total and bool(self._wave.live.any())

    def advance(self) -> None:
        """Takes the steps of one compiled call, and writes the records that belong at its end."""
        count = min(self._chunk, self._total - self.step, self._every - self.step % self._every)
        orders, index, count = self._plan.orders(self._wave.fleet, self.step, count)
        before, begun = self._wave.live, time.monotonic()
        self._wave.advance(orders, index, count)
        seconds = time.monotonic() - begun
        if count == self._chunk and 2 * seconds < _CHUNK_SECONDS:
            self._chunk *= 2
        self.step += count
        self._note_stopped(before & ~self._wave.live)
        seen = self._seen()
        self.rate = sum(self._wave.live) * count * self._plan.batch_size / seconds
        if self.step % self._every == 0 or self.step == self._total:
            self._record(seen)

    def _note_stopped(self, stopped: np.ndarray) -> None:
        for row in np.flatnonzero(stopped):
            step = int(self._wave.steps()[row])
            self._files.write(
                {
                    "member": self._ids[row],
                    "step": step,
                    "stopped": f"stopped at step {step}, the last good state: {self._why(int(row))}",
                }
            )

    def _why(self, row: int) -> str:
        return self._plan.why_it_stopped(self._ids[row], self._wave.state(row))

    def _seen(self) -> dict[int, dict[str, float]]:
        """What each live member has seen since the last record."""
        sums = self._wave.sums()
        seen = {int(row): means(sums[row], self._plan.metrics) for row in np.flatnonzero(self._wave.live)}
        if seen:
            self.loss = float(np.mean([found["train_loss"] for found in seen.values()]))
            found = [found["train_accuracy"] for found in seen.values() if "train_accuracy" in found]
            self.accuracy = float(np.mean(found)) if found else None
        return seen

    def _record(self, seen: dict[int, dict[str, float]]) -> None:
        """Evaluates and writes a record of each live member, and begins the sums anew."""
        tested = self._wave.evaluate()
        for row, means_ in seen.items():
            record = {"step": self.step, "epoch": self.step / self._plan.steps_per_epoch, **means_}
            record |= tested[row]
            watch = self._watches[row]
            if watch.needs_state:
                watch(record, self._wave.state(row))
            self._files.write({"member": self._ids[row], **record})
            watch.best.commit()
        self._wave.reset_sums()
        self._stop()

    def _stop(self) -> None:
        """Freezes the live members that a hook stops before their last step."""
        rows = [int(row) for row in np.flatnonzero(self._wave.live) if self._watches[row].stopped_by is not None]
        if not rows or self.step == self._total:
            return
        for row in rows:
            watch, step = self._watches[row], int(self._wave.steps()[row])
            said = {"stopped": watch.sentence(step), "stopped_by": watch.stopped_by}
            self._files.write({"member": self._ids[row], "step": step, **said})
        self._wave.stop(rows)


def _start(
    plan: Plan, wave: Wave, row: int, member: int, files: SweepFiles, resume: bool, hooks: Sequence[AnyHook]
) -> Start:
    """What the hooks of a member are told."""
    records = [record for record in files.records_of(member) if "stopped" not in record]
    (numbers, seed), step = plan.runs[member], int(wave.steps()[row])
    best = files.keeper(member, wave.state(row).model if hooks else None, step)
    return Start(step, resume, records, files.folder, best, member, {**numbers, "seed": seed})


def _member(plan: Plan, i: int, state: TrainingState, records: list[dict[str, Any]], best: PyTree) -> Member:
    ending = next((record for record in records if "stopped" in record), {})
    numbers, seed = plan.runs[i]
    measured = [record for record in records if "stopped" not in record]
    stopped, stopped_by = ending.get("stopped"), ending.get("stopped_by")
    return Member(numbers, seed, measured, int(state.step), stopped, state.model, stopped_by, best)
