"""Losses of one example, `loss(output, target) -> scalar`; the library maps them over the batch.

A target may be a class index where the output is a vector. `squared_error` and the two cross-entropies are negative
log-likelihoods whose gradient with respect to the output is `prediction - target`, so that the error of the output is
`target - prediction`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vicinal._numbers import check
from vicinal.losses.base import Loss
from vicinal.losses.kinds import Kind, classification


def _as_distribution(output: Float[Array, "..."], target: Array) -> Float[Array, "..."]:
    if jnp.issubdtype(target.dtype, jnp.integer) and target.ndim == output.ndim - 1:
        classes = output.shape[-1]
        if classes == 1:
            raise ValueError("expected a target of shape [1] for one output unit, got a class index; use y[:, None]")
        known = (target >= 0) & (target <= jnp.asarray(min(classes - 1, jnp.iinfo(target.dtype).max), target.dtype))
        onehot = jax.nn.one_hot(target, classes, dtype=output.dtype)
        return jnp.where(known[..., None], onehot, jnp.nan)  # an index outside the classes gives NaN, not a loss of 0
    if target.shape != output.shape:
        raise ValueError(
            f"expected a target of the output's shape {list(output.shape)}, or class indices of shape "
            f"{list(output.shape[:-1])}, got {target.dtype}{list(target.shape)}"
            + ("; for one output unit write y[:, None]" if (*target.shape, 1) == output.shape else "")
        )
    return target.astype(output.dtype)


def squared_error(
    output: Float[Array, "*shape"], target: Float[Array, "*shape"] | Int[Array, "..."]
) -> Float[Array, ""]:
    """Half the squared distance, `1/2 ||target - output||^2`, summed over all units.

    Args:
        output: Any shape.
        target: The same shape; or class indices, which stand for one-hot vectors along the last axis.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> float(squared_error(jnp.array([1.0, 2.0]), jnp.array([0.0, 0.0])))
        2.5
    """
    return 0.5 * jnp.sum(jnp.square(_as_distribution(output, target) - output))


def softmax_cross_entropy(
    output: Float[Array, "*shape classes"], target: Float[Array, "*shape classes"] | Int[Array, "*shape"]
) -> Float[Array, ""]:
    """Cross-entropy of `softmax(output)` along the last axis, summed over the others; in nats.

    Args:
        output: Logits.
        target: Class indices, or distributions over the classes.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> round(float(softmax_cross_entropy(jnp.zeros(4), jnp.array(2))), 4)  # ln 4
        1.3863
    """
    return -jnp.sum(_as_distribution(output, target) * jax.nn.log_softmax(output, axis=-1))


def token_cross_entropy(output: Float[Array, "*shape classes"], target: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Cross-entropy of `softmax(output)` at each step, in nats; 0 where the target is negative.

    Args:
        output: Logits.
        target: Class indices; a step with a negative one does not count.

    Returns:
        The loss at each step.

    Raises:
        ValueError: If the target is not an index for each step.

    Example:
        >>> token_cross_entropy(jnp.zeros((3, 4)), jnp.array([2, -1, 0])).round(4)
        Array([1.3863, 0.    , 1.3863], dtype=float32)
    """
    if not jnp.issubdtype(target.dtype, jnp.integer) or target.shape != output.shape[:-1]:
        raise ValueError(
            f"expected class indices of shape {list(output.shape[:-1])}, got {target.dtype}{list(target.shape)}"
        )
    index = jnp.maximum(target, jnp.zeros((), target.dtype))[..., None]
    # An index outside the classes gives NaN, not a loss of 0.
    chosen = jnp.take_along_axis(jax.nn.log_softmax(output, axis=-1), index, axis=-1, mode="fill")[..., 0]
    return jnp.where(target < 0, jnp.zeros_like(chosen), -chosen)


def masked_softmax_cross_entropy(
    output: Float[Array, "*shape classes"], target: Int[Array, "*shape"]
) -> Float[Array, ""]:
    """`softmax_cross_entropy`, summed over the steps whose target is not negative; in nats.

    It is a sum, as the other losses are: a negative log-likelihood, whose gradient at each step that counts is
    `prediction - target`, whatever their number. Divide by their number for nats per token.

    Args:
        output: Logits, `[time, classes]` for one sequence.
        target: Class indices; a step with a negative one does not count.

    Returns:
        The loss, a scalar; 0 if nothing counts.

    Raises:
        ValueError: If the target is not an index for each step.

    Example:
        >>> round(float(masked_softmax_cross_entropy(jnp.zeros((3, 4)), jnp.array([2, -1, 0]))), 4)  # 2 ln 4
        2.7726
    """
    return jnp.sum(token_cross_entropy(output, target))


