"""The prediction-error energy of a vertex: a Gaussian around its prediction, with a precision.

Energies are summed over units and given per example, so that inference never depends on the batch size.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vicinal._numbers import check, number
from vicinal.graph import Graph, Values

Precision = ArrayLike | dict[str, ArrayLike] | None
"""One over the variance: one number for all vertices, or one (a number, or an array per unit) for each by name.
A vertex that is not named, and `None`, mean 1."""


def converted(precision: Precision) -> Precision:
    """A precision with its numbers as arrays.

    Raises:
        ValueError: If one is negative.
    """
    precision = jax.tree.map(number, precision)
    for value in jax.tree.leaves(precision):
        check("precision", value, lambda v: v >= 0, "of at least 0")
    return precision


def check_precision(precision: Precision, graph: Graph) -> None:
    """Raises ValueError if a precision names no vertex of the graph."""
    unknown = set(precision) - set(graph.vertices) if isinstance(precision, dict) else set()
    if unknown:
        raise ValueError(f"expected precisions for vertices of {graph!r}, got one for {sorted(unknown)[0]!r}")


def precision_of(precision: Precision, name: str, like: Array) -> Array | None:
    """The precision of one vertex in the dtype of `like`, or None if it is 1 by omission."""
    chosen = precision.get(name) if isinstance(precision, dict) else precision
    return None if chosen is None else jnp.asarray(chosen).astype(like.dtype)


def weighted_error(
    value: Float[Array, "batch ..."], prediction: Float[Array, "batch ..."], precision: Array | None = None
) -> Float[Array, "batch ..."]:
    """The error a vertex carries: `precision * (value - prediction)`, minus the energy's slope in the prediction."""
    error = value - prediction
    if precision is None:
        return error
    return error * jnp.broadcast_to(precision, error.shape)


def weighted_errors(values: Values, predictions: Values, precision: Precision) -> Values:
    """`weighted_error` of every vertex, by name."""
    return {
        name: weighted_error(value, predictions[name], precision_of(precision, name, value))
        for name, value in values.items()
    }


def gaussian(
    value: Float[Array, "batch ..."], prediction: Float[Array, "batch ..."], precision: Array | None = None
) -> Float[Array, " batch"]:
    """The energy `1/2 * precision * (value - prediction)^2`, summed over units.

    Args:
        value: What the vertex holds, `[batch, ...]`.
        prediction: What is predicted for it, the same shape.
        precision: A scalar, or one per unit (the shape of one example's value); 1 if None.

    Returns:
        One energy per example, `[batch]`.

    Example:
        >>> gaussian(jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 1.0]]), jnp.array([2.0, 4.0])).tolist()
        [6.0]
    """
    product = 0.5 * (value - prediction) * weighted_error(value, prediction, precision)
    return jnp.sum(product.reshape(product.shape[0], -1), axis=1)
