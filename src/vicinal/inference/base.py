"""The base of inference strategies: activities settle, and the result says how that ended."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from vicinal._numbers import check, check_turns, is_half, number_text, wide, widened
from vicinal._show import module_text
from vicinal.graph import Values
from vicinal.inference.problem import Problem
from vicinal.inference.result import Result

Energies = dict[str, Float[Array, "..."]]
Observe = Callable[[Values], PyTree]
"""From the values to a tree of floating-point arrays."""


class Settled(eqx.Module):
    """The end of inference.

    Attributes:
        values: The value of each vertex, `[batch, ...]`.
        result: A `Result` code per example, `[batch]`.
        steps: Steps taken, `[batch]`.
        energies: Energy of each vertex, and of `"output"`, at the end, `[batch]` each.
        trace: The same before each step and after the last, `[steps + 1, batch]`; None unless asked for.
        observed: The mean over the last steps of what was observed; None unless asked for.
    """

    values: Values
    result: Int[Array, " batch"]
    steps: Int[Array, " batch"]
    energies: Energies
    trace: Energies | None = None
    observed: PyTree = None


_UNROLLED = 4  # unroll up to this many steps, so that the first shares the products of the feedforward pass

_ROUNDING = 1e-9  # of a part of the steps that is a whole number

State = Any
"""What a strategy carries from step to step: the values, or a tree from which `Inference.values` reads them."""


class Inference(eqx.Module):
    """A way for activities to settle. A strategy implements `step`; `settle` runs the steps.

    Attributes:
        steps: Number of steps; an upper limit if there is a tolerance.
        tolerance: An example stops once nothing in it would move faster than this. None: take all steps.
        trace: Whether to record the energies at each step.
    """

    local: ClassVar[bool] = True
    """Whether a step moves a vertex only by what the vertex and its children hold."""

    steps: eqx.AbstractVar[int]
    tolerance: eqx.AbstractVar[Float[Array, ""] | None]
    trace: eqx.AbstractVar[bool]

    def __repr__(self) -> str:
        return module_text(self)

    def allowed(self, values: Values) -> Values:
        """Returns the values that inference may start from; by default, those given."""
        return values

    def begin(self, problem: Problem, values: Values) -> State:
        """Returns the state before the first step, arrays `[batch, ...]`; by default, the values."""
        del problem
        return values

    def step(self, problem: Problem, state: State, t: Int[Array, ""]) -> tuple[State, Values]:
        """Takes one step.

        Args:
            problem: The energy, with input and target held.
            state: From `begin` or the last step.
            t: Index of the step, from 0.

        Returns:
            `(state, slope)`: the state after the step, and the velocity of every value per unit of step size, which is
            zero at equilibrium.
        """
        raise NotImplementedError

    def values(self, problem: Problem, state: State) -> Values:
        """Reads the values from a state."""
        del problem
        return state

    def settle(self, problem: Problem, values: Values, observe: Observe | None = None, part: float = 0.0) -> Settled:
        """Runs inference.

        Args:
            problem: The energy, with input and target held.
            values: Values to start from, `[batch, ...]`.
            observe: A function of the values whose mean over the last steps is wanted.
            part: The last part of the steps, from 0 to 1 and rounded up, after each of which `observe` is called; 0
                for the end alone.

        Returns:
            The values at the end, with result codes, steps and energies.

        Raises:
            ValueError: If a mean is wanted and there is a tolerance, which leaves the number of steps open.
        """
        if observe is not None:
            self.check_steps()
        if not values:
            settled = conclude(problem, values, values, self.steps)
            return settled if observe is None else dataclasses.replace(settled, observed=observe(values))
        values = problem.predict.counted(self.allowed(values))
        state = self.begin(problem, values)
        if self.tolerance is not None:
            return self._settle_until(problem, values, state, self.tolerance)

        def body(state: State, t: Array) -> tuple[State, Energies | None]:
            energies = problem.energies(self.values(problem, state)) if self.trace else None
            return self.step(problem, state, t)[0], energies

        last = 0 if observe is None else max(1, math.ceil(part * self.steps - _ROUNDING))
        first = min(self.steps, self.steps - last + 1)  # after which the first is observed
        state, trace = jax.lax.scan(body, state, jnp.arange(first), unroll=self.steps <= _UNROLLED)
        observed = None
        if observe is not None:
            state, rest, observed = self._observed(problem, state, body, observe, first)
            trace = jax.tree.map(lambda *rows: jnp.concatenate(rows), trace, rest)
        ended = conclude(problem, values, self.values(problem, state), self.steps, trace=trace)
        return dataclasses.replace(ended, observed=observed)

    def _observed(
        self, problem: Problem, state: State, body: Callable, observe: Observe, first: int
    ) -> tuple[State, Energies | None, PyTree]:
        """Takes the steps from `first`, and observes the values before each and after the last."""

        def seen(total: PyTree, state: State) -> PyTree:
            new = observe(self.values(problem, state))
            return jax.tree.map(lambda total, new: total + new.astype(total.dtype), total, new)

        def observing(carry: tuple[State, PyTree], t: Array) -> tuple[tuple[State, PyTree], Energies | None]:
            # Before the step, which reads the arrays with these very values as well.
            total = seen(carry[1], carry[0])
            state, energies = body(carry[0], t)
            return (state, total), energies

        like = jax.eval_shape(lambda state: observe(self.values(problem, state)), state)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, wide(leaf.dtype)), like)
        rest = jnp.arange(first, self.steps)
        (state, total), trace = jax.lax.scan(observing, (state, nothing), rest, unroll=self.steps <= _UNROLLED)
        total, number = seen(total, state), len(rest) + 1
        mean = jax.tree.map(lambda sum_, leaf: (sum_ / number).astype(leaf.dtype), total, like)
        return state, trace, mean

    def check_steps(self) -> None:
        """Raises ValueError if something is to be averaged over steps and their number is open."""
        if self.tolerance is not None:
            raise ValueError(
                "expected inference that takes all its steps, over the last of which is averaged, got a tolerance of "
                f"{number_text(self.tolerance)}; set it to None, or take the end alone"
            )

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
        if self.trace:  # the trace has a row for every step, so take them all
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
        """Raises ValueError if a common setting is out of range."""
        check_turns("steps", self.steps, 0)
        for name in ("decay", "positive"):
            if not isinstance(value := getattr(self, name, False), bool):
                raise ValueError(f"expected {name} as True or False, got {value!r}")
        check("the tolerance", self.tolerance, lambda v: v > 0, "above 0")


def gathered(velocity: Values | None, slope: Values, momentum: Array | None) -> Values:
    """Returns `momentum * velocity + slope`; without momentum, the slope."""
    if velocity is None or momentum is None:
        return slope
    return jax.tree.map(lambda v, s: momentum.astype(v.dtype) * v + s, velocity, slope)


def moved(value: PyTree, direction: PyTree, step_size: Array, decay: bool, t: Array) -> PyTree:
    """Returns `value + step_size * direction`; `decay` divides the step size of step `t` (from 0) by `1 + t`."""

    def move(value: Array, direction: Array) -> Array:
        size = step_size.astype(value.dtype)
        return value + (size / (1 + t).astype(value.dtype) if decay else size) * direction

    return jax.tree.map(move, value, direction)


def positive_part(values: Values) -> Values:
    """Replaces negative values by 0."""
    return jax.tree.map(lambda value: jnp.maximum(value, 0), values)


def stopped_at_zero(slope: Array, value: Array) -> Array:
    """Returns the velocity of a firing rate: 0 for a rate of 0 that is pulled down."""
    return jnp.where((value <= 0) & (slope < 0), jnp.zeros_like(slope), slope)


def total(energies: Energies) -> Float[Array, " batch"]:
    """Sums the energies of the vertices and the output."""
    return sum(energies.values(), start=jnp.zeros((), next(iter(energies.values())).dtype))


def largest(values: Values) -> Float[Array, " batch"]:
    """Returns the largest magnitude in each example over all vertices; NaN if a value is NaN."""
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
    """Finds the result codes and energies of inference from `start` to `values`.

    Args:
        problem: The energy.
        start: The values at the start; or the energy there, `[batch]`, if the problem has changed since.
        values: The values at the end.
        steps: Steps taken.
        converged: Whether each example met the tolerance; None without a tolerance.
        stuck: Whether the slope of the energy was infinite or undefined, so that the values could not move.
        trace: Energies before each step, `[steps, batch]`.

    Returns:
        The end of inference.
    """
    # Weigh the loss alike at both ends: a proximal output changes its weight as the values move.
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
    """Bounds how much an energy may seem to rise by rounding alone.

    An error is the difference of two numbers, so its rounding error is `eps` times their size, not its own: with `s`
    the norm of values and output, that of the energy is about `eps * (energy + sqrt(2 energy) s + s)`.
    """
    leaves = [leaf for leaf in jax.tree.leaves((output, values)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    halves = [leaf.dtype for leaf in leaves if is_half(leaf)]  # energies have more digits than these
    eps = 64 * max(float(jnp.finfo(dtype).eps) for dtype in (energy.dtype, *halves))
    flat = [widened(leaf).reshape(leaf.shape[0], -1) for leaf in leaves]
    squares = [jnp.sum(jnp.square(leaf), axis=1).astype(energy.dtype) for leaf in flat]
    size = jnp.sqrt(jnp.sum(jnp.stack(squares), axis=0))
    return eps * (energy + (jnp.sqrt(2 * energy) + 1) * size)


def select(keep: Bool[Array, " batch"], new: PyTree, old: PyTree) -> PyTree:
    """Selects `new` for the examples where `keep` is True, otherwise `old`; trees of arrays `[batch, ...]`."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(keep.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
