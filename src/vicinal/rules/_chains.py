"""For rules that learn feedback from noise: the layers of a chain, and the rates and slopes of neurons."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._masking import refuse_masks
from vicinal._numbers import widened
from vicinal._synapses import reads_a_tile
from vicinal.activations import Activation, activation_function
from vicinal.graph import OUTPUT, Graph, Values

_SUMS = {"add", "reshape", "broadcast_in_dim", "squeeze", "transpose", "convert_element_type"}


@dataclasses.dataclass(frozen=True)
class Link:
    """A dense layer above a vertex, whose feedback can be learned.

    Attributes:
        node: The node that the layer predicts.
        below: The vertex that the layer reads.
        weight: Path of its weight, `[above, below]`.
        bias: Path of its bias, or None.
        shape: Shape of the weight, `(above, below)`.
    """

    node: str
    below: str
    weight: str
    bias: str | None
    shape: tuple[int, int]


def links(graph: Graph, rule: str) -> tuple[Link, ...]:
    """Finds the dense layers above vertices, from the lowest up.

    Args:
        graph: The captured graph.
        rule: The name of the rule, for messages.

    Returns:
        The layers.

    Raises:
        ValueError: If the graph is not a chain, its output not a vector, a dense layer has another form, or two of them
            share a weight.
    """
    refuse_masks(graph.masked, rule)
    nodes = (*graph.vertices, OUTPUT)
    for i, node in enumerate(nodes):
        chained = graph.parents[node] == nodes[max(i - 1, 0) : i] and (node in graph.reads_input) == (i == 0)
        if not chained:
            reads = [*graph.parents[node], *(["the input"] if node in graph.reads_input else [])]
            raise ValueError(
                f"expected a chain of layers for {rule}, each reading the one below, got {node!r} that reads "
                f"{' and '.join(reads)}; take a network without skips or recurrence"
            )
    shape = getattr(graph.shapes[OUTPUT], "shape", None)
    if shape is None or len(shape) != 1:
        raise ValueError(f"expected a vector as output for {rule}, got {graph.shapes[OUTPUT]}")
    found = [_layer(graph, node, rule) for node in nodes if len(graph.shapes[node].shape) == 1]
    above_vertices = tuple(link for link in found if link is not None)
    # Feedback replaces a weight by its path: two layers that share a weight would both get that of the upper.
    weights = [link.weight for link in above_vertices]
    for link in above_vertices:
        if weights.count(link.weight) > 1:
            raise ValueError(
                f"expected a weight of its own for each layer for {rule}, got {link.weight!r} of {link.node!r} and of "
                "another layer; give each layer a copy"
            )
    return above_vertices


def _layer(graph: Graph, node: str, rule: str) -> Link | None:
    """Finds the dense layer of a node; None if it reads the input."""
    parents, local = graph.parents[node], graph.program.prediction(node)
    spec = graph.program.spec
    held = [graph.shapes[name] for name in parents]
    jaxpr = jax.make_jaxpr(local)(graph.program.model_types, jax.tree.leaves(spec.example), held).jaxpr
    leaf = dict(zip(jaxpr.invars, spec.paths, strict=False))
    weights = [path for eqn in _products(jaxpr) if (path := _weight(eqn, leaf)) is not None]
    synapses = graph.synapses(node)
    if not weights or weights != [synapse.weight for synapse in synapses]:
        raise ValueError(
            f"expected {node!r} as weight @ rates (+ bias) for {rule}, with the vertices at potentials and weights "
            'of [out, in], got another form; take vc.nn.MLP(..., vertex_at="pre") (--model.vertex-at pre), without '
            "feedback attached to it"
        )
    shape = spec.leaf_types[spec.paths.index(weights[0])].shape
    return Link(node, parents[0], weights[0], synapses[0].bias, shape) if parents else None


def _products(jaxpr: core.Jaxpr) -> list[core.JaxprEqn | None]:
    """Finds the products whose sum is the result; None stands for a term that is not a product."""
    producer = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}
    found: list[core.JaxprEqn | None] = []
    pending: list[Any] = list(jaxpr.outvars)
    while pending:
        eqn = producer.get(pending.pop())
        if eqn is None:  # a parameter or the input
            continue
        if eqn.primitive.name in _SUMS:
            pending += [v for v in eqn.invars if not isinstance(v, core.Literal)]
        elif reads_a_tile(eqn):
            pending.append(eqn.invars[0])  # the exact product
        else:
            found.append(eqn if eqn.primitive.name == "dot_general" else None)
    return found


def _weight(eqn: core.JaxprEqn | None, leaf: Mapping[Any, str]) -> str | None:
    """Returns the path of the weight of a product `weight @ activity`; empty for another product."""
    if eqn is None:
        return ""
    contracted = eqn.params["dimension_numbers"][0]
    operands: list[Any] = eqn.invars
    for v, axes in zip(operands, contracted, strict=True):
        if v in leaf and len(v.aval.shape) == 2:
            return leaf[v] if tuple(axes) == (1,) else ""
    return ""


def drawn_below(
    chain: tuple[Link, ...], key: PRNGKeyArray, draw: Callable[[str, PRNGKeyArray], Array]
) -> tuple[PRNGKeyArray, Values]:
    """Draws an array for the vertex below each link, by `draw(vertex, key)`; returns the next key and the arrays."""
    key, *keys = jax.random.split(key, len(chain) + 1)
    return key, {link.below: draw(link.below, each) for link, each in zip(chain, keys, strict=True)}


def zeros_at(graph: Graph, batch: int, names: Iterable[str]) -> Values:
    """Zeros in the shapes of these nodes, `[batch, ...]`."""
    return {name: jnp.zeros((batch, *graph.shapes[name].shape), graph.shapes[name].dtype) for name in names}


def leaves_by_path(model: PyTree) -> dict[str, Array]:
    """Returns the leaves of the model by their paths, as in `Link`."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(model)[0]}


