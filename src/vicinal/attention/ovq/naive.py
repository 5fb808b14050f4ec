"""OVQ-attention of one head, token by token: a slow, readable reference for tests of the fast one."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vicinal._numbers import check
from vicinal.attention.ovq.schedule import Schedule


def naive_ovq_attention(
    q: Float[Array, "time d"],
    k: Float[Array, "time d"],
    v: Float[Array, "time e"],
    *,
    beta: float | Float[Array, ""],
    schedule: Schedule,
    join: str = "all",
    bias: str = "count",
    learning_rate: float | None = None,
    normalize_centroids: bool = False,
    key_sums: Float[Array, "n d"] | None = None,
    value_sums: Float[Array, "n e"] | None = None,
    counts: Float[Array, " n"] | None = None,
    pending_keys: Float[Array, "pending d"] | None = None,
    pending_values: Float[Array, "pending e"] | None = None,
    chunks: int = 0,
) -> tuple[Float[Array, "time e"], dict[str, Float[Array, "..."]]]:
    """What `ovq_attention` computes for one head of one sequence.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        beta: The temperature.
        schedule: The size of the dictionary.
        join: `"all"` or `"old"`.
        bias: `"count"`, `"none"` or `"gmr"`.
        learning_rate: Of the centroids; the running mean by default.
        normalize_centroids: Whether centroids have norm 1.
        key_sums: To continue: the sums of the keys of the centroids in use, and no other rows.
        value_sums: To continue: the sums of their values.
        counts: To continue: the number of their tokens.
        pending_keys: To continue: the keys since the last finished chunk.
        pending_values: To continue: the values since the last finished chunk.
        chunks: To continue: the number of finished chunks.

    Returns:
        The outputs, and what `key_sums`, `value_sums`, `counts`, `pending_keys` and `pending_values` are then.

    Example:
        >>> q, k, v = jnp.ones((5, 2)), jnp.eye(5, 2), jnp.arange(5.0)[:, None]
        >>> outputs, _ = naive_ovq_attention(q, k, v, beta=0.0, schedule=Schedule("plateau", 8, 2))
        >>> [round(x, 3) for x in outputs[:, 0].tolist()]  # without a temperature, the mean of the values so far
        [0.0, 0.5, 1.0, 1.5, 2.0]
    """
    check("beta", beta)
    check("learning_rate", learning_rate, lambda v: (v > 0) & (v <= 1), "above 0 and at most 1, or None")
    key_sums = jnp.zeros((0, k.shape[1]), k.dtype) if key_sums is None else key_sums
    value_sums = jnp.zeros((0, v.shape[1]), v.dtype) if value_sums is None else value_sums
    counts = jnp.zeros(0, k.dtype) if counts is None else counts
    pending_keys = k[:0] if pending_keys is None else pending_keys
    pending_values = v[:0] if pending_values is None else pending_values
    outputs = []
    for t in range(len(q)):
        pending_keys = jnp.concatenate([pending_keys, k[t : t + 1]])
        pending_values = jnp.concatenate([pending_values, v[t : t + 1]])

        dictionary = (key_sums, value_sums, counts)
        outputs.append(_read(q[t], *dictionary, pending_keys, pending_values, beta, bias, normalize_centroids))

        if len(pending_keys) == schedule.chunk_size:
            chunks += 1
            new = max(schedule.size(chunks) - len(counts), 0)
            z = _assigned(pending_keys, _means(key_sums, counts, normalize_centroids), new, join)
            grown = jnp.pad(counts, (0, new))
            counts = grown.at[z].add(1)
            key_sums = _moved(jnp.pad(key_sums, [(0, new), (0, 0)]), pending_keys, z, grown, counts, learning_rate)
            value_sums = _moved(
                jnp.pad(value_sums, [(0, new), (0, 0)]), pending_values, z, grown, counts, learning_rate
            )
            pending_keys, pending_values = pending_keys[:0], pending_values[:0]
    state = {"key_sums": key_sums, "value_sums": value_sums, "counts": counts}
    state |= {"pending_keys": pending_keys, "pending_values": pending_values}
    return jnp.stack(outputs), state


def _means(sums, counts, normalize):
    means = sums / counts[:, None]
    return means / jnp.linalg.norm(means, axis=1, keepdims=True) if normalize else means


@functools.partial(jax.jit, static_argnames=("bias", "normalize"))
def _read(query, key_sums, value_sums, counts, pending_keys, pending_values, beta, bias, normalize):
    """Softmax attention to the centroids, each with its log count, and to the tokens that are pending."""
    mu, nu = _means(key_sums, counts, normalize), _means(value_sums, counts, False)
    offset = jnp.zeros_like(counts) if bias == "none" else jnp.log(counts)
    if bias == "gmr":
        offset = offset - beta / 2 * (jnp.sum(mu**2, axis=1) - 1)
    logits = jnp.concatenate([beta * (mu @ query) + offset, beta * (pending_keys @ query)])
    return jax.nn.softmax(logits) @ jnp.concatenate([nu, pending_values])


@functools.partial(jax.jit, static_argnames=("new", "join"))
def _assigned(keys, mu, new, join):
    """The centroid of each key of a chunk: the `new` ones least like the dictionary make one, the others join."""
    keys, mu = jax.lax.stop_gradient((keys, mu))
    first = len(mu) == 0
    similarity = (keys @ keys[0]).at[0].set(-jnp.inf) if first else jnp.max(keys @ mu.T, axis=1)
    makers = jnp.argsort(similarity, stable=True)[:new]
    among = jnp.concatenate([mu, keys[makers]])
    if join == "old":
        among = keys[:1] if first else mu
    joined = jnp.argmax(keys @ among.T, axis=1)
    return joined.at[makers].set(len(mu) + jnp.arange(new))


@functools.partial(jax.jit, static_argnames="learning_rate")
def _moved(sums, x, z, old, counts, learning_rate):
    """The sums once each token has moved the mean of its centroid."""
    total = sums.at[z].add(x)
    if learning_rate is None:
        return total
    mean = sums / jnp.maximum(old, 1)[:, None]
    moved = mean + learning_rate * (total - sums - (counts - old)[:, None] * mean)
    return jnp.where((old > 0)[:, None], counts[:, None] * moved, total)
