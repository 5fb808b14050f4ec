"""What experiments share: their scale, their tasks, and sweeps of recipes with what is measured along the way."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optax

from vicinal._records import or_nan
from vicinal.analysis import displacement, measure_path, path_of
from vicinal.report import mean_interval
from vicinal.rules import Rule
from vicinal.settings import InferenceSettings, ModelSettings, TaskSettings
from vicinal.task import Task
from vicinal.train import Member, Sweep, TrainingState, keys_of, sweep

Measure = Callable[[dict[str, Any], TrainingState], None]
"""Adds to a record what it measures in the state."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much of an experiment to run.

    Attributes:
        quick: Whether to show its shape alone, on small data.
        asked: Seeds asked for, or None.
        folder: Where sweeps keep their checkpoints, or None. Those that are there are gone on with.
        progress: As for `vicinal.train.fit`.
        say: Called with a sentence before each part.
        large: Whether to run the sizes meant for a GPU, where an experiment has them.
    """

    quick: bool
    asked: int | None = None
    folder: Path | None = None
    progress: bool | None = None
    say: Callable[[str], None] = lambda sentence: None
    large: bool = False

    @property
    def seeds(self) -> int:
        """How many seeds to run."""
        return self.asked or (2 if self.quick else 5)

    def by_default(self, seeds: int) -> "Scale":
        """The same, with so many seeds in full unless others were asked for."""
        return self if self.quick or self.asked else dataclasses.replace(self, asked=seeds)

    def pick(self, quick: Any, full: Any, large: Any = None) -> Any:
        """One of these settings; the full one for both where no other is given for large."""
        if self.quick:
            return quick
        return full if large is None or not self.large else large


@dataclasses.dataclass(frozen=True)
class Variant:
    """A recipe in an experiment.

    Attributes:
        label: In tables and figures.
        recipe: Its name.
        learning_rate: Of this task.
        numbers: Of the recipe and its rule, beside the learning rate.
        inference: What is set of its inference, or None.
    """

    label: str
    recipe: str
    learning_rate: float = math.nan
    numbers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    inference: InferenceSettings | None = None

    def make(self, task: Task, learning_rate: Any = None) -> tuple[Rule, optax.GradientTransformation]:
        """The rule and the optimiser, which measures the path of the weights."""
        inference = self.inference or task.settings.inference
        settings = dataclasses.replace(task.settings, learning_rate=None, inference=inference)
        rate = self.learning_rate if learning_rate is None else learning_rate
        rule, optimizer = settings.make(self.recipe, learning_rate=rate, **self.numbers)[self.recipe]
        return rule, optax.chain(optimizer, measure_path())


def task_of(data: str, preset: str | None = None, **model: Any) -> Task:
    """A task with its data loaded: a preset, or a ReLU network with vertices at potentials, as the papers have it."""
    activation = {"activation": "relu"} if preset is None else {}
    chosen: dict[str, Any] = {"preset": preset, "vertex_at": "pre", **activation, **model}
    settings = ModelSettings(**chosen)
    return Task(TaskSettings(data=data, model=settings))


def classification(scale: Scale, data: str = "mnist") -> Task:
    """MNIST or Fashion-MNIST with 784-256-256-10; the digits with 64-64-64-10 if quick."""
    if scale.quick:
        return task_of("digits", kind="mlp", sizes=(64, 64, 64, 10))
    return task_of(data, preset="mnist-mlp")


def train(
    scale: Scale,
    task: Task,
    variant: Variant,
    *,
    steps: int,
    batch_size: int,
    evaluate_every: int,
    learning_rates: Sequence[float] | None = None,
    measure: Measure | None = None,
) -> Sweep:
    """Trains a variant with every seed (and every learning rate), measuring the path of its weights, and more."""

    def note(record: dict[str, Any], state: TrainingState) -> None:
        path = path_of(state.optimizer_state)
        record |= {
            "path_length": float(path.length),
            "update_norm": float(path.mean),
            "update_norm_variance": float(path.variance),
        }
        if measure is not None:
            measure(record, state)

    scale.say(f"{variant.label} on {task.data.name}, {steps} updates, {scale.seeds} seeds")
    name = f"{task.data.name}-{variant.label}-{steps}-{scale.seeds}".replace(" ", "-").lower()
    folder = None if scale.folder is None else scale.folder / "runs" / name
    rates = [variant.learning_rate] if learning_rates is None else list(learning_rates)
    done = sweep(
        lambda learning_rate: variant.make(task, learning_rate),
        task.build,
        task.data,
        {"learning_rate": rates},
        seeds=scale.seeds,
        steps=steps,
        batch_size=batch_size,
        evaluate_every=evaluate_every,
        graph=task.graph,
        group_size=1 if scale.quick else None,  # a calibration takes longer than so few steps
        folder=folder,
        resume=folder is not None,
        progress=scale.progress,
        on_record=note,
    )
    for member in done.members:
        if member.records and not member.diverged:
            member.records[-1]["distance_moved"] = distance_moved(task, member)
    return done


def distance_moved(task: Task, member: Member) -> float:
    """The distance from a member's first weights to its last."""
    return float(displacement(task.build(keys_of(member.seed)[0]), member.model))


def at_step(member: Member, quantity: str, step: int) -> float:
    """A quantity at a step; NaN if it was not recorded there, or the member had stopped."""
    found = [record for record in member.records if record["step"] == step]
    return or_nan(found[0].get(quantity)) if found else np.nan


def first_step(member: Member, quantity: str, reached: Callable[[float], bool]) -> float:
    """The first recorded step at which a quantity meets a condition; NaN if it never does."""
    return next((float(record["step"]) for record in member.records if reached(record.get(quantity, np.nan))), np.nan)


def ahead(ours: Sequence[float], theirs: Sequence[float]) -> int:
    """Whether paired numbers (of the same seeds: the same first weights and batches) are larger, beyond chance.

    Returns:
        1 if the 95 % interval of the mean difference lies above 0, -1 if below; 0 if it holds 0, or is not known (fewer
        than three seeds, or one without a number).
    """
    differences = np.subtract(ours, theirs)
    mean, half = mean_interval(differences.tolist())
    if np.any(np.isnan(differences)) or half is None or abs(mean) <= half:
        return 0
    return 1 if mean > 0 else -1


def verdict(comparisons: Sequence[int]) -> str:
    """The verdict on a claim from comparisons, each 1 where it is borne out, -1 where it is contradicted."""
    if all(found > 0 for found in comparisons):
        return "holds"
    if any(found > 0 for found in comparisons):
        return "holds in part"
    return "does not hold" if any(found < 0 for found in comparisons) else "open"


def borne_out(checks: Sequence[bool]) -> str:
    """The verdict on a claim from its parts: whether all of them are borne out, or some, or none."""
    return verdict([1 if check else -1 for check in checks])
