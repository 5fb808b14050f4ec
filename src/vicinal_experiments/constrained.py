"""Constrained predictive coding: Alonso and Neftci 2021, arXiv 2104.15137."""

import dataclasses
import functools
import math
from typing import Any

import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.analysis import feedback_likeness
from vicinal.energy import Divisive
from vicinal.feedback import Route, kolen_pollack, optimizers, random
from vicinal.inference import Simultaneous
from vicinal.losses import sigmoid_divisive_error, sigmoid_squared_error
from vicinal.nn import MLP, shifted
from vicinal.recipes import with_route
from vicinal.report import Claim, Section
from vicinal.reproduce import (
    Experiment,
    Found,
    Run,
    Size,
    Variant,
    accuracy_panel,
    accuracy_table,
    mean,
    mean_words,
    points_words,
    supported,
)
from vicinal.rules import Backprop, InferenceLearning, Rule
from vicinal.train import TrainingState
from vicinal_experiments.papers import CONSTRAINED
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import rule_variant

_BP, _SHIFTED = "BP", "tanh, positive, shifted"
_FREE = (_BP, "PC, sigmoid", "PC, tanh")
_DECAY = 0.01
_NEAR = 0.01  # of the test accuracy: what counts as nearly as well


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A form of predictive coding.

    Attributes:
        activation: Activation of the hidden layers.
        shift: Constant added to every rate.
        positive: Whether activities are kept from below 0.
        divisive: Whether errors are ratios.
        route: What carries errors back, or None for the transposed weights.
    """

    activation: str = "sigmoid"
    shift: float = 0.0
    positive: bool = False
    divisive: bool = False
    route: Route | None = None


CONSTRAINTS = {
    "PC, sigmoid": Constraint(),
    "sigmoid, positive": Constraint(positive=True),
    "PC, tanh": Constraint("tanh"),
    "tanh, positive": Constraint("tanh", positive=True),
    _SHIFTED: Constraint("tanh", 3.0, positive=True),
    "divisive": Constraint(shift=1.0, positive=True, divisive=True),
    "Kolen-Pollack": Constraint(route=kolen_pollack()),
    "random feedback": Constraint(route=random()),
    "random feedback, divisive": Constraint(shift=1.0, positive=True, divisive=True, route=random()),
}
"""The published variants, and the two that they are measured against."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstrainedSize(Size):
    """A network, its training by Adam, and the steps of inference; those with ratios as errors have their own size."""

    sizes: tuple[int, ...]
    updates: int
    evaluations: int
    learning_rate: float
    inference_steps: int
    step_size: float
    divisive_step_size: float
    batch_size: int = 64


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[ConstrainedSize]) -> dict[str, Any]:
    size = run.size
    task = task_of(size.data[0], kind="mlp", sizes=size.sizes, vertex_at="post", activation="sigmoid")
    variants = [_backprop(size), *(_variant(label, constraint, size) for label, constraint in CONSTRAINTS.items())]
    how = {"steps": size.updates, "batch_size": size.batch_size, "evaluate_every": size.updates // size.evaluations}
    return {"runs": run.train_all(variants, task, **how)}


def _network(sizes: tuple[int, ...], constraint: Constraint, key: PRNGKeyArray) -> PyTree:
    activation = shifted(constraint.activation, constraint.shift) if constraint.shift else constraint.activation
    model = MLP(sizes, activation, "post", use_bias=False, key=key)
    return with_route(model, constraint.route, key=key)


def _backprop(size: ConstrainedSize) -> Variant:
    build = functools.partial(_network, size.sizes, Constraint())
    rule = Backprop(loss=sigmoid_squared_error)
    return rule_variant(_BP, rule, size.learning_rate, optimizer=optax.adam, build=build)


def _variant(label: str, constraint: Constraint, size: ConstrainedSize) -> Variant:
    up = size.divisive_step_size if constraint.divisive else size.step_size
    pull = size.step_size / up
    settle = Simultaneous(steps=size.inference_steps, step_size=up, pull=pull, positive=constraint.positive)
    rule: Rule = InferenceLearning(inference=settle, loss=sigmoid_squared_error)
    if constraint.divisive:
        loss, encoding = sigmoid_divisive_error(constraint.shift), Divisive(pull_offset=0.1)
        rule = InferenceLearning(inference=settle, loss=loss, encoding=encoding)
    build = functools.partial(_network, size.sizes, constraint)
    if constraint.route is None:
        return rule_variant(label, rule, size.learning_rate, optimizer=optax.adam, build=build)

    def together(learning_rate: Any) -> optax.GradientTransformation:
        decay = _DECAY if label == "Kolen-Pollack" else 0.0
        return optimizers(optax.adamw(learning_rate, weight_decay=decay))

    return rule_variant(label, rule, size.learning_rate, optimizer=together, build=build, measure=_add_angles)


def _add_angles(record: dict[str, Any], state: TrainingState) -> None:
    record |= {f"angle {name}": float(like.angle) for name, like in feedback_likeness(state.model).items()}


# ---------------------------------------------------------------------------------------------------------- judge


def _summary(found: Found[ConstrainedSize]) -> str:
    return f"Test accuracy after {found.size.updates} updates: {mean_words(found.runs('runs'), 'test_accuracy')}."


def _as_well(found: Found[ConstrainedSize]) -> Claim:
    runs = found.runs("runs")
    # Sigmoid rates are positive anyway, so that row decides nothing.
    judged = [label for label in runs if label not in (*_FREE, "sigmoid, positive")]
    free = [mean(runs[label], "test_accuracy") for label in _FREE]
    behind = {label: max(free) - mean(runs[label], "test_accuracy") for label in judged}
    near = [gap <= _NEAR for gap in behind.values()]
    return Claim(
        "Constrained networks learn as well or nearly as well as plain predictive coding and backpropagation "
        "(arXiv 2104.15137).",
        f"Test accuracy at the end: {mean_words(runs, 'test_accuracy')}. Points behind the best of BP and plain "
        f"predictive coding: {points_words(behind)}. At most {100 * _NEAR:g} counts as nearly as well.",
        "open" if any(map(math.isnan, free)) else supported(near),
    )


def _shift_helps(found: Found[ConstrainedSize]) -> Claim:
    runs = found.runs("runs")
    free, cut, moved = (mean(runs[label], "test_accuracy") for label in ("PC, tanh", "tanh, positive", _SHIFTED))
    costs, spares = free - cut > _NEAR, free - moved <= _NEAR
    return Claim(
        "Cutting off the negative half of tanh rates costs accuracy; a shift that makes all rates positive does not.",
        f"Test accuracy without a constraint {100 * free:.1f} %, cut off {100 * cut:.1f} %, with a shift of 3 "
        f"{100 * moved:.1f} %. More than {100 * _NEAR:g} point counts as a cost.",
        "open" if math.isnan(free + cut + moved) else supported([costs, spares]),
    )


def _differences(found: Found[ConstrainedSize]) -> list[str]:
    size = found.size
    epochs = f"{size.updates} updates ({size.updates * size.batch_size / 60_000:.0f} epochs) of the paper's 30 epochs"
    return [
        "Far fewer updates." if found.quick else f"{epochs}; {found.seeds} models of its 3.",
        "We could not read the paper's accuracy of each variant.",
        "First weights are uniform in ±1/sqrt(inputs) as elsewhere in this library, and error weights as their "
        "layer's: those from the output in ±.058, where the published ones are in ±.316.",
    ]


def _sections(found: Found[ConstrainedSize]) -> list[Section]:
    runs = found.runs("runs")
    return [
        Section(
            found.size.data[0],
            "No biases, sigmoid output, squared error (ratios under a divisive encoding). 'Positive' keeps rates "
            "from below 0; a shift (3, and 1 where errors are ratios) keeps that from cutting any off.",
            tables=[accuracy_table("Constraint", runs)],
            panels=[accuracy_panel(runs)],
        )
    ]


def _experiment(data: str, topic: str, steps: int, step_size: float, divisive_step_size: float) -> Experiment:
    inference = {"inference_steps": steps, "step_size": step_size, "divisive_step_size": divisive_step_size}
    return Experiment(
        name=f"constrained-pc/{data.removesuffix('_mnist')}",
        title="Constrained predictive coding",
        topic=topic,
        paper=CONSTRAINED,
        sizes={
            "quick": ConstrainedSize(
                data=("digits",), sizes=(64, 48, 48, 10), updates=600, evaluations=2, learning_rate=5e-3, **inference
            ),
            "full": ConstrainedSize(
                data=(data,), sizes=(784, 300, 300, 10), updates=2_814, evaluations=6, learning_rate=1e-3, **inference
            ),
        },
        time={"full": "ten minutes"},
        measure=_measure,
        summary=_summary,
        claims=[_as_well, _shift_helps],
        sections=_sections,
        differences=_differences,
        seeds=3,
    )


MNIST = _experiment("mnist", "positive rates, ratios as errors, one-directional synapses", 20, 0.1, 0.05)
"""Each constraint against plain predictive coding and backpropagation, on MNIST."""

FASHION = _experiment("fashion_mnist", "the same on Fashion-MNIST", 7, 0.025, 0.025)
"""The same on Fashion-MNIST, with the paper's shorter inference."""
