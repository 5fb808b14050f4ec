"""How much of an update is gradient, how much is curvature, and how much is neither."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import check_structure, matrices, mean_loss, norm, whole
from vicinal.analysis.angles import CONCATENATED
from vicinal.graph import Graph
from vicinal.losses import Loss


class Sensitivity(eqx.Module):
    """The shares of an update's squared norm; they add up to 1, and are not numbers for an update of zero.

    Attributes:
        gradient: What the gradient explains: the squared cosine between update and gradient.
        curvature: What the Hessian times the gradient explains beyond.
        rest: What neither does.
    """

    gradient: Float[Array, ""]
    curvature: Float[Array, ""]
    rest: Float[Array, ""]


def second_order_sensitivity(
    update: PyTree, graph: Graph, model: PyTree, x: PyTree, y: PyTree, *, loss: Loss
) -> dict[str, Sensitivity]:
    """How much an update knows of the loss's curvature.

    With `g` the gradient of the mean loss and `H` its Hessian, over all parameters, the update is projected onto
    `g`, then onto what `H g` adds. Implicit SGD shows why these two:

        theta+ - theta = -alpha g + alpha^2 H g - ...        (beyond: alpha^3, with third derivatives)

    so that with a small `alpha` the share of the curvature is of order `alpha^2`, and that of the rest `alpha^4`. In
    inference learning the activities' step size has this part: as it falls to 0, each matrix learns along its
    gradient. Projections know no sign: steps along `g` and against it have the same shares.

    Args:
        update: What is added to the parameters, or a gradient: a tree like the model. Its scale does not matter.
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
        ValueError: If the update is not in a tree like the model.

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
    for _ in range(2):  # once more, for what rounding left over
        product = product - jnp.vdot(product, gradient) * gradient
    # If the product is along the gradient, what is left of it is rounding, and points anywhere.
    product = jnp.where(norm(product) > 64 * jnp.finfo(product.dtype).eps, _unit(product), jnp.zeros_like(product))
    along, beyond = jnp.vdot(update, gradient), jnp.vdot(update, product)
    left = update - along * gradient - beyond * product
    return Sensitivity(jnp.square(along), jnp.square(beyond), jnp.sum(jnp.square(left)))


def _unit(vector: Float[Array, " n"]) -> Float[Array, " n"]:
    size = norm(vector).astype(vector.dtype)
    return vector / jnp.where(size > 0, size, 1.0)
