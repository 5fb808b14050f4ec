"""The largest learning rate at which a rule is stable."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check_turns, is_finite
from vicinal.analysis._parts import mean_loss
from vicinal.graph import Graph
from vicinal.rules import Rule

Make = Callable[[Float[Array, ""]], tuple[Rule, optax.GradientTransformation]]
"""`make(learning_rate) -> (rule, optimizer)`."""


class StableRate(NamedTuple):
    """The result of `largest_stable_rate`; the limit lies between the two rates.

    Attributes:
        stable: The largest learning rate found stable; 0 if none was.
        unstable: The smallest found unstable; infinite if none was.
    """

    stable: float
    unstable: float


def largest_stable_rate(
    make: Make,
    graph: Graph,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    *,
    steps: int = 100,
    low: float = 1e-4,
    high: float = 1e4,
    ratio: float = 1.05,
    key: PRNGKeyArray | None = None,
) -> StableRate:
    """Finds the largest stable learning rate by bisection of its logarithm.

    A rate is stable if, after `steps` updates on the same batch, all parameters are finite and the loss is finite and
    has not risen. For gradient descent on a quadratic loss the limit is `2 / largest eigenvalue` of the Hessian of the
    *mean* loss; just above the limit the loss rises slowly and needs many steps to show it. A non-linear network may be
    stable again above an unstable rate; the result is then one of the limits.

    Args:
        make: Returns the rule and the optimiser for a learning rate. It is called once, with a traced number; training
            compiles once for all rates (and for later calls with the same function).
        graph: The captured graph.
        model: The initial model.
        x: The batch of inputs, `[batch, ...]`.
        y: Targets, `[batch, ...]`.
        steps: Updates at each rate.
        low: The smallest rate to try, above 0.
        high: The largest.
        ratio: Stops when `unstable / stable` is at most this; above 1.
        key: For a rule that draws random numbers; the same for every rate.

    Returns:
        `(stable, unstable)`: `(0, low)` if `low` is unstable, `(high, inf)` if `high` is stable.

    Raises:
        ValueError: If a setting is out of its range.

    Example:
        >>> import optax, vicinal as vc
        >>> def make(rate):
        ...     return vc.rules.Backprop(loss=vc.losses.squared_error), optax.sgd(rate)
        >>> model = vc.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0))
        >>> x, y = jnp.array([[2.0]]), jnp.array([[1.0]])
        >>> found = largest_stable_rate(make, vc.capture(model, x[0]), model, x, y)
        >>> found.stable < 2 / 2.0**2 < found.unstable
        True

    References:
        Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164 (implicit SGD
        is stable at any rate; inference learning at larger ones than backpropagation).
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"expected rates 0 < low < high, got low={low!r} and high={high!r}; give finite numbers")
    if not 1 < ratio < math.inf:
        raise ValueError(f"expected ratio above 1, got {ratio!r}; 1.05 finds the limit to five percent")
    check_turns("steps", steps)

    def stable(rate: float) -> bool:
        # Weakly typed, like a Python number, so that the parameters keep their dtype.
        return bool(_is_stable(make, graph, model, x, y, jnp.asarray(rate), jnp.int32(steps), key))

    if not stable(low):
        return StableRate(0.0, low)
    if stable(high):
        return StableRate(high, math.inf)
    below, above = low, high
    while above / below > ratio:
        middle = math.sqrt(below * above)
        if not below < middle < above:  # adjacent floating-point numbers
            break
        below, above = (middle, above) if stable(middle) else (below, middle)
    return StableRate(below, above)


@eqx.filter_jit
def _is_stable(
    make: Make,
    graph: Graph,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    rate: Float[Array, ""],
    steps: Array,
    key: PRNGKeyArray | None,
) -> Bool[Array, ""]:
    """Whether training on one batch ends with finite parameters and a loss that has not risen."""
    rule, optimizer = make(rate)
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    rule_key, step_key = (None, None) if key is None else jax.random.split(key)
    with jax.numpy_dtype_promotion("standard"):  # as in `Rule.step`
        optimizer_state = optimizer.init(graph.trainable(model))
    # A carry of the loop must be an array, even if it starts as a Python number.
    memory, fixed = eqx.partition((optimizer_state, rule.init(graph, model, key=rule_key)), eqx.is_array_like)

    def step(carry: Any) -> Any:
        parameters, memory, t = carry
        optimizer_state, state = eqx.combine(memory, fixed)
        drawn = None if step_key is None else jax.random.fold_in(step_key, t)
        after, *states, _, _ = rule.step(
            graph, optimizer, eqx.combine(parameters, rest), optimizer_state, state, x, y, key=drawn
        )
        return eqx.filter(after, eqx.is_inexact_array), eqx.filter(tuple(states), eqx.is_array_like), t + 1

    ended, _, _ = jax.lax.while_loop(
        lambda carry: (carry[2] < steps) & is_finite(carry[0]), step, (parameters, memory, jnp.int32(0))
    )
    before = mean_loss(graph, model, x, y, rule.loss)
    after = mean_loss(graph, eqx.combine(ended, rest), x, y, rule.loss)
    rounding = 16 * jnp.finfo(before.dtype).eps * jnp.abs(before)  # tiny rates change the loss by less than this
    return is_finite(ended) & jnp.isfinite(after) & (after <= before + rounding)
