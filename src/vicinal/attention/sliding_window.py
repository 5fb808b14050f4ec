"""Softmax attention to the last few tokens, and the layer made of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vicinal._numbers import check_count
from vicinal.attention._parts import check_arrays, check_state, counted, exact, temperatures, without_padding
from vicinal.attention.softmax import attend


class WindowState(eqx.Module):
    """The last keys and values.

    Attributes:
        keys: Zeros for what was before the first token, then in the order they were read.
        values: In the same order.
        tokens: How many tokens were read, for each sequence of the batch.
    """

    keys: Float[Array, "batch window heads d"]
    values: Float[Array, "batch window heads e"]
    tokens: Int[Array, " batch"]


def sliding_window_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    *,
    beta: float | Float[Array, ""] | Float[Array, " heads"],
    window: int,
    chunk_size: int | None = None,
    initial_state: WindowState | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], WindowState]:
    """Causal attention to a token and the `window - 1` before it.

        o_i = sum over i - window < j <= i of  w_ij v_j,     w_i = softmax(beta q_i . k_j)

    Queries are taken in chunks, each with its own keys and the `window` before them.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        beta: The temperature, for each head or for all. It multiplies `q . k` directly, so the usual scale
            `1 / sqrt(d)` is not implied.
        window: How many tokens are seen, with the present one.
        chunk_size: Queries of a chunk; `window` by default. It changes speed and rounding, and nothing else.
        initial_state: The state after what was read before; nothing by default.
        lengths: How many tokens of each row count. The others are padding on the right: they are not read, and their
            outputs are zero. All by default.

    Returns:
        The outputs, in the dtype of `v`, and the state to go on from. The softmax is in float32, or float64 if the
        inputs are.

    Raises:
        ValueError: If shapes do not fit each other or the state, or a size is below 1.
        TypeError: If dtypes do not fit each other.

    Example:
        >>> ones, values = jnp.ones((1, 4, 1, 1)), jnp.arange(4.0).reshape(1, 4, 1, 1)
        >>> outputs, state = sliding_window_attention(ones, ones, values, beta=1.0, window=2)
        >>> outputs.ravel().tolist(), state.values.ravel().tolist()
        ([0.0, 0.5, 1.5, 2.5], [2.0, 3.0])

    References:
        Beltagy, Peters and Cohan, Longformer, arXiv 2004.05150.
    """
    check_arrays(q, k, v, lengths, window if chunk_size is None else chunk_size)
    batch, time, heads, _ = q.shape
    state = _start(k, v, window, initial_state)
    q, k, v = (without_padding(x, lengths) for x in (q, k, v))
    dtype = exact(v.dtype)
    q = (q.astype(dtype) * temperatures(beta, heads, dtype)[None, None, :, None]).astype(q.dtype)
    size = max(1, min(time, window if chunk_size is None else chunk_size))
    number = -(-time // size)

    def padded(x):
        return jnp.pad(x, [(0, 0), (0, number * size - time), (0, 0), (0, 0)])

    keys, values = (jnp.concatenate(pair, axis=1) for pair in ((state.keys, k), (state.values, v)))
    # Slot s of these holds token s - window, so a chunk of queries sees a slice of window + size slots.
    source = size * jnp.arange(number, dtype=jnp.int32)[:, None] + jnp.arange(window + size, dtype=jnp.int32)
    query, slot = jnp.arange(size, dtype=jnp.int32)[:, None], jnp.arange(window + size, dtype=jnp.int32)[None]
    near = (slot > query) & (slot <= query + window)
    read = source[None] >= window - state.tokens[:, None, None]
    seen = near[None, None] & read[:, :, None, :]
    chunks = padded(q).reshape(batch, number, size, heads, q.shape[3])
    outputs = jax.vmap(attend, in_axes=1, out_axes=1)(chunks, padded(keys)[:, source], padded(values)[:, source], seen)
    outputs = outputs.reshape(batch, number * size, heads, v.shape[3])[:, :time]
    end = counted(lengths, batch, time)
    last = jax.vmap(lambda x, end: jax.lax.dynamic_slice_in_dim(x, end, window))
    return without_padding(outputs, lengths), WindowState(last(keys, end), last(values, end), state.tokens + end)


def naive_sliding_window_attention(q, k, v, *, beta, window, initial_state=None, lengths=None):
    """`sliding_window_attention` token by token, for reading and for tests; arguments and results are the same."""
    check_arrays(q, k, v, lengths)
    state = _start(k, v, window, initial_state)
    dtype = exact(v.dtype)
    number = counted(lengths, *q.shape[:2])
    outputs = []
    for t in range(q.shape[1]):
        goes_on = t < number
        keys, values = (
            jnp.where(goes_on[:, None, None, None], jnp.concatenate([old[:, 1:], new[:, t : t + 1]], axis=1), old)
            for old, new in ((state.keys, k), (state.values, v))
        )
        state = WindowState(keys, values, state.tokens + goes_on)
        scores = jnp.einsum("bhd,bshd->bhs", q[:, t], keys, preferred_element_type=dtype)
        scores = temperatures(beta, q.shape[2], dtype)[None, :, None] * scores
        seen = jnp.arange(window, dtype=jnp.int32)[None] >= window - state.tokens[:, None]
        weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30))
        outputs.append(jnp.einsum("bhs,bshe->bhe", weights, values.astype(dtype)))
    return without_padding(jnp.stack(outputs, axis=1).astype(v.dtype), lengths), state


def empty_window(batch: int, heads: int, features: int, value_features: int, *, window: int, dtype) -> WindowState:
    """The state before the first token."""
    check_count("window", window, 1)
    keys = jnp.zeros((batch, window, heads, features), dtype)
    values = jnp.zeros((batch, window, heads, value_features), dtype)
    return WindowState(keys, values, jnp.zeros(batch, jnp.int32))


def _start(k, v, window, initial_state):
    batch, _, heads, features = k.shape
    empty = empty_window(batch, heads, features, v.shape[3], window=window, dtype=v.dtype)
    if initial_state is None:
        return empty
    check_state(initial_state, empty)
    return initial_state
