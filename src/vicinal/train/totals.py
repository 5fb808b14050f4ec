"""Sums over many numbers that stay exact: a float and what rounding took from it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree


class Total(NamedTuple):
    """A sum as two floats, which have twice the digits of one: counts are exact up to 2^48 in float32.

    Attributes:
        high: The sum, rounded.
        low: What is missing from it.
    """

    high: Float[Array, "..."]
    low: Float[Array, "..."]

    @property
    def value(self) -> np.ndarray:
        """The sum in float64, on the host."""
        high, low = (np.asarray(part, np.float64) for part in self)
        return np.where(np.isfinite(high), high + low, high)


def wide(dtype: Any) -> Any:
    """At least float32: a sum over many examples needs it, whatever the model computes in."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits > 32 else jnp.float32


def total(values: ArrayLike, dtype: Any = jnp.float32) -> Total:
    """The sum over the first axis; whole numbers are summed as such, up to 2^31.

    Args:
        values: `[examples, ...]`.
        dtype: Of the two floats, for whole numbers; floats keep theirs if it is wide enough.
    """
    values = jnp.asarray(values)
    if jnp.issubdtype(values.dtype, jnp.floating):
        high = jnp.sum(values.astype(wide(values.dtype)), axis=0)
        return Total(high, jnp.zeros_like(high))
    count = jnp.sum(values.astype(jnp.int32), axis=0, dtype=jnp.int32)
    high = count.astype(dtype)
    return Total(high, (count - high.astype(jnp.int32)).astype(dtype))


def plus(a: Total, b: Total) -> Total:
    """The sum of two sums, both of one dtype."""
    high = a.high + b.high
    part = high - a.high
    low = (a.high - (high - part)) + (b.high - part) + (a.low + b.low)
    rounded = high + low
    return Total(rounded, low - (rounded - high))


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sums of two trees of sums."""
    return jax.tree.map(plus, a, b, is_leaf=lambda node: isinstance(node, Total))


def values(tree: PyTree) -> PyTree:
    """A tree of sums as float64 arrays on the host."""
    return jax.tree.map(lambda found: found.value, tree, is_leaf=lambda node: isinstance(node, Total))
