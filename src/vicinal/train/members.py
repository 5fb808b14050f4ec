"""What the training loop trains: one run, or members of a sweep side by side."""

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import PyTree

from vicinal.train.advance import TrainingState
from vicinal.train.metrics import Metrics


class Members(abc.ABC):
    """Runs that train together, `live` until they stop; all live ones have taken the same number of steps.

    Attributes:
        ids: The index of each member in its sweep; `[None]` for a single run.
        numbers: The hyper-parameters of each member, by name, as hooks see them.
        file: The name of their checkpoint.
        metrics: What is measured in training.
        examples_per_step: Examples in a batch of the last call, for each member.
        has_pace: Whether records hold `examples_per_second`; members side by side have no pace of their own.
    """

    ids: Sequence[int | None]
    numbers: Sequence[dict[str, Any]]
    file: str
    metrics: Metrics
    examples_per_step: int
    has_pace: bool

    @property
    @abc.abstractmethod
    def live(self) -> np.ndarray:
        """Whether each member is still training."""

    @abc.abstractmethod
    def steps(self) -> np.ndarray:
        """The updates that each member has taken."""

    @abc.abstractmethod
    def state(self, row: int) -> TrainingState:
        """The state of a member, the last good one if it diverged."""

    @abc.abstractmethod
    def advance(self, step: int, count: int) -> tuple[int, dict[int, str]]:
        """Takes up to `count` steps from `step` on.

        Returns:
            The number of steps taken, and the reason for each member that stopped, by its row.
        """

    @abc.abstractmethod
    def sums(self) -> list[dict[str, Any]]:
        """What each member has summed in training since `reset_sums`."""

    @abc.abstractmethod
    def reset_sums(self) -> None:
        """Sets the sums to zero."""

    @abc.abstractmethod
    def evaluate(self) -> list[dict[str, float]]:
        """`test_loss` and so on of each member; meaningless for one that is not live."""

    @abc.abstractmethod
    def stop(self, rows: list[int]) -> None:
        """Freezes members in their present state."""

    @abc.abstractmethod
    def mark(self) -> Any:
        """A snapshot of the members, for `back_to`."""

    @abc.abstractmethod
    def back_to(self, mark: Any) -> None:
        """Undoes what was done since `mark`."""

    @abc.abstractmethod
    def saved(self) -> tuple[PyTree, dict[str, Any]]:
        """The content of a checkpoint, and JSON data to store with it."""

    @abc.abstractmethod
    def restore(self, saved: PyTree, metadata: dict[str, Any]) -> None:
        """Restores what `saved` returned."""
