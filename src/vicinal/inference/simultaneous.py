"""Simultaneous inference: all activities move at once, down the slope of the energy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, number, optional_number
from vicinal.graph import Values
from vicinal.inference.base import Energies, Inference, Settled, conclude, largest, select
from vicinal.inference.problem import Problem

_State = tuple[Values, Values | None]  # values, and their velocities with momentum


class Simultaneous(Inference):
    """Explicit Euler on the energy, all vertices from the same state.

        value_l += step_size * d_t * (sum over children c of J_c^T error_c  -  pull * error_l)

    with `d_t = 1/(1+t)` if `decay`, else 1. With `momentum = m` the bracket is replaced by its running sum
    `velocity = m * velocity + bracket`.

    Args:
        steps: How many (with a tolerance: at most how many).
        step_size: Of the activities.
        decay: Whether step `t` (from 0) is divided by `1 + t`.
        momentum: In [0, 1); None for none.
        pull: Weight of a vertex's own error against the errors that come back. 1 descends the energy; the papers'
            settings with two step sizes (bottom-up over top-down) are `step_size` and their ratio.
        tolerance: An example stops when none of its activities would move faster than this, in units of activity
            per unit of step size; the others go on. None takes all steps.
        trace: Whether to record the energies along the way.

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

    def __check_init__(self):
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"expected steps as an integer of at least 0, got {self.steps!r}")
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        check("pull", self.pull, lambda v: v >= 0, "of at least 0")
        check("momentum", self.momentum, lambda v: (v >= 0) & (v < 1), "in [0, 1)")
        check("the tolerance", self.tolerance, lambda v: v > 0, "above 0")

    def settle(self, problem: Problem, values: Values) -> Settled:
        if not values:
            return conclude(problem, values, values, self.steps)
        velocity = None if self.momentum is None else jax.tree.map(jnp.zeros_like, values)
        if self.tolerance is not None:
            return self._settle_until(problem, values, velocity, self.tolerance)

        def body(state: _State, t: Array) -> tuple[_State, Energies | None]:
            new, _ = self._step(problem, state, t)
            return new, problem.energies(state[0]) if self.trace else None

        (ended, _), trace = jax.lax.scan(body, (values, velocity), jnp.arange(self.steps))
        return conclude(problem, values, ended, self.steps, trace=trace)

    def _settle_until(self, problem: Problem, values: Values, velocity: Values | None, tolerance: Array) -> Settled:
        batch = next(iter(values.values())).shape[0]
        yes, no, none = jnp.ones(batch, bool), jnp.zeros(batch, bool), jnp.zeros(batch, jnp.int32)

        def body(carry: Any, t: Array) -> tuple[Any, Energies | None]:
            state, moving, stuck, steps = carry
            new, slope = self._step(problem, state, t)
            speed = largest(slope)
            stuck = stuck | (moving & ~jnp.isfinite(speed))
            moving = moving & ~stuck & (speed > tolerance.astype(speed.dtype))
            energies = problem.energies(state[0]) if self.trace else None
            return (select(moving, new, state), moving, stuck, steps + moving.astype(steps.dtype)), energies

        carry, trace = ((values, velocity), yes, no, none), None
        if self.trace:  # a record has a row for every step, so every step is taken
            carry, trace = jax.lax.scan(body, carry, jnp.arange(self.steps))
        else:
            _, carry = jax.lax.while_loop(
                lambda loop: (loop[0] < self.steps) & jnp.any(loop[1][1]),
                lambda loop: (loop[0] + 1, body(loop[1], loop[0])[0]),
                (jnp.int32(0), carry),
            )
        (ended, _), moving, stuck, steps = carry
        return conclude(problem, values, ended, steps, converged=~moving, stuck=stuck, trace=trace)

    def _step(self, problem: Problem, state: _State, t: Array) -> tuple[_State, Values]:
        """Moves all values once; returns the new state, and minus the slope of the energy (weighted by `pull`)."""
        values, velocity = state
        feedback, own, _ = problem.descent(values)
        slope = {name: feedback[name] - self.pull.astype(own[name].dtype) * own[name] for name in values}
        direction = slope
        if velocity is not None and self.momentum is not None:
            momentum = self.momentum
            direction = velocity = jax.tree.map(lambda v, s: momentum.astype(v.dtype) * v + s, velocity, slope)

        def move(value: Array, direction: Array) -> Array:
            size = self.step_size.astype(value.dtype)
            return value + (size / (1 + t).astype(value.dtype) if self.decay else size) * direction

        return (jax.tree.map(move, values, direction), velocity), slope
