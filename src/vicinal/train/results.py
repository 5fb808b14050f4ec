"""What `fit` and `sweep` return."""

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxtyping import PyTree

from vicinal.graph import Graph
from vicinal.train import showing
from vicinal.train.advance import TrainingState
from vicinal.train.compiled import Layout
from vicinal.train.predict import predict

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run that has ended.

    Attributes:
        state: The last good state.
        graph: The graph of the model.
        records: What was measured, one dictionary per evaluation: `step`, `epoch`, `train_loss`, `test_loss`, ...
            Rules whose units send events add `value_events` and `error_events`, the mean numbers per example of an
            update while activities settle, and `slew_limited` and `rate_limited`, the shares of examples with these
            results.
        stopped: None, or the sentence that says why the run ended before its last step.
        stopped_by: None, or the name of the hook that stopped it.
        best: The best model, if a hook keeps it (`vicinal.train.hooks.EarlyStopping`), else None.
        seconds_per_step: Median over the steps, without those of the first call (it compiles); 0 if there were none.
    """

    state: TrainingState
    graph: Graph
    records: list[dict[str, Any]]
    stopped: str | None
    seconds_per_step: float
    stopped_by: str | None = None
    best: PyTree = None

    @property
    def model(self) -> PyTree:
        """The trained model."""
        return self.state.model

    def predict(self, x: PyTree, batch_size: int = 1000) -> PyTree:
        """The output of the trained model for each example; as `vicinal.train.predict`."""
        return predict(self.graph, self.model, x, batch_size)

    def to_frame(self) -> "pandas.DataFrame":
        """The records as a pandas data frame (`pip install 'vicinal[tables]'`), a row each; see `Sweep.to_frame`."""
        return showing.run_frame(self.records)

    def __repr__(self) -> str:
        return showing.run_text(int(self.state.step), self.records, self.stopped)

    def _repr_html_(self) -> str:
        return showing.run_html(int(self.state.step), self.records, self.stopped)


@dataclasses.dataclass(frozen=True, repr=False)
class Member:
    """One run of a sweep.

    Attributes:
        numbers: Its hyper-parameters, by name.
        seed: The seed of its weights, order of examples and random numbers.
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
        """Whether it was frozen because its next step would make a number non-finite, and not by a hook."""
        return self.stopped is not None and self.stopped_by is None

    def __repr__(self) -> str:
        return showing.member_text(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep that has ended.

    Attributes:
        members: The runs: all seeds of the first combination of numbers, then of the next.
        layout: Their layout on the devices; that of the largest part, if there are several.
        waves: Number of waves, which run one after another if not all members fit into memory at once.
        seconds: Wall time, compilation and calibration included.
        seconds_to_start: The part of these until the chosen layout was compiled and calibrated.
        compilations: How often the training step was compiled: once for each tried group size.
        resumed: Whether it resumed from checkpoints, so that the times are not those of the whole sweep.
        parts: Number of programs, which run one after another if not all values can be traced.
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

        A nested name gets a dot: `angles.layers[0]`. A non-finite number is NaN.

        Returns:
            A row for each member and record: the member's index, numbers, seed and why it stopped, then what
            was measured. A member that stopped before its first record has one row, with only its step.
        """
        return showing.sweep_frame(self.members)

    def __repr__(self) -> str:
        return showing.sweep_text(self.members)

    def _repr_html_(self) -> str:
        return showing.sweep_html(self.members)
