"""Sums over many numbers that stay exact: a float and its rounding error."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from vicinal._numbers import wide


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


class Spread(NamedTuple):
    """Sums that give the variance of many numbers: of their differences from one of them, which keeps their digits.

    Attributes:
        origin: One of the numbers; of no meaning where none count.
        count: How many count.
        first: The sum of their differences from the origin.
        second: The sum of the squares of these.
    """

    origin: Float[Array, "..."]
    count: Total
    first: Total
    second: Total


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


def single(value: Float[Array, "..."]) -> Total:
    """The sum of this single number."""
    return Total(value, jnp.zeros_like(value))


def spread(numbers: Float[Array, "rows units"], counted: Bool[Array, "rows units"] | None = None) -> Spread:
    """The spread of each unit over all rows, or over those where it counts."""
    if counted is None:
        origin, counted = numbers[0], jnp.ones_like(numbers, bool)
    else:
        first = jnp.argmax(counted, axis=0)[None]
        found, exists = (jnp.take_along_axis(held, first, axis=0)[0] for held in (numbers, counted))
        origin = jnp.where(exists, found, 0)
    difference = jnp.where(counted, numbers - origin[None], 0)
    return Spread(origin, total(counted, numbers.dtype), total(difference), total(difference**2))


def plus(a: Total, b: Total) -> Total:
    """The sum of two sums, both of one dtype."""
    high = a.high + b.high
    part = high - a.high
    finite = jnp.isfinite(high)  # an infinite sum has no rounding error; infinity - infinity would be NaN
    low = jnp.where(finite, (a.high - (high - part)) + (b.high - part) + (a.low + b.low), 0)
    rounded = high + low
    return Total(rounded, jnp.where(finite, low - (rounded - high), 0))


def join(a: Spread, b: Spread) -> Spread:
    """The spread of all numbers of two, from the origin of the first that has one."""
    origin = jnp.where(a.count.high > 0, a.origin, b.origin)
    moved, count = b.origin - origin, b.count.high
    first = plus(b.first, single(count * moved))
    second = plus(b.second, single((2 * b.first.high + count * moved) * moved))
    return Spread(origin, plus(a.count, b.count), plus(a.first, first), plus(a.second, second))


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sums of two trees of sums; plain arrays are added as such."""

    def added(a: Any, b: Any) -> Any:
        if isinstance(a, Spread):
            return join(a, b)
        return plus(a, b) if isinstance(a, Total) else a + b

    return jax.tree.map(added, a, b, is_leaf=lambda node: isinstance(node, Spread | Total))


def values(tree: PyTree) -> PyTree:
    """A tree of sums as float64 arrays on the host."""

    def value(found: Any) -> np.ndarray:
        return found.value if isinstance(found, Total) else np.asarray(found, np.float64)

    return jax.tree.map(value, tree, is_leaf=lambda node: isinstance(node, Total))
