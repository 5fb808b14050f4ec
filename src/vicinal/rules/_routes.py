"""For `DirectFeedback`: the source and the projection of the error of each vertex."""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.graph import OUTPUT, Graph
from vicinal.rules.projectors import Dense, Projector

Modules = tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True)
class Route:
    """The way of an error to a vertex.

    Attributes:
        source: The node whose error is projected.
        source_shape: Shape of the error of one example; of one step, if `step` is given.
        step: The step of a sequence that is read. None: the whole error.
        projector: The kind of projection.
        shape: Shape of one example of the vertex.
        dtype: Dtype of the vertex.
        owner: The vertex under whose name the projection is stored.
    """

    source: str
    source_shape: tuple[int, ...]
    step: int | None
    projector: Projector
    shape: tuple[int, ...]
    dtype: jnp.dtype
    owner: str

    def project(self, weights: Array, error: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Projects the error of a batch."""
        error = (error if self.step is None else error[:, self.step]).astype(self.dtype)
        return jax.vmap(lambda one: self.projector.project(weights, one, self.shape))(error)


def check_modules(modules: Sequence[Sequence[str]] | None) -> Modules | None:
    """Converts modules to tuples.

    Raises:
        TypeError: If the modules are not groups of names.
        ValueError: If there is no module, or an empty one.
    """
    if modules is None:
        return None
    groups = [modules] if isinstance(modules, str) else list(modules)
    if any(isinstance(group, str) or not all(isinstance(name, str) for name in group) for group in groups):
        raise TypeError(f'expected modules as groups of names, [["hidden1"], ["hidden2", "output"]], got {modules!r}')
    if not groups or not all(groups):
        raise ValueError(f"expected at least one module, and a vertex in each, got {modules!r}; leave out the empty")
    return tuple(tuple(group) for group in groups)


def as_array(tree: PyTree) -> Float[Array, "batch ..."]:
    """Returns the error of an output as one array; the leaves of a tree are flattened and concatenated."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    if len(leaves) == 1:
        return leaves[0]
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1).astype(leaves[0].dtype) for leaf in leaves], axis=1)


def routes(
    graph: Graph,
    modules: Modules | None,
    projector: Projector | Mapping[str, Projector],
    shared: bool,
    *,
    with_boundaries: bool,
) -> dict[str, Route]:
    """Finds the route of each vertex that gets a projected error.

    Args:
        graph: The captured graph.
        modules: Groups of vertices, or None.
        projector: A projector for all vertices, or a mapping by name.
        shared: Whether a layer at several times has one projection.
        with_boundaries: Whether the modules' outputs get projected errors too.

    Returns:
        The routes, by vertex.

    Raises:
        ValueError: If modules or projectors do not match the graph.
    """
    sources = _sources(graph, modules, with_boundaries)
    chosen = _chosen(projector, graph.vertices)
    found = {}
    for layer in _layers(graph, sources, chosen, shared):
        for step, name in enumerate(layer):
            source, target, (key, kind) = _shape(graph, sources[name]), _shape(graph, name), chosen[name]
            in_turn = sources[name] == OUTPUT and len(source) == 2 and len(layer) > 1 and source[0] == len(layer)
            read, at = (source[1:], step) if in_turn else (source, None)
            if problem := kind.misfit(read, target):
                if key is not None:
                    raise ValueError(f"{problem}, for vertex {name!r}; give it another projector by its name")
                kind = Dense(kind.scale)
            found[name] = Route(sources[name], read, at, kind, target, graph.shapes[name].dtype, layer[0])
    kinds = {type(route.projector) for route in found.values()}
    if found and isinstance(projector, Projector) and type(projector) not in kinds:
        route = next(iter(found.values()))
        raise ValueError(
            f"{projector.misfit(route.source_shape, route.shape)}, and no vertex that {type(projector).__name__} fits; "
            "take Dense, or modules whose outputs it fits"
        )
    return {name: found[name] for name in sources}


def _layers(
    graph: Graph, sources: Mapping[str, str], chosen: Mapping[str, tuple[str | None, Projector]], shared: bool
) -> list[list[str]]:
    """Groups the vertices that share a projection."""
    layers: list[list[str]] = []
    for name in sources:
        alike = (
            layer
            for layer in layers
            if (sources[layer[0]], chosen[layer[0]][0]) == (sources[name], chosen[name][0])
            and _same_layer(graph, layer[0], name)
        )
        layer = next(alike, None) if shared else None
        layers.append([name]) if layer is None else layer.append(name)
    return layers


def _sources(graph: Graph, modules: Modules | None, with_boundaries: bool) -> dict[str, str]:
    """Finds the node whose error each vertex gets."""
    groups = ((*graph.vertices, OUTPUT),) if modules is None else modules
    if groups[-1][-1] != OUTPUT:
        groups = (*groups[:-1], (*groups[-1], OUTPUT))
    names = [name for group in groups for name in group]
    expected = [*graph.vertices, OUTPUT]
    for word, wrong in (
        ("known", [name for name in names if name not in expected]),
        ("that are each named once", [name for i, name in enumerate(names) if name in names[:i]]),
    ):
        if wrong:
            raise ValueError(f"expected modules of vertices {word} among {', '.join(expected)}, got {wrong[0]!r}")
    if missing := [name for name in expected if name not in names]:
        raise ValueError(f"expected every vertex in a module, got none for {missing[0]!r}; add it to one")
    if names != expected:
        wrong = next(name for name, other in zip(names, expected, strict=True) if name != other)
        raise ValueError(f"expected modules in the order of the graph, {', '.join(expected)}, got {wrong!r} too early")
    found = {}
    for i, group in enumerate(groups):
        found |= dict.fromkeys(group[:-1], group[-1])
        if group[-1] != OUTPUT and with_boundaries:
            found[group[-1]] = groups[i + 1][-1]
    return found


def _shape(graph: Graph, node: str) -> tuple[int, ...]:
    """Returns the shape of one example of a node, as `as_array` returns its error."""
    leaves = [leaf for leaf in jax.tree.leaves(graph.shapes[node]) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return leaves[0].shape if len(leaves) == 1 else (sum(math.prod(leaf.shape) for leaf in leaves),)


def _chosen(projector: Any, vertices: Iterable[str]) -> dict[str, tuple[str | None, Projector]]:
    """Finds the projector of each vertex, and the name under which it was given, or None."""
    if isinstance(projector, Projector):
        return dict.fromkeys(vertices, (None, projector))
    found, used = {}, set()
    for name in vertices:
        key = next((word for word in (name, _base(name)) if word in projector), None)
        used.add(key)
        found[name] = (key, Dense() if key is None else projector[key])
    if unknown := [key for key in projector if key not in used]:
        raise ValueError(f"expected projectors for vertices of {', '.join(found)}, got one for {unknown[0]!r}")
    return found


def _base(name: str) -> str:
    return re.sub(r"\[\d+\]$", "", name)


def _same_layer(graph: Graph, first: str, second: str) -> bool:
    """Whether two vertices are one layer at two times."""
    alike = _base(first) == _base(second) and "[" in first and graph.shapes[first] == graph.shapes[second]
    return alike and bool(set(graph.parameters[first]) & set(graph.parameters[second]))
