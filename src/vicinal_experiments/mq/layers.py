"""What the experiments on inference measure layer by layer: errors along inference, and sizes of updates."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from vicinal.analysis import mean_sizes
from vicinal.graph import Graph, capture
from vicinal.inference import Sequential, Simultaneous
from vicinal.recipes.builders import BETA
from vicinal.rules import InferenceLearning
from vicinal.task import Task
from vicinal.train import Member, TrainingState

STRATEGIES = ("sequential", "simultaneous")
STEP_SIZE, TRACED, TRACED_SIZE = 0.05, 8, 0.02  # of training; steps of a trace, and their size


def settling(strategy: str, steps: int, step_size: float = STEP_SIZE, trace: bool = False) -> InferenceLearning:
    """Inference learning with the paper's soft target, by either strategy, both with steps that decay."""
    how: dict[str, Any] = {"steps": steps, "step_size": step_size, "trace": trace}
    inference = Sequential(**how) if strategy == "sequential" else Simultaneous(**how, decay=True)
    return InferenceLearning(inference=inference, nudge=BETA / (1 + BETA))


# ------------------------------------------------------------------------------------------------ sizes of updates


class _Sizes(NamedTuple):
    """The sum over all updates of each matrix's mean size."""

    total: dict[str, Array]


def measure_sizes() -> optax.GradientTransformation:
    """Adds up each matrix's mean size of updates, as the last part of an optimiser."""

    def init(params: PyTree) -> _Sizes:
        return _Sizes(jax.tree.map(jnp.zeros_like, mean_sizes(params)))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        return updates, _Sizes(jax.tree.map(jnp.add, state.total, mean_sizes(updates)))

    return optax.GradientTransformation(init, update)


def record_sizes(record: dict[str, Any], state: TrainingState) -> None:
    """Adds the sums of `measure_sizes` to a record."""
    record |= {f"size {matrix}": float(total) for matrix, total in state.optimizer_state[-1].total.items()}


def sizes_in_second_half(members: Sequence[Member], steps: int) -> list[list[float]]:
    """Mean sizes of updates in the second half of training: `[seeds][matrices]`; NaN alone if a seed diverged."""
    found = []
    for member in members:
        halves = [[v for key, v in record.items() if key.startswith("size ")] for record in member.records]
        lost = member.diverged or len(halves) < 2
        found.append([np.nan] if lost else (np.subtract(halves[-1], halves[0]) / (steps - steps // 2)).tolist())
    return found


# ------------------------------------------------------------------------------------------ errors along inference


def errors_along(task: Task, models: list[PyTree], strategy: str) -> list[list[list[float]]]:
    """Mean squared error of a unit, for each model before each step and after the last: `[models][time][layers]`.

    In double precision: a value that moves by less than its own rounding does not move.
    """
    x, y = (np.asarray(part)[:256] for part in (task.data.x_train, task.data.y_train))

    @eqx.filter_jit
    def trace(graph: Graph, rule: InferenceLearning, model: PyTree, x: Array, y: Array) -> Array:
        _, values = graph.feedforward(model, x)
        energies = rule.inference.settle(rule.problem(graph, model, x, y), values).trace or {}
        rows = [2 * jnp.mean(energies[name], axis=1) / values[name][0].size for name in graph.vertices]
        return jnp.stack(rows, axis=1)

    with _double_precision():
        rule, found = settling(strategy, TRACED, TRACED_SIZE, trace=True), []
        wide = [jax.tree.map(_double, model) for model in models]
        inputs, targets = _double(jnp.asarray(x)), jnp.asarray(y)
        graph = capture(wide[0], inputs[0])
        for model in wide:
            found.append(np.asarray(trace(graph, rule, model, inputs, targets)).tolist())
    return found


@contextlib.contextmanager
def _double_precision() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def _double(leaf: Any) -> Any:
    return jnp.asarray(leaf, jnp.float64) if eqx.is_inexact_array(leaf) else leaf


def arrivals(rows: list[list[list[float]]]) -> list[int | None]:
    """The first inference step after which each layer has an error, in any model; None if it has none."""
    present = np.any(np.array(rows) > 0, axis=0)  # time, layers
    return [int(np.argmax(column)) if column.any() else None for column in present.T]
