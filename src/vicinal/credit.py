"""Credit: the value that each vertex holds and the error that it carries; and the one local product.

A rule ends with a `Credit`. What follows is the same for all of them: the derivative of each vertex's own
prediction with respect to its parameters, times its error, at the values of the vertices just below.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vicinal._masking import NORMS_UNKNOWN, Unknown
from vicinal._numbers import is_half, widened
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
    parameters, _ = graph.partition(model)
    if not jax.tree.leaves(parameters):
        raise ValueError(
            "expected a model with parameters, got one without floating-point arrays; bind a function's parameters "
            "with jax.tree_util.Partial(function, parameters)"
        )

    return mean_products(graph, model, (credit.values, x), (credit.output_error, credit.errors))


_TOGETHER = 256  # examples whose products are added in half precision; such sums are added in float32


def mean_products(graph: Graph, model: PyTree, held: tuple[Values, PyTree], errors: tuple[PyTree, Values]) -> PyTree:
    """`local_gradient` from what is held, `(values, x)`, and the errors of output and vertices.

    In half precision a sum over many examples overflows, or stands still; so the batch is taken in pieces.
    """
    parameters, rest = graph.partition(model)

    def products(held: tuple[Values, PyTree], errors: tuple[PyTree, Values]) -> PyTree:
        _, product = jax.vjp(lambda p: graph.predict(eqx.combine(p, rest), *held), parameters)
        return product(errors)[0]

    batch = jax.tree.leaves(held[1])[0].shape[0]
    if not in_pieces(graph, errors, batch):
        return batch_mean(products(held, errors), batch)

    def add(total: PyTree, rows: Array) -> tuple[PyTree, None]:
        part = jax.tree.map(lambda leaf: leaf[rows % batch], held)
        some = products(part, jax.tree.map(lambda error: _rows_of(error, rows, batch), errors))
        return jax.tree.map(lambda t, s: t + s.astype(t.dtype), total, some), None

    pieces = jnp.arange(-(-batch // _TOGETHER) * _TOGETHER).reshape(-1, _TOGETHER)
    start = jax.tree.map(lambda p: jnp.zeros(p.shape, widened(p).dtype), parameters)
    total, _ = jax.lax.scan(add, start, pieces)
    return jax.tree.map(lambda t, p: (-t / jnp.asarray(batch, t.dtype)).astype(p.dtype), total, parameters)


def in_pieces(graph: Graph, errors: PyTree, batch: int) -> bool:
    """Whether a sum over the batch needs pieces. What takes statistics of the batch cannot be taken in any."""
    return batch > _TOGETHER and is_half(errors) and graph.program.statistics is None


def _rows_of(error: Array, rows: Array, batch: int) -> Array | np.ndarray:
    """Some rows of an error, 0 beyond the batch."""
    if error.dtype == jax.dtypes.float0:  # of an integer in the output
        return np.zeros((len(rows), *error.shape[1:]), error.dtype)
    counts = (rows < batch).reshape(-1, *(1,) * (error.ndim - 1))
    return jnp.where(counts, error[rows % batch], jnp.zeros((), error.dtype))


def batch_mean(ascent: PyTree, batch: int) -> PyTree:
    """The gradient, a mean over the batch, from the sum of the directions in which the energy falls."""

    def mean(g: Array) -> Array:
        wide = widened(g)  # half precision does not know every number of examples
        return (-wide / jnp.asarray(batch, wide.dtype)).astype(g.dtype)

    return jax.tree.map(mean, ascent)


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
