"""Rules that are backpropagation by another schedule: Z-IL and fixed prediction, beside strict inference learning.

Millidge, Tschantz and Buckley 2022, arXiv 2006.04182; Salvatori et al. 2021, arXiv 2103.03725; Rosenbaum 2022, arXiv
2106.13082, whose published notebooks (Torch2PC) hold the numbers quoted here.
"""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.losses import softmax_cross_entropy, squared_error
from vicinal.report import Claim, Section, Table
from vicinal.reproduce import (
    Experiment,
    Found,
    Run,
    Size,
    accuracy_panel,
    accuracy_table,
    mean,
    supported,
    value,
)
from vicinal.rules import Backprop, FixedPrediction
from vicinal.task import Task
from vicinal.train import Member, fit, keys_of
from vicinal_experiments import exact_gradients
from vicinal_experiments.exact_gradients import FIXED, ORDERS, STRICT, ZIL_NAME, differences, rules
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import rule_variant

_BP, _CONTROL, _SMALL = "BP", "BP, weights moved by 1e-7", "fixed prediction, 20 steps of .1"
_TORCH2PC = {STRICT: 30.9 / 7.5, _SMALL: 27.4 / 7.5, FIXED: 13.0 / 7.5}
_CURVES = ("convolutional", "recurrent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactSize(Size):
    """How much is measured of the exact rules.

    Attributes:
        units: Units of the layer above the convolutions, of the recurrent layer and of each residual layer.
        batch_size: Examples in an update, and of the gradients that are compared.
        convergence_steps: Numbers of inference steps after which gradients are compared.
        updates: Number of weight updates in a learning curve.
        evaluations: Number of evaluations along a curve.
        learning_rate: Learning rate of plain gradient descent.
        timed: The networks whose updates are timed.
        timed_updates: Updates of a round.
        rounds: How often the rules take turns.
    """

    units: int
    batch_size: int
    convergence_steps: tuple[int, ...]
    updates: int
    evaluations: int
    learning_rate: float
    timed: tuple[str, ...]
    timed_updates: int
    rounds: int


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[ExactSize]) -> dict[str, Any]:
    size = run.size
    tasks = _tasks(size)
    run.say("gradients")
    gaps = {
        name: differences(*exact_gradients.probe(task, size.batch_size), softmax_cross_entropy)
        for name, task in tasks.items()
    }
    gaps["plain function"] = differences(*exact_gradients.plain_function(), squared_error)
    run.say("convergence with small steps")
    convergence = {order: exact_gradients.convergence(order, size.convergence_steps) for order in ORDERS}
    curves = {name: _train(run, name, tasks[name]) for name in _CURVES}
    run.say("times")
    times = {name: _times(size, tasks[name]) for name in size.timed}
    steps = list(size.convergence_steps)
    return {"gaps": gaps, "convergence": convergence, "steps": steps, "curves": curves, "times": times}


def _tasks(size: ExactSize) -> dict[str, Task]:
    data, units = size.data[0], size.units
    return {
        "convolutional": task_of(data, kind="convolutional", channels=(4, 8), stride=2, sizes=(units, 10)),
        "recurrent": task_of(data, kind="recurrent", activation="tanh", sizes=(units,)),
        "residual": task_of(data, kind="residual", sizes=(units,), depth=8),
    }


