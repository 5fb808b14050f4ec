"""Prediction-error energies: how a vertex encodes the difference from its prediction, weighted by a precision.

Energies are summed over units and given per example, so that inference never depends on the batch size.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from vicinal._numbers import check, floating, number, optional_number, widened
from vicinal._show import module_text, names_text
from vicinal.graph import Graph, Values

Precision = ArrayLike | dict[str, ArrayLike] | None
"""Weight of the energy of a vertex (the inverse variance of a Gaussian): one number for all vertices, or a dictionary
from names to numbers or arrays (one entry per unit). Vertices that are not named have precision 1, as all have for
None."""


class Encoding(eqx.Module):
    """How a vertex encodes the difference of its value from its prediction, unit by unit."""

    def __repr__(self) -> str:
        return module_text(self)

    def energy(self, value: Array, prediction: Array) -> Array:
        """Computes the energy of each unit, in the shape of the value; 0 where value and prediction agree."""
        raise NotImplementedError

    def error(self, value: Array, prediction: Array) -> Array:
        """Computes minus the derivative of the energy in the prediction: the error that goes down and that synapses
        learn from."""
        raise NotImplementedError

    def pull(self, value: Array, prediction: Array) -> Array:
        """Computes the derivative of the energy in the value, which pulls the vertex to its prediction."""
        raise NotImplementedError


class Subtractive(Encoding):
    """Errors are differences, `value - prediction`; the energy `1/2 (value - prediction)^2` is that of a Gaussian."""

    def energy(self, value: Array, prediction: Array) -> Array:
        return 0.5 * jnp.square(value - prediction)

    def error(self, value: Array, prediction: Array) -> Array:
        return value - prediction

    def pull(self, value: Array, prediction: Array) -> Array:
        return value - prediction


class Divisive(Encoding):
    """Errors are ratios of positive rates: above 1 if the rate is above its prediction, below 1 if it is below.

        ratio  = sqrt((value + k) / (prediction + k)),    energy = (log ratio)^2
        error  = log ratio / (prediction + k)
        pull   = log ratio / (value + pull_offset)        the energy's slope where pull_offset = k

    Rates below 0 count as 0 (with the one-sided derivatives at 0). The energy is a quarter of the squared difference of
    logarithms, so it measures relative errors.

    Args:
        offset: `k`, above 0; keeps the ratio finite at rates of 0.
        pull_offset: Replaces `k` in the pull, above 0. None: `k`. The published code uses 0.1, which weakens the pull
            on small rates.

    References:
        Alonso and Neftci, Tightening the biological constraints on gradient-based predictive coding, ICONS 2021, arXiv
        2104.15137 (the published code, which also clips the ratio at 100).
    """

    offset: Float[Array, ""] = eqx.field(converter=number, default=1e-3)
    pull_offset: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)

    def __check_init__(self):
        check("the offset", self.offset, lambda v: v > 0, "above 0")
        check("the offset of the pull", self.pull_offset, lambda v: v > 0, "above 0")

    def energy(self, value: Array, prediction: Array) -> Array:
        return jnp.square(self._log_ratio(value, prediction))

    def error(self, value: Array, prediction: Array) -> Array:
        return self._log_ratio(value, prediction) / self._above(prediction, self.offset)

    def pull(self, value: Array, prediction: Array) -> Array:
        offset = self.offset if self.pull_offset is None else self.pull_offset
        return self._log_ratio(value, prediction) / self._above(value, offset)

    def _log_ratio(self, value: Array, prediction: Array) -> Array:
        return 0.5 * jnp.log(self._above(value, self.offset) / self._above(prediction, self.offset))

    @staticmethod
    def _above(rate: Array, offset: Array) -> Array:
        return jnp.maximum(rate, 0) + offset.astype(rate.dtype)


SUBTRACTIVE = Subtractive()


def converted(precision: Precision) -> Precision:
    """Converts the numbers of a precision to arrays.

    Raises:
        ValueError: If one is negative or not finite.
    """
    precision = jax.tree.map(floating, precision)
    for value in jax.tree.leaves(precision):
        check("precision", value, lambda v: v >= 0, "of at least 0")
    return precision


def check_encoding(encoding: Encoding) -> None:
    """Raises TypeError if `encoding` is not an `Encoding`."""
    if not isinstance(encoding, Encoding):
        raise TypeError(f"expected an encoding of errors, such as vicinal.energy.Divisive(), got {encoding!r}")


def check_precision(precision: Precision, graph: Graph) -> None:
    """Raises ValueError if a precision names something that is not a vertex of the graph."""
    unknown = set(precision) - set(graph.vertices) if isinstance(precision, dict) else set()
    if unknown:
        raise ValueError(
            f"expected precisions for vertices among {names_text(graph.vertices)}, got one for {sorted(unknown)[0]!r}"
        )


class VertexEnergy(eqx.Module):
    """How the energy, error and pull of each vertex are computed from its value and prediction.

    Attributes:
        precision: The precision of each vertex.
        encoding: The encoding of errors, the same at all vertices.
    """

    precision: Precision = eqx.field(converter=converted, default=None)
    encoding: Encoding = SUBTRACTIVE

    def energy(self, name: str, value: Float[Array, "batch ..."], prediction: Float[Array, "batch ..."]) -> Array:
        """Computes the energy of one vertex, summed over units, `[batch]`, in float32 or wider."""
        units = widened(self._times(name, self.encoding.energy(value, prediction)))
        return jnp.sum(units.reshape(units.shape[0], -1), axis=1)

    def error(self, name: str, value: Float[Array, "batch ..."], prediction: Float[Array, "batch ..."]) -> Array:
        """Computes the error of one vertex: minus the derivative of its energy in its prediction."""
        return self._times(name, self.encoding.error(value, prediction))

    def pull(self, name: str, value: Float[Array, "batch ..."], prediction: Float[Array, "batch ..."]) -> Array:
        """Computes the pull of one vertex to its prediction: the derivative of its energy in its value."""
        return self._times(name, self.encoding.pull(value, prediction))

    def errors(self, values: Values, predictions: Values) -> Values:
        """Computes the error of every vertex, by name."""
        return {name: self.error(name, value, predictions[name]) for name, value in values.items()}

    def pulls(self, values: Values, predictions: Values) -> Values:
        """Computes the pull of every vertex, by name."""
        return {name: self.pull(name, value, predictions[name]) for name, value in values.items()}

    def _times(self, name: str, units: Array) -> Array:
        precision = self.precision.get(name) if isinstance(self.precision, dict) else self.precision
        if precision is None:
            return units
        return units * jnp.broadcast_to(jnp.asarray(precision).astype(units.dtype), units.shape)
