"""Hyper-parameters as strongly typed arrays, so that changing one does not recompile; and checks of numbers."""

import dataclasses
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree


def number(value: Any) -> Array:
    """The value as a floating-point array of JAX's default precision and shape `[]`.

    Raises:
        TypeError: If it is no number: None, a text, a truth value, a list or an array of several numbers.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | np.generic | np.ndarray | jax.Array):
        raise TypeError(f"expected a number, got {value!r}")
    held = floating(value)
    if held.shape:
        raise TypeError(f"expected a number, got an array of shape {list(held.shape)}")
    return held


def optional_number(value: Any) -> Array | None:
    """`number`, or None for None."""
    return None if value is None else number(value)


def floating(value: Any) -> Array:
    """A number or an array as a floating-point array of JAX's default precision."""
    return jnp.asarray(value).astype(jnp.result_type(float))


def number_text(value: Any) -> str:
    """A number as it would be typed: the shortest decimal that its own precision rounds to it.

    Example:
        >>> number_text(jnp.float32(0.1)), number_text(1.0), number_text(5e-4)
        ('0.1', '1', '0.0005')
    """
    return str(np.asarray(value)[()]).removesuffix(".0")


def check(name: str, value: Any, holds: Callable[[np.ndarray], Any] = np.isfinite, words: str = "") -> None:
    """Raises ValueError unless all numbers of a value are finite and in range; a traced value passes unchecked.

    Args:
        name: What the value is, for the message.
        value: A number or an array; None passes.
        holds: Which of its numbers are in range.
        words: The range, such as `"above 0"`, for the message.
    """
    known = isinstance(value, jax.Array | np.ndarray | np.generic | float | int)
    if not known or isinstance(value, jax.core.Tracer):
        return
    found = np.asarray(value)
    fits = np.isfinite(found) & holds(found)
    if not np.all(fits):
        wrong = found[~fits].flat[0]
        wanted = words if np.isfinite(wrong) else f"as a finite number {words}".strip()
        raise ValueError(f"expected {name} {wanted}, got {number_text(wrong)}")


def check_count(name: str, value: Any, least: int = 1) -> int:
    """The value as a Python integer.

    Raises:
        TypeError: If it is not an integer; booleans are not.
        ValueError: If it is below `least`.

    Example:
        >>> check_count("steps", np.int64(3))
        3
    """
    expected = f"expected {name} as an integer of at least {least}, got {value!r}"
    if isinstance(value, bool):
        raise TypeError(expected)
    try:
        whole = operator.index(value)
    except TypeError:
        raise TypeError(expected) from None
    if whole < least:
        raise ValueError(expected)
    return whole


def check_turns(name: str, value: Any, least: int = 1) -> int:
    """The number of turns of a compiled loop as a Python integer.

    Raises:
        TypeError: As `check_count`.
        ValueError: As `check_count`, or if 32 bits cannot count them.

    Example:
        >>> check_turns("steps", 2**31)
        Traceback (most recent call last):
        ValueError: expected steps of at most 2147483647, which 32 bits can count, got 2147483648; take fewer
    """
    whole, most = check_count(name, value, least), 2**31 - 1
    if whole > most:
        raise ValueError(f"expected {name} of at most {most}, which 32 bits can count, got {whole}; take fewer")
    return whole


def check_counts(**counts: Any) -> None:
    """Raises as `check_count` does unless all values are integers of at least 1."""
    for name, value in counts.items():
        check_count(name, value)


def positive(name: str, value: Any, unit: str = "") -> float:
    """The value as a Python number; raises ValueError unless it is a finite real number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"expected {name} as a number{unit} above 0, got {value!r}")
    return float(value)


def check_seconds(name: str, value: Any) -> float:
    """The value as a Python number of seconds, finite and at least 0.

    Raises:
        TypeError: If it is not a real number; booleans are not.
        ValueError: If it is negative or not finite.

    Example:
        >>> check_seconds("checkpoint_seconds", 5)
        5.0
    """
    expected = f"expected {name} as a finite number of seconds of at least 0, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(expected)
    if not 0 <= float(value) < math.inf:
        raise ValueError(expected)
    return float(value)


def all_positive(settings: Any, words: str, unit: str = "") -> None:
    """Converts every field of a frozen dataclass to a Python number; raises ValueError unless finite and above 0."""
    for field in dataclasses.fields(settings):
        value = positive(f"{words} {field.name}", getattr(settings, field.name), unit)
        object.__setattr__(settings, field.name, value)


def weakened(value: Array) -> Array:
    """The array, weakly typed like a Python number; unchanged if JAX has no weak type of that dtype."""
    weak = jnp.broadcast_to(jnp.asarray(value.dtype.type(0).item()), value.shape)
    # Indexed assignment keeps the weak type of its left side and copies bits without arithmetic.
    return weak.at[...].set(value) if weak.dtype == value.dtype else value


def is_half(tree: PyTree) -> bool:
    """Whether a tree has floating-point numbers of fewer than 32 bits, which lose digits in long sums."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return any(jnp.finfo(leaf.dtype).bits < 32 for leaf in leaves)


def wide(dtype: Any) -> Any:
    """The dtype in which to sum numbers of a dtype: float32, or the dtype itself if it has more bits."""
    return dtype if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits > 32 else jnp.float32


def widened(array: Array) -> Array:
    """The array in float32 if its numbers have fewer than 32 bits; any other array unchanged."""
    return array.astype(jnp.float32) if is_half(array) else array


def is_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point number of a tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves])) if leaves else jnp.asarray(True)
