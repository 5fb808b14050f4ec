"""Simultaneous inference: all activities move at once, down the slope of the energy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal.graph import Values
from vicinal.inference.base import Inference, Settled, judge, largest, select
from vicinal.inference.problem import Problem


def _number(value: Any) -> Array:
    return jnp.asarray(value)


def _optional_number(value: Any) -> Array | None:
    return None if value is None else jnp.asarray(value)


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
    step_size: Float[Array, ""] = eqx.field(converter=_number, default=0.1)
    decay: bool = eqx.field(static=True, default=False)
    momentum: Float[Array, ""] | None = eqx.field(converter=_optional_number, default=None)
    pull: Float[Array, ""] = eqx.field(converter=_number, default=1.0)
    tolerance: Float[Array, ""] | None = eqx.field(converter=_optional_number, default=None)
    trace: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        if not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"expected steps as an integer of at least 0, got {self.steps!r}")

    def settle(self, problem: Problem, values: Values) -> Settled:
        if not values:
            return self._settled(problem, values, values, None, self.steps, None)
        state = (values, None if self.momentum is None else jax.tree.map(jnp.zeros_like, values))
        if self.tolerance is not None:
            return self._settle_until(problem, state, self.tolerance.astype(next(iter(values.values())).dtype))

        def body(state: Any, t: Array) -> tuple[Any, Any]:
            recorded = problem.energies(state[0]) if self.trace else None
            return self._move(state, t, *problem.descent(state[0])[:2])[0], recorded

        (settled, _), trace = jax.lax.scan(body, state, jnp.arange(self.steps))
        return self._settled(problem, values, settled, None, self.steps, trace)

    def _settle_until(self, problem: Problem, state: Any, tolerance: Array) -> Settled:
        start = state[0]
        batch = next(iter(start.values())).shape[0]
        energies = problem.energies(start) if self.trace else {}
        trace = {name: jnp.zeros((self.steps, batch), e.dtype) for name, e in energies.items()}

        def going(loop: Any) -> Array:
            t, _, moving, _, _ = loop
            return (t < self.steps) & jnp.any(moving)

        def body(loop: Any) -> Any:
            t, state, moving, steps, trace = loop
            if self.trace:
                trace = {name: trace[name].at[t].set(e) for name, e in problem.energies(state[0]).items()}
            moved, slope = self._move(state, t, *problem.descent(state[0])[:2])
            # An example that is not a number never moves again: the comparison is False.
            moving = moving & (largest(slope) > tolerance)
            state = jax.tree.map(lambda new, old: select(moving, {"": new}, {"": old})[""], moved, state)
            return t + 1, state, moving, steps + moving.astype(steps.dtype), trace

        moving, steps = jnp.ones(batch, bool), jnp.zeros(batch, jnp.int32)
        loop = (jnp.int32(0), state, moving, steps, trace)
        t, (settled, _), moving, steps, trace = jax.lax.while_loop(going, body, loop)
        if self.trace:
            ended = (
                jnp.arange(self.steps, dtype=t.dtype)[:, None] >= t
            )  # rows that no step wrote: the energies stay where they are
            last = problem.energies(settled)
            trace = {name: jnp.where(ended, last[name][None], rows) for name, rows in trace.items()}
        return self._settled(problem, start, settled, ~moving, steps, trace if self.trace else None)

    def _move(self, state: Any, t: Array, feedback: Values, own: Values) -> tuple[Any, Values]:
        values, velocity = state

        def slope(feedback: Array, own: Array) -> Array:
            return feedback - self.pull.astype(own.dtype) * own

        direction = jax.tree.map(slope, feedback, own)
        momentum = self.momentum
        if momentum is not None:
            velocity = jax.tree.map(lambda v, d: momentum.astype(d.dtype) * v + d, velocity, direction)

        def move(value: Array, direction: Array) -> Array:
            size = self.step_size.astype(value.dtype)
            return value + (size / (1 + t).astype(value.dtype) if self.decay else size) * direction

        return (jax.tree.map(move, values, direction if velocity is None else velocity), velocity), direction

    def _settled(
        self, problem: Problem, start: Values, values: Values, converged: Any, steps: Any, trace: Any
    ) -> Settled:
        code, energies = judge(problem, start, values, converged)
        if trace is not None:
            trace = {name: jnp.concatenate([rows, energies[name][None]]) for name, rows in trace.items()}
        return Settled(values, code, jnp.broadcast_to(jnp.asarray(steps, jnp.int32), code.shape), energies, trace)
