"""Linear attention."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vicinal.attention._parts import check_arrays, exact, prepared, scan_tokens
from vicinal.attention.ssd import decayed_linear_attention, start


def linear_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    *,
    normalize: bool = False,
    chunk_size: int = 64,
    initial_state: Float[Array, "batch heads d columns"] | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], Float[Array, "batch heads d columns"]]:
    """Attention whose scores are `q . k`, so that all that was read fits in one matrix.

        S_t = S_{t-1} + k_t^T v_t,     o_t = q_t S_t

    and with `normalize`, where the scores are the weights of a mean, `o_t = q_t S_t / q_t z_t` with
    `z_t = z_{t-1} + k_t`. The mean only makes sense for queries and keys of positive entries.

    Args:
        q: Queries, after any feature map.
        k: Keys, after any feature map.
        v: Values.
        normalize: Whether to divide by the sum of the scores. Where it is zero the output is zero.
        chunk_size: Tokens of a chunk. It changes speed and rounding, and nothing else.
        initial_state: The state after what was read before; zeros by default.
        lengths: How many tokens of each row count. The others are padding on the right: they are not read, and their
            outputs are zero. All by default.

    Returns:
        The outputs, in the dtype of `v`, and the state: `S`, and with `normalize` the sum `z` as its last column.

    Raises:
        ValueError: If shapes do not fit each other or the state.
        TypeError: If dtypes do not fit each other.

    Example:
        >>> ones, values = jnp.ones((1, 3, 1, 1)), jnp.arange(3.0).reshape(1, 3, 1, 1)
        >>> linear_attention(ones, ones, values)[0].ravel().tolist()
        [0.0, 1.0, 3.0]
        >>> linear_attention(ones, ones, values, normalize=True)[0].ravel().tolist()
        [0.0, 0.5, 1.0]

    References:
        Katharopoulos et al., Transformers are RNNs, ICML 2020, arXiv 2006.16236.
    """
    check_arrays(q, k, v, lengths, chunk_size)
    q, k, columns = (x.astype(exact(v.dtype)) for x in (q, k, _with_ones(v) if normalize else v))
    settings = {"chunk_size": chunk_size, "initial_state": initial_state, "lengths": lengths}
    outputs, state = decayed_linear_attention(q, k, columns, jnp.zeros_like(q[..., 0]), **settings)
    return (_mean(outputs) if normalize else outputs).astype(v.dtype), state


def naive_linear_attention(q, k, v, *, normalize=False, initial_state=None, lengths=None):
    """`linear_attention` token by token, for reading and for tests; arguments and results are the same."""
    check_arrays(q, k, v, lengths)

    def step(state, token):
        q, k, v = token
        state = state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bhd,bhde->bhe", q, state)

    columns = _with_ones(v) if normalize else v
    outputs, state = scan_tokens(step, start(q, columns, initial_state), *prepared(lengths, q, k, columns))
    return (_mean(outputs) if normalize else outputs).astype(v.dtype), state


def _with_ones(v):
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)


def _mean(outputs):
    sums, weight = outputs[..., :-1], outputs[..., -1:]
    empty = weight == 0
    return jnp.where(empty, 0, sums / jnp.where(empty, 1, weight))
