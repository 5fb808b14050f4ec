"""What a hook is: a callable that gets each record of a run, and may stop it."""

import contextlib
import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from vicinal._records import flat_record, is_number
from vicinal.train.advance import TrainingState
from vicinal.train.best import Best

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stop:
    """What a hook returns to end a run.

    Args:
        reason: Why, as the end of a sentence: `"stopped by NAME at step 300: REASON"`.

    Example:
        >>> import jax, numpy as np, optax, vicinal as vc
        >>> def well_enough(record, state):
        ...     return vc.train.Stop("the loss is below 0.1") if record["train_loss"] < 0.1 else None
        >>> x = np.eye(4, dtype=np.float32)
        >>> run = vc.train.fit(
        ...     vc.rules.Backprop(), vc.nn.MLP((4, 4), key=jax.random.key(0)), optax.sgd(1.0), (x, np.arange(4)),
        ...     key=jax.random.key(1), steps=1000, evaluate_every=10, batch_size=4, hooks=[well_enough], progress=False)
        >>> run.stopped.endswith(": the loss is below 0.1"), run.stopped_by
        (True, 'well_enough')
    """

    reason: str


@dataclasses.dataclass(frozen=True)
class Start:
    """What a hook gets before the first step.

    Attributes:
        step: Updates taken before; 0 but in a resumed run.
        resumed: Whether the run was asked to resume.
        records: The records already in the log; in a resumed run, those up to `step`.
        folder: The folder of the run, or None.
        best: Where a hook keeps the best model: `claim` it in `begin`, then `keep`.
        member: Which run of a sweep this is, or None.
        numbers: The hyper-parameters and the `seed`, in a sweep.
    """

    step: int
    resumed: bool
    records: Sequence[Record]
    folder: Path | None
    best: Best
    member: int | None = None
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)


class Hook:
    """A hook with a beginning and an end; a plain function `hook(record, state)` is one without.

    What a hook remembers must follow from the records: `begin` restores it in a resumed run, and is given nothing
    else. Each run of a sweep has a shallow copy of the hook.
    """

    def begin(self, start: Start) -> Stop | None:
        """Called before the first step; may stop a resumed run at once."""

    def __call__(self, record: Record, state: TrainingState) -> Stop | None:
        """Called with each record, before it is written, and the state. It may add to the record.

        Returns:
            None, or `Stop(reason)`: the record is still written, and is the last one.
        """

    def end(self) -> None:
        """Called when the run ends, also with an exception."""


AnyHook = Hook | Callable[[Record, TrainingState], Stop | None]


class Watch:
    """The hooks of one run: the `with` block begins and ends them.

    Args:
        hooks: As `hooks_of` returns them.
        start: What they are told.
        on_record: Called before them; it does not stop the run.

    Attributes:
        best: What they keep.
        stopped_by: None, or the name of the hook that stops the run.
    """

    def __init__(
        self,
        hooks: Sequence[AnyHook],
        start: Start,
        on_record: Callable[[Record, TrainingState], None] | None = None,
    ):
        self._hooks, self._start, self._on_record = hooks, start, on_record
        self._ends = contextlib.ExitStack()
        self.best = start.best
        self.stopped_by: str | None = None
        self._reason = ""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:  # if one cannot begin, those before it end
            for hook in self._hooks:
                if isinstance(hook, Hook):
                    self._note(hook, hook.begin(self._start))
                    stack.callback(hook.end)
            self._ends = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ends.close()

    @property
    def needs_state(self) -> bool:
        """Whether anything is called with the state."""
        return bool(self._hooks) or self._on_record is not None

    def __call__(self, record: Record, state: TrainingState) -> None:
        """Calls what was given, in order."""
        if self._on_record is not None:
            self._on_record(record, state)
        for hook in self._hooks:
            self._note(hook, hook(record, state))

    def sentence(self, step: int) -> str:
        """Why the run ends at a step, once a hook stops it."""
        return f"stopped by {self.stopped_by} at step {step}: {self._reason}"

    def _note(self, hook: AnyHook, said: Any) -> None:
        name = _name_of(hook)
        if said is not None and not isinstance(said, Stop):
            raise TypeError(f"expected a hook to return None or vc.train.Stop(reason), got {said!r} from {name}")
        if said is not None and self.stopped_by is None:
            self.stopped_by, self._reason = name, said.reason


def _name_of(hook: AnyHook) -> str:
    """The name of a hook in sentences."""
    name = type(hook).__name__ if isinstance(hook, Hook) else getattr(hook, "__name__", type(hook).__name__)
    return "a hook" if name == "<lambda>" else name


def hooks_of(hooks: Any) -> list[AnyHook]:
    """Checks hooks and returns a shallow copy of each, so that two runs do not share what a hook remembers.

    Raises:
        TypeError: If this is not a list of hooks.
    """
    if not isinstance(hooks, list | tuple):
        raise TypeError(f"expected hooks as a list, got {type(hooks).__name__}; write hooks=[...]")
    for hook in hooks:
        if isinstance(hook, type):
            raise TypeError(f"expected a hook, got the class {hook.__name__}; write {hook.__name__}(...)")
        if not callable(hook):
            raise TypeError(f"expected a hook as a function of (record, state), got {hook!r}")
        check_takes_record("a hook", hook)
    return [copy.copy(hook) if isinstance(hook, Hook) else hook for hook in hooks]


def check_takes_record(what: str, function: Callable[..., Any]) -> None:
    """Raises TypeError if a function cannot be called with a record and a state."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some functions in C do not tell
        return
    try:
        signature.bind({}, None)
    except TypeError:
        raise TypeError(f"expected {what} as a function of (record, state), got one of {signature}") from None


def numbers_of(record: Record) -> dict[str, float]:
    """The finite numbers of a record by name; `step` is left out."""
    found = {}
    for name, value in flat_record(record, "/").items():
        value = value.item() if isinstance(value, jax.Array | np.ndarray | np.generic) and value.ndim == 0 else value
        if name != "step" and is_number(value) and math.isfinite(value):
            found[name] = float(value)
    return found
