"""Adaptive inference: the curvature along its last step sets the step size of each example."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check, number, optional_number
from vicinal.graph import Values
from vicinal.inference.base import Inference, select
from vicinal.inference.problem import Errors, Problem
from vicinal.losses import scale_examples

_GROWTH = 20.0  # the largest factor between two step sizes
_MEMORY = 10  # number of points with which the energy of a new point is compared


class _Point(eqx.Module):
    """The values of each example, minus the slope there, the next step size, and energies and losses of past points."""

    values: Values
    slope: Values
    step_size: Float[Array, " batch"]
    energy: Float[Array, "batch memory"]
    loss: Float[Array, "batch memory"]


class Adaptive(Inference):
    """Gradient descent on the energy with one adaptive step size per example (Barzilai and Borwein).

        tried     = values + step_size * slope                         slope = -dF/dvalues
        curvature = slope . (slope - slope at tried),   change = ||slope - slope at tried||^2
        step_size = step_size * curvature / change                     (the next one)

    so that one number approximates the inverse Hessian along the last step. A step costs as much as one of
    `Simultaneous`: one forward and one transposed product per layer. There is no step size to tune, and inference
    cannot diverge: a point whose energy is above those of the last ten points is rejected, and a quarter of the step
    is tried next. The energy may rise from one step to the next, which is what makes the method fast.

    Args:
        steps: Largest number of steps.
        step_size: Step size of the first step.
        tolerance: An example stops once none of its activities would move faster than this, in units of activity
            per unit of step size; the others continue. None: take all steps.
        trace: Whether to record the energies at each step.

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
        # Weigh all losses as at this point: a proximal output changes the weight as the values move.
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