def masked_squared_error(output: Float[Array, "*shape"], target: Float[Array, "*shape"]) -> Float[Array, ""]:
    """`squared_error`, summed over the units whose target is not NaN.

    Args:
        output: Any shape.
        target: The same shape; a unit whose target is NaN does not count.

    Returns:
        The loss, a scalar; 0 if nothing counts.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> float(masked_squared_error(jnp.array([1.0, 2.0]), jnp.array([0.0, jnp.nan])))
        0.5
    """
    if target.shape != output.shape:
        raise ValueError(f"expected a target of the output's shape {list(output.shape)}, got {list(target.shape)}")
    target = target.astype(output.dtype)
    error = jnp.where(jnp.isnan(target), jnp.zeros_like(output), target - output)
    return 0.5 * jnp.sum(jnp.square(error))


def sigmoid_cross_entropy(
    output: Float[Array, "*shape"], target: Float[Array, "*shape"] | Int[Array, "..."]
) -> Float[Array, ""]:
    """Cross-entropy of independent Bernoulli units with probabilities `sigmoid(output)`, summed; in nats.

    Args:
        output: Logits, any shape.
        target: Probabilities in [0, 1] of the same shape; or class indices (one-hot along the last axis).

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> round(float(sigmoid_cross_entropy(jnp.zeros(2), jnp.array([1.0, 0.0]))), 4)  # 2 ln 2
        1.3863
    """
    target = _as_distribution(output, target)
    return -jnp.sum(target * jax.nn.log_sigmoid(output) + (1 - target) * jax.nn.log_sigmoid(-output))


def sigmoid_squared_error(
    output: Float[Array, "*shape"], target: Float[Array, "*shape"] | Int[Array, "..."]
) -> Float[Array, ""]:
    """Half the squared distance of `sigmoid(output)` from the target, summed over all units.

    Args:
        output: Any shape.
        target: Rates in [0, 1] of the same shape; or class indices (one-hot along the last axis).

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: If the shapes do not match.

    Example:
        >>> float(sigmoid_squared_error(jnp.zeros(2), jnp.array([1.0, 0.5])))
        0.125
    """
    return 0.5 * jnp.sum(jnp.square(_as_distribution(output, target) - jax.nn.sigmoid(output)))


def sigmoid_divisive_error(shift: float = 0.0, offset: float = 1e-3) -> Loss:
    """Makes a loss of the ratio of target and rate: a quarter of the squared difference of logarithms, summed.

        loss = 1/4 sum (log(target + shift + offset) - log(sigmoid(output) + shift + offset))^2

    This is the energy of `vicinal.energy.Divisive` for sigmoid output units whose rates and targets are shifted.

    Args:
        shift: Added to rates and targets, at least 0.
        offset: Added before the logarithm, above 0, as in `Divisive`.

    Returns:
        `loss(output, target) -> scalar`, the same function for the same numbers.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> float(sigmoid_divisive_error(1.0)(jnp.zeros(1), jnp.array([0.5])))
        0.0
    """
    check("the shift", shift, lambda v: v >= 0, "of at least 0")
    check("the offset", offset, lambda v: v > 0, "above 0")
    return _sigmoid_divisive_error(float(shift), float(offset))


@functools.cache
def _sigmoid_divisive_error(shift: float, offset: float) -> Loss:
    def loss(output: Float[Array, "*shape"], target: Array) -> Float[Array, ""]:
        rate, wanted = jax.nn.sigmoid(output), _as_distribution(output, target)
        return 0.25 * jnp.sum(jnp.square(jnp.log(wanted + (shift + offset)) - jnp.log(rate + (shift + offset))))

    return classification(loss)


KINDS = (
    (Kind(labels=True, shares=True), (softmax_cross_entropy, sigmoid_cross_entropy)),
    (Kind(labels=True), (sigmoid_squared_error,)),
    (Kind(labels=True, ignores=True), (masked_softmax_cross_entropy,)),
    (Kind(labels=True, numbers=True), (squared_error,)),
    (Kind(numbers=True, ignores=True), (masked_squared_error,)),
)
"""The kinds of the losses of this module."""
