"""What the tests of OVQ-attention have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vicinal.attention.ovq import ovq_attention

SETTINGS = {"beta": 3.0, "chunk_size": 5, "num_centroids": 12}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def drawn(time, batch=2, heads=2, features=4, value_features=3, seed=0, dtype=None):
    """Queries and keys of norm 1, and values."""
    rng = np.random.default_rng(seed)
    q, k = (unit(rng.normal(size=(batch, time, heads, features))) for _ in range(2))
    return tuple(jnp.asarray(x, dtype) for x in (q, k, rng.normal(size=(batch, time, heads, value_features))))


def softmax_attention(q, k, v, beta, weights=None):
    """Causal, in numpy; `weights` are further logits of each key."""
    q, k, v = (np.asarray(x) for x in (q, k, v))
    logits = beta * np.einsum("bqhd,bkhd->bhqk", q, k)
    logits = np.where(np.tri(q.shape[1], dtype=bool), logits, -np.inf)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhe->bqhe", p / p.sum(-1, keepdims=True), v)


def attend(q, k, v, state=None, **settings):
    """Compiled, with small sizes by default."""
    settings = SETTINGS | settings
    arrays = {name: value for name, value in settings.items() if isinstance(value, jax.Array)}
    return _attend(q, k, v, state, arrays, tuple((x, y) for x, y in settings.items() if x not in arrays))


@functools.partial(jax.jit, static_argnums=5)
def _attend(q, k, v, state, arrays, static):
    return ovq_attention(q, k, v, initial_state=state, **arrays, **dict(static))


def used_rows(state, b=0, h=0):
    """Mean keys, mean values and counts of the rows in use."""
    keys, values, counts = (np.asarray(x[b, h]) for x in (state.keys, state.values, state.counts))
    used = counts > 0
    return keys[used] / counts[used, None], values[used] / counts[used, None], counts[used]
