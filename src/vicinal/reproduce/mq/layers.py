"""What the experiments on inference share, and what they measure layer by layer: errors, and sizes of updates."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from vicinal.analysis import mean_sizes
from vicinal.graph import Graph, capture
from vicinal.inference import Inference, Sequential, Simultaneous
from vicinal.optim import mq
from vicinal.recipes.builders import BETA
from vicinal.report import Claim, Panel, Series, Table
from vicinal.reproduce.runs import Scale
from vicinal.rules import Backprop, InferenceLearning, Rule
from vicinal.task import Task
from vicinal.train import Member, sweep

STRATEGIES: dict[str, Callable[..., Inference]] = {
    "sequential": lambda steps, step_size, trace=False: Sequential(steps=steps, step_size=step_size, trace=trace),
    "simultaneous": lambda steps, step_size, trace=False: Simultaneous(
        steps=steps, step_size=step_size, decay=True, trace=trace
    ),
}
STEP_SIZE, TRACED, TRACED_SIZE = 0.05, 8, 0.02
PURE = "SeqIL-MQ, r = rho = 0"


def settling(strategy: str, steps: int, step_size: float = STEP_SIZE, trace: bool = False) -> InferenceLearning:
    """Inference learning with the paper's soft target, by either strategy, both with steps that decay."""
    return InferenceLearning(inference=STRATEGIES[strategy](steps, step_size, trace), nudge=BETA / (1 + BETA))


def optimisers(scale: Scale) -> dict[str, tuple[Rule, Callable[..., Any], float]]:
    """Rules, steps and learning rates of the comparison of sizes: the paper's rates, for its CIFAR-10 MLP."""
    ours, small = settling("sequential", 3), 3e-5
    return {
        "SeqIL-SGD": (ours, optax.sgd, 0.75),
        "SeqIL-MQ": (ours, mq, small),
        PURE: (ours, lambda rate: mq(rate, floor=0.0, eps=0.0), small),
        "SeqIL-Adam": (ours, optax.adam, scale.pick(3e-4, small)),
        "BP-SGD": (Backprop(), optax.sgd, 0.015),
    }


class _Sizes(NamedTuple):
    """The sum over all updates of each matrix's mean size."""

    total: dict[str, Array]


def _measure_sizes() -> optax.GradientTransformation:
    def init(params: PyTree) -> _Sizes:
        return _Sizes(jax.tree.map(jnp.zeros_like, mean_sizes(params)))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        del params
        return updates, _Sizes(jax.tree.map(jnp.add, state.total, mean_sizes(updates)))

    return optax.GradientTransformation(init, update)


def train(
    scale: Scale, task: Task, name: str, rule: Rule, optimizer: Callable[..., Any], rate: float, steps: int
) -> tuple[list[Member], list[list[float]]]:
    """The members of a rule, one for each seed, and for each the mean sizes in the second half: `[seeds][matrices]`."""
    scale.say(f"{name} on {task.data.name}, {steps} updates, {scale.seeds} seeds")
    folder = None if scale.folder is None else scale.folder / "runs" / f"{name}-{scale.seeds}".replace(" ", "-").lower()

    def measure(record: dict[str, Any], state: Any) -> None:
        record |= {f"size {matrix}": float(total) for matrix, total in state.optimizer_state[-1].total.items()}

    done = sweep(
        lambda learning_rate: (rule, optax.chain(optimizer(learning_rate), _measure_sizes())),
        task.build,
        task.data,
        {"learning_rate": [rate]},
        seeds=scale.seeds,
        steps=steps,
        batch_size=64,
        evaluate_every=steps // 2,
        graph=task.graph,
        group_size=1,
        folder=folder,
        resume=folder is not None,
        progress=scale.progress,
        on_record=measure,
    )
    sizes = []
    for member in done.members:
        halves = [[v for key, v in record.items() if key.startswith("size ")] for record in member.records]
        lost = member.diverged or len(halves) < 2
        sizes.append([np.nan] if lost else (np.subtract(halves[-1], halves[0]) / (steps - steps // 2)).tolist())
    return done.members, sizes


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


def reaches(errors: dict[str, Any]) -> Claim:
    found = {name: [arrivals(by[name]) for by in errors.values()] for name in STRATEGIES}
    depth = len(found["sequential"][0])
    expected = found["sequential"] == [[1] * depth] * 2 and found["simultaneous"] == [list(range(depth, 0, -1))] * 2
    words = "; ".join(f"{name} {', '.join(map(str, rows[0]))}" for name, rows in found.items())
    last_ = {name: np.mean([rows[-1] for rows in by], axis=0) for name, by in next(iter(errors.values())).items()}
    return Claim(
        "From the feedforward values simultaneous inference needs a step for each layer on the way down; a sequential "
        "sweep reaches all at once.",
        f"Steps until a layer has an error, from layer 1 up: {words}. After {TRACED} steps the mean squared error of "
        f"layer 1 is {last_['sequential'][0]:.2g} sequential, {last_['simultaneous'][0]:.2g} simultaneous.",
        "holds" if expected else "does not hold",
    )


def spreads_of(sizes: dict[str, Any]) -> dict[str, float]:
    means = {
        name: np.nanmean([row for row in rows if len(row) > 1] or [[np.nan]], axis=0) for name, rows in sizes.items()
    }
    return {name: float(np.max(row) / np.min(row)) for name, row in means.items()}


def equalised(sizes: dict[str, Any]) -> Claim:
    spreads = spreads_of(sizes)
    words = ", ".join(f"{name} {spread:.3g}" for name, spread in spreads.items())
    return Claim(
        "Inference learning by gradient descent changes its lower matrices far less than the upper ones; MQ makes the "
        "changes equal.",
        f"Largest over smallest mean |dW|: {words}. MQ divides by a running mean of the "
        "gradient's size, plus r = 1e-6. A matrix whose gradient is smaller than r changes less; and the running mean "
        "begins at the learning rate, which it forgets as 1/N in N updates. Adam adds 1e-8 where MQ adds r. A spread "
        "below 3 counts as equal.",
        "holds"
        if spreads["SeqIL-MQ"] < 3
        else "holds in part"
        if spreads["SeqIL-MQ"] < spreads["SeqIL-SGD"]
        else "does not hold",
    )


def error_panel(stage: str, strategy: str, rows: list[list[list[float]]]) -> Panel:
    values = np.where(np.array(rows) > 0, rows, np.nan)  # models, time, layers
    time = [float(t) for t in range(1, values.shape[1])]
    series = [Series(f"layer {i + 1}", time, values[:, 1:, i].tolist()) for i in range(values.shape[2])]
    return Panel(f"{strategy[0].upper()}{strategy[1:]}, {stage}", "inference step", "squared error", series, log_y=True)


def size_table(sizes: dict[str, Any]) -> Table:
    depth = max(len(row) for rows in sizes.values() for row in rows)
    rows: list[list[Any]] = []
    for name, found in sizes.items():
        means = np.mean([row if len(row) > 1 else [np.nan] * depth for row in found], axis=0)
        rows.append([name, *means.tolist(), spreads_of(sizes)[name]])
    return Table("Mean |dW|", ["rule", *(f"matrix {i + 1}" for i in range(depth)), "spread"], rows)


def size_panel(sizes: dict[str, Any]) -> Panel:
    series = [
        Series(name, list(range(1, len(rows[0]) + 1)), [row for row in rows if len(row) == len(rows[0])])
        for name, rows in sizes.items()
    ]
    return Panel("Mean change of a weight, by matrix", "matrix, from the input up", "mean |dW|", series, log_y=True)
