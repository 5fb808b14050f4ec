"""Counts of parameters, and models of equal counts."""

from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def parameter_count(model: PyTree) -> int:
    """The number of parameters of a model: the entries of its floating-point arrays.

    Args:
        model: The model, or its shapes as `equinox.filter_eval_shape` gives them.

    Returns:
        The number.

    Example:
        >>> from vicinal.nn import Linear
        >>> parameter_count(Linear(10, 3, key=jax.random.key(0)))
        33
    """
    leaves = [leaf for leaf in jax.tree.leaves(model) if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)]
    return sum(leaf.size for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact))


def closest_size(make: Callable[[int], PyTree], parameters: int, sizes: Iterable[int]) -> int:
    """The size at which a model comes closest to a number of parameters, to compare models of equal size.

    Args:
        make: Takes a size, such as `hidden_features`, and returns the model; nothing is computed.
        parameters: The number wanted, such as `parameter_count` of another model.
        sizes: What to choose from.

    Returns:
        The size; the smaller one of two that are equally close.

    Raises:
        ValueError: If there is no size to choose from.

    Example:
        >>> from vicinal.nn import Linear
        >>> closest_size(lambda size: Linear(10, size, key=jax.random.key(0)), 100, range(1, 50))  # 11 for each unit
        9
    """
    counts = {size: parameter_count(eqx.filter_eval_shape(make, size)) for size in sizes}
    if not counts:
        raise ValueError("expected at least one size to choose from, got none")
    return min(counts, key=lambda size: (abs(counts[size] - parameters), size))
