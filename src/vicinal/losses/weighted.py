"""Losses with weights of examples or classes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vicinal.losses.base import Loss, check_loss
from vicinal.losses.kinds import Declared, Kind
from vicinal.losses.plain import KINDS


@dataclasses.dataclass(frozen=True)
class Weighted:
    """A loss times the weight of the example; made by `weighted`.

    Attributes:
        loss: `loss(output, target) -> scalar`.
        class_weights: A weight for each class. None: each target comes with the weight of its example.
    """

    loss: Loss
    class_weights: tuple[float, ...] | None = None

    def __call__(self, output: Float[Array, "..."], target: Any) -> Float[Array, ""]:
        if self.class_weights is None:
            if not isinstance(target, tuple | list) or len(target) != 2:
                raise ValueError(
                    "expected targets with the weights of their examples, got none; give data as (x, (y, weights)), "
                    "test data too"
                )
            target, weight = target
            if jnp.shape(weight) != ():
                raise ValueError(f"expected one weight for each example, got shape {list(jnp.shape(weight))} of them")
        else:
            weight = _of_class(jnp.asarray(self.class_weights), output, target)
        value = self.loss(output, target)
        return value * weight.astype(value.dtype)


def weighted(loss: Loss, class_weights: Sequence[float] | None = None) -> Weighted:
    """Weights a loss by the class of each example, or by a weight of each example.

        loss of an example = weight * loss(output, target)

    The mean over a batch divides by the number of examples, not by the sum of weights, so that the gradient of an
    example does not depend on the others in its batch. Weights with a mean of 1, as `balanced` makes them, therefore
    keep the scale of the loss and the meaning of the learning rate. The losses in records are weighted; accuracy and
    other metrics are not.

    Args:
        loss: `loss(output, target) -> scalar` for one example.
        class_weights: A weight for each class, at least 0, where a target is one label: a class index, a vector with
            a single 1, or for one output unit 0 or 1. None: targets are pairs `(y, weights)`, weights `[examples]`.

    Returns:
        The loss. Equal arguments give equal losses, so that nothing is recompiled.

    Raises:
        TypeError: If the loss is not a function.
        ValueError: If a weight is negative or not finite.

    Example:
        >>> import vicinal as vc
        >>> loss = weighted(vc.losses.squared_error, class_weights=[1.0, 3.0])
        >>> float(loss(jnp.zeros(2), jnp.array(0))), float(loss(jnp.zeros(2), jnp.array(1)))
        (0.5, 1.5)
        >>> float(weighted(vc.losses.squared_error)(jnp.zeros(2), (jnp.array(0), jnp.array(10.0))))
        5.0
    """
    check_loss(loss)
    if class_weights is None:
        return Weighted(loss)
    weights = tuple(float(weight) for weight in class_weights)
    if not weights or not all(0 <= weight < math.inf for weight in weights):
        raise ValueError(f"expected a finite weight of at least 0 for each class, got {list(weights)}")
    return Weighted(loss, weights)


def balanced(labels: Int[np.ndarray, " examples"]) -> list[float]:
    """Computes class weights that balance the classes: `examples / (classes * examples of the class)`.

    Their mean over the examples is 1.

    Args:
        labels: Class indices from 0, each class at least once.

    Returns:
        A weight for each class.

    Raises:
        ValueError: If the labels are not class indices, or a class has no example.

    Example:
        >>> balanced(np.array([0, 0, 0, 1]))
        [0.6666666666666666, 2.0]
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        raise ValueError(f"expected class indices from 0 on, [examples], got {labels.dtype}{list(labels.shape)}")
    counts = np.bincount(labels)
    if not counts.all():
        raise ValueError(f"expected examples of every class, got none of class {int(np.argmin(counts))}")
    return [float(weight) for weight in len(labels) / (len(counts) * counts)]


def kind_of(loss: Loss) -> Kind | None:
    """Returns the kind of a loss; None for a user's function without a declaration.

    Example:
        >>> import vicinal as vc
        >>> kind_of(weighted(vc.losses.squared_error)) == kind_of(vc.losses.squared_error)
        True
    """
    if isinstance(loss, Weighted):
        return kind_of(loss.loss)
    if isinstance(loss, Declared):
        return loss.kind
    return next((kind for kind, losses in KINDS if any(loss is own for own in losses)), None)


def without_weights(loss: Loss) -> Loss | None:
    """Returns the loss without weights where targets are pairs `(y, weights)`; otherwise None."""
    return loss.loss if isinstance(loss, Weighted) and loss.class_weights is None else None


def pair_of_weights(y: PyTree) -> tuple[PyTree, Any]:
    """Splits targets into targets `[examples, ...]` and weights `[examples]`.

    Raises:
        ValueError: If the targets have no weight for each example.
    """
    if not isinstance(y, tuple | list) or len(y) != 2 or len(getattr(y[1], "shape", ())) != 1:
        raise ValueError(
            "expected targets as pairs with a weight for each example, got others; give data as (x, (y, weights)), "
            "weights of shape [examples], test data too"
        )
    return y[0], y[1]


def _of_class(weights: Float[Array, " classes"], output: Any, target: PyTree) -> Array:
    shape, target = jnp.shape(output), jnp.asarray(target)
    units = shape[-1] if shape else 1
    classes = 2 if units == 1 else units
    if len(weights) != classes:
        raise ValueError(f"expected {classes} class weights, for {units} output units, got {len(weights)}")
    is_index = jnp.issubdtype(target.dtype, jnp.integer) and target.shape == () and units > 1
    if is_index:
        return weights[target]
    if target.shape != shape or target.size != units:
        raise ValueError(
            f"expected one label for each example, to weigh it by its class, got a target of shape "
            f"{list(target.shape)}; weigh examples by weighted(loss) and targets (y, weights)"
        )
    share = target.reshape(-1).astype(weights.dtype)
    if units == 1:
        share = jnp.concatenate([1 - share, share])
    return jnp.sum(share * weights)
