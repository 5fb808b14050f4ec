"""Sequential inference: the activities move in turn, from the output down."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, number, optional_number
from vicinal.graph import Values
from vicinal.inference.base import Inference, moved, positive_part, stopped_at_zero
from vicinal.inference.problem import Problem


class Sequential(Inference):
    """Top-down sweeps over the energy: each vertex moves by the errors of its children, which have already moved.

        for l from the last vertex to the first (reverse topological order):
            value_l += step_size * d_t * (sum over children c of J_c^T error_c  -  pull * error_l)
            error_l  = value_l - prediction_l

    with `d_t = 1/(1+t)` in sweep `t` (from 0) if `decay`, else 1. One sweep carries the output's error to every
    vertex; simultaneous inference needs one step per layer.

    Predictions, and the derivatives in `J`, are computed once per sweep, from the values before it, so a sweep costs
    one forward and one transposed product per layer. In a chain this makes no difference: the prediction of a vertex
    reads the vertex below, which has not moved yet. In a graph with branches, vertices that predict the same child
    see each other's moves only in the next sweep.

    In one sweep, the error shrinks by the step size from each vertex to the one below. Many layers down it is smaller
    than the rounding error of the values and is lost: see `ErrorBased` for deep networks.

    Args:
        steps: Number of sweeps; an upper limit if there is a tolerance.
        step_size: Step size of the activities.
        decay: Whether sweep `t` (from 0) is divided by `1 + t`.
        pull: Weight of a vertex's own error relative to the errors from its children; 1 descends the energy.
        tolerance: An example stops once none of its activities would move faster than this, in units of activity
            per unit of step size; the others continue. None: take all sweeps.
        trace: Whether to record the energies at each sweep.
        positive: Whether activities are firing rates, which stop at 0.

    Example:
        >>> Sequential(steps=5).steps
        5

    References:
        Alonso, Krichmar and Neftci, Understanding and improving optimization in predictive coding networks, AAAI
        2024, arXiv 2305.13562.
    """

    steps: int = eqx.field(static=True, default=3)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.05)
    decay: bool = eqx.field(static=True, default=True)
    pull: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    tolerance: Float[Array, ""] | None = eqx.field(converter=optional_number, default=None)
    trace: bool = eqx.field(static=True, default=False)
    positive: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        self._check()
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        check("pull", self.pull, lambda v: v >= 0, "of at least 0")

    def allowed(self, values: Values) -> Values:
        return positive_part(values) if self.positive else values

    def step(self, problem: Problem, state: Values, t: Array) -> tuple[Values, Values]:
        linear = problem.predict.linearize(state)
        values, slope = dict(state), {}

        def respond(name: str, carried: Array) -> Array:
            prediction = linear.predictions[name]
            own = problem.vertex_energy.pull(name, values[name], prediction)
            slope[name] = carried - self.pull.astype(own.dtype) * own
            values[name] = moved(values[name], slope[name], self.step_size, self.decay, t)
            if self.positive:
                slope[name], values[name] = stopped_at_zero(slope[name], state[name]), jnp.maximum(values[name], 0)
            return problem.vertex_energy.error(name, values[name], prediction)

        linear.sweep(problem.output_error(linear.output, state), respond)
        return values, slope
