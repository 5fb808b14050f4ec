"""Relaxation of errors through fixed Jacobians, for fixed prediction and activation relaxation."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._numbers import check, check_turns
from vicinal.clamped import Linearized
from vicinal.graph import Values

Order = Literal["sequential", "simultaneous"]


def relax(
    linear: Linearized | Callable[[Values], Linearized],
    output_error: PyTree,
    errors: Values,
    *,
    steps: int,
    step_size: Float[Array, ""],
    order: Order,
) -> Values:
    """Relaxes the errors of all vertices to the adjoints of a fixed output error.

        error_l += step_size * (sum over children c of J_c^T error_c  -  error_l)

    In sequential order, from the output down, each vertex reads the new errors of its children; with a step size of 1
    one sweep is exact. In simultaneous order it reads their old errors; with a step size of 1 this takes as many steps
    as there are vertices on the longest path.

    Args:
        linear: The linearised predictions; or a function of the errors that linearises them at every step.
        output_error: The error of the output, which is held.
        errors: Errors to start from, `[batch, ...]`.
        steps: Number of steps.
        step_size: Step size of the errors.
        order: `"sequential"` or `"simultaneous"`.

    Returns:
        The errors after the last step.
    """

    def move(error: Array, carried: Array) -> Array:
        return error + step_size.astype(error.dtype) * (carried - error)

    def body(errors: Values, _: Any) -> tuple[Values, None]:
        around = linear if isinstance(linear, Linearized) else linear(errors)
        if order == "simultaneous":
            return jax.tree.map(move, errors, around.carry(output_error, errors)), None
        new = dict(errors)

        def respond(name: str, carried: Array) -> Array:
            new[name] = move(errors[name], carried)
            return new[name]

        around.sweep(output_error, respond)
        return new, None

    return jax.lax.scan(body, errors, jnp.arange(steps))[0]


def check_relaxation(steps: int, step_size: Float[Array, ""], order: str) -> None:
    """Raises ValueError if a setting of a relaxation is out of range."""
    check_turns("steps", steps, 0)
    if order not in ("sequential", "simultaneous"):
        raise ValueError(f"expected order as 'sequential' or 'simultaneous', got {order!r}")
    check("the step size", step_size, lambda v: v >= 0, "of at least 0")
