"""Sequences of several lengths in one batch: padding on the right, and the length of each."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def sequence_and_length(x: Array | tuple[Array, Int[Array, ""]]) -> tuple[Array, Int[Array, ""] | None]:
    """A sequence with zeros as padding, and its length; None if all steps count.

    Args:
        x: The sequence `[time, ...]`, or `(sequence, length)`.

    Returns:
        The sequence and the length.

    Raises:
        ValueError: If `x` is neither, or the length no integer.
    """
    if not isinstance(x, tuple | list):
        return x, None
    if len(x) != 2 or not jnp.ndim(x[0]) or jnp.ndim(x[1]) or not jnp.issubdtype(jnp.result_type(x[1]), jnp.integer):
        got = ", ".join(f"{jnp.result_type(item)}{list(jnp.shape(item))}" for item in jax.tree.leaves(x))
        raise ValueError(
            f"expected a sequence, or (sequence, length) with a whole number, got ({got}); give lengths as integers, "
            "one for each example"
        )
    sequence, length = map(jnp.asarray, x)
    return without_padding(sequence, length), length


def without_padding(sequence: Array, length: Int[Array, ""] | None) -> Array:
    """The sequence with zeros in place of padding."""
    if length is None:
        return sequence
    counts = counted_steps(sequence, length)
    return zero_unless(counts.reshape(-1, *(1,) * (sequence.ndim - 1)), sequence)


def counted_steps(sequence: Array, length: Int[Array, ""]) -> Bool[Array, " time"]:
    """Whether each step counts: it is no padding."""
    return jnp.arange(sequence.shape[0]) < jnp.asarray(length).astype(int)


def step_mask(sequence: Array, length: Int[Array, ""] | None) -> Bool[Array, "time 1"] | None:
    """The mask of a vertex `[time, features]`; None if all steps count."""
    return None if length is None else counted_steps(sequence, length)[:, None]


def zero_unless(counts: Bool[Array, "..."], value: Array) -> Array:
    """The value where it counts, else 0."""
    return jnp.where(counts, value, jnp.zeros((), value.dtype))


def if_there(output: Array, sequence: Array, length: Int[Array, ""] | None) -> Array:
    """The output, or NaN if the length is negative or above that of the sequence."""
    if length is None:
        return output
    return jnp.where((length >= 0) & (length <= sequence.shape[0]), output, jnp.full((), jnp.nan, output.dtype))
