"""One token at a time."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vicinal.attention.ovq.chunked import Plan, assign_chunk
from vicinal.attention.ovq.dictionary import Rule, learn, read
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
        state: What was read before.
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
    z = _assign_if_full(rule, pending_keys, state.sums, Plan(full, new, priority, None))
    sums = learn(rule, state.sums, z, pending_keys, pending_values)
    pending_keys, pending_values = (
        jnp.where(full[:, None, None, None], jnp.zeros_like(x), x) for x in (pending_keys, pending_values)
    )
    return outputs, OVQState(*sums, pending_keys, pending_values, state.tokens + 1)


def _assign_if_full(rule, keys, sums, plan):
    """The rows of a chunk that is finished; the search for them is left out while there is none.

    A loop of at most one turn, because `jax.vmap` makes of `lax.cond` the work of both branches, and of a loop one
    that ends when no row needs a turn.
    """
    keys, sums = jax.lax.stop_gradient((keys, sums))
    nowhere = jnp.full(keys.shape[:3], sums.counts.shape[-1], jnp.int32)
    carry = (jnp.any(plan.full), nowhere)
    return jax.lax.while_loop(
        lambda c: c[0], lambda c: (jnp.zeros_like(c[0]), assign_chunk(rule, keys, sums, plan)), carry
    )[1]
