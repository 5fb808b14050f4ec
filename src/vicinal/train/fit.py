"""Training: many steps in one compiled call, stopped at the last good state, resumed bit for bit."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vicinal.data import Dataset
from vicinal.graph import Graph, capture
from vicinal.inference import Result
from vicinal.rules import Rule
from vicinal.train import checkpoint
from vicinal.train.batches import source_of
from vicinal.train.evaluate import correct, evaluate
from vicinal.train.log import JSONLog
from vicinal.train.progress import TrainingProgress

_CHUNK_SECONDS, _LONGEST_CHUNK = 0.5, 5000  # a compiled call takes about this long, and at most so many steps

CHECKPOINT, METRICS = "checkpoint.npz", "metrics.jsonl"
"""What a run writes into its folder."""


class TrainingState(eqx.Module):
    """All that changes during training, and all that a checkpoint holds.

    Attributes:
        model: The model.
        optimizer_state: Of the optimiser.
        rule_state: Of the rule.
        step: Updates taken; with the key it says which batch comes next.
        key: Decides the rule's random numbers.
        sums: Of what was measured in training since the last record, and the number of steps.
    """

    model: PyTree
    optimizer_state: PyTree
    rule_state: PyTree
    step: Int[Array, ""]
    key: PRNGKeyArray
    sums: dict[str, Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        state: The last good state.
        graph: The graph of the model.
        records: What was measured, one dictionary per evaluation: `step`, `epoch`, `train_loss`, `test_loss`, ...
        stopped: None, or the sentence that says why the run ended before its last step.
        seconds_per_step: Median over the compiled calls after the first.
    """

    state: TrainingState
    graph: Graph
    records: list[dict[str, Any]]
    stopped: str | None
    seconds_per_step: float

    @property
    def model(self) -> PyTree:
        """The trained model."""
        return self.state.model


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
    test: tuple[PyTree, PyTree] | None = None,
    evaluate_every: int | None = None,
    graph: Graph | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    progress: bool | None = None,
    on_record: Callable[[dict[str, Any], TrainingState], None] | None = None,
) -> Run:
    """Trains a model by a rule.

    The state is the last one all of whose numbers are finite: when an update makes one that is not, the run goes
    back to the state before it and stops with a sentence that names the vertex. The arithmetic does not depend on
    how the run was cut into calls, so that an interrupted run, resumed, ends with the same bits.

    Args:
        rule: Any rule.
        model: Any callable pytree; it is not changed.
        optimizer: Any optax optimiser.
        data: A `Dataset` (whose test part is evaluated), a pair of arrays `(x, y)` each `[examples, ...]`, or an
            iterable of batches `(x, y)`, begun anew when it ends.
        key: Decides the order of the examples and the rule's random numbers.
        epochs: Passes through the arrays; or give `steps`.
        steps: Updates in all, those of a resumed run included.
        batch_size: Examples in a batch of arrays; what does not fill the last batch of an epoch is left out of it.
        test: Inputs and targets to evaluate on; by default the data set's own test part.
        evaluate_every: Steps between evaluations; by default an epoch. The last step is always evaluated.
        graph: The captured graph, if you have it: runs that share it share the compiled step.
        folder: Where `metrics.jsonl` and `checkpoint.npz` go; None writes nothing.
        resume: Whether to go on from the folder's checkpoint if there is one.
        checkpoint_seconds: Time between checkpoints; one is also written at the end and on interruption.
        progress: False for silence; by default a bar on a terminal and lines elsewhere.
        on_record: Called with each record (and may add to it) and the state, before it is written.

    Returns:
        The run.

    Raises:
        ValueError: If arguments contradict each other or the data, or the checkpoint belongs to another run.
        KeyboardInterrupt: As it came, after a checkpoint was written.

    Example:
        >>> import jax, optax, vicinal as vc
        >>> digits = vc.data.load("digits").flattened()
        >>> model = vc.nn.MLP((64, 32, 10), key=jax.random.key(0))
        >>> run = vc.train.fit(vc.rules.InferenceLearning(), model, optax.adam(1e-2), digits,
        ...                    key=jax.random.key(1), steps=100, progress=False)
        >>> run.records[-1]["step"], run.records[-1]["test_accuracy"] > 0.8
        (100, True)
    """
    if isinstance(data, Dataset):
        test = (data.x_test, data.y_test) if test is None else test
        data = (data.x_train, data.y_train)
    order_key, rule_key, step_key = jax.random.split(key, 3)
    source = source_of(data, batch_size, order_key)
    total = _total_steps(epochs, steps, source.steps_per_epoch)
    graph = capture(model, source.example()) if graph is None else graph
    state = TrainingState(
        model,
        optimizer.init(eqx.filter(model, eqx.is_inexact_array)),
        rule.init(graph, model, key=rule_key),
        jnp.zeros((), jnp.int32),
        step_key,
        {name: jnp.zeros(()) for name in _SUMS},
    )
    if not _is_good(state):
        raise ValueError("expected a model of finite parameters, got one with infinite or undefined numbers")
    folder = None if folder is None else Path(folder)
    settings = {"batch_size": batch_size, "steps_per_epoch": source.steps_per_epoch}
    if folder is not None:
        state = _open_folder(folder, state, resume, settings)
    every = evaluate_every or source.steps_per_epoch or total
    test = None if test is None else jax.tree.map(jnp.asarray, test)
    fixed = (rule, graph, optimizer)
    seconds, stopped, saved_at = [], None, time.monotonic()

    def save() -> None:
        if folder is not None:
            checkpoint.save(folder / CHECKPOINT, state, metadata=settings)

    with (
        JSONLog(folder and folder / METRICS, resume_at=int(state.step)) as log,
        TrainingProgress(total, int(state.step), progress) as shown,
    ):
        try:
            while (step := int(state.step)) < total and stopped is None:
                found = source.chunk(step, _chunk_steps(seconds, min(total - step, every - step % every)))
                if found is None:
                    stopped = f"the data ended after {step} of {total} steps: give an iterable that can begin anew"
                    break
                batches, index, count = found
                begun = time.monotonic()
                state, stopped = _advance_safely((*fixed, batches), state, index, count)
                taken = int(state.step) - step
                seconds.append((time.monotonic() - begun) / max(taken, 1))
                now = _means(state.sums) | {"examples_per_second": source.examples_in(batches) / seconds[-1]}
                if int(state.step) % every == 0 or int(state.step) == total:
                    record = _record(now, int(state.step), source.steps_per_epoch)
                    if test is not None:
                        record |= {
                            f"test_{k}": float(v) for k, v in evaluate(graph, state.model, rule.loss, *test).items()
                        }
                    if on_record is not None:
                        on_record(record, state)
                    log.write(record)
                    state = dataclasses.replace(state, sums=jax.tree.map(jnp.zeros_like, state.sums))
                shown.update(int(state.step), now["train_loss"], now.get("train_accuracy"), now["examples_per_second"])
                if time.monotonic() - saved_at > checkpoint_seconds:
                    save()
                    saved_at = time.monotonic()
        finally:
            save()
        if stopped is not None:
            log.write({"step": int(state.step), "stopped": stopped})
    return Run(state, graph, log.records, stopped, float(np.median(seconds[1:] or seconds or [0.0])))


