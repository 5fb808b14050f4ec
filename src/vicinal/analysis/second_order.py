"""The shares of an update along the gradient, along the curvature, and along neither."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import check_structure, matrices, mean_loss, norm, whole
from vicinal.analysis.angles import CONCATENATED
from vicinal.graph import Graph
from vicinal.losses import Loss


class Sensitivity(eqx.Module):
    """The shares of an update's squared norm; they sum to 1, and are NaN for a zero update.

    Attributes:
        gradient: The share along the gradient: the squared cosine between update and gradient.
        curvature: The share along the part of the Hessian times the gradient that is orthogonal to the gradient.
        rest: The remaining share.
    """

    gradient: Float[Array, ""]
    curvature: Float[Array, ""]
    rest: Float[Array, ""]


def second_order_sensitivity(
    update: PyTree, graph: Graph, model: PyTree, x: PyTree, y: PyTree, *, loss: Loss
) -> dict[str, Sensitivity]:
    """Measures how much an update follows the loss's curvature.

    Let `g` be the gradient of the mean loss and `H` its Hessian, over all parameters. The update is projected onto `g`,
    then onto the part of `H g` orthogonal to `g`. Implicit SGD shows why:

        theta+ - theta = -alpha g + alpha^2 H g - ...        (then alpha^3, with third derivatives)

    For small `alpha` the share of the curvature is of order `alpha^2`, and that of the rest `alpha^4`. In inference
    learning the activities' step size plays the role of `alpha`: as it falls to 0, each matrix learns along its
    gradient. Projections ignore the sign: steps along `g` and against it have the same shares.

    Args:
        update: An update or a gradient, with the model's structure. Its scale does not matter.
        graph: The captured graph.
        model: The model before the update.
        x: The batch of inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example.

    Returns:
        The shares for each array of at least two axes that is no bias, by its path, projected onto that matrix's
        own parts of `g` and `H g`; then `"concatenated"`, over all arrays, biases included. The matrices scale on
        their own, so that each may be explained where their concatenation is not.

    Raises:
        ValueError: If the update does not have the model's structure.

    Example:
        >>> import optax, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph, x, y = vc.capture(model, jnp.ones(3)), jnp.ones((1, 3)), jnp.zeros(1, int)
        >>> _, gradient, _, _ = vc.rules.Backprop().value_and_grad(graph, model, (), x, y)
        >>> loss = vc.losses.softmax_cross_entropy
        >>> found = second_order_sensitivity(gradient, graph, model, x, y, loss=loss)["concatenated"]
        >>> round(float(found.gradient), 4), round(float(found.rest), 4)
        (1.0, 0.0)

    References:
        Alonso, Krichmar and Neftci, Understanding and improving optimization in predictive coding networks,
        AAAI 2024, arXiv 2305.13562 (inference learning is sensitive to second and higher orders).
    """
    check_structure(graph, model, update)
    trees = (update, *_gradient_and_product(graph, model, x, y, loss))
    parts = [matrices(tree) | {CONCATENATED: whole(tree)} for tree in trees]
    return {name: _shares(*(part[name].reshape(-1) for part in parts)) for name in parts[0]}


@eqx.filter_jit
def _gradient_and_product(graph: Graph, model: PyTree, x: PyTree, y: PyTree, loss: Loss) -> tuple[PyTree, PyTree]:
    """The gradient of the mean loss, and the Hessian times it."""
    parameters, rest = graph.partition(model)
    slope = jax.grad(lambda parameters: mean_loss(graph, eqx.combine(parameters, rest), x, y, loss))
    gradient = slope(parameters)
    return gradient, jax.jvp(slope, (parameters,), (gradient,))[1]


@jax.jit
def _shares(update: Float[Array, " n"], gradient: Float[Array, " n"], product: Float[Array, " n"]) -> Sensitivity:
    """Gram-Schmidt on unit vectors; a vector of zeros explains nothing."""
    update = update / norm(update).astype(update.dtype)
    gradient, product = _unit(gradient), _unit(product)
    for _ in range(2):  # the second pass removes the rounding error of the first
        product = product - jnp.vdot(product, gradient) * gradient
    # If the product is parallel to the gradient, only rounding is left, in an arbitrary direction.
    product = jnp.where(norm(product) > 64 * jnp.finfo(product.dtype).eps, _unit(product), jnp.zeros_like(product))
    along, beyond = jnp.vdot(update, gradient), jnp.vdot(update, product)
    left = update - along * gradient - beyond * product
    return Sensitivity(jnp.square(along), jnp.square(beyond), jnp.sum(jnp.square(left)))


def _unit(vector: Float[Array, " n"]) -> Float[Array, " n"]:
    size = norm(vector).astype(vector.dtype)
    return vector / jnp.where(size > 0, size, 1.0)
