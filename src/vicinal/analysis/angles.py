"""Angles and norm ratios of two updates."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import matrices, norm, whole

CONCATENATED = "concatenated"
"""The key of numbers about the whole update, with all parameters in one vector."""


def angle(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    """The angle between two arrays as vectors, in degrees; NaN if one is zero.

    Computed as `2 atan2(|a/|a| - b/|b||, |a/|a| + b/|b||)`, which is accurate for small angles; the arc cosine is not.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(angle(jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0]))), 4)
        45.0
    """
    a, b = a.reshape(-1), b.reshape(-1)
    a, b = a / jnp.max(jnp.abs(a)), b / jnp.max(jnp.abs(b))  # otherwise the squares of small numbers underflow
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    return jnp.rad2deg(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))


def angles(update: PyTree, reference: PyTree) -> dict[str, Float[Array, ""]]:
    r"""The angles between an update and a reference, for each weight matrix and for the whole; in degrees.

    Matrices and whole can disagree. Let $a_l$ and $b_l$ be the norms of the arrays and $\theta_l$ the angles between
    them. The angle of the whole is $\cos\theta = \sum_l a_l b_l \cos\theta_l / (|a| |b|)$: it weights each array by
    its norm. Inference learning makes the updates of early layers small, so that each matrix may point along
    backpropagation's while the whole does not. Read the layers first, together with `norm_ratios`.

    Args:
        update: A gradient or an update, with the model's structure.
        reference: The same structure.

    Returns:
        One angle for each array of at least two axes that is not a bias, by its path (`layers[0].weight`), then
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
    """The norms of an update divided by those of a reference, for each weight matrix and for the whole.

    Args:
        update: A gradient or an update, with the model's structure.
        reference: The same structure.

    Returns:
        One ratio for each array that `angles` names, and `"concatenated"` over all arrays, biases included; infinite
        where only the reference is zero, NaN where both are.

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
