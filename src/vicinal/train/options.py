"""How long a run is trained, and how it is recorded: the options that `fit` and `sweep` share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vicinal._numbers import check_count, check_seconds, check_turns
from vicinal.train.advance import TrainingState
from vicinal.train.hooks.base import AnyHook, Record, check_takes_record, hooks_of

OnRecord = Callable[[Record, TrainingState], None]


class Schedule(NamedTuple):
    """When a run is evaluated and when it ends.

    Attributes:
        steps: Updates in all.
        interval: Steps between evaluations; None to evaluate at the last step alone.
        steps_per_epoch: Batches in an epoch; None if it is unknown.
    """

    steps: int
    interval: int | None
    steps_per_epoch: int | None

    def until_mark(self, step: int) -> int:
        """Steps from `step` to the next evaluation, or to the end."""
        every = self.interval or self.steps
        return min(self.steps - step, every - step % every)

    def is_mark(self, step: int) -> bool:
        """Whether the run is evaluated after `step` updates."""
        return step == self.steps or step % (self.interval or self.steps) == 0

    def epoch(self, step: int) -> dict[str, float]:
        """The entry `epoch` of a record; empty if the length of an epoch is unknown."""
        return {"epoch": step / self.steps_per_epoch} if self.steps_per_epoch else {}


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of the same names of `fit` and `sweep`, which document them.

    Raises:
        TypeError: If the hooks are not a list of hooks, `on_record` cannot be called as documented, or the time between
            checkpoints is not a number.
        ValueError: If the time between checkpoints is negative or not finite, none is to be kept, or a file is where
            the folder would be.
    """

    epochs: int | None
    steps: int | None
    batch_size: int
    evaluate_every: int | None
    folder: str | Path | None
    resume: bool
    checkpoint_seconds: float
    keep: int
    progress: bool | None
    on_record: OnRecord | None
    hooks: Sequence[AnyHook]
    metrics: Mapping[str, Callable[..., Any]] | None

    def __post_init__(self):
        hooks_of(self.hooks)  # before anything runs
        if self.on_record is not None:
            check_takes_record("on_record", self.on_record)
        _check_folder(self.folder)
        check_seconds("checkpoint_seconds", self.checkpoint_seconds)
        check_count("keep", self.keep)

    def schedule(self, steps_per_epoch: int | None) -> Schedule:
        """The steps that these options ask for.

        Args:
            steps_per_epoch: Batches in an epoch; None if it is unknown.

        Raises:
            TypeError: If a count is not an integer.
            ValueError: If a count is below 1 or too large, not one of `epochs` and `steps` is given, or an epoch has no
                length.
        """
        interval = self.evaluate_every
        interval = steps_per_epoch if interval is None else check_count("evaluate_every", interval)
        return Schedule(check_turns("steps", self._steps(steps_per_epoch)), interval, steps_per_epoch)

    def _steps(self, steps_per_epoch: int | None) -> int:
        epochs, steps = self.epochs, self.steps
        if (epochs is None) == (steps is None):
            raise ValueError(f"expected either epochs or steps, got epochs={epochs} and steps={steps}")
        if steps is not None:
            return check_count("steps", steps)
        if isinstance(epochs, float):
            raise TypeError(f"expected epochs as an integer, got {epochs!r}; give steps= for a part of an epoch")
        if steps_per_epoch is None:
            raise ValueError(
                "expected steps with an iterable of batches that has no length, got epochs; say how many steps to take"
            )
        return check_count("epochs", epochs) * steps_per_epoch


def _check_folder(folder: str | Path | None) -> None:
    for place in () if folder is None else (Path(folder), *Path(folder).parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"expected folder={str(folder)!r} as a folder, got the file {place}; choose another")
