"""What inference minimises: the energy of the vertices while input and target are held."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._numbers import widened
from vicinal.energy import SUBTRACTIVE, Encoding, Precision, Weighted
from vicinal.graph import OUTPUT, Clamped, Graph, Values
from vicinal.inference.proximal import Proximal
from vicinal.losses import Loss, loss_and_error, scale_examples


class Errors(eqx.Module):
    """The errors at one point, and what the energy is made of there.

    Attributes:
        vertices: Of each vertex, `[batch, ...]`.
        output: Of the output.
        energy: Of all vertices together, `[batch]`.
        loss: Of the output, `[batch]`.
        gain: How much of the loss counts, `[batch]`: the whole energy is `energy + gain * loss`.
    """

    vertices: Values
    output: PyTree
    energy: Float[Array, " batch"]
    loss: Float[Array, " batch"]
    gain: Float[Array, " batch"]


class Problem(eqx.Module):
    """The energy `F = nudge * loss(output, y) + sum over vertices of precision/2 ||value - prediction||^2`.

    With another encoding of errors the square is replaced by that encoding's energy.

    With `nudge = 1` the output is clamped to the target. With `nudge = n < 1` it is held at
    `n * target + (1 - n) * prediction`, anew at every step, which is the same as `n` times the loss.

    Attributes:
        graph: The captured graph.
        model: The model.
        x: Inputs, `[batch, ...]`, clamped.
        y: Targets, `[batch, ...]`.
        loss: Loss of one example.
        nudge: In (0, 1].
        vertices: The energy of the vertices.
        proximal: If given, `nudge` is multiplied by its gain, at every step anew.
        predict: The predictions with model and input fixed.
    """

    graph: Graph
    model: PyTree
    x: PyTree
    y: PyTree
    loss: Loss = eqx.field(static=True)
    nudge: Float[Array, ""]
    vertices: Weighted
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
        self.vertices = Weighted(precision, encoding)
        self.proximal = proximal
        self.predict = graph.clamp(model, x)

    def errors(self, values: Values) -> Errors:
        """The errors when the vertices hold `values`: one prediction of every vertex."""
        return self._errors(values, *self.predict(values))

    def descent(self, values: Values) -> tuple[Values, Values, Errors]:
        """Minus the slope of the energy in each value, in its two parts.

        Returns:
            `(feedback, own, errors)`: the children's errors carried back, `sum over c of J_c^T error_c`; the
            vertices' own pulls, the other way (`-dF/dvalue = feedback - own`); and all errors.
        """
        (output, predictions), back = jax.vjp(self.predict, values)
        errors = self._errors(values, output, predictions)
        (feedback,) = back((errors.output, errors.vertices))
        return feedback, self.vertices.pulls(values, predictions), errors

    def energies(self, values: Values, gain_at: Values | None = None) -> dict[str, Float[Array, " batch"]]:
        """The energy of each vertex, and of `"output"`, per example.

        A proximal output weighs the loss by what enters it: `gain_at` says at which values, `values` by default.
        """
        output, predictions = self.predict(values)
        energies = {name: self.vertices.energy(name, value, predictions[name]) for name, value in values.items()}
        loss = widened(jax.vmap(self.loss)(output, self.y))
        return energies | {OUTPUT: self.gain(values if gain_at is None else gain_at, loss) * loss}

    def gain(self, values: Values, like: Array) -> Float[Array, " batch"]:
        """How much of the loss counts for each example: what `nudge` and `proximal` make of it."""
        gain = jnp.broadcast_to(self.nudge.astype(like.dtype), like.shape)
        if self.proximal is None:
            return gain
        return gain * self.proximal.gain(self.graph, self.model, values, self.x).astype(like.dtype)

    def output_error(self, output: PyTree, values: Values) -> PyTree:
        """The error of an output, with what of the loss counts when the vertices hold `values`."""
        return self._output_error(output, values)[0]

    def _output_error(self, output: PyTree, values: Values) -> tuple[PyTree, Array, Array]:
        loss, error = loss_and_error(self.loss, output, self.y)
        gain = self.gain(values, loss)
        return jax.tree.map(lambda e: scale_examples(gain, e), error), loss, gain

    def _errors(self, values: Values, output: PyTree, predictions: Values) -> Errors:
        error, loss, gain = self._output_error(output, values)
        energies = [
            self.vertices.energy(name, value, predictions[name]).astype(loss.dtype) for name, value in values.items()
        ]
        energy = jnp.sum(jnp.stack([jnp.zeros_like(loss), *energies]), axis=0)
        return Errors(self.vertices.errors(values, predictions), error, energy, loss, gain)
