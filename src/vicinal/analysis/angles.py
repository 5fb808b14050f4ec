"""Angles between two updates."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import matrices, whole

CONCATENATED = "concatenated"
"""Name of the angle between whole updates, all parameters in one vector."""


def angle(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    """The angle between two arrays taken as vectors, in degrees; not a number if one is zero.

    By `2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||)`, exact also for small angles, where the arc cosine is not.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(angle(jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0]))), 4)
        45.0
    """
    a, b = a.reshape(-1), b.reshape(-1)
    a, b = a / jnp.max(jnp.abs(a)), b / jnp.max(jnp.abs(b))  # first, or the squares of small numbers vanish
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    return jnp.rad2deg(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))


def angles(update: PyTree, reference: PyTree) -> dict[str, Float[Array, ""]]:
    """The angle of each weight matrix, and of the whole update, to those of a reference; in degrees.

    The two tell different things: inference learning scales the update of each layer, so that its matrices may all
    point along backpropagation's while their concatenation does not.

    Args:
        update: Gradients (or updates) in a tree like the model.
        reference: The same structure.

    Returns:
        One angle for each array of at least two axes that is no bias, by its path (`layers[0].weight`), then
        `"concatenated"` over all arrays, biases included.

    Raises:
        ValueError: If the structures differ.
    """
    ours, theirs = (eqx.filter(tree, eqx.is_inexact_array) for tree in (update, reference))
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        raise ValueError(
            "expected two updates of the same structure, got different ones; compare gradients of one model"
        )
    other = matrices(theirs)
    found = {name: angle(matrix, other[name]) for name, matrix in matrices(ours).items()}
    return found | {CONCATENATED: angle(whole(ours), whole(theirs))}
