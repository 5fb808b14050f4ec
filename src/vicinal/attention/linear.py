"""Linear attention, and its layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import wide
from vicinal.attention._parts import check_arrays, empty_memory, prepared, started
from vicinal.attention._projections import HeadProjections, batched
from vicinal.attention.base import Mixer
from vicinal.attention.chunks import scan_tokens
from vicinal.attention.ssd import decayed_linear_attention
from vicinal.nn.padding import without_padding


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
    """Attention with scores `q . k`: one matrix sums up all earlier tokens.

        S_t = S_{t-1} + k_t^T v_t,     o_t = q_t S_t

    and with `normalize`, where the scores are the weights of a mean, `o_t = q_t S_t / q_t z_t` with
    `z_t = z_{t-1} + k_t`. The mean only makes sense for queries and keys of positive entries.

    Args:
        q: Queries, after any feature map.
        k: Keys, after any feature map.
        v: Values.
        normalize: Whether to divide by the sum of the scores. Where it is zero the output is zero.
        chunk_size: Tokens of a chunk. It changes only speed and rounding.
        initial_state: The state after the earlier tokens; zeros by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.

    Returns:
        The outputs, in the dtype of `v`, and the state: `S`, and with `normalize` the sum `z` as its last column.

    Raises:
        ValueError: If shapes do not match each other or the state.
        TypeError: If dtypes differ.

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
    q, k, columns = (x.astype(wide(v.dtype)) for x in (q, k, _with_ones(v) if normalize else v))
    settings = {"chunk_size": chunk_size, "initial_state": initial_state, "lengths": lengths}
    outputs, state = decayed_linear_attention(q, k, columns, jnp.zeros_like(q[..., 0]), **settings)
    return (_mean(outputs) if normalize else outputs).astype(v.dtype), state


def naive_linear_attention(q, k, v, *, normalize=False, initial_state=None, lengths=None):
    """`linear_attention` token by token: a readable reference with the same arguments and results."""
    check_arrays(q, k, v, lengths)

    def step(state, token):
        q, k, v = token
        state = state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bhd,bhde->bhe", q, state)

    columns = _with_ones(v) if normalize else v
    state = started(initial_state, empty_memory(k, columns))
    outputs, state = scan_tokens(step, state, *prepared(lengths, q, k, columns))
    return (_mean(outputs) if normalize else outputs).astype(v.dtype), state


def _with_ones(v):
    return jnp.concatenate([v, jnp.ones_like(v[..., :1])], axis=-1)


def _mean(outputs):
    sums, weight = outputs[..., :-1], outputs[..., -1:]
    empty = weight == 0
    return jnp.where(empty, 0, sums / jnp.where(empty, 1, weight))


class LinearAttention(Mixer):
    """Multi-head linear attention: a mean of all values, with weights `phi(q) . phi(k)`.

        phi(x) = elu(x) + 1,   q = phi(W_q x),   k = phi(W_k x),   v = W_v x,   y = W_o [head_1, head_2, ...]

    where a head is `linear_attention` with `normalize=True`.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: The length of a head's queries, keys and values; `features / heads` by default.
        chunk_size: Steps of a chunk.
        key: For the initial weights.

    Attributes:
        projections: `query_layer`, `key_layer`, `value_layer` and `output_layer`, without bias.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> layer = LinearAttention(8, 2, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((5, 8)))
        >>> y.shape, state.shape
        ((5, 8), (1, 2, 4, 5))

    References:
        Katharopoulos et al., Transformers are RNNs, ICML 2020, arXiv 2006.16236.
    """

    projections: HeadProjections
    chunk_size: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        chunk_size: int = 64,
        key: PRNGKeyArray,
    ):
        self.projections = HeadProjections(features, heads, head_features, key=key)
        self.chunk_size = chunk_size

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: Float[Array, "1 heads d d+1"] | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], Float[Array, "1 heads d d+1"]]:
        q, k, v = self.projections.split(self.projections.joint(without_padding(x, length)))
        q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
        settings = {"chunk_size": self.chunk_size, "initial_state": state, "lengths": batched(length)}
        outputs, state = linear_attention(q[None], k[None], v[None], normalize=True, **settings)
        return self.projections.output(outputs), state

    def empty(self) -> Float[Array, "1 heads d d+1"]:
        size = self.projections.size
        return jnp.zeros((1, self.projections.heads, size, size + 1), wide(self.projections.dtype))
