"""One token at a time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vicinal.attention.ovq.chunked import Plan, assign_chunk
from vicinal.attention.ovq.dictionary import Rule, Sums, learn, read
from vicinal.attention.ovq.state import OVQState


def step(
    rule: Rule,
    queries: Float[Array, "batch heads 1 d"],
    keys: Float[Array, "batch heads 1 d"],
    values: Float[Array, "batch heads 1 e"],
    beta: Float[Array, " heads"],
    state: OVQState,
    new: Int[Array, " batch"],
    priority: Float[Array, "batch heads chunk"] | None,
) -> tuple[Float[Array, "batch heads 1 e"], OVQState]:
    """Reads one token and appends it to those that are pending; a chunk that is then finished is learned.

    Args:
        rule: The choices.
        queries: Already multiplied by `beta`.
        keys: Of the token.
        values: Of the token.
        beta: The temperature of each head.
        state: The state before the token.
        new: Centroids to make if the chunk gets finished.
        priority: As in `Plan`, of that chunk.

    Returns:
        The output, and the state after the token.
    """
    size = state.pending_keys.shape[2]
    place = state.tokens % size
    here = (jnp.arange(size, dtype=jnp.int32)[None] == place[:, None])[:, None, :, None]
    pending_keys = jnp.where(here, keys, state.pending_keys)
    pending_values = jnp.where(here, values, state.pending_values)
    visible = (jnp.arange(size, dtype=jnp.int32)[None] <= place[:, None])[:, None, None]
    visible = jnp.broadcast_to(visible, (*keys.shape[:3], size))
    outputs = read(
        rule, queries, pending_keys, pending_values, visible, jnp.broadcast_to(beta, keys.shape[:2]), state.sums
    )

    full = place == size - 1
    sums, _ = _learned(rule, state.sums, pending_keys, pending_values, Plan(full, new, priority, None))
    pending_keys, pending_values = (
        jnp.where(full[:, None, None, None], jnp.zeros_like(x), x) for x in (pending_keys, pending_values)
    )
    return outputs, OVQState(sums.keys, sums.values, sums.counts, pending_keys, pending_values, state.tokens + 1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _learned(
    rule: Rule,
    sums: Sums,
    keys: Float[Array, "batch heads chunk d"],
    values: Float[Array, "batch heads chunk e"],
    plan: Plan,
) -> tuple[Sums, Int[Array, "batch heads chunk"]]:
    """The dictionaries after the chunks that are finished, and the row of each token (beyond the last in the others).

    A loop of at most one turn, so that while no chunk is finished nothing is touched: `jax.vmap` makes of `lax.cond`
    the work of both branches, and of a loop one that ends when no row needs a turn. Its derivative is that of `learn`,
    with the rows that were found.
    """

    def turn(carry):
        _, sums, _ = carry
        z = assign_chunk(rule, keys, sums, plan)
        return jnp.zeros((), bool), learn(rule, sums, z, keys, values), z

    nowhere = jnp.full(keys.shape[:3], sums.counts.shape[-1], jnp.int32)
    return jax.lax.while_loop(lambda carry: carry[0], turn, (jnp.any(plan.full), sums, nowhere))[1:]


@_learned.defjvp
def _derivative(rule, primals, tangents):
    after, z = _learned(rule, *primals)
    _, moved = jax.jvp(lambda sums, keys, values: learn(rule, sums, z, keys, values), primals[:3], tangents[:3])
    return (after, z), (moved, np.zeros(z.shape, jax.dtypes.float0))
