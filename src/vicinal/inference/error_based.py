"""Error-based inference: the errors settle, and determine the activities."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, number, optional_number
from vicinal.energy import Subtractive
from vicinal.graph import Values
from vicinal.inference.base import Inference, gathered, moved
from vicinal.inference.problem import Problem

_State = tuple[Values, Values | None]  # deviations, and their velocities with momentum


class ErrorBased(Inference):
    """Descent on the same energy, written in the deviations of the vertices from their predictions.

        value_l      = prediction_l(values below) + deviation_l          (one pass from the input up)
        F            = nudge * loss(output, y) + sum over vertices of precision/2 ||deviation_l||^2
        deviation_l += step_size * d_t * (adjoint_l - precision * deviation_l)

    where `adjoint_l` is minus the gradient of the loss with respect to vertex `l`, through all layers above. The minima
    are those of activity-based inference, since values and deviations determine each other. In activity-based
    inference an error fades layer by layer; an adjoint does not, so a deep network settles in few steps. The price is
    that each step runs forward and backward through the whole network: it is not a local computation.

    Args:
        steps: Number of steps; an upper limit if there is a tolerance.
        step_size: Step size of the deviations.
        decay: Whether step `t` (from 0) is divided by `1 + t`.
        momentum: In [0, 1). None: no momentum.
        tolerance: An example stops once none of its deviations would move faster than this, per unit of step size;
            the others continue. None: take all steps.
        trace: Whether to record the energies at each step.

    Example:
        >>> ErrorBased(steps=5, step_size=0.5).steps
        5

    References:
        Goemaere, Oliviers, Bogacz and Demeester, Error optimization: overcoming exponential signal decay in deep
        predictive coding networks, 2025, arXiv 2505.20137.
    """

    local: ClassVar[bool] = False

    steps: int = eqx.field(static=True, default=5)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    decay: bool = eqx.field(static=True, default=False)
    momentum: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    tolerance: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    trace: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        self._check()
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        check("momentum", self.momentum, lambda v: (v >= 0) & (v < 1), "in [0, 1)")

    def begin(self, problem: Problem, values: Values) -> _State:
        if not isinstance(problem.vertex_energy.encoding, Subtractive):
            kind = type(problem.vertex_energy.encoding).__name__
            raise ValueError(f"expected errors that are differences for error-based inference, got {kind}")
        _, predictions = problem.predict(values)
        deviations = jax.tree.map(jnp.subtract, values, predictions)
        return deviations, None if self.momentum is None else jax.tree.map(jnp.zeros_like, values)

    def step(self, problem: Problem, state: _State, t: Array) -> tuple[_State, Values]:
        deviations, velocity = state
        (output, values), back = jax.vjp(problem.predict.propagate, deviations)
        error = problem.output_error(output, values)
        (adjoints,) = back((error, jax.tree.map(jnp.zeros_like, values)))
        slope = {
            name: adjoint - problem.vertex_energy.pull(name, deviations[name], jnp.zeros_like(adjoint))
            for name, adjoint in adjoints.items()
        }
        direction = gathered(velocity, slope, self.momentum)
        deviations = moved(deviations, direction, self.step_size, self.decay, t)
        return (deviations, None if velocity is None else direction), slope

    def values(self, problem: Problem, state: _State) -> Values:
        return problem.predict.propagate(state[0])[1]
