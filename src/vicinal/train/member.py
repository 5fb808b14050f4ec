"""What a sweep returns."""

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxtyping import PyTree

from vicinal.train import showing
from vicinal.train.fleet import Layout

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, repr=False)
class Member:
    """One run of a sweep.

    Attributes:
        numbers: What it was run with, by name.
        seed: Of its weights, its order of examples and its random numbers.
        records: What was measured, one dictionary per evaluation, as in `Run.records`; none if it stopped before the
            first.
        steps: Updates taken.
        stopped: None, or the sentence that says why it was frozen at its last good state; see `diverged`.
        model: The trained model, or the last good one.
        stopped_by: None, or the name of the hook that stopped it.
        best: The best model, if a hook keeps it, else None.
    """

    numbers: dict[str, Any]
    seed: int
    records: list[dict[str, Any]]
    steps: int
    stopped: str | None
    model: PyTree
    stopped_by: str | None = None
    best: PyTree = None

    @property
    def diverged(self) -> bool:
        """Whether it was frozen because its next step would make a number that is not finite, and not by a hook."""
        return self.stopped is not None and self.stopped_by is None

    def __repr__(self) -> str:
        return showing.member_text(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep that has ended.

    Attributes:
        members: The runs: all seeds of the first combination of numbers, then of the next.
        layout: How they lay on the devices; those of the largest part, if there are several.
        waves: Lots that ran one after another because not all fitted into memory at once.
        seconds: Wall time, compilation and calibration included.
        seconds_to_start: Of these, until the chosen layout was compiled and calibrated.
        compilations: How often the training step was compiled: once for each group size that was tried.
        resumed: Whether it went on from checkpoints, so that the times are not those of the whole.
        parts: Programs that were needed, one after another, because not all values could be traced.
    """

    members: list[Member]
    layout: Layout
    waves: int
    seconds: float
    seconds_to_start: float
    compilations: int
    resumed: bool = False
    parts: int = 1

    def to_frame(self) -> "pandas.DataFrame":
        """The records of all members as a pandas data frame (`pip install 'vicinal[tables]'`).

        What is nested in a record gets a dot in its name: `angles.layers[0]`. A number that is not finite is NaN.

        Returns:
            A row for each member and record: the member's place, its numbers, its seed and why it stopped, then what
            was measured. A member that stopped before its first record has one row, with its step alone.
        """
        return showing.sweep_frame(self)

    def __repr__(self) -> str:
        return showing.sweep_text(self)

    def _repr_html_(self) -> str:
        return showing.sweep_html(self)
