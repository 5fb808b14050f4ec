"""The energy that inference minimises, with input and target held."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._numbers import widened
from vicinal.energy import SUBTRACTIVE, Encoding, Precision, VertexEnergy
from vicinal.graph import OUTPUT, Clamped, Graph, Values
from vicinal.inference.proximal import Proximal
from vicinal.losses import Loss, loss_and_error, scale_examples


class Errors(eqx.Module):
    """The errors and the energy at one point.

    Attributes:
        by_vertex: The error of each vertex, `[batch, ...]`.
        output: The error of the output.
        energy: The energy of all vertices, `[batch]`.
        loss: The loss of the output, `[batch]`.
        gain: The weight of the loss, `[batch]`: the whole energy is `energy + gain * loss`.
    """

    by_vertex: Values
    output: PyTree
    energy: Float[Array, " batch"]
    loss: Float[Array, " batch"]
    gain: Float[Array, " batch"]


class Problem(eqx.Module):
    """The energy `F = nudge * loss(output, y) + sum over vertices of precision/2 ||value - prediction||^2`.

    With another encoding of errors the square is replaced by that encoding's energy.

    With `nudge = 1` the output is clamped to the target. With `nudge = n < 1` it is held at
    `n * target + (1 - n) * prediction`, updated at every step, which is the same as `n` times the loss.

    Attributes:
        graph: The captured graph.
        model: The model.
        x: Inputs, `[batch, ...]`, clamped.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example.
        nudge: In (0, 1].
        vertex_energy: How the energy of a vertex is made from its value and prediction.
        proximal: If given, `nudge` is multiplied by its gain at every step.
        predict: Predicts all vertices, with model and input fixed.
    """

    graph: Graph
    model: PyTree
    x: PyTree
    y: PyTree
    loss: Loss = eqx.field(static=True)
    nudge: Float[Array, ""]
    vertex_energy: VertexEnergy
    proximal: Proximal | None
    predict: Clamped

    def __init__(
        self,
        graph: Graph,
        model: PyTree,
        x: PyTree,
        y: PyTree,
        loss: Loss,
        nudge: Any = 1.0,
        precision: Precision = None,
        proximal: Proximal | None = None,
        encoding: Encoding = SUBTRACTIVE,
    ):
        self.graph, self.model, self.x, self.y, self.loss = graph, model, x, y, loss
        self.nudge = jnp.asarray(nudge)
        self.vertex_energy = VertexEnergy(precision, encoding)
        self.proximal = proximal
        self.predict = graph.clamp(model, x)

    def errors(self, values: Values) -> Errors:
        """Computes the errors when the vertices hold `values`; predicts every vertex once."""
        return self._errors(values, *self.predict(values))

    def descent(self, values: Values) -> tuple[Values, Values, Errors]:
        """Computes minus the gradient of the energy with respect to each value, in two parts.

        Args:
            values: The value of each vertex, `[batch, ...]`.

        Returns:
            `(feedback, own, errors)` with `-dF/dvalue = feedback - own`: the errors of the children carried back,
            `sum over c of J_c^T error_c`; the pull of each vertex to its prediction; and all errors.
        """
        (output, predictions), back = jax.vjp(self.predict, values)
        errors = self._errors(values, output, predictions)
        (feedback,) = back((errors.output, errors.by_vertex))
        return feedback, self.vertex_energy.pulls(values, predictions), errors

    def energies(self, values: Values, gain_at: Values | None = None) -> dict[str, Float[Array, " batch"]]:
        """Computes the energy of each vertex, and of `"output"`, for each example.

        Args:
            values: The value of each vertex, `[batch, ...]`.
            gain_at: The values at which a proximal output weighs the loss; `values` by default.

        Returns:
            The energies, `[batch]` each.
        """
        output, predictions = self.predict(values)
        energies = {name: self.vertex_energy.energy(name, value, predictions[name]) for name, value in values.items()}
        loss = widened(jax.vmap(self.loss)(output, self.y))
        return energies | {OUTPUT: self.gain(values if gain_at is None else gain_at, loss) * loss}

    def gain(self, values: Values, like: Array) -> Float[Array, " batch"]:
        """Computes the weight of the loss in each example, from `nudge` and `proximal`, in the shape of `like`."""
        gain = jnp.broadcast_to(self.nudge.astype(like.dtype), like.shape)
        if self.proximal is None:
            return gain
        return gain * self.proximal.gain(self.graph, self.model, values, self.x).astype(like.dtype)

    def output_error(self, output: PyTree, values: Values) -> PyTree:
        """Computes the error of an output, with the weight of the loss when the vertices hold `values`."""
        return self._output_error(output, values)[0]

    def _output_error(self, output: PyTree, values: Values) -> tuple[PyTree, Array, Array]:
        loss, error = loss_and_error(self.loss, output, self.y)
        gain = self.gain(values, loss)
        return jax.tree.map(lambda e: scale_examples(gain, e), error), loss, gain

    def _errors(self, values: Values, output: PyTree, predictions: Values) -> Errors:
        error, loss, gain = self._output_error(output, values)
        energies = [
            self.vertex_energy.energy(name, value, predictions[name]).astype(loss.dtype)
            for name, value in values.items()
        ]
        energy = jnp.sum(jnp.stack([jnp.zeros_like(loss), *energies]), axis=0)
        return Errors(self.vertex_energy.errors(values, predictions), error, energy, loss, gain)
