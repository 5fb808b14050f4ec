"""How experiments train: variants of a task, each with every seed, resumed if interrupted."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.data import Dataset
from vicinal.graph import Graph, capture
from vicinal.reproduce.members import rows
from vicinal.rules import Rule
from vicinal.train import Sweep, TrainingState, keys_of, sweep

Measure = Callable[[dict[str, Any], TrainingState], None]
"""`measure(record, state)`: measures the state and adds the numbers to the record."""


class Learned(Protocol):
    """What is learned: the data, the model's constructor and its graph; a `Task` or a `Problem`."""

    @property
    def data(self) -> Dataset:
        """The data set, in the shape that the model reads."""
        ...

    @property
    def graph(self) -> Graph:
        """The captured graph."""
        ...

    @property
    def build(self) -> Callable[[PRNGKeyArray], PyTree]:
        """Returns the initial model for a key."""
        ...


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task given in Python, not by settings.

    Attributes:
        data: The data set, in the shape that the model reads.
        build: Returns the initial model for a key.
    """

    data: Dataset
    build: Callable[[PRNGKeyArray], PyTree]

    @property
    def graph(self) -> Graph:
        """The captured graph."""
        return captured(self.build, self.data)


def captured(build: Callable[[PRNGKeyArray], PyTree], data: Dataset) -> Graph:
    """Captures the model that `build` returns, for examples of a data set."""
    return capture(build(keys_of(0)[0]), jnp.asarray(data.x_train[0]))


@dataclasses.dataclass(frozen=True)
class Variant:
    """One of the things that an experiment compares.

    Attributes:
        label: Its name in tables and figures.
        make: Returns the rule and the optimiser for given numbers, as for `vicinal.train.sweep`.
        numbers: The values of each hyper-parameter, of which every combination is trained; or the combinations.
        build: Returns the initial model for a key, and for numbers if it takes some, as for `vicinal.train.sweep`; None
            for the task's.
        measure: Measures the state and adds the numbers to each record.
    """

    label: str
    make: Callable[..., tuple[Rule, optax.GradientTransformation]]
    numbers: Mapping[str, Sequence[float]] | Sequence[Mapping[str, float]]
    build: Callable[..., PyTree] | None = None
    measure: Measure | None = None


S = TypeVar("S", covariant=True)


@dataclasses.dataclass(frozen=True)
class Run(Generic[S]):
    """A run of an experiment.

    Attributes:
        size: Its size.
        seeds: The number of seeds.
        folder: The folder of checkpoints, or None; existing ones are resumed.
        progress: As for `vicinal.train.fit`.
        say: Called with a sentence before each part.
        checkpoint_seconds: Time between the checkpoints of a sweep.
    """

    size: S
    seeds: int
    folder: Path | None = None
    progress: bool | None = None
    say: Callable[[str], None] = lambda sentence: None
    checkpoint_seconds: float = 60.0

    def train_all(self, variants: Iterable[Variant], task: Learned, **options: Any) -> dict[str, list[dict[str, Any]]]:
        """Trains variants one after another and returns their members as rows, by label; options as for `train`."""
        return {variant.label: rows(self.train(variant, task, **options).members) for variant in variants}

    def train(
        self,
        variant: Variant,
        task: Learned,
        *,
        steps: int,
        batch_size: int,
        evaluate_every: int,
        part: str = "",
        group_size: int | None = 1,
    ) -> Sweep:
        """Trains a variant with every seed, and with every combination of its numbers.

        Args:
            variant: The variant to train.
            task: The task to train it on.
            steps: Number of updates.
            batch_size: Examples per update.
            evaluate_every: Updates between evaluations.
            part: A name for the part of the experiment, if it trains variants of one label on several networks.
            group_size: Members in a group, as for `vicinal.train.sweep`; None calibrates it, which pays in long runs.

        Returns:
            The sweep; `rows(sweep.members)` returns its numbers.
        """
        name = f"{variant.label}{part and ', '}{part} on {task.data.name}, {steps} updates, {self.seeds} seeds"
        self.say(name)
        folder = None if self.folder is None else self.folder / "runs" / _file_name(name)
        return sweep(
            variant.make,
            variant.build or task.build,
            task.data,
            variant.numbers,
            seeds=self.seeds,
            steps=steps,
            batch_size=batch_size,
            evaluate_every=evaluate_every,
            graph=task.graph if variant.build is None else None,
            group_size=group_size,
            folder=folder,
            resume=folder is not None,
            checkpoint_seconds=self.checkpoint_seconds,
            progress=self.progress,
            on_record=variant.measure,
        )


def _file_name(words: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in words.lower())
