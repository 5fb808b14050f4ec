"""Hyper-parameters as arrays of one strong dtype, so that changing one does not recompile; and checks of numbers."""

import math
import numbers
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree


def number(value: Any) -> Array:
    """The value as a floating-point array of JAX's default precision."""
    return jnp.asarray(value).astype(jnp.result_type(float))


def optional_number(value: Any) -> Array | None:
    """`number`, or None for None."""
    return None if value is None else number(value)


def check(name: str, value: Any, holds: Callable[[np.ndarray], Any], words: str) -> None:
    """Raises ValueError unless all of a value keeps its range; a traced value cannot be looked at and passes."""
    known = isinstance(value, jax.Array | np.ndarray | float | int) and not isinstance(value, jax.core.Tracer)
    if known and not np.all(holds(np.asarray(value))):
        raise ValueError(f"expected {name} {words}, got {np.asarray(value).tolist()}")


def check_count(name: str, value: Any, least: int) -> None:
    """Raises ValueError unless a value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"expected {name} as an integer of at least {least}, got {value!r}")


def positive(name: str, value: Any, unit: str = "") -> float:
    """The value as a Python number; raises ValueError unless it is a finite real number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"expected {name} as a number{unit} above 0, got {value!r}")
    return float(value)


def weakened(value: Array) -> Array:
    """The array marked as weakly typed, as a Python number is; unchanged where JAX has no weak type of that dtype."""
    weak = jnp.broadcast_to(jnp.asarray(value.dtype.type(0).item()), value.shape)
    # Assignment by index keeps the weak type of its left side, and moves bits without arithmetic.
    return weak.at[...].set(value) if weak.dtype == value.dtype else value


def is_half(tree: PyTree) -> bool:
    """Whether a tree holds floating-point numbers of fewer than 32 bits: few of those can be summed."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return any(jnp.finfo(leaf.dtype).bits < 32 for leaf in leaves)


def widened(array: Array) -> Array:
    """The array in float32 if it has fewer bits; else as it is."""
    return array.astype(jnp.float32) if is_half(array) else array


def is_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point number of a tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.asarray(True)
