"""What an inference strategy is: it lets the activities settle and says how that ended."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from vicinal._numbers import check, check_count, is_half, widened
from vicinal._show import module_text
from vicinal.graph import Values
from vicinal.inference.problem import Problem
from vicinal.inference.result import Result

Energies = dict[str, Float[Array, "..."]]


class Settled(eqx.Module):
    """Where inference ended.

    Attributes:
        values: What the vertices hold, `[batch, ...]`.
        result: A `Result` code per example, `[batch]`.
        steps: Steps taken, `[batch]`.
        energies: Energy of each vertex, and of `"output"`, at the end, `[batch]` each.
        trace: The same before each step and after the last, `[steps + 1, batch]`; None unless asked for.
    """

    values: Values
    result: Int[Array, " batch"]
    steps: Int[Array, " batch"]
    energies: Energies
    trace: Energies | None = None


_UNROLLED = 4  # so few steps are written out: the first then shares the feedforward pass's products

State = Any
"""What a strategy carries from step to step: the values, or a tree that they are read from."""


class Inference(eqx.Module):
    """A way for activities to settle. A strategy says how they `step`; `settle` drives it.

    Attributes:
        steps: How many (with a tolerance: at most how many).
        tolerance: An example stops when nothing in it would move faster than this; None takes all steps.
        trace: Whether to record the energies along the way.
    """

    local: ClassVar[bool] = True
    """Whether each step moves a vertex by what it and its children hold."""

    steps: eqx.AbstractVar[int]
    tolerance: eqx.AbstractVar[Float[Array, ""] | None]
    trace: eqx.AbstractVar[bool]

    def __repr__(self) -> str:
        return module_text(self)

    def allowed(self, values: Values) -> Values:
        """Where inference may start, for values that were given; by default there."""
        return values

    def begin(self, problem: Problem, values: Values) -> State:
        """The state before the first step; by default the values themselves. Its arrays are `[batch, ...]`."""
        del problem
        return values

    def step(self, problem: Problem, state: State, t: Int[Array, ""]) -> tuple[State, Values]:
        """One step.

        Args:
            problem: The energy, with input and target held.
            state: From `begin` or the last step.
            t: The number of steps before, from 0.

        Returns:
            `(state, slope)`: the state after the step, and how fast everything moves: the velocities per unit of
            step size, zero at equilibrium.
        """
        raise NotImplementedError

    def values(self, problem: Problem, state: State) -> Values:
        """The values in a state."""
        del problem
        return state

    def settle(self, problem: Problem, values: Values) -> Settled:
        """Lets the activities settle.

        Args:
            problem: The energy, with input and target held.
            values: Where to start, `[batch, ...]`.

        Returns:
            Where it ended.
        """
        if not values:
            return conclude(problem, values, values, self.steps)
        values = problem.predict.counted(self.allowed(values))
        state = self.begin(problem, values)
        if self.tolerance is not None:
            return self._settle_until(problem, values, state, self.tolerance)

        def body(state: State, t: Array) -> tuple[State, Energies | None]:
            energies = problem.energies(self.values(problem, state)) if self.trace else None
            return self.step(problem, state, t)[0], energies

        state, trace = jax.lax.scan(body, state, jnp.arange(self.steps), unroll=self.steps <= _UNROLLED)
        return conclude(problem, values, self.values(problem, state), self.steps, trace=trace)

    def _settle_until(self, problem: Problem, values: Values, state: State, tolerance: Array) -> Settled:
        batch = next(iter(values.values())).shape[0]
        yes, no, none = jnp.ones(batch, bool), jnp.zeros(batch, bool), jnp.zeros(batch, jnp.int32)

        def body(carry: Any, t: Array) -> tuple[Any, Energies | None]:
            state, moving, stuck, steps = carry
            new, slope = self.step(problem, state, t)
            speed = largest(slope)
            stuck = stuck | (moving & ~jnp.isfinite(speed))
            moving = moving & ~stuck & (speed > tolerance.astype(speed.dtype))
            energies = problem.energies(self.values(problem, state)) if self.trace else None
            return (select(moving, new, state), moving, stuck, steps + moving.astype(steps.dtype)), energies

        carry, trace = (state, yes, no, none), None
        if self.trace:  # a record has a row for every step, so every step is taken
            carry, trace = jax.lax.scan(body, carry, jnp.arange(self.steps))
        else:
            _, carry = jax.lax.while_loop(
                lambda loop: (loop[0] < self.steps) & jnp.any(loop[1][1]),
                lambda loop: (loop[0] + 1, body(loop[1], loop[0])[0]),
                (jnp.int32(0), carry),
            )
        state, moving, stuck, steps = carry
        ended = self.values(problem, state)
        return conclude(problem, values, ended, steps, converged=~moving, stuck=stuck, trace=trace)

    def _check(self) -> None:
        """Raises ValueError unless the common settings are in range."""
        check_count("steps", self.steps, 0)
        for name in ("decay", "positive"):
            if not isinstance(value := getattr(self, name, False), bool):
                raise ValueError(f"expected {name} as True or False, got {value!r}")
        check("the tolerance", self.tolerance, lambda v: v > 0, "above 0")


def gathered(velocity: Values | None, slope: Values, momentum: Array | None) -> Values:
    """`momentum * velocity + slope`, or the slope itself without momentum."""
    if velocity is None or momentum is None:
        return slope
    return jax.tree.map(lambda v, s: momentum.astype(v.dtype) * v + s, velocity, slope)


def moved(value: PyTree, direction: PyTree, step_size: Array, decay: bool, t: Array) -> PyTree:
    """`value + step_size * direction`; with `decay`, step `t` (from 0) is divided by `1 + t`."""

    def move(value: Array, direction: Array) -> Array:
        size = step_size.astype(value.dtype)
        return value + (size / (1 + t).astype(value.dtype) if decay else size) * direction

    return jax.tree.map(move, value, direction)


def positive_part(values: Values) -> Values:
    """The values, with 0 in place of what is below it."""
    return jax.tree.map(lambda value: jnp.maximum(value, 0), values)


def stopped_at_zero(slope: Array, value: Array) -> Array:
    """How fast a firing rate moves: a rate of 0 that is pulled down does not."""
    return jnp.where((value <= 0) & (slope < 0), jnp.zeros_like(slope), slope)


def total(energies: Energies) -> Float[Array, " batch"]:
    """The sum over the vertices and the output."""
    return sum(energies.values(), start=jnp.zeros((), next(iter(energies.values())).dtype))


def largest(values: Values) -> Float[Array, " batch"]:
    """The largest magnitude in each example, over all vertices; not a number where a value is not."""
    flat = [jnp.abs(value).reshape(value.shape[0], -1) for value in values.values()]
    return jnp.max(jnp.concatenate(flat, axis=1), axis=1)


def conclude(
    problem: Problem,
    start: Values | Float[Array, " batch"],
    values: Values,
    steps: Int[Array, " batch"] | int,
    *,
    converged: Bool[Array, " batch"] | None = None,
    stuck: Bool[Array, " batch"] | None = None,
    trace: Energies | None = None,
) -> Settled:
    """Says how inference from `start` to `values` ended.

    Args:
        problem: The energy.
        start: Where inference began; or the energy that it had there, if the problem has changed since.
        values: Where it ended.
        steps: Steps taken.
        converged: Whether the tolerance was met, if there was one.
        stuck: Whether the slope of the energy was infinite or undefined, so that the values could not move.
        trace: Energies before each step, `[steps, batch]`.

    Returns:
        The end of inference, with its result codes and energies.
    """
    # With the weights of one energy at both ends: a proximal output changes its own along the way.
    before = total(problem.energies(start, gain_at=values)) if isinstance(start, dict) else widened(start)
    energies = problem.energies(values)
    after = total(energies)
    finite = jnp.isfinite(after) & (jnp.isfinite(largest(values)) if values else True)
    if stuck is not None:
        finite = finite & ~stuck
    rounding = _rounding(before, problem.predict(values)[0], values)
    code = jnp.full(after.shape, Result.STEP_LIMIT, jnp.int32)
    if converged is not None:
        code = jnp.where(converged, jnp.int32(Result.CONVERGED), code)
    code = jnp.where(after > before + rounding, jnp.int32(Result.DIVERGED), code)
    code = jnp.where(finite, code, jnp.int32(Result.NON_FINITE))
    if trace is not None:
        trace = {name: jnp.concatenate([rows, energies[name][None]]) for name, rows in trace.items()}
    return Settled(values, code, jnp.broadcast_to(jnp.asarray(steps, jnp.int32), code.shape), energies, trace)


def _rounding(energy: Float[Array, " batch"], output: PyTree, values: Values) -> Float[Array, " batch"]:
    """How much an energy may seem to rise by rounding alone.

    An error is the difference of two numbers and so is wrong by `eps` times their size, not its own: with `s` the
    norm of values and output, the energy is wrong by some `eps * (energy + sqrt(2 energy) s + s)`.
    """
    leaves = [leaf for leaf in jax.tree.leaves((output, values)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    halves = [leaf.dtype for leaf in leaves if is_half(leaf)]  # energies have more digits than these
    eps = 64 * max(float(jnp.finfo(dtype).eps) for dtype in (energy.dtype, *halves))
    flat = [widened(leaf).reshape(leaf.shape[0], -1) for leaf in leaves]
    squares = [jnp.sum(jnp.square(leaf), axis=1).astype(energy.dtype) for leaf in flat]
    size = jnp.sqrt(jnp.sum(jnp.stack(squares), axis=0))
    return eps * (energy + (jnp.sqrt(2 * energy) + 1) * size)


def select(keep: Bool[Array, " batch"], new: PyTree, old: PyTree) -> PyTree:
    """`new` for the examples where `keep` holds, `old` for the others; trees of arrays `[batch, ...]`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(keep.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
