"""Whether an update moves the output towards its target, or down its loss."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import norm, output_change, rows
from vicinal.graph import Graph
from vicinal.losses import Loss, loss_and_error


def target_alignment(graph: Graph, model: PyTree, update: PyTree, x: PyTree, y: PyTree) -> Float[Array, " batch"]:
    """Whether the output moves towards its target.

        cos( h_L(theta + u) - h_L(theta),  y - h_L(theta) )        for each example

    1 if the output moves straight towards its target.

    Args:
        graph: The captured graph.
        model: The model before the update.
        update: The change of its parameters, with the structure of a gradient.
        x: Inputs, `[batch, ...]`.
        y: Targets of the output's shape, `[batch, ...]`.

    Returns:
        One cosine per example, `[batch]`; NaN if the output does not move or equals its target.

    Raises:
        ValueError: If the targets do not have the output's shape, or the update does not have the model's structure.

    Example:
        >>> import jax, vicinal as vc
        >>> model = jax.tree.map(jnp.zeros_like, vc.nn.Linear(1, 2, use_bias=False, key=jax.random.key(0)))
        >>> x, y, step = jnp.ones((1, 1)), jnp.array([[1.0, 0.0]]), jax.tree.map(jnp.ones_like, model)
        >>> round(float(target_alignment(vc.capture(model, x[0]), model, step, x, y)[0]), 4)  # 45 degrees
        0.7071

    References:
        Song et al., Inferring neural activity before plasticity as a foundation for learning beyond backpropagation,
        Nature Neuroscience 27, 2024 (target alignment).
    """
    output, _ = graph.feedforward(model, x)
    wanted, got = (
        (jax.tree.structure(tree), [jnp.shape(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (output, y)
    )
    if wanted != got:
        shapes = [[list(shape) for shape in side[1]] for side in (wanted, got)]
        raise ValueError(
            f"expected targets of the output's structure and shapes {shapes[0]}, got {shapes[1]}; "
            "use descent_alignment, which takes the targets of any loss"
        )
    towards = jax.tree.map(lambda h, target: target.astype(h.dtype) - h, output, y)
    return _cosines(output_change(graph, model, update, x), rows(towards))


def descent_alignment(
    graph: Graph, model: PyTree, update: PyTree, x: PyTree, y: PyTree, *, loss: Loss
) -> Float[Array, " batch"]:
    """Whether the output moves along the steepest descent of its loss.

        cos( h_L(theta + u) - h_L(theta),  -dLoss/dh_L )        for each example

    To first order, steepest descent is the smallest change of the output for a given decrease of the loss. With squared
    error this is `target_alignment`. Targets may be anything that the loss takes, such as class indices.

    Args:
        graph: The captured graph.
        model: The model before the update.
        update: The change of its parameters, with the structure of a gradient.
        x: Inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example.

    Returns:
        One cosine per example, `[batch]`; NaN if the output does not move or the gradient of its loss is zero.

    Raises:
        ValueError: If the update does not have the model's structure.

    Example:
        >>> import equinox as eqx, jax, vicinal as vc
        >>> model = jax.tree.map(jnp.zeros_like, vc.nn.Linear(1, 2, use_bias=False, key=jax.random.key(0)))
        >>> x, step = jnp.ones((1, 1)), eqx.tree_at(lambda m: m.weight, model, jnp.array([[1.0], [0.0]]))
        >>> found = descent_alignment(
        ...     vc.capture(model, x[0]), model, step, x, jnp.array([0]), loss=vc.losses.softmax_cross_entropy
        ... )
        >>> round(float(found[0]), 4)  # the steepest descent also lowers the other logit
        0.7071

    References:
        Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164.
    """
    output, _ = graph.feedforward(model, x)
    _, descent = loss_and_error(loss, output, y)
    return _cosines(output_change(graph, model, update, x), rows(descent))


def _cosines(a: Float[Array, "batch n"], b: Float[Array, "batch n"]) -> Float[Array, " batch"]:
    a, b = (side / jax.vmap(norm)(side).astype(side.dtype)[:, None] for side in (a, b))
    return jnp.clip(jnp.sum(a * b, axis=1), -1.0, 1.0)
