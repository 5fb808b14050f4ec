"""Credit: the value that each vertex holds and the error that it carries; and the one local product.

A rule ends with a `Credit`. What follows is the same for all of them: the derivative of each vertex's own
prediction with respect to its parameters, times its error, at the values of the vertices just below.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from vicinal._masking import NORMS_UNKNOWN, Unknown
from vicinal.graph import Graph, Values


class Info(eqx.Module):
    """What you may want to look at after an update; nothing here is carried on.

    Attributes:
        output: The feedforward output, `[batch, ...]`.
        result: A `vicinal.inference.Result` code per example, `[batch]`; None if the rule settles nothing.
        steps: Inference steps taken, `[batch]`.
        energies: Energy of each vertex, and `"output"`, when inference stopped, `[batch]` each.
        trace: The same before each step and after the last, `[steps + 1, batch]`; None unless asked for.
    """

    output: PyTree
    result: Int[Array, " batch"] | None = None
    steps: Int[Array, " batch"] | None = None
    energies: dict[str, Float[Array, " batch"]] | None = None
    trace: dict[str, Float[Array, "time batch"]] | None = None


class Credit(eqx.Module):
    """How a rule assigns credit.

    Attributes:
        loss: The loss of the feedforward output, `[batch]`.
        values: What each vertex holds, `[batch, ...]`.
        errors: Where each vertex's prediction should go, `[batch, ...]`: an error points from the prediction to
            the target.
        output_error: The same for the output.
        info: What else the rule saw.
    """

    loss: Float[Array, " batch"]
    values: Values
    errors: Values
    output_error: PyTree
    info: Info


def local_gradient(graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> PyTree:
    """The gradient of every parameter from what the two ends of its synapses hold.

    For each node (vertex or output) with prediction `p(theta, values just below)` this is `-(dp/dtheta)^T error`,
    the mean over the batch. Local products of a parameter that serves several predictions add.

    Args:
        graph: The captured graph.
        model: The model.
        credit: Values and errors.
        x: The batch of inputs, `[batch, ...]`.

    Returns:
        A tree like `graph.trainable(model)`: a gradient (for optax, which subtracts) in place of each parameter, and
        None elsewhere.
    """
    parameters, rest = graph.partition(model)
    if not jax.tree.leaves(parameters):
        raise ValueError(
            "expected a model with parameters, got one without floating-point arrays; bind a function's parameters "
            "with jax.tree_util.Partial(function, parameters)"
        )

    def predict(parameters: PyTree) -> Any:
        return graph.predict(eqx.combine(parameters, rest), credit.values, x)

    _, product = jax.vjp(predict, parameters)
    (ascent,) = product((credit.output_error, credit.errors))
    return batch_mean(ascent, credit.loss.shape[0])


def batch_mean(ascent: PyTree, batch: int) -> PyTree:
    """The gradient, a mean over the batch, from the sum of the directions in which the energy falls."""
    return jax.tree.map(lambda g: -g / jnp.asarray(batch, g.dtype), ascent)


def presynaptic_norms(graph: Graph, model: PyTree, values: Values, x: PyTree) -> PyTree:
    """The mean squared norm of what enters the product of each parameter, when the vertices hold `values`.

    Returns:
        A tree like the gradient, with a scalar for each weight and its bias (see `Graph.presynaptic`), and None for
        a parameter that multiplies no activity. Where vertices have masks the norms are not known: in their place is
        what says why, to the optimiser that needs them.
    """
    if graph.masked:
        return jax.tree.map(lambda _: Unknown(NORMS_UNKNOWN), graph.trainable(model))
    norms = {path: jnp.mean(square) for path, square in graph.presynaptic(model, values, x).items()}
    flat, structure = jax.tree_util.tree_flatten_with_path(graph.trainable(model))
    return jax.tree.unflatten(structure, [norms.get(jax.tree_util.keystr(path)) for path, _ in flat])
