"""Training: many steps in one compiled call, stopped at the last good state, resumed bit for bit."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._given import check_key
from vicinal.graph import OUTPUT, Graph
from vicinal.roles import Where
from vicinal.rules import Rule
from vicinal.train import showing
from vicinal.train.advance import Parts, TrainingState as TrainingState, advance, first_state, may_be_infinite
from vicinal.train.arguments import at_least_one, check_model, check_optimizer, check_rule, graph_of, total_steps
from vicinal.train.batches import ArraySource, IterableSource, source_of
from vicinal.train.checks import check_examples, check_labels
from vicinal.train.evaluate import first_sums, means
from vicinal.train.files import CHECKPOINT as CHECKPOINT, METRICS as METRICS, RunFiles
from vicinal.train.fingerprint import arrays_in, fingerprint
from vicinal.train.given import evaluators, given
from vicinal.train.hooks.base import AnyHook, Start, Watch, hooks_of
from vicinal.train.log import JSONLog
from vicinal.train.metrics import metrics_of
from vicinal.train.predict import predict
from vicinal.train.progress import Pace, TrainingProgress

if TYPE_CHECKING:
    import pandas

_CHUNK_SECONDS, _LONGEST_CHUNK = 0.5, 5000  # a compiled call takes about this long, and at most so many steps


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run that has ended.

    Attributes:
        state: The last good state.
        graph: The graph of the model.
        records: What was measured, one dictionary per evaluation: `step`, `epoch`, `train_loss`, `test_loss`, ...
        stopped: None, or the sentence that says why the run ended before its last step.
        stopped_by: None, or the name of the hook that stopped it.
        best: The best model, if a hook keeps it (`vicinal.train.hooks.EarlyStopping`), else None.
        seconds_per_step: Median over the steps, those of the first call (it compiles) left out; 0 if there was none.
    """

    state: TrainingState
    graph: Graph
    records: list[dict[str, Any]]
    stopped: str | None
    seconds_per_step: float
    stopped_by: str | None = None
    best: PyTree = None

    @property
    def model(self) -> PyTree:
        """The trained model."""
        return self.state.model

    def predict(self, x: PyTree, batch_size: int = 1000) -> PyTree:
        """The output of the trained model for each example; as `vicinal.train.predict`."""
        return predict(self.graph, self.model, x, batch_size)

    def to_frame(self) -> "pandas.DataFrame":
        """The records as a pandas data frame (`pip install 'vicinal[tables]'`), a row each; see `Sweep.to_frame`."""
        return showing.run_frame(self)

    def __repr__(self) -> str:
        return showing.run_text(self)

    def _repr_html_(self) -> str:
        return showing.run_html(self)


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
    progress: bool | None = None,
    on_record: Callable[[dict[str, Any], TrainingState], None] | None = None,
    hooks: Sequence[AnyHook] = (),
    metrics: Mapping[str, Callable] | None = None,
) -> Run:
    """Trains a model by a rule.

    The state is the last one all of whose numbers are finite: when an update makes one that is not, the run goes
    back to the state before it and stops with a sentence that names the vertex. The arithmetic does not depend on
    how the run was cut into calls, so that an interrupted run, resumed with the same arguments on the same kind of
    machine, ends with the same bits and the same records.

    Args:
        rule: Any rule.
        model: Any callable pytree; it is not changed.
        optimizer: Any optax optimiser. `optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))` clips the
            gradient; `optax.MultiSteps(optax.adam(1e-3), 4)` takes the mean of four before it moves the weights.
        data: What to train on; arrays of PyTorch and pandas are read too:

            - a `Dataset`, whose test part is evaluated, or a pandas DataFrame (see `vicinal.data.from_frame`);
            - a pair of arrays `(x, y)` or of trees of arrays, `[examples, ...]` each, or a dictionary with `x` and `y`,
              or with `x_train`, `y_train` and perhaps `x_test`, `y_test`;
            - an iterable of batches `(x, y)`, a PyTorch `DataLoader` for one, begun anew when it ends. Each pass of a
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
        graph: The captured graph, if you have it: runs that share it share the compiled step.
        fixed: From the model to the submodules or arrays that never change, as for `equinox.tree_at`; a graph of yours
            says so itself (`vicinal.capture`).
        folder: Where `metrics.jsonl` and `checkpoint.npz` go; None writes nothing.
        resume: Whether to go on from the folder's checkpoint if there is one.
        checkpoint_seconds: Time between checkpoints; one is also written at the end and on interruption.
        progress: False for silence; by default a bar on a terminal and lines elsewhere.
        on_record: Called with each record (and may add to it) and the state, before it is written.
        hooks: Called after that in the same way; one that returns `Stop(reason)` ends the run. Ready ones are in
            `vicinal.train.hooks`.
        metrics: Metrics of one's own, beside those of the loss (`vicinal.train.evaluate`): for each name a function
            `(output, target)` of one example that gives a scalar, or `(value, weight)`. Records show the means over
            examples, as `train_<name>` and `test_<name>`.

    Returns:
        The run.

    Raises:
        ValueError: If arguments contradict each other or the data, the model is not finite, or the folder holds
            another run; then nothing was written.
        TypeError: If an argument is of the wrong kind.
        OSError: If a checkpoint cannot be written; the one before is intact.
        KeyboardInterrupt: As it came, after a checkpoint was written; so with any other exception.

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
    check_rule(rule)
    check_model(model)
    check_optimizer(optimizer)
    check_key(key)
    order_key, rule_key, step_key = jax.random.split(key, 3)
    found = given(data, test, validation, batch_size=batch_size, key=order_key)
    source = source_of(found.data, batch_size, order_key, epochs is not None)
    total = total_steps(epochs, steps, source.steps_per_epoch)
    every = source.steps_per_epoch or total
    every = every if evaluate_every is None else at_least_one("evaluate_every", evaluate_every)
    size = source.batch_size or len(jax.tree.leaves(source.sample())[0])
    graph = graph_of(graph, fixed, model, source.example(), size)
    seen = metrics_of(rule.loss, graph.shapes[OUTPUT], *source.sample(), metrics)
    source.check(
        functools.partial(check_examples, graph, rule.loss, model),
        functools.partial(check_labels, graph.shapes[OUTPUT], rule.loss),
    )
    measuring = evaluators(graph, rule.loss, found.sets, metrics, model)
    parts, hooks = (rule, graph, optimizer, seen), hooks_of(hooks)
    sums = first_sums(graph, seen, source.sample()[1])
    first = first_state(parts, model, source.example(), sums, rule_key=rule_key, step_key=step_key)
    held = {"training data": source.sample(), **{f"{name} set": part for name, part in found.sets.items()}}
    settings = source.settings | {"evaluate_every": every if evaluate_every or source.steps_per_epoch else None}
    files = RunFiles(
        folder, settings, lambda: fingerprint(rule, graph, optimizer, model, first.optimizer_state, arrays_in(held))
    )
    state = files.open(first, total, resume)

    with contextlib.ExitStack() as stack:
        log = stack.enter_context(files.log(state))
        start = Start(int(state.step), resume, tuple(log.records), None if folder is None else Path(folder), files.best)
        watch = stack.enter_context(Watch(hooks, start, on_record))
        shown = stack.enter_context(TrainingProgress(total, int(state.step), progress))
        loop = _Loop(parts, source, total, every, measuring, watch, log, shown, state, may_be_infinite(first))
        try:
            while loop.goes_on:
                loop.advance()
                files.save(loop.state, unless_within=checkpoint_seconds)
            files.save(loop.state)
        except BaseException as error:
            try:
                files.save(loop.state)
            except OSError as failure:
                error.add_note(str(failure))
            raise
        ending = loop.ending()
        if ending:
            log.write({"step": int(loop.state.step), **ending})
    stopped, stopped_by = ending.get("stopped"), ending.get("stopped_by")
    records = [record for record in log.records if "stopped" not in record]  # the last may say why it ended
    return Run(loop.state, graph, records, stopped, loop.pace.median, stopped_by, files.best.model)


@dataclasses.dataclass
class _Loop:
    """A run under way: what stays, the state reached, and why it stopped."""

    parts: Parts
    source: ArraySource | IterableSource
    total: int
    every: int
    evaluators: dict[str, Callable[[PyTree], dict[str, float]]]
    watch: Watch
    log: JSONLog
    shown: TrainingProgress
    state: TrainingState
    exempt: tuple[str, ...] = ()
    stopped: str | None = None
    pace: Pace = dataclasses.field(default_factory=Pace)

    @property
    def goes_on(self) -> bool:
        """Whether there are steps to take, and nothing stops them."""
        return not self.ending() and int(self.state.step) < self.total

    def ending(self) -> dict[str, str]:
        """Why the run ends before its last step, as the log says it; empty if it does not."""
        step = int(self.state.step)
        if self.stopped is not None:
            return {"stopped": self.stopped}
        if self.watch.stopped_by is None or step == self.total:
            return {}
        return {"stopped": self.watch.sentence(step), "stopped_by": self.watch.stopped_by}

    def advance(self) -> None:
        """Takes the steps of one compiled call."""
        step = int(self.state.step)
        count = min(self.total - step, self.every - step % self.every, self.pace.steps_in(_CHUNK_SECONDS))
        found = self.source.chunk(step, min(count, _LONGEST_CHUNK))
        if found is None:
            self.stopped = f"the data ended after {step} of {self.total} steps; give an iterable that can begin anew"
            return
        batches, index, count = found
        begun = time.monotonic()
        new, self.stopped = advance((*self.parts, batches), self.state, index, count, self.exempt)
        taken = int(new.step) - step
        self.pace.add(taken, time.monotonic() - begun)
        if taken:
            seen, rate = means(new.sums, self.parts[3]), self.source.examples_in(batches) / self.pace.latest
            # The state counts once its record is written: a run that is interrupted here takes these steps again.
            self.state = self._recorded(new, seen | {"examples_per_second": rate})
            self.shown.update(step + taken, seen["train_loss"], seen.get("train_accuracy"), rate)

    def _recorded(self, state: TrainingState, seen: dict[str, float]) -> TrainingState:
        """Evaluates and writes a record, where one belongs, and begins the sums anew."""
        step = int(state.step)
        if step % self.every and step != self.total:
            return state
        epoch = {"epoch": step / self.source.steps_per_epoch} if self.source.steps_per_epoch else {}
        record = {"step": step, **epoch, **seen}
        for name, evaluate in self.evaluators.items():
            record |= {f"{name}_{metric}": value for metric, value in evaluate(state.model).items()}
        self.watch(record, state)
        self.log.write(record)
        self.watch.best.commit()
        return dataclasses.replace(state, sums=jax.tree.map(jnp.zeros_like, state.sums))
