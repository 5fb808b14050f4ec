"""Simultaneous inference: all activities descend the energy at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, number, optional_number
from vicinal.graph import Values
from vicinal.inference.base import Inference, gathered, moved, positive_part, stopped_at_zero
from vicinal.inference.problem import Problem

_State = tuple[Values, Values | None]  # values, and their velocities with momentum


class Simultaneous(Inference):
    """Gradient descent on the energy, all vertices at once (explicit Euler).

        value_l += step_size * d_t * (sum over children c of J_c^T error_c  -  pull * error_l)

    with `d_t = 1/(1+t)` if `decay`, else 1. With `momentum = m` the bracket is replaced by its running sum
    `velocity = m * velocity + bracket`. From the feedforward values, an error travels one vertex down per step and
    shrinks by the step size each time, so deep networks need many steps, or `ErrorBased`.

    Args:
        steps: Number of steps; an upper limit if there is a tolerance.
        step_size: Step size of the activities.
        decay: Whether step `t` (from 0) is divided by `1 + t`.
        momentum: In [0, 1). None: no momentum.
        pull: Weight of a vertex's own error relative to the errors from its children. 1 descends the energy. Papers
            with two step sizes, bottom-up and top-down, correspond to `step_size` and the ratio of the two.
        tolerance: An example stops once none of its activities would move faster than this, in units of activity
            per unit of step size; the others continue. None: take all steps.
        trace: Whether to record the energies at each step.
        positive: Whether activities are firing rates, which stop at 0.

    Example:
        >>> Simultaneous(steps=20, step_size=0.1).steps
        20

    References:
        Whittington and Bogacz, An approximation of the error backpropagation algorithm in a predictive coding
        network with local Hebbian synaptic plasticity, Neural Computation 29, 2017. Alonso et al., A theoretical
        framework for inference learning, NeurIPS 2022, arXiv 2206.00164 (settings with `pull` other than 1).
    """

    steps: int = eqx.field(static=True, default=20)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    decay: bool = eqx.field(static=True, default=False)
    momentum: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    pull: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    tolerance: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    trace: bool = eqx.field(static=True, default=False)
    positive: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        self._check()
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        check("pull", self.pull, lambda v: v >= 0, "of at least 0")
        check("momentum", self.momentum, lambda v: (v >= 0) & (v < 1), "in [0, 1)")

    def allowed(self, values: Values) -> Values:
        return positive_part(values) if self.positive else values

    def begin(self, problem: Problem, values: Values) -> _State:
        return values, None if self.momentum is None else jax.tree.map(jnp.zeros_like, values)

    def step(self, problem: Problem, state: _State, t: Array) -> tuple[_State, Values]:
        values, velocity = state
        feedback, own, _ = problem.descent(values)
        slope = {name: feedback[name] - self.pull.astype(own[name].dtype) * own[name] for name in values}
        direction = gathered(velocity, slope, self.momentum)
        new = moved(values, direction, self.step_size, self.decay, t)
        if self.positive:
            slope, new = jax.tree.map(stopped_at_zero, slope, values), positive_part(new)
        return (new, None if velocity is None else direction), slope

    def values(self, problem: Problem, state: _State) -> Values:
        return state[0]
