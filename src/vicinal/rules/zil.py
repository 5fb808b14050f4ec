"""Zero-divergence inference learning: each weight learns when the wave of errors reaches it."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from vicinal._numbers import check, number
from vicinal.credit import Credit, Info
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules.base import Rule, State


class ZIL(Rule):
    """Zero-divergence inference learning (Z-IL): a schedule that makes inference learning equal backpropagation.

        t = 0                 feedforward values, so that only the output has an error; the output layer learns
        t = 1, 2, ...         every vertex at distance t from the output moves by  step_size * (sum of J_c^T error_c),
                              which becomes its error; the weights of its prediction learn at this step alone

    The wave of errors travels down one vertex per step. Where it arrives, everything below still holds its feedforward
    value, so predictions and Jacobians are those of the forward pass without being stored, and with a step size of 1
    the update of each weight is the gradient. Vertices above the wave no longer matter, as their weights have learned.
    The whole schedule is therefore one pass down the graph, at the cost of backpropagation.

    The distance is the length of the longest path to the output. An error on a shorter path waits for the others (with
    a step size of 1, as if identity vertices were inserted), which extends the schedule from chains to any graph.

    Args:
        step_size: Step size of the activities. 1 is exact; `g` scales an error by `g` at each vertex on its path.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        ValueError: If the step size is negative.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model, x, y = vc.nn.MLP((3, 4, 4, 2), key=jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph = vc.capture(model, x[0])
        >>> _, gradient, _, info = vc.rules.ZIL().value_and_grad(graph, model, (), x, y)
        >>> int(info.steps[0])  # two hidden vertices
        2

    References:
        Song, Lukasiewicz, Xu and Bogacz, Can the brain do backpropagation? Exact implementation of backpropagation in
        predictive coding networks, NeurIPS 2020. Salvatori, Song, Lukasiewicz, Bogacz and Xu, Predictive coding can
        do exact backpropagation on convolutional and recurrent neural networks, 2021, arXiv 2103.03725.
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True

    step_size: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        check_loss(self.loss)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        errors: Values = {}

        def arrive(name: str, carried: Array) -> Array:
            errors[name] = self.step_size.astype(carried.dtype) * carried
            return errors[name]

        clamped = graph.clamp(model, x)
        clamped.linearize(values).sweep(output_error, arrive)
        info = Info(output, steps=_last(graph, clamped.masks, loss.shape[0]))
        return Credit(loss, values, {name: errors[name] for name in values}, output_error, info), state


def _last(graph: Graph, masks: dict[str, Array], batch: int) -> Int[Array, " batch"]:
    """Finds the step at which the wave reaches its last vertex, `[batch]`; vertices masked as a whole do not count."""
    if not masks:
        return jnp.full(batch, max(distances(graph).values()), jnp.int32)
    found = {OUTPUT: jnp.zeros(batch, jnp.int32)}
    for name in reversed(graph.vertices):
        own = jnp.any(masks[name].reshape(batch, -1), axis=1).astype(jnp.int32) if name in masks else jnp.int32(1)
        found[name] = own + jnp.max(jnp.stack([found[child] for child in graph.children[name]]), axis=0)
    return jnp.max(jnp.stack(list(found.values())), axis=0)


def distances(graph: Graph) -> dict[str, int]:
    """Finds the longest path from each node to the output, in edges: the step of the wave at which it learns."""
    found = {OUTPUT: 0}
    for name in reversed(graph.vertices):
        found[name] = 1 + max(found[child] for child in graph.children[name])
    return found
