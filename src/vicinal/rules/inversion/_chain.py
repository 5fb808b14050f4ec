"""For `DynamicInversion`: a chain of vertices, the dense layers between them, and the loops that invert these."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._masking import refuse_masks
from vicinal._memory import check_room, devices_of
from vicinal.graph import OUTPUT, Graph, Values


@dataclasses.dataclass(frozen=True)
class Link:
    """A dense layer between a vertex and its child: `prediction = above(W below(value))`.

    Attributes:
        vertex: The vertex.
        child: Its child.
        below: `(model, x, values) -> activity`, the input of the product.
        product: `(model, x, activity) -> W activity`.
        above: `(model, x, product) -> prediction`.
        entering: Number of units that enter the product.
        leaving: Number of units of the product.
        dtype: Dtype of the activity.
    """

    vertex: str
    child: str
    below: Callable
    product: Callable
    above: Callable
    entering: int
    leaving: int
    dtype: jnp.dtype


Links = tuple[Link, ...]
"""The links that one controller inverts, from the upper to the lower."""


def name_of(links: Links) -> str:
    """Returns the lowest vertex, whose name is the key of the feedback."""
    return links[-1].vertex


@functools.lru_cache(maxsize=64)
def loops(graph: Graph, single: bool) -> tuple[Links, ...]:
    """Finds the links of each loop of a chain, from the output down.

    Args:
        graph: The captured graph.
        single: Whether links that follow each other make one loop; otherwise each has its own.

    Returns:
        The loops. Two calls with the same arguments return the same object.

    Raises:
        ValueError: If the graph is not a chain, or has no dense layer above a vertex.
    """
    refuse_masks(graph.masked, "dynamic inversion")
    for name in graph.vertices:
        nodes = graph.children[name]
        alone = len(nodes) == 1 and len(graph.parents[nodes[0]]) == 1
        if not alone or len(graph.program.split(nodes[0]) or ()) != 1:
            raise ValueError(
                "expected a chain, in which each vertex reaches one child that reads only it, through one product "
                f"with a weight, got vertex {name!r} that does not; take another rule for branches, residual "
                "connections and layers with feedback of their own"
            )
    found: list[Links] = []
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
    """Finds the layer above a vertex; None if it is not dense."""
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

    @classmethod
    def of_weights(cls, graph: Graph, model: PyTree) -> Self:
        """Returns the chain of a model for the matrices of its loops; the inputs are zeros."""
        batch = graph.batch_size or 1
        x = jax.tree.map(lambda a: jnp.zeros((batch, *a.shape), a.dtype), graph.program.spec.example)
        return cls(graph, model, x)

    def forward(
        self, links: Links, rates: Float[Array, "batch down"], activation: Callable
    ) -> list[Float[Array, "batch _"]]:
        """Runs the forward copy of a loop: the input of each link, from the lowest up, and the uppermost product."""
        held = [rates]
        for link in reversed(links):
            held += self._mapped(link.product)([activation(held[-1])])
        return held

    def matrix(self, links: Links) -> Float[Array, "up down"]:
        """Computes `W` of a loop, the product of its layers."""
        lowest, x = links[-1], [item[0] for item in self._inputs]
        units, size = lowest.entering, jnp.dtype(lowest.dtype).itemsize
        check_room(size * units**2, f"the matrix of a loop of {units} units", "take smaller layers", devices_of(x))

        def column(activity: Array) -> Array:
            for link in reversed(links):
                (activity,) = link.product(self._leaves, x, [activity])
            return activity

        return jax.vmap(column)(jnp.eye(lowest.entering, dtype=lowest.dtype)).T

    def to_product(self, link: Link, values: Values, error: PyTree) -> Float[Array, "batch up"]:
        """Carries the error of a link's child back to the product, through the transpose of what is above it."""
        activity = self._mapped(link.below)(self._graph.program.ordered(values))
        _, back = jax.vjp(self._mapped(link.above), self._mapped(link.product)(activity))
        ((carried,),) = back(jax.tree.leaves(error) if link.child == OUTPUT else [error])
        return carried

    def to_vertex(self, link: Link, values: Values, rates: Float[Array, "batch down"]) -> Float[Array, "batch ..."]:
        """Carries rates at the input of a link back to its vertex, through the transpose of what is below it."""
        _, back = jax.vjp(self._mapped(link.below), self._graph.program.ordered(values))
        (below,) = back([rates])
        return below[self._graph.vertices.index(link.vertex)]

    def _mapped(self, part: Callable) -> Callable:
        run = jax.vmap(part, in_axes=(None, 0, 0))
        return lambda held: run(self._leaves, self._inputs, held)


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop of a chain, with its feedback.

    Attributes:
        chain: The chain.
        links: The links that the controller inverts.
        feedback: `B`, `[units below, units above]`; None for inversions without feedback.
        leak: Leak of the controller.
        step_size: Of Euler's method, in time constants of the units below.
    """

    chain: Chain
    links: Links
    feedback: Any
    leak: Float[Array, ""]
    step_size: Float[Array, ""]

    def forward(self, rates: Float[Array, "batch down"], activation: Callable) -> list[Float[Array, "batch _"]]:
        """Computes the input of each link, from the lowest up, and the uppermost product, from the rates below."""
        return self.chain.forward(self.links, rates, activation)

    def matrix(self) -> Float[Array, "up down"]:
        """Computes `W`, the product of the layers."""
        return self.chain.matrix(self.links)

    @property
    def name(self) -> str:
        """The lowest vertex, whose name is the key of the feedback."""
        return name_of(self.links)

    def with_feedback(self, feedback: Float[Array, "down up"]) -> "Loop":
        """Returns the loop with other feedback."""
        return dataclasses.replace(self, feedback=feedback)


def weights(graph: Graph, model: PyTree, single: bool) -> dict[str, Float[Array, "up down"]]:
    """Computes `W` of each loop, by its name."""
    chain = Chain.of_weights(graph, model)
    return {name_of(links): chain.matrix(links) for links in loops(graph, single)}
