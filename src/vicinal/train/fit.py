"""Training: many steps in one compiled call, stopped at the last good state, resumed bit for bit."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._given import check_key
from vicinal._lock import locked
from vicinal._memory import explained
from vicinal.graph import OUTPUT, Graph
from vicinal.interruption import signals_end_training
from vicinal.roles import Where
from vicinal.rules import Rule
from vicinal.train.advance import TrainingState, first_state
from vicinal.train.arguments import check_model, check_optimizer, check_rule, graph_of
from vicinal.train.batches import ArraySource, IterableSource, source_of
from vicinal.train.checks import check_examples, check_labels
from vicinal.train.evaluate import first_sums
from vicinal.train.files import Files
from vicinal.train.fingerprint import arrays_in, fingerprint
from vicinal.train.given import evaluators, given
from vicinal.train.hooks.base import AnyHook
from vicinal.train.loop import train_members
from vicinal.train.metrics import metrics_of
from vicinal.train.needs import ADVICE, check_training
from vicinal.train.options import Options, Schedule
from vicinal.train.progress import TrainingProgress
from vicinal.train.results import Run
from vicinal.train.single import Single


def fit(
    rule: Rule,
    model: PyTree,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    key: PRNGKeyArray,
    epochs: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    test: Any = None,
    validation: Any = None,
    evaluate_every: int | None = None,
    graph: Graph | None = None,
    fixed: Where | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    keep: int = 1,
    progress: bool | None = None,
    on_record: Callable[[dict[str, Any], TrainingState], None] | None = None,
    hooks: Sequence[AnyHook] = (),
    metrics: Mapping[str, Callable] | None = None,
) -> Run:
    """Trains a model by a rule.

    If an update makes a number that is not finite, the run goes back to the state before that update and stops, with
    a sentence that names the vertex. The arithmetic does not depend on how the run is cut into compiled calls: an
    interrupted run, resumed with the same arguments on the same kind of machine, ends with the same bits and records.

    Args:
        rule: Any rule.
        model: Any callable pytree; it is not changed.
        optimizer: Any optax optimiser. `optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))` clips the
            gradient; `optax.MultiSteps(optax.adam(1e-3), 4)` takes the mean of four before it moves the weights.
        data: What to train on; arrays of PyTorch and pandas are read too:

            - a `Dataset`, whose test part is evaluated, or a pandas DataFrame (see `vicinal.data.from_frame`);
            - a pair of arrays `(x, y)` or of trees of arrays, `[examples, ...]` each, or a dictionary with `x` and `y`,
              or with `x_train`, `y_train` and perhaps `x_test`, `y_test`;
            - an iterable of batches `(x, y)`, a PyTorch `DataLoader` for one, restarted when it ends. Each pass of a
              resumed run must give the same batches again; those seen are skipped;
            - a Hugging Face data set, all columns but the target as inputs (see `vicinal.data.from_hugging_face`).
        key: Decides the order of the examples and the rule's random numbers.
        epochs: Passes through the data; or give `steps`, which an iterable without a length needs.
        steps: Updates in all, those of a resumed run included.
        batch_size: Examples in a batch of arrays; what does not fill the last batch of an epoch is left out of it.
        test: What to evaluate on, as for `data`; by default the data's own test part. Batches must be such that they
            can be read at every evaluation.
        validation: The same, for choosing; or a share of the training arrays, kept from training: with as large a
            part of each class, and the same examples whatever the key.
        evaluate_every: Steps between evaluations; by default an epoch, or for batches with `steps` all of them. The
            last step is always evaluated.
        graph: The captured graph, if you have one; runs with one graph compile their step once.
        fixed: From the model to the submodules or arrays that never change, as for `equinox.tree_at`; a graph of yours
            says so itself (`vicinal.capture`).
        folder: Where `metrics.jsonl` and `checkpoint.npz` go; None writes nothing. One run at a time has a folder.
        resume: Whether to resume from the folder's checkpoint, if there is one.
        checkpoint_seconds: Time between checkpoints; one is also written at the end and on interruption. A resumed
            run may have another.
        keep: Checkpoints to keep: the newest, and earlier ones in the folder `earlier`. If the newest is damaged, the
            run resumes from the one before, and warns.
        progress: False for silence; by default a bar on a terminal and lines elsewhere.
        on_record: Called with each record (and may add to it) and the state, before it is written.
        hooks: Called after that in the same way; one that returns `Stop(reason)` ends the run. Ready ones are in
            `vicinal.train.hooks`.
        metrics: Custom metrics, beside those of the loss (`vicinal.train.evaluate`): for each name a function
            `(output, target)` of one example that gives a scalar, or `(value, weight)`. Records show the means over
            examples, as `train_<name>` and `test_<name>`.

    Returns:
        The run.

    Raises:
        ValueError: If arguments contradict each other or the data, the model is not finite, or the folder holds
            another run or one that is under way; then nothing was written.
        TypeError: If an argument is of the wrong kind.
        OSError: If a record or a checkpoint cannot be written, or the folder is removed meanwhile. The records and the
            checkpoint before it are intact.
        KeyboardInterrupt: Raised again once a checkpoint is written, as is any other exception. With a folder, and
            in the main thread, SIGTERM and SIGHUP raise SystemExit (codes 143 and 129) in the same way, unless the
            program handles them itself; further signals are dropped while the checkpoint is written.
        MemoryError: If memory certainly does not suffice, before the first step; or if it runs out, once the state
            is saved.

    Example:
        >>> import jax, optax, vicinal as vc
        >>> digits = vc.data.load("digits").flattened()
        >>> model = vc.nn.MLP((64, 32, 10), key=jax.random.key(0))
        >>> optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
        >>> run = vc.train.fit(vc.rules.InferenceLearning(), model, optimizer, digits,
        ...                    key=jax.random.key(1), steps=100, progress=False)
        >>> run.records[-1]["step"], run.records[-1]["test_accuracy"] > 0.8
        (100, True)
    """
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
    check_rule(rule)
    check_model(model)
    check_optimizer(optimizer)
    check_key(key)
    order_key, rule_key, step_key = jax.random.split(key, 3)
    found = given(data, test, validation, batch_size=batch_size, key=order_key)
    source = source_of(found.data, batch_size, order_key, epochs is not None)
    schedule = options.schedule(source.steps_per_epoch)
    size = source.batch_size or len(jax.tree.leaves(source.sample())[0])
    graph = graph_of(graph, fixed, model, source.example(), size)
    measured = metrics_of(rule.loss, graph.shapes[OUTPUT], *source.sample(), metrics)
    check_examples(graph, rule.loss, model, source.sample(), source.where)
    if isinstance(source, IterableSource):
        source.check_targets = functools.partial(check_labels, graph.shapes[OUTPUT], rule.loss)
    measuring = evaluators(graph, rule.loss, found.sets, metrics, model)
    check_training(rule, graph, optimizer, model, size, rule_key)
    parts, sums = (rule, graph, optimizer, measured), first_sums(graph, measured, source.sample()[1], rule.sends_events)
    with explained("the first state", ADVICE):
        first = first_state(parts, model, source.example(), sums, rule_key=rule_key, step_key=step_key)
    sets = {"training data": source.sample(), **{f"{name} set": part for name, part in found.sets.items()}}
    with locked(folder) as held, held.written():
        files = Files(
            options,
            held,
            schedule.steps,
            _settings(source, schedule, step_key),
            lambda: fingerprint(rule, graph, optimizer, model, first.optimizer_state, arrays_in(sets)),
        )
        run = Single(parts, source, first, measuring, schedule)
        files.restore(run)
        shown = TrainingProgress(schedule.steps, int(run.state().step), progress)
        with signals_end_training(files.folder), files, shown:
            pace = train_members(run, schedule, options, files, shown)
    ending = files.ending_of(None)
    return Run(
        run.state(),
        graph,
        files.records_of(None),
        ending.get("stopped"),
        pace.median,
        ending.get("stopped_by"),
        files.best_of(None),
    )


def _settings(source: ArraySource | IterableSource, schedule: Schedule, key: PRNGKeyArray) -> dict[str, Any]:
    """What a resumed run must have in common with the one before; an iterable decides itself what it gives."""
    return {
        "batch_size": source.batch_size,
        "steps_per_epoch": schedule.steps_per_epoch if source.batch_size else None,
        "evaluate_every": schedule.interval,
        "key": jax.random.key_data(key).tolist(),
    }
