"""Under `DynamicInversion`: a chain of vertices, the dense layers between them, and the loops that invert these."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._masking import refuse_masks
from vicinal.graph import OUTPUT, Graph, Values


@dataclasses.dataclass(frozen=True)
class Link:
    """A dense layer between a vertex and its child: `prediction = above(W below(value))`.

    Attributes:
        vertex: The vertex.
        child: Its child.
        below: `(model, x, values) -> activity`: what the vertex's value becomes before it meets the weight.
        product: `(model, x, activity) -> W activity`.
        above: `(model, x, product) -> prediction`.
        entering: Units that enter the product.
        leaving: Units that it has.
        dtype: Of the activity.
    """

    vertex: str
    child: str
    below: Callable
    product: Callable
    above: Callable
    entering: int
    leaving: int
    dtype: jnp.dtype


Loop = tuple[Link, ...]
"""The links that one controller inverts, from the upper to the lower; it is named by the lowest vertex."""


def name_of(loop: Loop) -> str:
    """The vertex by whose name the loop's feedback is held."""
    return loop[-1].vertex


@functools.lru_cache(maxsize=64)
def loops(graph: Graph, single: bool) -> tuple[Loop, ...]:
    """The loops of a chain, from the output down.

    Args:
        graph: The captured graph.
        single: Whether links that follow each other make one loop; else each has its own.

    Raises:
        ValueError: If the graph is no chain, or has no dense layer above a vertex.
    """
    refuse_masks(graph.masked, "dynamic inversion")
    for name in graph.vertices:
        nodes = graph.children[name]
        alone = len(nodes) == 1 and len(graph.parents[nodes[0]]) == 1
        if not alone or len(graph.program.split(nodes[0]) or ()) != 1:
            raise ValueError(
                "expected a chain, in which each vertex reaches one child that reads it alone, through one product "
                f"with a weight, got vertex {name!r} that does not; take another rule for branches, residual "
                "connections and layers with feedback of their own"
            )
    found: list[Loop] = []
    for name in reversed(graph.vertices):
        link = _link(graph, name)
        if link is None:
            continue
        last = found[-1][-1] if found else None
        follows = last is not None and last.vertex == link.child and last.entering == link.leaving
        if single and follows:
            found[-1] = (*found[-1], link)
        else:
            found.append((link,))
    if not found:
        raise ValueError(
            "expected a dense layer (one product of a vector with a weight) above some vertex, got none to invert; "
            "take a model with a dense layer above its first vertex"
        )
    return tuple(found)


def _link(graph: Graph, name: str) -> Link | None:
    """The layer above a vertex, or None where that is not dense."""
    (child,) = graph.children[name]
    below, product, above = (graph.program.split(child) or [])[0]
    spec = graph.program.spec
    groups = graph.program.model_types, jax.tree.leaves(spec.example)
    given = [[jax.ShapeDtypeStruct(item.shape, item.dtype) for item in group] for group in groups]
    (activity,) = jax.eval_shape(below, *given, [graph.shapes[vertex] for vertex in graph.vertices])
    (result,) = jax.eval_shape(product, *given, [activity])
    if (activity.ndim, result.ndim) != (1, 1):
        return None
    return Link(name, child, below, product, above, activity.size, result.size, activity.dtype)


class Chain:
    """The links of a graph with its model and a batch fixed."""

    def __init__(self, graph: Graph, model: PyTree, x: PyTree):
        self._graph = graph
        self._leaves, self._inputs = graph.entered(model, x)

    def forward(self, loop: Loop, rates: Float[Array, "batch down"], bend: Callable) -> list[Float[Array, "batch _"]]:
        """The forward copy: what enters each link of a loop, from the lowest up, and the uppermost product."""
        held = [rates]
        for link in reversed(loop):
            held += self._mapped(link.product)([bend(held[-1])])
        return held

    def matrix(self, loop: Loop) -> Float[Array, "up down"]:
        """`W` of a loop, the product of its layers."""
        lowest, x = loop[-1], [item[0] for item in self._inputs]

        def column(activity: Array) -> Array:
            for link in reversed(loop):
                (activity,) = link.product(self._leaves, x, [activity])
            return activity

        return jax.vmap(column)(jnp.eye(lowest.entering, dtype=lowest.dtype)).T

    def to_product(self, link: Link, values: Values, error: PyTree) -> Float[Array, "batch up"]:
        """The error of a link's child, carried to the product: through what is above it, transposed."""
        activity = self._mapped(link.below)(self._graph.ordered(values))
        _, back = jax.vjp(self._mapped(link.above), self._mapped(link.product)(activity))
        ((carried,),) = back(jax.tree.leaves(error) if link.child == OUTPUT else [error])
        return carried

    def to_vertex(self, link: Link, values: Values, rates: Float[Array, "batch down"]) -> Float[Array, "batch ..."]:
        """What is at the activity that enters a link, carried to its vertex: through what is below, transposed."""
        _, back = jax.vjp(self._mapped(link.below), self._graph.ordered(values))
        (below,) = back([rates])
        return below[self._graph.vertices.index(link.vertex)]

    def _mapped(self, part: Callable) -> Callable:
        run = jax.vmap(part, in_axes=(None, 0, 0))
        return lambda held: run(self._leaves, self._inputs, held)


def weights(graph: Graph, model: PyTree, single: bool) -> dict[str, Float[Array, "up down"]]:
    """`W` of each loop, by its name."""
    batch = graph.batch_size or 1
    x = jax.tree.map(lambda a: jnp.zeros((batch, *a.shape), a.dtype), graph.program.spec.example)
    chain = Chain(graph, model, x)
    return {name_of(loop): chain.matrix(loop) for loop in loops(graph, single)}
