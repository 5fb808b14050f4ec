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
        objective: Of a vector.
        start: Where to begin.
        steps: Iterations at most.
        tolerance: Stops when the norm of the slope is below this times the distance from the start, or below this
            where the distance is less than 1.

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

    # optax's own arithmetic mixes dtypes and ranks, which the strict modes refuse.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        point, _, slope, taken = jax.lax.while_loop(
            lambda carry: (carry[3] < steps) & unfinished(carry[0], carry[2]),
            improve,
            (start, solver.init(start), jax.grad(objective)(start), jnp.int32(0)),
        )
    return point, ~unfinished(point, slope), taken
