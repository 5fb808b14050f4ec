"""The proximal step: its objective, its residual, and its exact solution over activities for one example."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from vicinal._minimise import minimise
from vicinal._numbers import check
from vicinal.credit import Credit, Info, local_gradient
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss


def proximal_objective(
    graph: Graph, model: PyTree, update: PyTree, x: PyTree, y: PyTree, *, loss: Loss, learning_rate: ArrayLike
) -> Float[Array, ""]:
    """The objective that implicit SGD minimises, after an update: `loss(theta + u) + ||u||^2 / (2 alpha)`.

    Args:
        graph: The captured graph.
        model: The model before the update.
        update: The change of its parameters, with the structure of a gradient.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example; the objective takes the mean over the batch.
        learning_rate: `alpha`.

    Returns:
        The objective; lower is a better proximal step.

    Raises:
        ValueError: If the learning rate is not above 0, or not finite.
    """
    check("the learning rate", learning_rate, lambda v: v > 0, "above 0")
    output, _ = graph.feedforward(eqx.apply_updates(model, update), x)
    mean = jnp.mean(jax.vmap(loss)(output, y))
    square = sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(update))
    return mean + square / (2 * jnp.asarray(learning_rate).astype(mean.dtype))


def proximal_residual(
    graph: Graph, model: PyTree, after: PyTree, x: PyTree, y: PyTree, *, loss: Loss, learning_rate: ArrayLike
) -> Float[Array, ""]:
    """How far a step is from implicit SGD: `||theta+ - theta_b + alpha * grad loss(theta+)||`, zero at the optimum.

    Args:
        graph: The captured graph.
        model: The model before the step.
        after: The model after it.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example.
        learning_rate: `alpha`.

    Returns:
        The norm, over all parameters.

    Raises:
        ValueError: If the learning rate is below 0, or not finite.
    """
    check("the learning rate", learning_rate, lambda v: v >= 0, "of at least 0")
    parameters, rest = graph.partition(after)

    def mean_loss(parameters: PyTree) -> Array:
        output, _ = graph.feedforward(eqx.combine(parameters, rest), x)
        return jnp.mean(jax.vmap(loss)(output, y))

    slope = jax.grad(mean_loss)(parameters)
    kept = [parameters, graph.trainable(model)]
    residual = jax.tree.map(
        lambda new, old, g: new - old + jnp.asarray(learning_rate).astype(g.dtype) * g, *kept, slope
    )
    return jnp.linalg.norm(jax.flatten_util.ravel_pytree(residual)[0])


def proximal_activities(
    graph: Graph,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    *,
    loss: Loss,
    learning_rate: ArrayLike,
    steps: int = 2000,
    tolerance: float = 1e-12,
) -> tuple[Values, Array, PyTree]:
    """Implicit SGD for one example, solved over activities instead of parameters.

        min over values and output of   loss(output, y) + 1/(2 alpha) sum over nodes of ||value - prediction||^2 / n

    where `n` is the squared norm of the node's presynaptic activity, plus 1 for a bias. The normalised step (rate 1) to
    the minimiser is exactly the proximal step: the smallest change of the weights that makes a node's prediction `v`
    has the squared norm `||v - prediction||^2 / n`. After the step, the feedforward pass reproduces the minimiser.

    The model must be linear in the parameters of each node (vertices at potentials, `vertex_at="pre"`), and each
    parameter must be a weight or a bias that is used once. Check the result with `proximal_residual`.

    Args:
        graph: The captured graph.
        model: The model before the step.
        x: One input, as a batch of one.
        y: Its target.
        loss: Loss of one example.
        learning_rate: `alpha`.
        steps: L-BFGS iterations at most.
        tolerance: Stops when the norm of the gradient is below this (times the distance moved, if that exceeds 1).

    Returns:
        `(values, output, model)`: the activities at the minimiser, and the model after the proximal step.

    Raises:
        ValueError: If the batch is not one example, or a number is out of range.

    References:
        Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164: inference
        learning approximates this identity by omitting the derivative through the norms.
    """
    check("the learning rate", learning_rate, lambda v: v >= 0, "of at least 0")
    check("the tolerance", tolerance, lambda v: v >= 0, "of at least 0")
    if jax.tree.leaves(x)[0].shape[0] != 1:
        raise ValueError(f"expected one example, got {jax.tree.leaves(x)[0].shape[0]}; use rules.ImplicitSGD")
    output, values = graph.feedforward(model, x)
    start, rebuild = jax.flatten_util.ravel_pytree({**values, OUTPUT: output})
    alpha = jnp.asarray(learning_rate).astype(start.dtype)
    predict = graph.clamp(model, x)

    def errors(held: dict[str, Any]) -> dict[str, Array]:
        values = {name: held[name] for name in graph.vertices}
        predicted, predictions = predict(values)
        return {name: held[name] - p for name, p in (predictions | {OUTPUT: predicted}).items()}

    def norm(node: str, held: dict[str, Any]) -> Array:
        return graph.entering(node, model, {name: held[name] for name in graph.vertices}, x)[0]

    def objective(flat: Array) -> Array:
        held = rebuild(flat)
        moved = sum(jnp.sum(jnp.square(e)) / norm(node, held) for node, e in errors(held).items())
        return alpha * loss(held[OUTPUT][0], y[0]) + 0.5 * moved

    held = rebuild(minimise(objective, start, steps=steps, tolerance=tolerance)[0])
    scaled = {node: e / norm(node, held) for node, e in errors(held).items()}
    output_error = scaled.pop(OUTPUT)
    held_output = held.pop(OUTPUT)
    credit = Credit(jnp.zeros(1, start.dtype), held, scaled, output_error, Info(output))
    step = jax.tree.map(jnp.negative, local_gradient(graph, model, credit, x))
    return held, held_output, eqx.apply_updates(model, step)
