"""Softmax attention to the last few tokens, and its layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check_count, wide
from vicinal.attention._parts import (
    check_arrays,
    not_padding,
    started,
    temperatures,
    token_counts,
    without_padding,
)
from vicinal.attention._projections import HeadProjections, batched, check_rotary
from vicinal.attention.base import Mixer
from vicinal.attention.chunks import scan_tokens
from vicinal.attention.softmax import attend


class WindowState(eqx.Module):
    """The last keys and values.

    Attributes:
        keys: In order; zeros where there were fewer tokens.
        values: In the same order.
        tokens: Tokens read, for each sequence of the batch.
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
        window: Tokens that a query sees, its own included.
        chunk_size: Queries of a chunk; `window` by default. It changes only speed and rounding.
        initial_state: The state after the earlier tokens; empty by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.

    Returns:
        The outputs, in the dtype of `v`, and the state to continue from. The softmax is in float32, or float64 if the
        inputs are.

    Raises:
        ValueError: If shapes do not match each other or the state, or a size is below 1.
        TypeError: If dtypes differ.

    Example:
        >>> ones, values = jnp.ones((1, 4, 1, 1)), jnp.arange(4.0).reshape(1, 4, 1, 1)
        >>> outputs, state = sliding_window_attention(ones, ones, values, beta=1.0, window=2)
        >>> outputs.ravel().tolist(), state.values.ravel().tolist()
        ([0.0, 0.5, 1.5, 2.5], [2.0, 3.0])

    References:
        Beltagy, Peters and Cohan, Longformer, arXiv 2004.05150.
    """
    check_count("window", window, 1)
    check_arrays(q, k, v, lengths, window if chunk_size is None else chunk_size)
    batch, time, heads, _ = q.shape
    state = _start(k, v, window, initial_state)
    q, k, v = (without_padding(x, lengths) for x in (q, k, v))
    dtype = wide(v.dtype)
    q = (q.astype(dtype) * temperatures(beta, heads, dtype)[None, None, :, None]).astype(q.dtype)
    size = max(1, min(time, window if chunk_size is None else chunk_size))
    number = -(-time // size)

    def padded(x):
        return jnp.pad(x, [(0, 0), (0, number * size - time), (0, 0), (0, 0)])

    keys, values = (jnp.concatenate(pair, axis=1) for pair in ((state.keys, k), (state.values, v)))
    # Slot s of these holds token s - window, so a chunk of queries sees a slice of window + size slots.
    source = size * jnp.arange(number, dtype=jnp.int32)[:, None] + jnp.arange(window + size, dtype=jnp.int32)[None]
    query, slot = jnp.arange(size, dtype=jnp.int32)[:, None], jnp.arange(window + size, dtype=jnp.int32)[None]
    near = (slot > query) & (slot <= query + window)
    read = source[None] >= window - state.tokens[:, None, None]
    seen = near[None, None] & read[:, :, None, :]
    chunks = padded(q).reshape(batch, number, size, heads, q.shape[3])
    outputs = jax.vmap(attend, in_axes=1, out_axes=1)(chunks, padded(keys)[:, source], padded(values)[:, source], seen)
    outputs = outputs.reshape(batch, number * size, heads, v.shape[3])[:, :time]
    end = token_counts(lengths, batch, time)
    last = jax.vmap(lambda x, end: jax.lax.dynamic_slice_in_dim(x, end, window))
    return without_padding(outputs, lengths), WindowState(last(keys, end), last(values, end), state.tokens + end)


def naive_sliding_window_attention(q, k, v, *, beta, window, initial_state=None, lengths=None):
    """`sliding_window_attention` token by token: a readable reference with the same arguments and results."""
    check_arrays(q, k, v, lengths)
    state = _start(k, v, window, initial_state)
    dtype, slot = wide(v.dtype), jnp.arange(window, dtype=jnp.int32)[None]
    beta = temperatures(beta, q.shape[2], dtype)[None, :, None]

    def step(state, token):
        q, k, v, counts = token
        new = jnp.concatenate([state.keys[:, 1:], k[:, None]], 1), jnp.concatenate([state.values[:, 1:], v[:, None]], 1)
        new = WindowState(*new, state.tokens + 1)
        state = jax.tree.map(lambda new, old: jax.vmap(jnp.where)(counts, new, old), new, state)
        scores = beta * jnp.einsum("bhd,bshd->bhs", q, state.keys, preferred_element_type=dtype)
        seen = slot >= window - state.tokens[:, None]
        weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30))
        return state, jnp.einsum("bhs,bshe->bhe", weights, state.values.astype(dtype))

    q, k, v = (without_padding(x, lengths) for x in (q, k, v))
    outputs, state = scan_tokens(step, state, q, k, v, not_padding(lengths, *q.shape[:2]))
    return without_padding(outputs.astype(v.dtype), lengths), state


def empty_window(batch: int, heads: int, features: int, value_features: int, *, window: int, dtype) -> WindowState:
    """The state before the first token."""
    check_count("window", window, 1)
    keys = jnp.zeros((batch, window, heads, features), dtype)
    values = jnp.zeros((batch, window, heads, value_features), dtype)
    return WindowState(keys, values, jnp.zeros(batch, jnp.int32))


def _start(k, v, window, initial_state):
    batch, _, heads, features = k.shape
    empty = empty_window(batch, heads, features, v.shape[3], window=window, dtype=v.dtype)
    return started(initial_state, empty)


class SlidingWindowAttention(Mixer):
    """Multi-head attention to the last few steps, with queries and keys of norm 1.

        q = rotary(unit(W_q x)),   k = rotary(unit(W_k x)),   v = W_v x,   beta = exp(theta) sqrt(d)   for each head
        y = W_o [head_1, head_2, ...]

    where a head is `sliding_window_attention`. `theta` is learned and starts at 0.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: `d`, the length of a head's queries, keys and values; `features / heads` by default.
        window: Steps that a query sees, its own included.
        rotary: Whether queries and keys are turned by their positions (base 10000); if not, positions are unknown.
        key: For the initial weights.

    Attributes:
        projections: `query_layer`, `key_layer`, `value_layer` and `output_layer`, without bias.
        log_temperature: `theta`, `[heads]`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or a head cannot be rotated.

    Example:
        >>> layer = SlidingWindowAttention(8, 2, window=4, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((10, 8)))
        >>> y.shape, state.keys.shape
        ((10, 8), (1, 4, 2, 4))

    References:
        Beltagy, Peters and Cohan, Longformer, arXiv 2004.05150. Su et al., RoFormer, arXiv 2104.09864.

    *Differs from the paper*: queries and keys of norm 1 with a learned temperature, as in `OVQAttention`.
    """

    projections: HeadProjections
    log_temperature: Float[Array, " heads"]
    window: int = eqx.field(static=True)
    rotary: bool = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        window: int,
        rotary: bool = True,
        key: PRNGKeyArray,
    ):
        check_count("window", window, 1)
        self.projections = HeadProjections(features, heads, head_features, key=key)
        check_rotary(rotary, self.projections.size)
        self.log_temperature = jnp.zeros(heads)
        self.window = window
        self.rotary = rotary

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: WindowState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], WindowState]:
        first = jnp.zeros((), jnp.int32) if state is None else state.tokens[0]
        q, k, v = self.projections.unit_inputs(x, length, self.rotary, first)
        settings = {"window": self.window, "initial_state": state, "lengths": batched(length)}
        beta = self.projections.temperatures(self.log_temperature)
        outputs, state = sliding_window_attention(q, k, v, beta=beta, **settings)
        return self.projections.output(outputs), state

    def empty(self) -> WindowState:
        size, heads = self.projections.size, self.projections.heads
        return empty_window(1, heads, size, size, window=self.window, dtype=self.projections.dtype)
