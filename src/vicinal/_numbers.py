"""Hyper-parameters as arrays of one strong dtype, so that changing one does not recompile."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


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


def weakened(value: Array) -> Array:
    """The array marked as weakly typed, as a Python number is; unchanged where JAX has no weak type of that dtype."""
    weak = jnp.broadcast_to(jnp.asarray(value.dtype.type(0).item()), value.shape)
    # Assignment by index keeps the weak type of its left side, and moves bits without arithmetic.
    return weak.at[...].set(value) if weak.dtype == value.dtype else value
