"""When weights learn from activities that move: at the end, at a random step, or from a mean over the last steps."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree

from vicinal._numbers import wide

_ROUNDING = 1e-9  # of a part of the steps that is a whole number


def last_steps(steps: int, part: float) -> int:
    """Returns how many steps the last part of them has, rounded up.

    Example:
        >>> last_steps(20, 0.5), last_steps(5, 0.01)
        (10, 1)
    """
    return max(1, math.ceil(part * steps - _ROUNDING))


def drawn_step(key: PRNGKeyArray | None, shape: tuple[int, ...], steps: int, last: int) -> Int[Array, "..."]:
    """Draws steps among the last, after which weights learn."""
    if key is None:
        raise ValueError("expected a key for the time of the update, got None; pass key=jax.random.key(...)")
    return jax.random.randint(key, shape, steps - last, steps)


def chosen(now: Bool[Array, "..."], new: PyTree, kept: PyTree) -> PyTree:
    """Returns what is new where it is time to, else what is kept; `now` is `[batch]` or `[1]`."""
    return jax.tree.map(lambda a, b: jnp.where(now.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, kept)


def observed(
    step: Callable[[PyTree, Array], PyTree], begun: PyTree, product: Callable[[PyTree], PyTree], steps: int, last: int
) -> tuple[PyTree, PyTree]:
    """Takes the steps.

    Args:
        step: `step(state, t) -> state`.
        begun: The state before the first step.
        product: Computes what is averaged from a state.
        steps: Number of steps.
        last: Number of steps after each of which it is computed.

    Returns:
        The state after the last step, and the mean.
    """

    def watched(carry: tuple[PyTree, PyTree], t: Array) -> tuple[Any, None]:
        state = step(carry[0], t)
        total = jax.tree.map(lambda total, new: total + new.astype(total.dtype), carry[1], product(state))
        return (state, total), None

    state, _ = jax.lax.scan(lambda state, t: (step(state, t), None), begun, jnp.arange(steps - last))
    like = jax.eval_shape(product, begun)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, wide(leaf.dtype)), like)
    (state, total), _ = jax.lax.scan(watched, (state, nothing), jnp.arange(steps - last, steps))
    return state, jax.tree.map(lambda leaf, form: (leaf / last).astype(form.dtype), total, like)
