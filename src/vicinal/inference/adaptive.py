"""Adaptive inference: each example takes the step that the curvature under its last step asks for."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, number, optional_number
from vicinal.graph import Values
from vicinal.inference.base import Inference, select
from vicinal.inference.problem import Errors, Problem
from vicinal.losses import scale_examples

_GROWTH = 20.0  # a step is at most so many times longer, or shorter, than the last
_MEMORY = 10  # points whose energies a new point is compared with


class _Point(eqx.Module):
    """Where each example is, minus the slope there, the step to try, and energies and losses of the last points."""

    values: Values
    slope: Values
    step_size: Float[Array, " batch"]
    energy: Float[Array, "batch memory"]
    loss: Float[Array, "batch memory"]


class Adaptive(Inference):
    """Gradient descent on the energy with a step size of its own for each example (Barzilai and Borwein).

        tried     = values + step_size * slope                         slope = -dF/dvalues
        curvature = slope . (slope - slope at tried),   change = ||slope - slope at tried||^2
        step_size = step_size * curvature / change                     (the next one)

    so that one number stands in for the inverse Hessian along the last step. A step costs what a step of
    `Simultaneous` costs, one forward and one transposed product per layer; there is no step size to tune, and it
    cannot diverge: a point whose energy is above those of the last ten is not taken, and a quarter of the step is
    tried next. The energy may rise between neighbouring steps: that is where the speed comes from.

    Args:
        steps: How many at most.
        step_size: Of the first step.
        tolerance: An example stops when none of its activities would move faster than this, in units of activity
            per unit of step size; the others go on. None takes all steps.
        trace: Whether to record the energies along the way.

    Example:
        >>> Adaptive(tolerance=1e-4).steps
        100

    References:
        Barzilai and Borwein, Two-point step size gradient methods, IMA Journal of Numerical Analysis 8, 1988 (their
        second step). Raydan, The Barzilai and Borwein gradient method for the large scale unconstrained minimization
        problem, SIAM Journal on Optimization 7, 1997 (the comparison with the last points).
    """

    steps: int = eqx.field(static=True, default=100)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    tolerance: Float[Array, ""] | None = eqx.field(converter=optional_number, default=1e-3)
    trace: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        self._check()
        check("the step size", self.step_size, lambda v: v > 0, "above 0")

    def begin(self, problem: Problem, values: Values) -> _Point:
        slope, errors = _slope(problem, values)
        size = jnp.broadcast_to(self.step_size.astype(errors.loss.dtype), errors.loss.shape)
        last = [jnp.broadcast_to(e[:, None], (*e.shape, _MEMORY)) for e in (errors.energy, errors.loss)]
        return _Point(values, slope, size, *last)

    def step(self, problem: Problem, state: _Point, t: Array) -> tuple[_Point, Values]:
        tried = jax.tree.map(lambda v, s: v + scale_examples(state.step_size, s), state.values, state.slope)
        slope, errors = _slope(problem, tried)
        # All with the weight of the loss at this point: a proximal output changes it along the way.
        energy, last = errors.energy + errors.gain * errors.loss, state.energy + errors.gain[:, None] * state.loss
        highest = jnp.max(last, axis=1)
        rounding = 64 * jnp.finfo(energy.dtype).eps * jnp.abs(highest)
        good = energy <= highest + rounding
        difference = jax.tree.map(jnp.subtract, state.slope, slope)
        curvature, change = _dot(state.slope, difference), _dot(difference, difference)
        ratio = jnp.clip(curvature / jnp.where(change > 0, change, 1), 1 / _GROWTH, _GROWTH)
        ratio = jnp.where(good, jnp.where(curvature > 0, ratio, 2), 0.25)
        last = _pushed(state.energy, errors.energy), _pushed(state.loss, errors.loss)
        taken = _Point(tried, slope, state.step_size, *last)
        new = select(good, taken, state)
        return eqx.tree_at(
            lambda point: point.step_size, new, state.step_size * ratio.astype(state.step_size.dtype)
        ), state.slope

    def values(self, problem: Problem, state: _Point) -> Values:
        return state.values


def _slope(problem: Problem, values: Values) -> tuple[Values, Errors]:
    feedback, own, errors = problem.descent(values)
    return jax.tree.map(jnp.subtract, feedback, own), errors


def _dot(a: Values, b: Values) -> Float[Array, " batch"]:
    products = [a[name] * b[name] for name in a]
    return jnp.sum(jnp.stack([jnp.sum(p.reshape(p.shape[0], -1), axis=1) for p in products]), axis=0)


def _pushed(last: Float[Array, "batch memory"], newest: Float[Array, " batch"]) -> Float[Array, "batch memory"]:
    return jnp.concatenate([last[:, 1:], newest[:, None]], axis=1)
