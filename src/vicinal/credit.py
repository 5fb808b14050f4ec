"""Credit, the value and the error of each vertex; and the local product.

A rule returns a `Credit`. The gradient follows in the same way for all rules: the derivative of the prediction of each
vertex with respect to its parameters, times the error of the vertex, at the values of the vertices just below.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vicinal._masking import NORMS_UNKNOWN, Unknown
from vicinal._numbers import is_half, widened
from vicinal.events import Events
from vicinal.graph import Graph, Values


class Info(eqx.Module):
    """Records of an update, to look at; none of them enters the next update.

    Attributes:
        output: The feedforward output, `[batch, ...]`.
        result: A `vicinal.inference.Result` code per example, `[batch]`; None if the rule settles nothing.
        steps: Inference steps taken, `[batch]`.
        energies: Energy of each vertex, and of `"output"`, at the end of inference, `[batch]` each.
        trace: The energies before each step and after the last, `[steps + 1, batch]`; None unless asked for.
        events: The numbers of events; None if units send no events.
    """

    output: PyTree
    result: Int[Array, " batch"] | None = None
    steps: Int[Array, " batch"] | None = None
    energies: dict[str, Float[Array, " batch"]] | None = None
    trace: dict[str, Float[Array, "time batch"]] | None = None
    events: Events | None = None


class Credit(eqx.Module):
    """The credit that a rule assigns.

    Attributes:
        loss: The loss of the feedforward output, `[batch]`.
        values: The value of each vertex, `[batch, ...]`.
        errors: The error of each vertex, `[batch, ...]`; it points from the prediction to the target.
        output_error: The error of the output, `[batch, ...]`.
        info: Other records.
    """

    loss: Float[Array, " batch"]
    values: Values
    errors: Values
    output_error: PyTree
    info: Info


@jax.tree_util.register_static  # without leaves, as the functions that optimisers are given
class ExampleGradients:
    """The gradient of each example of a batch, for optimisers that take them one after another.

    Args:
        graph: The captured graph.
        model: The model.
        credit: What a rule assigned to the batch.
        x: Inputs, `[batch, ...]`.

    Attributes:
        count: The number of examples.
    """

    def __init__(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree):
        self._graph, self._model, self._credit, self._x = graph, model, credit, x
        self.count = len(credit.loss)

    def __call__(self, i: Int[Array, ""]) -> PyTree:
        """Returns the gradient of example `i`; their mean is that of the batch."""
        credit = self._credit
        held, errors = (credit.values, self._x), (credit.output_error, credit.errors)
        one = jax.tree.map(lambda leaf: _rows_of(leaf, jnp.reshape(i, (1,)), self.count), (held, errors))
        return mean_products(self._graph, self._model, *one)

    def uses(self, path: str) -> int:
        """Returns how often a weight multiplies an activity."""
        return sum(synapse.weight == path for synapse in self._graph.synapses())


def local_gradient(graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> PyTree:
    """Computes the gradient of every parameter from the two ends of its synapses.

    For each node (vertex or output) with prediction `p(theta, values just below)` it is `-(dp/dtheta)^T error`, the
    mean over the batch. The local products of a parameter in several predictions add up.

    Args:
        graph: The captured graph.
        model: The model.
        credit: Values and errors.
        x: A batch of inputs, `[batch, ...]`.

    Returns:
        A tree like `graph.trainable(model)` of gradients (optax subtracts them), with None for other arrays.

    Raises:
        ValueError: If the model has no parameters.
    """
    parameters, _ = graph.partition(model)
    if not jax.tree.leaves(parameters):
        raise ValueError(
            "expected a model with parameters, got one without floating-point arrays; bind a function's parameters "
            "with jax.tree_util.Partial(function, parameters)"
        )

    return mean_products(graph, model, (credit.values, x), (credit.output_error, credit.errors))


_TOGETHER = 256  # number of examples summed in half precision; these sums are added in float32


def mean_products(graph: Graph, model: PyTree, held: tuple[Values, PyTree], errors: tuple[PyTree, Values]) -> PyTree:
    """Computes `local_gradient` from `held`, `(values, x)`, and `errors`, of output and vertices.

    In half precision a sum over many examples overflows or stops growing, so large batches are taken in pieces.
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
    """Whether a sum over the batch is taken in pieces; models with statistics of the batch do not allow it."""
    return batch > _TOGETHER and is_half(errors) and graph.program.statistics is None


def _rows_of(error: Array, rows: Array, batch: int) -> Array | np.ndarray:
    """Selects rows of an error; rows beyond the batch are 0."""
    if error.dtype == jax.dtypes.float0:  # the error of an integer output
        return np.zeros((len(rows), *error.shape[1:]), error.dtype)
    counts = (rows < batch).reshape(-1, *(1,) * (error.ndim - 1))
    return jnp.where(counts, error[rows % batch], jnp.zeros((), error.dtype))


def batch_mean(ascent: PyTree, batch: int) -> PyTree:
    """Converts a sum of ascent directions over the batch to a gradient, the mean with the opposite sign."""

    def mean(g: Array) -> Array:
        wide = widened(g)  # half precision cannot represent every batch size
        return (-wide / jnp.asarray(batch, wide.dtype)).astype(g.dtype)

    return jax.tree.map(mean, ascent)


def presynaptic_norms(graph: Graph, model: PyTree, values: Values, x: PyTree) -> PyTree:
    """Computes the mean squared norm of the input of each parameter, when the vertices hold `values`.

    Args:
        graph: The captured graph.
        model: The model.
        values: The value of every vertex, `[batch, ...]`.
        x: A batch of inputs, `[batch, ...]`.

    Returns:
        A tree like the gradient, with a scalar for each weight and its bias (see `Graph.presynaptic`), and None for
        a parameter that multiplies no activity. If vertices have masks, the norms are unknown; each is then an object
        with the reason, for optimisers that need them.
    """
    if graph.masked:
        return jax.tree.map(lambda _: Unknown(NORMS_UNKNOWN), graph.trainable(model))
    norms = {path: jnp.mean(square) for path, square in graph.presynaptic(model, values, x).items()}
    flat, structure = jax.tree_util.tree_flatten_with_path(graph.trainable(model))
    return jax.tree.unflatten(structure, [norms.get(jax.tree_util.keystr(path)) for path, _ in flat])
