"""A graph with its model and input fixed, and its linearisation: what inference works with."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from vicinal._masking import counted
from vicinal._primitive import OUTPUT

if TYPE_CHECKING:
    from vicinal.graph import Graph

Values = dict[str, Float[Array, "batch ..."]]
"""What the vertices hold, by name: arrays `[batch, ...]`."""


class Clamped(eqx.Module):
    """`Graph.predict` with model and input fixed; made by `Graph.clamp`."""

    graph: "Graph"
    _leaves: list[Array]
    _inputs: list[Array]
    _constants: list[Array]
    masks: dict[str, Bool[Array, "batch ..."]]
    """Which units count, of the vertices with a mask."""

    def __call__(self, values: Values) -> tuple[PyTree, Values]:
        """Returns `(output, predictions)` for the values that the vertices hold."""
        return self._run(self.graph.program.varying, values)

    def propagate(self, deviations: Values) -> tuple[PyTree, Values]:
        """Runs the function with each vertex a deviation away from its prediction.

        Returns:
            `(output, values)`, where each value is the prediction from the values below plus the deviation. With
            deviations of zero this is the feedforward pass; any values are reached by `value - prediction`.
        """
        return self._run(self.graph.program.propagated, deviations)

    def counted(self, values: Values) -> Values:
        """The values (or errors) of the units that count, with 0 in place of what is masked."""
        return counted(values, self.masks)

    def linearize(self, values: Values, derivatives: bool = True) -> "Linearized":
        """The predictions at `values`, each with the linear map that carries its error back to its parents.

        Args:
            values: What each vertex holds, `[batch, ...]`.
            derivatives: Whether the maps hold the derivatives of the activation functions; without them an error
                passes an activation unchanged.
        """
        return Linearized(self, values, derivatives)

    def _run(self, part: Callable, values: Values) -> tuple[PyTree, Values]:
        results = jax.vmap(part, in_axes=(None, 0, 0, 0))(
            self._leaves, self._inputs, self._constants, self.graph.ordered(values)
        )
        return self.graph.unpack(results)


class Linearized:
    """Every prediction at one point, computed once, and the way back through each; made by `Clamped.linearize`.

    Attributes:
        output: The output.
        predictions: Of every vertex.
    """

    def __init__(self, clamped: Clamped, values: Values, derivatives: bool):
        graph = self._graph = clamped.graph
        self._values, self._masks = values, clamped.masks
        found, self._back, seen = {}, {}, dict(values)
        for node in (*graph.vertices, OUTPUT):
            part = graph.program.local_rest(node, derivatives)
            below = [seen[name] for name in graph.parents[node]]
            run = jax.vmap(part, in_axes=(None, 0, 0, 0))

            def predict(below: list[Array], run: Callable = run) -> list[Array]:
                return run(clamped._leaves, clamped._inputs, clamped._constants, below)

            found[node], self._back[node] = jax.vjp(predict, below) if below else (predict(below), None)
            if node in self._masks:  # there readers see what comes in, and prediction and value are the same
                mask, (incoming,) = self._masks[node], found[node]
                seen[node] = jax.lax.select(mask, values[node], incoming)
                found[node] = [jax.lax.select(mask, incoming, values[node])]
        self.output = jax.tree.unflatten(graph.output_structure, found[OUTPUT])
        self.predictions: Values = {name: found[name][0] for name in graph.vertices}

    def back(self, node: str, error: PyTree) -> Values:
        """The error of one node, what passes its masked units included, carried to each of its parents: `J^T error`."""
        back = self._back[node]
        (below,) = back(jax.tree.leaves(error) if node == OUTPUT else [error]) if back else ([],)
        return dict(zip(self._graph.parents[node], below, strict=True))

    def sweep(self, output_error: PyTree, respond: Callable[[str, Array], Array]) -> None:
        """Visits the vertices from the output down, each with its children's errors.

        Args:
            output_error: The error of the output.
            respond: Called as `respond(name, carried)` with the sum over the vertex's children `c` of
                `J_c^T error_c`; returns the error that the vertex carries, for its parents. At masked units
                what it gets is 0, what it returns does not count, and what is carried passes on.
        """
        carried: Values = {}
        for node in (OUTPUT, *reversed(self._graph.vertices)):
            error = output_error
            if node != OUTPUT:
                arrived = carried[node] if node in carried else jnp.zeros_like(self._values[node])
                error = self._past(node, respond, arrived)
            for parent, part in self.back(node, error).items():
                carried[parent] = carried[parent] + part if parent in carried else part

    def _past(self, node: str, respond: Callable[[str, Array], Array], arrived: Array) -> Array:
        if node not in self._masks:
            return respond(node, arrived)
        mask = self._masks[node]
        return jax.lax.select(mask, respond(node, jax.lax.select(mask, arrived, jnp.zeros_like(arrived))), arrived)

    def carry(self, output_error: PyTree, errors: Values) -> Values:
        """All errors carried back at once: for each vertex the sum over its children `c` of `J_c^T error_c`."""
        found: Values = {}

        def respond(name: str, carried: Array) -> Array:
            found[name] = carried
            return errors[name]

        self.sweep(output_error, respond)
        return found
