"""Linear attention whose memory decays, and Mamba-2, the layer that uses it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check_count, wide
from vicinal.attention._parts import check_arrays, empty_memory, prepared, read, started, write
from vicinal.attention._projections import DecayGate, GatedNorm, MemoryState, ShortConvolution, batched, head_size
from vicinal.attention.base import Mixer
from vicinal.attention.chunks import scan_chunks, scan_tokens
from vicinal.nn.layers import Linear
from vicinal.nn.padding import without_padding


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
    """A decaying sum of outer products: the state-space duality (SSD) operator.

        S_t = e^{g_t} S_{t-1} + k_t^T v_t,     o_t = q_t S_t

    A chunk is computed at once. With `G_i` the sum of `g` up to `i` in the chunk and `D_ij = e^{G_i - G_j}` for
    `j <= i`, else 0,

        o = e^G (q S) + ((q k^T) * D) v,       S' = e^{G_L} S + (e^{G_L - G} k)^T v

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        log_decay: `g`, finite and at most 0.
        chunk_size: Tokens of a chunk. It changes only speed and rounding.
        initial_state: `S` after the earlier tokens; zeros by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.

    Returns:
        The outputs, in the dtype of `v`, and `S` after the last token, in float32, or float64 if the inputs are.

    Raises:
        ValueError: If shapes do not match each other or the state.
        TypeError: If dtypes differ.

    Example:
        >>> ones = jnp.ones((1, 3, 1, 1))
        >>> outputs, state = decayed_linear_attention(ones, ones, ones, jnp.full((1, 3, 1), jnp.log(0.5)))
        >>> outputs.ravel().tolist(), state.shape
        ([1.0, 1.5, 1.75], (1, 1, 1, 1))

    References:
        Dao and Gu, Transformers are SSMs, ICML 2024, arXiv 2405.21060 (section 6 has the chunks).
    """
    check_arrays(q, k, v, lengths, chunk_size, log_decay=log_decay)

    def step(state, chunk):
        q, k, v, log_decay = chunk
        total = jnp.cumsum(log_decay, axis=-1)
        return write(state, k, v, total), read(state, q, k, v, total)

    return scan_chunks(step, started(initial_state, empty_memory(k, v)), chunk_size, lengths, q, k, v, log_decay)


def naive_decayed_linear_attention(q, k, v, log_decay, *, initial_state=None, lengths=None):
    """`decayed_linear_attention` token by token: a readable reference with the same arguments and results."""
    check_arrays(q, k, v, lengths, log_decay=log_decay)

    def step(state, token):
        q, k, v, log_decay = token
        state = jnp.exp(log_decay)[..., None, None] * state + k[..., :, None] * v[..., None, :]
        return state, jnp.einsum("bhd,bhde->bhe", q, state)

    state = started(initial_state, empty_memory(k, v))
    outputs, state = scan_tokens(step, state, *prepared(lengths, q, k, v, log_decay))
    return outputs.astype(v.dtype), state


class Mamba2(Mixer):
    """A state-space layer with one decay for each head and step.

        u, B, C = silu(convolution(W x)),     s = softplus(W_s x + bias),     g = -exp(log_speed) s   for each head
        S_t = e^{g_t} S_{t-1} + B_t^T s_t u_t,     o_t = C_t S_t + skip u_t     for each head, with common B and C
        y = W_o norm([o_1, o_2, ...]),     norm(o) = gain * o' / rms(o'),   o' = silu(W_z x) * o

    with a convolution over 4 steps of each channel.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: The length of a head's `u`; `features / heads` by default.
        state_features: `n`, the length of `B` and `C`.
        chunk_size: Steps of a chunk.
        key: For the initial weights.

    Attributes:
        input_layer: `Linear` layer without bias, to `u`, `B` and `C`.
        convolution: The short convolution; `weight` is `[4, channels]`.
        decay: The gate of `s` and `g`: `layer`, `bias` and `log_speed`.
        skip: `[heads]`, initially 1.
        norm: The gate and normalisation: `gate_layer` and `gain`.
        output_layer: `Linear` layer without bias.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> layer = Mamba2(8, 2, state_features=16, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((5, 8)))
        >>> y.shape, state.memory.shape, state.convolution.shape
        ((5, 8), (1, 2, 16, 4), (3, 40))

    References:
        Dao and Gu, Transformers are SSMs, ICML 2024, arXiv 2405.21060.

    *Differs from the paper*: `u` is as long as `x` by default, and not twice as long; the convolution has no bias.
    """

    input_layer: Linear
    convolution: ShortConvolution
    decay: DecayGate
    skip: Float[Array, " heads"]
    norm: GatedNorm
    output_layer: Linear
    heads: int = eqx.field(static=True)
    state_features: int = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        state_features: int = 128,
        chunk_size: int = 64,
        key: PRNGKeyArray,
    ):
        check_count("state_features", state_features)
        channels = heads * head_size(features, heads, head_features)
        input_key, convolution_key, decay_key, norm_key, output_key = jax.random.split(key, 5)
        self.input_layer = Linear(features, channels + 2 * state_features, use_bias=False, key=input_key)
        self.convolution = ShortConvolution(channels + 2 * state_features, key=convolution_key)
        self.decay = DecayGate(features, heads, key=decay_key)
        self.skip = jnp.ones(heads)
        self.norm = GatedNorm(features, channels, channels, before=True, key=norm_key)
        self.output_layer = Linear(channels, features, use_bias=False, key=output_key)
        self.heads = heads
        self.state_features = state_features
        self.chunk_size = chunk_size

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: MemoryState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], MemoryState]:
        x = without_padding(x, length)
        memory, last = (None, self.convolution.empty()) if state is None else state
        joint, last = self.convolution(jax.vmap(self.input_layer)(x), last, length)
        n = self.state_features
        inputs, writing, reading = joint[:, : -2 * n], joint[:, -2 * n : -n], joint[:, -n:]
        inputs = inputs.reshape(len(x), self.heads, inputs.shape[1] // self.heads)
        writing, reading = (jnp.broadcast_to(a[:, None], (len(x), self.heads, n)) for a in (writing, reading))
        step, log_decay = self.decay(x)
        values = inputs * step[..., None].astype(x.dtype)
        settings = {"chunk_size": self.chunk_size, "initial_state": memory, "lengths": batched(length)}
        outputs, memory = decayed_linear_attention(
            reading[None], writing[None], values[None], log_decay[None], **settings
        )
        outputs = outputs[0] + self.skip[None, :, None] * inputs
        outputs = self.norm(outputs.reshape(len(x), self.norm.gain.size), x)
        return without_padding(jax.vmap(self.output_layer)(outputs), length), MemoryState(memory, last)

    def empty(self) -> MemoryState:
        weight = self.output_layer.weight
        shape = 1, self.heads, self.state_features, weight.shape[1] // self.heads
        return MemoryState(jnp.zeros(shape, wide(weight.dtype)), self.convolution.empty())
