"""A program with its model and input fixed, and its linearisation: what inference works with."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from vicinal._masking import counted
from vicinal._primitive import OUTPUT
from vicinal._program import Program, Values


class Clamped(eqx.Module):
    """`Graph.predict` with model and input fixed; made by `Graph.clamp`."""

    _program: Program = eqx.field(static=True)
    _leaves: list[Array]
    _inputs: list[Array]
    _constants: list[Array]
    masks: dict[str, Bool[Array, "batch ..."]]
    """For each vertex with a mask, which units count."""

    def __call__(self, values: Values) -> tuple[PyTree, Values]:
        """Returns `(output, predictions)` for the values of the vertices, `[batch, ...]`."""
        return self._run(self._program.varying, values)

    def propagate(self, deviations: Values) -> tuple[PyTree, Values]:
        """Runs the function with a deviation added to the prediction of each vertex.

        Args:
            deviations: The deviation of every vertex, `[batch, ...]`.

        Returns:
            `(output, values)`, where each value is the prediction from the values below plus the deviation. With
            deviations of 0 this is the feedforward pass; the deviations `value - prediction` give back any values.
        """
        return self._run(self._program.propagated, deviations)

    def counted(self, values: Values) -> Values:
        """Replaces the values (or errors) of masked units by 0."""
        return counted(values, self.masks)

    def linearize(self, values: Values, derivatives: bool = True) -> "Linearized":
        """Linearises the predictions at `values`, which gives the maps that carry errors back to parents.

        Args:
            values: The value of every vertex, `[batch, ...]`.
            derivatives: Whether the maps include the derivatives of the activation functions. If False, errors pass
                activations unchanged.

        Returns:
            The predictions and the maps.
        """
        return Linearized(self, values, derivatives)

    def _run(self, part: Callable, values: Values) -> tuple[PyTree, Values]:
        run, held = jax.vmap(part, in_axes=(None, 0, 0, 0)), self._program.ordered(values)
        return self._program.unpack(run(self._leaves, self._inputs, self._constants, held))


class Linearized:
    """All predictions at one point, and the maps that carry errors back through them; made by `Clamped.linearize`.

    Attributes:
        output: The output, `[batch, ...]`.
        predictions: The prediction of every vertex, `[batch, ...]`.
    """

    def __init__(self, clamped: Clamped, values: Values, derivatives: bool):
        program = self._program = clamped._program
        self._values, self._masks = values, clamped.masks
        found, self._back, seen = {}, {}, dict(values)
        for node in (*program.names, OUTPUT):
            part = program.prediction_rest(node, derivatives)
            below = [seen[name] for name in program.parents[node]]
            run = jax.vmap(part, in_axes=(None, 0, 0, 0))

            def predict(below: list[Array], run: Callable = run) -> list[Array]:
                return run(clamped._leaves, clamped._inputs, clamped._constants, below)

            found[node], self._back[node] = jax.vjp(predict, below) if below else (predict(below), None)
            if node in self._masks:  # masked units: readers see the incoming value, and the prediction equals the value
                mask, (incoming,) = self._masks[node], found[node]
                seen[node] = jax.lax.select(mask, values[node], incoming)
                found[node] = [jax.lax.select(mask, incoming, values[node])]
        self.output = jax.tree.unflatten(program.output_structure, found[OUTPUT])
        self.predictions: Values = {name: found[name][0] for name in program.names}

    def back(self, node: str, error: PyTree) -> Values:
        """Carries the error of one node to each of its parents: `J^T error`; masked units pass errors on."""
        back = self._back[node]
        (below,) = back(jax.tree.leaves(error) if node == OUTPUT else [error]) if back else ([],)
        return dict(zip(self._program.parents[node], below, strict=True))

    def sweep(self, output_error: PyTree, respond: Callable[[str, Array], Array]) -> None:
        """Visits the vertices from the output down, and carries the error of each to its parents.

        Args:
            output_error: The error of the output, `[batch, ...]`.
            respond: Called as `respond(name, carried)` with the sum over the children `c` of the vertex of
                `J_c^T error_c`; returns the error of the vertex. At masked units it gets 0, its result is ignored, and
                the carried error passes on.
        """
        carried: Values = {}
        for node in (OUTPUT, *reversed(self._program.names)):
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
        """Carries all errors back at once: for each vertex, the sum over its children `c` of `J_c^T error_c`."""
        found: Values = {}

        def respond(name: str, carried: Array) -> Array:
            found[name] = carried
            return errors[name]

        self.sweep(output_error, respond)
        return found
