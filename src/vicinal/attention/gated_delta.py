"""The gated delta rule, and its layer."""

import functools

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal.attention._parts import (
    check_arrays,
    decays,
    empty_memory,
    prepared,
    read,
    started,
    unit_lower_solve,
    write,
)
from vicinal.attention._projections import GatedHeads, MemoryState
from vicinal.attention.base import Mixer
from vicinal.attention.chunks import scan_chunks, scan_tokens


def gated_delta_rule(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    log_decay: Float[Array, "batch time heads"],
    rate: Float[Array, "batch time heads"],
    *,
    chunk_size: int = 64,
    initial_state: Float[Array, "batch heads d e"] | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], Float[Array, "batch heads d e"]]:
    """A decaying memory that moves its value at each new key towards the new value.

        S_t = a_t (I - b_t k_t^T k_t) S_{t-1} + b_t k_t^T v_t,     o_t = q_t S_t,     a_t = e^{g_t}

    which is `S_t = a_t S_{t-1} + k_t^T u_t` with the errors `u_t = b_t (v_t - a_t k_t S_{t-1})`. In a chunk all of
    these come from one triangular system, with `G` and `D` as in `decayed_linear_attention`:

        (I + A) u = b (v - e^G k S),     A_ij = b_i (k_i . k_j) D_ij  for j < i, else 0

    and the rest is decayed linear attention with the values `u`.

    Args:
        q: Queries.
        k: Keys, usually of norm 1: the memory is stable if `b |k|^2` is at most 2.
        v: Values.
        log_decay: `g`, finite and at most 0.
        rate: `b`, usually between 0 and 1.
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
        >>> ones, gate = jnp.ones((1, 3, 1, 1)), jnp.zeros((1, 3, 1))
        >>> outputs, _ = gated_delta_rule(ones, ones, 8 * ones, gate, gate + 0.5)
        >>> outputs.ravel().tolist()
        [4.0, 6.0, 7.0]

    References:
        Yang, Kautz and Hatamizadeh, Gated delta networks, ICLR 2025, arXiv 2412.06464. Yang et al., Parallelizing
        linear transformers with the delta rule over sequence length, NeurIPS 2024, arXiv 2406.06484 (the chunks).
    """
    check_arrays(q, k, v, lengths, chunk_size, log_decay=log_decay, rate=rate)

    def step(state, chunk):
        q, k, v, log_decay, rate = chunk
        total = jnp.cumsum(log_decay, axis=-1)
        overlaps = rate[..., None] * jnp.einsum("...id,...jd->...ij", k, k) * decays(total)
        wanted = rate[..., None] * (v - jnp.exp(total)[..., None] * (k @ state))
        errors = unit_lower_solve(overlaps, wanted)
        return write(state, k, errors, total), read(state, q, k, errors, total)

    state = started(initial_state, empty_memory(k, v))
    return scan_chunks(step, state, chunk_size, lengths, q, k, v, log_decay, rate)


def naive_gated_delta_rule(q, k, v, log_decay, rate, *, initial_state=None, lengths=None):
    """`gated_delta_rule` token by token: a readable reference with the same arguments and results."""
    check_arrays(q, k, v, lengths, log_decay=log_decay, rate=rate)

    def step(state, token):
        q, k, v, log_decay, rate = token
        state = jnp.exp(log_decay)[..., None, None] * state
        error = rate[..., None] * (v - jnp.einsum("bhd,bhde->bhe", k, state))
        state = state + k[..., :, None] * error[..., None, :]
        return state, jnp.einsum("bhd,bhde->bhe", q, state)

    state = started(initial_state, empty_memory(k, v))
    outputs, state = scan_tokens(step, state, *prepared(lengths, q, k, v, log_decay, rate))
    return outputs.astype(v.dtype), state


class GatedDeltaNet(Mixer):
    """The gated delta rule with a short convolution and gates.

        q, k, v = silu(convolution(W x)),   q = unit(q),   k = unit(k)
        g = -exp(log_speed) softplus(W_g x + bias),   b = sigmoid(W_b x)   for each head
        y = W_o [norm(head_1), norm(head_2), ...],   norm(o) = silu(W_z x) * gain * o / rms(o)

    where a head is `gated_delta_rule`, and the convolution goes over 4 steps of each channel.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: The length of a head's queries, keys and values; `features / heads` by default.
        chunk_size: Steps of a chunk.
        key: For the initial weights.

    Attributes:
        heads: All parts except the memory: `projections`, `convolution`, `decay`, `rate_layer` and `norm`.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> import jax
        >>> layer = GatedDeltaNet(8, 2, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((5, 8)))
        >>> y.shape, state.convolution.shape
        ((5, 8), (3, 24))

    References:
        Yang, Kautz and Hatamizadeh, Gated delta networks, ICLR 2025, arXiv 2412.06464.

    *Differs from the paper*: values are as long as keys by default, and not twice as long.
    """

    heads: GatedHeads
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
        self.heads = GatedHeads(features, heads, head_features, key=key)
        self.chunk_size = chunk_size

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: MemoryState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], MemoryState]:
        return self.heads(functools.partial(gated_delta_rule, chunk_size=self.chunk_size), x, state, length)

    def empty(self) -> MemoryState:
        return MemoryState(self.heads.empty_memory(), self.heads.convolution.empty())
