"""Recipes as variants of an experiment, with the path of their weights measured along training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import optax

from vicinal.analysis import displacement, measure_path, path_of
from vicinal.reproduce import Measure, Run, Variant
from vicinal.rules import Rule
from vicinal.settings import InferenceSettings
from vicinal.task import Task
from vicinal.train import Sweep, TrainingState, keys_of


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A recipe, with what is set of it for one task.

    Attributes:
        name: As `vicinal rules` lists it.
        learning_rate: Of the weights.
        numbers: Others of its rule and optimiser.
        inference: Settings of its inference, or None.
    """

    name: str
    learning_rate: float
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    inference: InferenceSettings | None = None


def recipe_variant(
    label: str,
    task: Task,
    recipe: str,
    learning_rates: Sequence[float],
    numbers: Mapping[str, float] | None = None,
    inference: InferenceSettings | None = None,
    measure: Measure | None = None,
) -> Variant:
    """A recipe at some learning rates, with other numbers of it and settings of its inference."""
    settings = dataclasses.replace(task.settings, learning_rate=None, inference=inference or task.settings.inference)

    def make(learning_rate: Any) -> tuple[Rule, optax.GradientTransformation]:
        return settings.make(recipe, learning_rate=learning_rate, **(numbers or {}))[recipe]

    return Variant(label, make, {"learning_rate": list(learning_rates)}, measure=measure)


def train_measuring_path(run: Run, variant: Variant, task: Task, **options: Any) -> Sweep:
    """`run.train`, with the path of the weights in each record, and in the last one the distance from its start."""

    def make(**numbers: Any) -> tuple[Rule, optax.GradientTransformation]:
        rule, optimizer = variant.make(**numbers)
        return rule, optax.chain(optimizer, measure_path())

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        path = path_of(state.optimizer_state)
        record["path_length"] = float(path.length)
        record["update_norm"], record["update_norm_variance"] = float(path.mean), float(path.variance)
        if variant.measure is not None:
            variant.measure(record, state)

    done = run.train(dataclasses.replace(variant, make=make, measure=measure), task, **options)
    for member in done.members:
        if member.records and not member.diverged:
            first = task.build(keys_of(member.seed)[0])
            member.records[-1]["distance_moved"] = float(displacement(first, member.model))
    return done
