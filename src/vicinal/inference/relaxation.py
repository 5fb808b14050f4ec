"""Relaxation of errors through fixed Jacobians: the driver of fixed prediction and of activation relaxation."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal._numbers import check, check_count
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
    """Lets the errors of all vertices relax to the adjoints of a fixed output error.

        error_l += step_size * (sum over children c of J_c^T error_c  -  error_l)

    Sequentially, from the output down, each vertex sees what its children have become; with a step size of 1 one
    sweep is exact. Simultaneously each sees what they were; with a step size of 1 it takes as many steps as there
    are vertices on the longest way.

    Args:
        linear: The predictions, linearised; or a function of the errors that linearises them anew.
        output_error: Of the output, held.
        errors: Where to start.
        steps: How many.
        step_size: Of the errors.
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
    """Raises ValueError unless the settings of a relaxation are in range."""
    check_count("steps", steps, 0)
    if order not in ("sequential", "simultaneous"):
        raise ValueError(f"expected order as 'sequential' or 'simultaneous', got {order!r}")
    check("the step size", step_size, lambda v: v >= 0, "of at least 0")
