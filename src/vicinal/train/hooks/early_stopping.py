"""Early stopping: ends a run whose quantity no longer improves, and keeps the best model."""

import dataclasses
import math
from typing import Literal

from vicinal._numbers import check, check_count
from vicinal._records import or_nan
from vicinal.train.advance import TrainingState
from vicinal.train.hooks.base import Hook, Record, Start, Stop

_GOALS = {"smallest": ("loss", "error", "rmse", "energy", "perplexity"), "largest": ("accuracy", "r2", "f1")}


@dataclasses.dataclass
class EarlyStopping(Hook):
    """Stops a run when a quantity has not improved for some records.

    A record improves if it is better than the best one before by more than `minimum_change`; an undefined number
    never does. All follows from the records: a resumed run stops where an uninterrupted one would. A run that was
    stopped says so again when it is resumed, and continues with more patience or without the hook.

    Stopping by the test set makes its numbers too optimistic: give `validation=` to `fit`,
    and stop by `validation_loss`.

    Args:
        quantity: A name in the records, such as `validation_loss`, or what `on_record` adds.
        patience: Records without an improvement after which the run stops.
        minimum_change: What an improvement must exceed, in units of the quantity.
        keep_best: Whether `Run.best` is the model of the best record (`best.npz` in the folder); `Run.model` stays
            the last one.
        goal: Which is better, the `"smallest"` or the `"largest"` number; None knows losses and accuracies.

    Raises:
        ValueError: If an argument is out of range, or the goal does not follow from the name.

    Example:
        >>> import jax, optax, vicinal as vc
        >>> digits = vc.data.load("digits").flattened()
        >>> stopping = vc.train.hooks.EarlyStopping("validation_accuracy", patience=2, minimum_change=0.02)
        >>> run = vc.train.fit(
        ...     vc.rules.Backprop(), vc.nn.MLP((64, 32, 10), key=jax.random.key(0)), optax.adam(1e-2), digits,
        ...     key=jax.random.key(1), steps=2000, evaluate_every=20, validation=0.2, hooks=[stopping],
        ...     progress=False)
        >>> run.stopped_by, int(run.state.step) < 2000, run.best is not None
        ('EarlyStopping', True, True)
    """

    quantity: str = "test_loss"
    patience: int = 5
    minimum_change: float = 0.0
    keep_best: bool = True
    goal: Literal["smallest", "largest"] | None = None

    def __post_init__(self):
        check_count("patience", self.patience)
        check("a minimum_change", self.minimum_change, lambda v: v >= 0, "of 0 or more")
        goals = [goal for goal, ends in _GOALS.items() if self.quantity.endswith(ends)]
        if self.goal is None and not goals:
            raise ValueError(
                f"expected the goal for {self.quantity!r}, which is no loss or accuracy, got None; "
                'give goal="smallest" or goal="largest"'
            )
        if self.goal not in (None, *_GOALS):
            raise ValueError(f'expected goal as "smallest" or "largest", got {self.goal!r}')
        self._sign = -1.0 if (self.goal or goals[0]) == "largest" else 1.0
        self._forget()

    def _forget(self) -> None:
        self._best: tuple[float, int] | None = None  # the number, its sign so that smaller is better, and its step
        self._waited = 0

    def begin(self, start: Start) -> Stop | None:
        """Reads the existing records."""
        self._forget()
        for record in start.records:
            self._improves(record)
        if self.keep_best:
            start.best.claim(type(self).__name__, None if self._best is None else self._best[1])
            self._keeper = start.best
        return self._verdict()

    def __call__(self, record: Record, state: TrainingState) -> Stop | None:
        """Keeps the model if the record is the best, and stops after too many records without an improvement."""
        if self._improves(record) and self.keep_best:
            self._keeper.keep(int(state.step), state.model)
        return self._verdict()

    def _improves(self, record: Record) -> bool:
        """Whether a record is the best so far; if so, the next ones are compared with it."""
        if self.quantity not in record:
            raise ValueError(
                f"expected {self.quantity!r} in the record, got {', '.join(record)}; give `validation` or `test` "
                "examples, or choose another quantity"
            )
        try:
            number = float(or_nan(record[self.quantity]))
        except (TypeError, ValueError) as error:
            got = record[self.quantity]
            raise ValueError(f"expected {self.quantity!r} as a number in the record, got {got!r}") from error
        worst = math.inf if self._best is None else self._best[0]
        better = not math.isnan(number) and self._sign * number < worst - self.minimum_change
        if better:
            self._best, self._waited = (self._sign * number, int(record["step"])), 0
        else:
            self._waited += 1
        return better

    def _verdict(self) -> Stop | None:
        if self._waited < self.patience:
            return None
        best = (
            "never a number" if self._best is None else f"best {self._sign * self._best[0]:.6g} at step {self._best[1]}"
        )
        records = "record" if self.patience == 1 else f"{self.patience} records"
        return Stop(f"{self.quantity} has not improved for {records} ({best})")