# ------------------------------------------------------------------------------------------------ the compiled loop

_SUMS = ("steps", "loss", "accuracy", "inference_failures")


@eqx.filter_jit(donate="all-except-first")
def _advance(fixed: Any, state: TrainingState, index: Array, count: Array) -> TrainingState:
    """Takes `count` steps from batch `index` on.

    The number of steps is not known when this is compiled, so that the body is the same machine code however a run
    is cut into calls: that is what makes a resumed run equal to the last bit, and spares a second compilation.
    """
    rule, graph, optimizer, batches = fixed
    arrays, static = eqx.partition(state, eqx.is_array)

    def body(i: Array, arrays: PyTree) -> PyTree:
        state = eqx.combine(arrays, static)
        x, y = batches.get(index + i)
        key = jax.random.fold_in(state.key, state.step)
        model, optimizer_state, rule_state, loss, info = rule.step(
            graph, optimizer, state.model, state.optimizer_state, state.rule_state, x, y, key=key
        )
        seen = _measured(loss, info, y)
        sums = {name: total + seen[name].astype(total.dtype) for name, total in state.sums.items()}
        new = TrainingState(model, optimizer_state, rule_state, state.step + 1, state.key, sums)
        return eqx.filter(new, eqx.is_array)

    return eqx.combine(jax.lax.fori_loop(0, count, body, arrays), static)


