"""Kinds of losses: whether targets are labels or numbers, which decides on metrics and on the check of targets."""

import dataclasses
from typing import Any

from vicinal.losses.base import Loss, check_loss


@dataclasses.dataclass(frozen=True)
class Kind:
    """The targets that a loss accepts.

    Attributes:
        labels: Whether targets may be labels: class indices, or vectors with a single 1. Records then have an accuracy.
        numbers: Whether targets may be numbers in the unit of the output. Records then have an RMSE and R2. With
            `labels` too, class indices and vectors with a single 1 are labels, all other targets numbers.
        shares: Whether targets other than class indices are probabilities, in [0, 1].
        ignores: Whether places with a negative label, or a number that is NaN, do not count.
    """

    labels: bool = False
    numbers: bool = False
    shares: bool = False
    ignores: bool = False


@dataclasses.dataclass(frozen=True)
class Declared:
    """A user's loss with its kind; made by `classification` and `regression`.

    Attributes:
        loss: `loss(output, target) -> scalar`.
        kind: The targets that it accepts.
    """

    loss: Loss
    kind: Kind

    def __call__(self, output: Any, target: Any) -> Any:
        return self.loss(output, target)


def classification(loss: Loss, *, ignores: bool = False) -> Declared:
    """Declares that the targets of a loss are labels, so that records have an accuracy.

    The prediction is the largest of several output units; a single output unit is a logit, and above 0 it predicts 1.

    Args:
        loss: `loss(output, target) -> scalar` for one example.
        ignores: Whether places with a label below 0 do not count. If False, such labels are refused.

    Returns:
        The same loss, declared.

    Raises:
        TypeError: If the loss is not a function.

    Example:
        >>> import vicinal as vc
        >>> def twice(output, target):
        ...     return 2 * vc.losses.softmax_cross_entropy(output, target)
        >>> vc.losses.kind_of(twice), vc.losses.kind_of(classification(twice))
        (None, Kind(labels=True, numbers=False, shares=False, ignores=False))
    """
    check_loss(loss)
    return Declared(loss, Kind(labels=True, ignores=ignores))


def regression(loss: Loss, *, ignores: bool = False) -> Declared:
    """Declares that the targets of a loss are numbers that the output should match, so that records have RMSE and R2.

    Args:
        loss: `loss(output, target) -> scalar` for one example.
        ignores: Whether units with a target of NaN do not count. If False, such targets are refused.

    Returns:
        The same loss, declared.

    Raises:
        TypeError: If the loss is not a function.

    Example:
        >>> import vicinal as vc
        >>> vc.losses.kind_of(regression(lambda output, target: abs(output - target).sum())).numbers
        True
    """
    check_loss(loss)
    return Declared(loss, Kind(numbers=True, ignores=ignores))
