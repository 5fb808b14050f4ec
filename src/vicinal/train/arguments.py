"""What `fit` and `sweep` are asked for, checked."""

import operator
from typing import Any


def at_least_one(name: str, value: Any) -> int:
    """The value as an integer; TypeError or ValueError if it is none, or below 1."""
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(f"expected {name} as an integer, got {value!r}") from None
    if whole < 1:
        raise ValueError(f"expected {name} of at least 1, got {whole}")
    return whole


def total_steps(epochs: int | None, steps: int | None, steps_per_epoch: int | None) -> int:
    """Updates in all, from whichever of epochs and steps is given."""
    if (epochs is None) == (steps is None):
        raise ValueError(f"expected either epochs or steps, got epochs={epochs} and steps={steps}")
    if steps is not None:
        return at_least_one("steps", steps)
    if steps_per_epoch is None:
        raise ValueError(
            "expected steps with an iterable of batches that has no length, got epochs; say how many steps to take"
        )
    return at_least_one("epochs", epochs) * steps_per_epoch