def _measured(loss: Array, info: Any, y: PyTree) -> dict[str, Array]:
    right = correct(info.output, y)
    failed = jnp.nan if info.result is None else jnp.mean((info.result >= Result.DIVERGED).astype(jnp.float32))
    accuracy = jnp.nan if right is None else jnp.mean(right)
    return {
        "steps": jnp.ones(()),
        "loss": loss,
        "accuracy": jnp.asarray(accuracy),
        "inference_failures": jnp.asarray(failed),
    }


@eqx.filter_jit
def _is_good(state: TrainingState) -> Array:
    """Whether every number is finite: parameters, optimiser, rule, and the loss since the last record."""
    checked = (state.model, state.optimizer_state, state.rule_state, state.sums["loss"])
    leaves = [leaf for leaf in jax.tree.leaves(checked) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _advance_safely(fixed: Any, state: TrainingState, index: int, count: int) -> tuple[TrainingState, str | None]:
    """Takes `count` steps, or as many as leave every number finite; then says what the next one breaks."""

    def after(steps: int) -> TrainingState:
        copy = jax.tree.map(lambda leaf: leaf.copy() if eqx.is_array(leaf) else leaf, state)  # the copy is donated
        return _advance(fixed, copy, jnp.int32(index), jnp.int32(steps))

    new = after(count)
    if _is_good(new):
        return new, None
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _is_good(after(middle)) else (good, middle)
    new = after(good)
    return new, f"stopped at step {int(new.step)}, the last good state: {_diagnosis(fixed, new, index + good)}"


def _diagnosis(fixed: Any, state: TrainingState, index: int) -> str:
    """The sentence that says where the next step meets the first number that is not finite."""
    rule, graph, _, batches = fixed
    x, y = batches.get(jnp.int32(index))
    key = jax.random.fold_in(state.key, state.step)
    credit, _ = rule.credit(graph, state.model, state.rule_state, x, y, key=key)
    advice = "lower the learning rate or the step size of the activities"
    for name in graph.vertices:
        for kind, held in (("value", credit.values[name]), ("error", credit.errors[name])):
            if not bool(jnp.all(jnp.isfinite(held))):
                return f"the next update meets a non-finite {kind} at vertex {name!r}; {advice}"
    if not bool(jnp.all(jnp.isfinite(credit.loss))):
        return f"the next update meets a non-finite loss at the output; {advice}"
    return f"the next update makes a parameter non-finite, though every vertex is finite; {advice}"


# ---------------------------------------------------------------------------------------------------- bookkeeping


def _total_steps(epochs: int | None, steps: int | None, steps_per_epoch: int | None) -> int:
    if (epochs is None) == (steps is None):
        raise ValueError(f"expected either epochs or steps, got epochs={epochs} and steps={steps}")
    if steps is None and steps_per_epoch is None:
        raise ValueError("expected steps with an iterable of batches, got epochs; say how many steps to take")
    total = steps if steps is not None else epochs * steps_per_epoch
    if total < 1:
        raise ValueError(f"expected at least one step, got {total}")
    return total


def _chunk_steps(seconds: list[float], most: int) -> int:
    wanted = 10 if len(seconds) < 2 else int(_CHUNK_SECONDS / max(seconds[-1], 1e-9))
    return max(1, min(most, wanted, _LONGEST_CHUNK))


def _means(sums: dict[str, Array]) -> dict[str, float]:
    steps = float(sums["steps"])
    means = {f"train_{name}": float(sums[name]) / max(steps, 1) for name in ("loss", "accuracy")}
    means["inference_failures"] = float(sums["inference_failures"]) / max(steps, 1)
    return {name: value for name, value in means.items() if not np.isnan(value)}


def _record(now: dict[str, float], step: int, steps_per_epoch: int | None) -> dict[str, Any]:
    epoch = {} if steps_per_epoch is None else {"epoch": step / steps_per_epoch}
    return {"step": step, **epoch, **now}


def _open_folder(folder: Path, state: TrainingState, resume: bool, settings: dict[str, Any]) -> TrainingState:
    path = folder / CHECKPOINT
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        return state
    if not resume:
        raise ValueError(
            f"expected an empty folder for a new run, got {folder} with a checkpoint; resume it, or choose another"
        )
    loaded, found = checkpoint.load(path, state)
    for name, expected in settings.items():
        if found.get(name) != expected:
            raise ValueError(
                f"expected the {name} of the run in {folder}, {found.get(name)}, got {expected}; resume with it"
            )
    if not bool(jnp.all(jax.random.key_data(loaded.key) == jax.random.key_data(state.key))):
        raise ValueError(f"expected the key of the run in {folder}, got another; resume with the same key")
    return loaded
