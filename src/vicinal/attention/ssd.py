"""Linear attention whose memory decays, and Mamba-2, which is made of it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vicinal.attention._parts import check_arrays, check_state, exact, prepared, read, scan_chunks, scan_tokens, write


def decayed_linear_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    log_decay: Float[Array, "batch time heads"],
    *,
    chunk_size: int = 64,
    initial_state: Float[Array, "batch heads d e"] | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], Float[Array, "batch heads d e"]]:
    """A memory that is a sum of outer products and fades: the state-space duality (SSD) operator.

        S_t = e^{g_t} S_{t-1} + k_t^T v_t,     o_t = q_t S_t

    A chunk is computed at once. With `G_i` the sum of `g` up to `i` in the chunk and `D_ij = e^{G_i - G_j}` for
    `j <= i`, else 0,

        o = e^G (q S) + ((q k^T) * D) v,       S' = e^{G_L} S + (e^{G_L - G} k)^T v

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        log_decay: `g`, finite and at most 0.
        chunk_size: Tokens of a chunk. It changes speed and rounding, and nothing else.
        initial_state: `S` after what was read before; zeros by default.
        lengths: How many tokens of each row count. The others are padding on the right: they are not read, and their
            outputs are zero. All by default.

    Returns:
        The outputs, in the dtype of `v`, and `S` after the last token, in float32, or float64 if the inputs are.

    Raises:
        ValueError: If shapes do not fit each other or the state.
        TypeError: If dtypes do not fit each other.

    Example:
        >>> ones = jnp.ones((1, 3, 1, 1))
        >>> outputs, state = decayed_linear_attention(ones, ones, ones, jnp.full((1, 3, 1), jnp.log(0.5)))
        >>> outputs.ravel().tolist(), state.shape
        ([1.0, 1.5, 1.75], (1, 1, 1, 1))

    References:
        Dao and Gu, Transformers are SSMs, ICML 2024, arXiv 2405.21060 (section 6 has the chunks).
    """
    check_arrays(q, k, v, lengths, chunk_size, log_decay=log_decay)
    state = start(q, v, initial_state)

    def step(state, chunk):
        q, k, v, log_decay = chunk
        total = jnp.cumsum(log_decay, axis=-1)
        return write(state, k, v, total), read(state, q, k, v, total)

    outputs, state = scan_chunks(step, state, chunk_size, *prepared(lengths, q, k, v, log_decay))
    return outputs.astype(v.dtype), state


def naive_decayed_linear_attention(q, k, v, log_decay, *, initial_state=None, lengths=None):
    """`decayed_linear_attention` token by token, for reading and for tests; arguments and results are the same."""
    check_arrays(q, k, v, lengths, log_decay=log_decay)

    def step(state, token):
        q, k, v, log_decay = token
        state = jnp.exp(log_decay)[..., None, None] * state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bhd,bhde->bhe", q, state)

    state = start(q, v, initial_state)
    outputs, state = scan_tokens(step, state, *prepared(lengths, q, k, v, log_decay))
    return outputs.astype(v.dtype), state


def start(q, v, initial_state) -> Float[Array, "batch heads d e"]:
    """The state to begin with: the one given, or zeros."""
    batch, _, heads, features = q.shape
    zeros = jax.ShapeDtypeStruct((batch, heads, features, v.shape[3]), exact(v.dtype))
    if initial_state is None:
        return jnp.zeros(zeros.shape, zeros.dtype)
    check_state(initial_state, zeros)
    return initial_state