def _train(run: Run[ExactSize], name: str, task: Task) -> dict[str, Any]:
    def nudged(key: PRNGKeyArray) -> PyTree:
        arrays, static = eqx.partition(task.build(key), eqx.is_inexact_array)
        return eqx.combine(jax.tree.map(lambda leaf: leaf * (1 + 1e-7), arrays), static)

    size = run.size
    how = {"steps": size.updates, "batch_size": size.batch_size, "evaluate_every": size.updates // size.evaluations}
    variants = [rule_variant(_BP, Backprop(), size.learning_rate)]
    variants += [rule_variant(_CONTROL, Backprop(), size.learning_rate, build=nudged)]
    variants += [rule_variant(label, rule, size.learning_rate) for label, rule in rules().items()]
    return run.train_all(variants, task, part=name, **how)


def _times(size: ExactSize, task: Task) -> dict[str, list[float]]:
    """Seconds per update of each rule, a number for each round."""
    timed = {_BP: Backprop(), **rules(), _SMALL: FixedPrediction(steps=20, step_size=0.1)}
    model, optimizer, steps = task.build(keys_of(0)[0]), optax.sgd(1e-5), size.timed_updates
    data, seconds = (task.data.x_train, task.data.y_train), {name: [] for name in timed}
    how: dict[str, Any] = {"steps": steps, "batch_size": size.batch_size, "evaluate_every": steps}
    for _ in range(size.rounds):
        for name, rule in timed.items():
            run = fit(rule, model, optimizer, data, key=jax.random.key(2), graph=task.graph, progress=False, **how)
            seconds[name].append(run.seconds_per_step)
    return seconds


# ---------------------------------------------------------------------------------------------------------- judge


def _curves(found: Found[ExactSize]) -> dict[str, dict[str, list[Member]]]:
    return {name: found.runs("curves", name) for name in _CURVES}


def _largest_gap(ours: list[Member], theirs: list[Member], quantity: str) -> float:
    """The largest difference of a quantity between runs of the same seed, anywhere along training."""
    gaps = [
        abs(record[quantity] - value(other, quantity, record["step"]))
        for member, other in zip(ours, theirs, strict=True)
        for record in member.records
    ]
    return float(np.max(gaps, initial=0.0))


def _ratio(times: dict[str, list[float]], name: str) -> float:
    """The median over rounds of the time of a rule over backpropagation's."""
    return statistics.median(ours / theirs for ours, theirs in zip(times[name], times[_BP], strict=True))


def _summary(found: Found[ExactSize]) -> str:
    worst = max(gaps[rule] for gaps in found.numbers["gaps"].values() for rule in (ZIL_NAME, FIXED))
    furthest = max(
        _largest_gap(runs[rule], runs[_BP], "test_accuracy")
        for runs in _curves(found).values()
        for rule in (ZIL_NAME, FIXED)
    )
    strict = ", ".join(f"{_ratio(times, STRICT):.1f} ({name})" for name, times in found.numbers["times"].items())
    return (
        f"On four kinds of graph the gradients of Z-IL and of fixed prediction differ from jax.grad's by at most "
        f"{worst:.1g} of an array's largest entry, in single precision. Trained from the same seeds, "
        f"their test accuracy is at most {100 * furthest:.2g} points from backpropagation's. Strict inference "
        f"learning, of 20 steps, is another rule, and takes {strict} times as long as backpropagation."
    )


def _same_curves(name: str) -> Callable[[Found[ExactSize]], Claim]:
    """The claim that a network learns alike by Z-IL, by fixed prediction and by backpropagation.

    Alike is within half a point of accuracy wherever it was tested, or no further than the control.
    """

    def judge(found: Found[ExactSize]) -> Claim:
        runs = found.runs("curves", name)
        gaps = {rule: 100 * _largest_gap(members, runs[_BP], "test_accuracy") for rule, members in runs.items()}
        words = ", ".join(f"{rule} {gap:.2g}" for rule, gap in gaps.items() if rule != _BP)
        return Claim(
            f"Training a {name} network by Z-IL or by fixed prediction is training it by backpropagation.",
            f"Largest difference of test accuracy from BP's run of the same seed, in points: {words}.",
            supported([gaps[rule] <= max(0.5, gaps[_CONTROL]) for rule in (ZIL_NAME, FIXED)]),
        )

    return judge


def _strict(found: Found[ExactSize]) -> Claim:
    """It differs if every gradient does, by more than a hundredth."""
    lowest = min(gaps[STRICT] for gaps in found.numbers["gaps"].values())
    losses = [
        f"{name} " + ", ".join(f"{mean(members, 'test_loss'):.4g} ({rule})" for rule, members in runs.items())
        for name, runs in _curves(found).items()
    ]
    return Claim(
        "Strict predictive coding is not backpropagation (Rosenbaum 2022). Its notebook, MNIST: loss .00691 (strict), "
        ".00622 (fixed prediction, .1 and 20 steps), .00623 (unit step), .00624 (backpropagation) late in training.",
        f"Strict gradients differ by at least {lowest:.2g}, relatively. Test loss at the end: {'; '.join(losses)}.",
        "holds" if lowest > 1e-2 else "does not hold",
    )


def _cost(found: Found[ExactSize]) -> Claim:
    """The order of the published times on every network; a tie of BP and the unit step, the same work, is none."""
    ratios = {name: {rule: _ratio(row, rule) for rule in row} for name, row in found.numbers["times"].items()}
    words = "; ".join(
        f"{name} " + ", ".join(f"{rule} {row[rule]:.2g}" for rule in (ZIL_NAME, *_TORCH2PC))
        for name, row in ratios.items()
    )
    paper = ", ".join(f"{rule} {ratio:.1f}" for rule, ratio in _TORCH2PC.items())
    return Claim(
        "Inference costs several times backpropagation (Torch2PC's notebook, over backpropagation's time: strict, 20 "
        f"steps, and the others: {paper}).",
        f"Over backpropagation's time: {words}. Compiled, Z-IL and one sweep with a unit step do the products that "
        "backpropagation does.",
        supported([row[FIXED] < row[_SMALL] < row[STRICT] for row in ratios.values()]),
    )


def _differences(found: Found[ExactSize]) -> list[str]:
    return [
        "The networks, the loss (cross-entropy), gradient descent and the number of updates are ours.",
        "Torch2PC's numbers are of a convolutional network with 32 695 weights, MNIST, squared error, batches of 300, "
        "two epochs, in PyTorch; ours of a smaller one, compiled. Only ratios of times can be compared.",
        "Z-IL on branches makes an error that takes a short way wait, as identity vertices would.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[ExactSize]) -> list[Section]:
    curves = _curves(found)
    return [
        Section("The gradient of one batch", exact_gradients.GRADIENT, tables=[exact_gradients.gap_table(found)]),
        Section(
            "Small steps",
            exact_gradients.SMALL_STEPS,
            tables=[exact_gradients.convergence_table(found)],
            panels=[exact_gradients.convergence_panel(found, order) for order in ORDERS],
        ),
        Section(
            "Training",
            f"Plain gradient descent from the same seeds and batches. '{_CONTROL}' is backpropagation from first "
            "weights changed by one part in ten million: what rounding alone does to a curve.",
            tables=[*(accuracy_table(name.capitalize(), runs) for name, runs in curves.items()), _gap_table(curves)],
            panels=[accuracy_panel(runs, f"Test accuracy, {name}") for name, runs in curves.items()],
        ),
        Section("Time", "The rules take turns; medians over rounds, ratios within a round.", [_time_table(found)]),
    ]


_MEASURED = {"test accuracy (points)": ("test_accuracy", 100.0), "test loss": ("test_loss", 1.0)}


def _gap_table(curves: dict[str, dict[str, list[Member]]]) -> Table:
    table: list[list[Any]] = [
        [name, rule, *(unit * _largest_gap(members, runs[_BP], what) for what, unit in _MEASURED.values())]
        for name, runs in curves.items()
        for rule, members in runs.items()
        if rule != _BP
    ]
    title = "Largest difference from BP's run of the same seed, anywhere along training"
    return Table(title, ["network", "rule", *_MEASURED], table)


def _time_table(found: Found[ExactSize]) -> Table:
    table: list[list[Any]] = [
        [name, rule, 1e3 * statistics.median(seconds), _ratio(row, rule), _TORCH2PC.get(rule)]
        for name, row in found.numbers["times"].items()
        for rule, seconds in row.items()
    ]
    return Table("One update", ["network", "rule", "milliseconds", "over BP", "over BP, Torch2PC's log"], table)


EXACT = Experiment(
    name="exact/backprop",
    title="Rules that are backpropagation",
    topic="Z-IL and fixed prediction against backpropagation: gradients, training, time",
    paper="Millidge et al. 2022, arXiv 2006.04182; Salvatori et al. 2021, arXiv 2103.03725; Rosenbaum 2022, arXiv "
    "2106.13082",
    sizes={
        "quick": ExactSize(
            data=("digits",),
            units=16,
            batch_size=32,
            convergence_steps=(1, 8, 64),
            updates=400,
            evaluations=5,
            learning_rate=0.3,
            timed=("convolutional",),
            timed_updates=40,
            rounds=3,
        ),
        "full": ExactSize(
            data=("mnist",),
            units=64,
            batch_size=64,
            convergence_steps=(1, 2, 4, 8, 16, 32, 64, 128),
            updates=1500,
            evaluations=15,
            learning_rate=0.1,
            timed=_CURVES,
            timed_updates=150,
            rounds=5,
        ),
    },
    time={"full": "six minutes"},
    measure=_measure,
    summary=_summary,
    claims=[
        exact_gradients.same_gradient,
        exact_gradients.nears,
        *(_same_curves(name) for name in _CURVES),
        _strict,
        _cost,
    ],
    sections=_sections,
    differences=_differences,
)
"""Gradients, training curves and times of the exact rules and of strict inference learning, against BP's."""
