"""Angles between two updates, and how large one is beside the other."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import matrices, norm, whole

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
    r"""The angle of each weight matrix, and of the whole update, to those of a reference; in degrees.

    The two tell different things. With the sizes $a_l$ of the update's arrays, $b_l$ of the reference's and the angles
    $\theta_l$ between them, the whole's angle is $\cos\theta = \sum_l a_l b_l \cos\theta_l / (|a| |b|)$: it weighs each
    array by its size. Inference learning makes the update of early layers small, so that all its matrices may point
    along backpropagation's while the whole does not. Read the layers first, and `norm_ratios` beside them.

    Args:
        update: Gradients (or updates) in a tree like the model.
        reference: The same structure.

    Returns:
        One angle for each array of at least two axes that is no bias, by its path (`layers[0].weight`), then
        `"concatenated"` over all arrays, biases included.

    Raises:
        ValueError: If the structures differ.

    Example:
        >>> import jax.numpy as jnp
        >>> one = jnp.ones((1, 1))
        >>> found = angles({"first": 0.04 * one, "last": one}, {"first": one, "last": one})
        >>> {name: round(float(degrees), 1) for name, degrees in found.items()}
        {"['first']": 0.0, "['last']": 0.0, 'concatenated': 42.7}
    """
    ours, theirs = _alike(update, reference)
    other = matrices(theirs)
    found = {name: angle(matrix, other[name]) for name, matrix in matrices(ours).items()}
    return found | {CONCATENATED: angle(whole(ours), whole(theirs))}


def norm_ratios(update: PyTree, reference: PyTree) -> dict[str, Float[Array, ""]]:
    """The norm of each weight matrix of an update, and of the whole, over a reference's: what `angles` leaves out.

    Args:
        update: Gradients (or updates) in a tree like the model.
        reference: The same structure.

    Returns:
        One ratio for each array that `angles` names, and `"concatenated"` over all arrays, biases included; infinite
        where the reference alone is zero, not a number where both are.

    Raises:
        ValueError: If the structures differ.

    Example:
        >>> import jax.numpy as jnp
        >>> one = jnp.ones((1, 1))
        >>> found = norm_ratios({"first": 0.04 * one, "last": one}, {"first": one, "last": one})
        >>> {name: round(float(ratio), 3) for name, ratio in found.items()}  # the last: sqrt((0.04**2 + 1) / 2)
        {"['first']": 0.04, "['last']": 1.0, 'concatenated': 0.708}
    """
    ours, theirs = _alike(update, reference)
    other = matrices(theirs)
    found = {name: norm(matrix) / norm(other[name]) for name, matrix in matrices(ours).items()}
    return found | {CONCATENATED: norm(whole(ours)) / norm(whole(theirs))}


def _alike(update: PyTree, reference: PyTree) -> tuple[PyTree, PyTree]:
    """The floating-point arrays of two updates of one model."""
    ours, theirs = (eqx.filter(tree, eqx.is_inexact_array) for tree in (update, reference))
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        raise ValueError(
            "expected two updates of the same structure, got different ones; compare gradients of one model"
        )
    return ours, theirs
