"""L-BFGS on a vector, in one compiled loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int


def minimise(
    objective: Callable[[Float[Array, " n"]], Float[Array, ""]],
    start: Float[Array, " n"],
    *,
    steps: int,
    tolerance: ArrayLike,
) -> tuple[Float[Array, " n"], Bool[Array, ""], Int[Array, ""]]:
    """Minimises a smooth function.

    Args:
        objective: A scalar function of a vector.
        start: The initial point.
        steps: The maximum number of iterations.
        tolerance: Stops when the norm of the gradient is below this times `max(1, distance from the start)`.

    Returns:
        `(point, converged, steps taken)`.
    """
    solver, evaluate = optax.lbfgs(), optax.value_and_grad_from_state(objective)
    tolerance = jnp.asarray(tolerance).astype(start.dtype)

    def unfinished(point: Array, slope: Array) -> Array:
        distance = jnp.linalg.norm(point - start)
        return jnp.linalg.norm(slope) > tolerance * jnp.maximum(distance, jnp.ones((), start.dtype))

    def improve(carry: Any) -> Any:
        point, state, _, t = carry
        value, slope = evaluate(point, state=state)
        update, state = solver.update(slope, state, point, value=value, grad=slope, value_fn=objective)
        return point + update, state, optax.tree.get(state, "grad"), t + 1

    # Optax's arithmetic mixes dtypes and ranks, which JAX's strict modes reject.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        point, _, slope, taken = jax.lax.while_loop(
            lambda carry: (carry[3] < steps) & unfinished(carry[0], carry[2]),
            improve,
            (start, solver.init(start), jax.grad(objective)(start), jnp.int32(0)),
        )
    return point, ~unfinished(point, slope), taken