def with_weights(model: PyTree, weights: Mapping[str, Array]) -> PyTree:
    """Replaces the arrays of the model at these paths."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: weights.get(jax.tree_util.keystr(path), leaf), model)


def rates_and_slopes(
    graph: Graph, model: PyTree, values: Values, x: PyTree, output: Activation = "identity"
) -> tuple[Values, Values]:
    """Computes the rate and the slope of each vertex, by the activation that it goes into; without one it is linear.

    Args:
        graph: The captured graph.
        model: The model.
        values: The value of each vertex, and of the output if its rate is wanted, `[batch, ...]`.
        x: Inputs, `[batch, ...]`.
        output: The activation of the output's cells.

    Returns:
        `(rates, slopes)`, by the names of `values`.
    """
    leaves, inputs = graph.entered(model, x)
    names, part = graph.program.activations
    run = jax.vmap(part, in_axes=(None, 0, 0))
    rates, back = jax.vjp(lambda held: run(leaves, inputs, held), [values[name] for name in names])
    (slopes,) = back([jnp.ones_like(rate) for rate in rates])
    found = dict(zip(names, zip(rates, slopes, strict=True), strict=True))
    if OUTPUT in values:
        fired, back = jax.vjp(activation_function(output), values[OUTPUT])
        found[OUTPUT] = fired, back(jnp.ones_like(fired))[0]
    linear = {name: jnp.ones_like(value) for name, value in values.items()}
    return values | {n: r for n, (r, _) in found.items()}, linear | {n: s for n, (_, s) in found.items()}


def arriving(graph: Graph, model: PyTree, link: Link, values: Values, noise: Array, x: PyTree) -> Array:
    """Carries the noise of the vertex below to the input of the layer, `[batch, below]`.

    Where pooling lies between the two, the noise goes through its derivative.
    """
    if math.prod(noise.shape[1:]) == link.shape[1]:
        return noise.reshape(noise.shape[0], -1)
    leaves, inputs = graph.entered(model, x)
    _, part = graph.program.synapses(link.node)

    def entering(value: Array) -> Array:
        held = graph.program.ordered(values | {link.below: value})
        return jax.vmap(part, in_axes=(None, 0, 0))(leaves, inputs, held)[0]

    return jax.jvp(entering, (values[link.below],), (noise,))[1]


def mean_outer(above: Float[Array, "batch above"], below: Float[Array, "batch below"]) -> Float[Array, "above below"]:
    """Computes the batch mean of `above below^T`."""
    wide = widened(above[:1]).dtype  # sum over the batch in float32 at least
    mean = jnp.dot(above.T, below, preferred_element_type=wide) / jnp.asarray(above.shape[0], wide)
    return mean.astype(above.dtype)
