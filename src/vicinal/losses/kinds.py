"""What a loss says of its targets: labels or numbers. Metrics, and the check of targets, follow from it."""

import dataclasses
from typing import Any

from vicinal.losses.base import Loss, check_loss


@dataclasses.dataclass(frozen=True)
class Kind:
    """What targets a loss reads.

    Attributes:
        labels: Whether they may be labels: class indices, or vectors with a single 1. A model has an accuracy then.
        numbers: Whether they may be numbers to come near to, in the output's own unit. A model has an RMSE and R2
            then. With `labels` too, class indices and vectors with a single 1 are labels, everything else numbers.
        shares: Whether targets that are no class indices are probabilities, from 0 to 1.
        ignores: Whether a negative label, or a number that is NaN, says that a place does not count.
    """

    labels: bool = False
    numbers: bool = False
    shares: bool = False
    ignores: bool = False


@dataclasses.dataclass(frozen=True)
class Declared:
    """A loss of one's own with what it says of its targets; made by `classification` and `regression`.

    Attributes:
        loss: `loss(output, target) -> scalar`.
        kind: What targets it reads.
    """

    loss: Loss
    kind: Kind

    def __call__(self, output: Any, target: Any) -> Any:
        return self.loss(output, target)


def classification(loss: Loss, *, ignores: bool = False) -> Declared:
    """Says that the targets of a loss are labels, so that its models have an accuracy.

    An output of several units is read by its largest one, an output of one unit as a logit: above 0 means 1.

    Args:
        loss: `loss(output, target) -> scalar` for one example.
        ignores: Whether a label below 0 says that a place does not count. If not, such a label is refused.

    Returns:
        The same loss, declared.

    Raises:
        TypeError: If the loss is no function.

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
    """Says that the targets of a loss are numbers that the output should come near to: its models have an RMSE and R2.

    Args:
        loss: `loss(output, target) -> scalar` for one example.
        ignores: Whether a target that is NaN says that a unit does not count. If not, it is refused.

    Returns:
        The same loss, declared.

    Raises:
        TypeError: If the loss is no function.

    Example:
        >>> import vicinal as vc
        >>> vc.losses.kind_of(regression(lambda output, target: abs(output - target).sum())).numbers
        True
    """
    check_loss(loss)
    return Declared(loss, Kind(numbers=True, ignores=ignores))
