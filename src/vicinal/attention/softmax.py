"""Softmax attention to all earlier tokens, and its layer."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._memory import check_scores, devices_of
from vicinal._numbers import check, check_count, wide
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


class SoftmaxState(eqx.Module):
    """All keys and values that were read, in a cache of fixed capacity.

    Attributes:
        keys: In order, then zeros.
        values: In the same order.
        tokens: Tokens read, for each sequence of the batch.
    """

    keys: Float[Array, "batch capacity heads d"]
    values: Float[Array, "batch capacity heads e"]
    tokens: Int[Array, " batch"]


def softmax_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    *,
    beta: float | Float[Array, ""] | Float[Array, " heads"],
    max_length: int | None = None,
    implementation: Literal["xla", "cudnn"] | None = None,
    initial_state: SoftmaxState | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], SoftmaxState]:
    """Causal attention.

        o_i = sum over j <= i of  w_ij v_j,     w_i = softmax(beta q_i . k_j)

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        beta: The temperature, for each head or for all. It multiplies `q . k` directly, so the usual scale
            `1 / sqrt(d)` is not implied.
        max_length: Capacity of the state: the most tokens of all calls together. By default those of this call, which
            leaves no room for another.
        implementation: Of `jax.nn.dot_product_attention`, which reads a fresh sequence: `"cudnn"` needs memory in
            proportion to time, others to its square.
        initial_state: The state after the earlier tokens; empty by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.

    Returns:
        The outputs, in the dtype of `v`, and the state to continue from. A token beyond the capacity has an output of
        NaN if the number of tokens is not known before tracing.

    Raises:
        ValueError: If shapes do not match each other or the state, or the tokens are more than the capacity.
        TypeError: If dtypes differ.
        MemoryError: If the scores of all pairs of tokens certainly do not fit into memory (on a CPU, outside `jit`).

    Example:
        >>> ones, values = jnp.ones((1, 3, 1, 1)), jnp.arange(3.0).reshape(1, 3, 1, 1)
        >>> outputs, state = softmax_attention(ones, ones, values, beta=1.0, max_length=4)
        >>> outputs.ravel().tolist()
        [0.0, 0.5, 1.0]
        >>> softmax_attention(ones[:, :1], ones[:, :1], 9 * ones[:, :1], beta=1.0, initial_state=state)[0].tolist()
        [[[[3.0]]]]

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762.
    """
    check_arrays(q, k, v, lengths)
    k, v, state = _appended(k, v, max_length, initial_state, lengths)
    dtype, time = wide(v.dtype), q.shape[1]
    if implementation != "cudnn" and devices_of(q)[0].platform == "cpu":
        check_scores(q, math.prod(q.shape[:3]) * state.keys.shape[1])
    q = without_padding(q, lengths)
    q = (q.astype(dtype) * temperatures(beta, q.shape[2], dtype)[None, None, :, None]).astype(q.dtype)
    # The library takes the softmax of float64 in float32, and wants values of the length of keys.
    if initial_state is None and dtype != jnp.float64 and v.shape == k.shape:
        with jax.numpy_dtype_promotion("standard"):  # it adds bfloat16 and float32
            outputs = jax.nn.dot_product_attention(q, k, v, scale=1.0, is_causal=True, implementation=implementation)
    else:
        before = jnp.zeros(len(q), jnp.int32) if initial_state is None else initial_state.tokens
        position = before[:, None] + jnp.arange(time, dtype=jnp.int32)[None]
        seen = jnp.arange(state.keys.shape[1], dtype=jnp.int32)[None, None] <= position[:, :, None]
        outputs = attend(q, state.keys, state.values, seen)
        outputs = jnp.where((position < state.keys.shape[1])[:, :, None, None], outputs, jnp.nan)
    return without_padding(outputs, lengths), state


def naive_softmax_attention(q, k, v, *, beta, max_length=None, initial_state=None, lengths=None):
    """`softmax_attention` token by token: a readable reference with the same arguments and results."""
    check_arrays(q, k, v, lengths)
    _, _, state = _appended(k, v, max_length, initial_state, lengths)
    dtype, slot = wide(v.dtype), jnp.arange(state.keys.shape[1], dtype=jnp.int32)[None]
    beta = temperatures(beta, q.shape[2], dtype)[None, :, None]

    def step(position, token):
        scores = beta * jnp.einsum("bhd,bshd->bhs", *token, state.keys, preferred_element_type=dtype)
        weights = jax.nn.softmax(jnp.where((slot <= position[:, None])[:, None], scores, -jnp.inf))
        return position + 1, jnp.einsum("bhs,bshe->bhe", weights, state.values.astype(dtype))

    before = jnp.zeros(len(q), jnp.int32) if initial_state is None else initial_state.tokens
    outputs, _ = scan_tokens(step, before, q)
    return without_padding(outputs.astype(v.dtype), lengths), state


def attend(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch source heads d"],
    v: Float[Array, "batch source heads e"],
    seen: Array,
) -> Float[Array, "batch time heads e"]:
    """Softmax attention to what each query sees, `[batch, time, source]`, with the softmax in at least float32."""
    scores = jnp.einsum("bthd,bshd->bhts", q, k, preferred_element_type=wide(v.dtype))
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e30))  # finite, for rows that see nothing
    outputs = jnp.einsum("bhts,bshe->bthe", weights.astype(v.dtype), v, preferred_element_type=wide(v.dtype))
    return outputs.astype(v.dtype)


def empty_cache(batch: int, heads: int, features: int, value_features: int, *, max_length: int, dtype) -> SoftmaxState:
    """The state before the first token."""
    check_count("max_length", max_length, 1)
    keys = jnp.zeros((batch, max_length, heads, features), dtype)
    values = jnp.zeros((batch, max_length, heads, value_features), dtype)
    return SoftmaxState(keys, values, jnp.zeros(batch, jnp.int32))


def _appended(k, v, max_length, state, lengths):
    """The keys and values without padding, and the state after they were read."""
    batch, time, heads, features = k.shape
    k, v = without_padding(k, lengths), without_padding(v, lengths)
    capacity = state.keys.shape[1] if state is not None else time if max_length is None else max_length
    state = started(state, empty_cache(batch, heads, features, v.shape[3], max_length=max(1, capacity), dtype=v.dtype))
    tokens = state.tokens + token_counts(lengths, batch, time)
    check("tokens", tokens, lambda n: n <= capacity, f"of at most max_length={capacity} in all calls")
    # Padding gets a place beyond the last, where nothing is written.
    place = jnp.where(
        not_padding(lengths, batch, time), state.tokens[:, None] + jnp.arange(time, dtype=jnp.int32)[None], capacity
    )
    rows = jnp.arange(batch)[:, None]
    keys = state.keys.at[rows, place].set(k, mode="drop")
    values = state.values.at[rows, place].set(v, mode="drop")
    return k, v, SoftmaxState(keys, values, tokens)


class SoftmaxAttention(Mixer):
    """Multi-head causal attention, with queries and keys of norm 1.

        q = rotary(unit(W_q x)),   k = rotary(unit(W_k x)),   v = W_v x,   beta = exp(theta) sqrt(d)   for each head
        y = W_o [head_1, head_2, ...]

    where a head is `softmax_attention`. `theta` is learned and starts at 0.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: `d`, the length of a head's queries, keys and values; `features / heads` by default.
        rotary: Whether queries and keys are turned by their positions (base 10000); if not, positions are unknown.
        max_length: Capacity of the state: the most tokens of all calls together.
        key: For the initial weights.

    Attributes:
        projections: `query_layer`, `key_layer`, `value_layer` and `output_layer`, without bias.
        log_temperature: `theta`, `[heads]`.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or a head cannot be rotated.

    Example:
        >>> layer = SoftmaxAttention(8, 2, max_length=16, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((5, 8)))
        >>> y.shape, state.tokens.tolist()
        ((5, 8), [5])

    References:
        Vaswani et al., Attention is all you need, NeurIPS 2017, arXiv 1706.03762. Su et al., RoFormer, arXiv
        2104.09864 (rotary positions).

    *Differs from the paper*: queries and keys of norm 1 with a learned temperature, as in `OVQAttention`.
    """

    projections: HeadProjections
    log_temperature: Float[Array, " heads"]
    rotary: bool = eqx.field(static=True)
    max_length: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        rotary: bool = False,
        max_length: int,
        key: PRNGKeyArray,
    ):
        check_count("max_length", max_length, 1)
        self.projections = HeadProjections(features, heads, head_features, key=key)
        check_rotary(rotary, self.projections.size)
        self.log_temperature = jnp.zeros(heads)
        self.rotary = rotary
        self.max_length = max_length

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: SoftmaxState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], SoftmaxState]:
        first = jnp.zeros((), jnp.int32) if state is None else state.tokens[0]
        q, k, v = self.projections.unit_inputs(x, length, self.rotary, first)
        settings = {"max_length": self.max_length, "initial_state": state, "lengths": batched(length)}
        beta = self.projections.temperatures(self.log_temperature)
        outputs, state = softmax_attention(q, k, v, beta=beta, **settings)
        return self.projections.output(outputs), state

    def empty(self) -> SoftmaxState:
        size, heads = self.projections.size, self.projections.heads
        return empty_cache(1, heads, size, size, max_length=self.max_length, dtype=self.projections.dtype)
