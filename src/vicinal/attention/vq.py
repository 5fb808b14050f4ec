"""Attention to a fixed dictionary of learned codes, and its layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check_counts, wide
from vicinal.attention._parts import check_arrays, not_padding, prepared, started, temperatures, without_padding
from vicinal.attention._projections import HeadProjections, batched
from vicinal.attention.base import Mixer
from vicinal.attention.chunks import cut, one_sequence, scan_layout, scan_tokens, unfinished


class VQState(eqx.Module):
    """What went to each code, and the tokens of the chunk that is not finished.

    Attributes:
        counts: The number of tokens of each code.
        values: The sum of their values.
        pending_keys: The keys since the last finished chunk, then zeros.
        pending_values: The values since the last finished chunk, then zeros.
        tokens: Tokens read, for each sequence of the batch.
    """

    counts: Float[Array, "batch heads n"]
    values: Float[Array, "batch heads n e"]
    pending_keys: Float[Array, "batch chunk heads d"]
    pending_values: Float[Array, "batch chunk heads e"]
    tokens: Int[Array, " batch"]


def vq_attention(
    q: Float[Array, "batch time heads d"],
    k: Float[Array, "batch time heads d"],
    v: Float[Array, "batch time heads e"],
    *,
    codebook: Float[Array, "heads n d"],
    beta: float | Float[Array, ""] | Float[Array, " heads"],
    chunk_size: int = 64,
    initial_state: VQState | None = None,
    lengths: Int[Array, " batch"] | None = None,
) -> tuple[Float[Array, "batch time heads e"], VQState]:
    """Causal softmax attention in which the keys of finished chunks are replaced by their nearest codes.

    With `count_n` keys of mean value `nu_n` at the code `c_n`, a token reads the codes and its own chunk:

        o_i = (sum_n e^{a_n} nu_n + sum_j e^{b_j} v_j) / (sum_n e^{a_n} + sum_j e^{b_j})
        a_n = beta q_i . c_n + log count_n,      b_j = beta q_i . k_j  for j <= i in the chunk

    The choice of a code has no gradient. The gradient of `a_n` with respect to its code goes straight through to the
    code's keys, in equal parts. The codebook learns as in k-means: under any loss its gradient is that of
    `1/2 |k - c|^2`, with `c` the nearest code, averaged over all tokens.

    Args:
        q: Queries, usually of norm 1.
        k: Keys, usually of norm 1.
        v: Values.
        codebook: The codes.
        beta: The temperature, for each head or for all. It multiplies `q . k` directly, so the usual scale
            `1 / sqrt(d)` is not implied.
        chunk_size: Tokens of a chunk, within which keys are exact. It is part of what is computed.
        initial_state: The state after the earlier tokens; empty by default.
        lengths: Tokens of each row without the padding on its right, which is not read and whose outputs are zero;
            all by default.

    Returns:
        The outputs, in the dtype of `v`, and the state to continue from. Softmax, sums and counts are in float32, or
        float64 if the inputs are.

    Raises:
        ValueError: If shapes do not match each other, the codebook or the state.
        TypeError: If dtypes differ.

    Example:
        >>> ones, values = jnp.ones((1, 4, 1, 1)), jnp.arange(4.0).reshape(1, 4, 1, 1)
        >>> outputs, state = vq_attention(ones, ones, values, codebook=jnp.ones((1, 2, 1)), beta=1.0, chunk_size=2)
        >>> outputs.ravel().tolist(), state.counts.tolist()
        ([0.0, 0.5, 1.0, 1.5], [[[4.0, 0.0]]])

    References:
        Lingle, Transformer-VQ: linear-time transformers via vector quantization, ICLR 2024, arXiv 2309.16354.

    *Differs from the paper*: keys are exact within a chunk, as in OVQ-attention, and there is no block before it with
    quantised keys of its own. The codebook follows a gradient in place of a moving average, keys have no commitment
    loss, and the straight-through gradient also passes through finished chunks.
    """
    codebook, beta, state, keys, values = _start(q, k, v, codebook, beta, chunk_size, initial_state, lengths)
    if not q.shape[1]:
        return v, state
    batch, time, _, _ = q.shape
    layout = one_sequence(batch, time, chunk_size, None if initial_state is None else state.tokens, lengths)

    def step(sums, chunk):
        q, k, v, full = chunk
        seen = jnp.broadcast_to(jnp.tri(chunk_size, dtype=bool), (*q.shape[:3], chunk_size))
        return _commit(sums, codebook, k, v, full), _read(sums, codebook, beta, q, k, v, seen)

    before = (jnp.zeros_like(state.pending_keys), state.pending_keys, state.pending_values)
    tokens = zip((*prepared(lengths, q), keys, values), before, strict=True)
    chunks = [cut(layout, x, pending.astype(x.dtype)) for x, pending in tokens]
    sums = state.counts, state.values, jnp.zeros_like(codebook, shape=(batch, *codebook.shape))
    outputs, (counts, sums, _) = scan_layout(step, sums, layout, *chunks, jnp.asarray(layout.full))
    last_keys, last_values = (jnp.swapaxes(unfinished(layout, x), 1, 2).astype(v.dtype) for x in chunks[1:])
    return outputs.astype(v.dtype), VQState(counts, sums, last_keys, last_values, jnp.asarray(layout.tokens))


def naive_vq_attention(q, k, v, *, codebook, beta, chunk_size=64, initial_state=None, lengths=None):
    """`vq_attention` token by token: a readable reference with the same arguments and results."""
    codebook, beta, state, keys, values = _start(q, k, v, codebook, beta, chunk_size, initial_state, lengths)

    def step(carry, token):
        q, k, v, counts_here = token
        *sums, keys, values, tokens = carry
        here = jax.nn.one_hot(tokens % chunk_size, chunk_size, dtype=k.dtype)[:, None, :, None]
        keys, values = keys + here * k[:, :, None], values + here * v[:, :, None]
        seen = jnp.arange(chunk_size, dtype=jnp.int32)[None] <= (tokens % chunk_size)[:, None]
        seen = jnp.broadcast_to(seen[:, None, None], (*q.shape[:2], 1, chunk_size))
        output = _read(sums, codebook, beta, q[:, :, None], keys, values, seen)[:, :, 0]
        tokens = tokens + 1
        full = tokens % chunk_size == 0
        sums = _commit(sums, codebook, keys, values, full)
        keys, values = (jnp.where(full[:, None, None, None], 0, x) for x in (keys, values))
        new = [*sums, keys, values, tokens]
        return [jax.vmap(jnp.where)(counts_here, x, y) for x, y in zip(new, carry, strict=True)], output

    dtype = wide(v.dtype)
    pending = [jnp.swapaxes(x, 1, 2).astype(dtype) for x in (state.pending_keys, state.pending_values)]
    pulls = jnp.zeros_like(codebook, shape=(len(q), *codebook.shape))
    carry = [state.counts, state.values, pulls, *pending, state.tokens]
    places = not_padding(lengths, *q.shape[:2])
    outputs, (counts, sums, _, *pending, tokens) = scan_tokens(step, carry, *prepared(lengths, q), keys, values, places)
    keys, values = (jnp.swapaxes(x, 1, 2).astype(v.dtype) for x in pending)
    return without_padding(outputs.astype(v.dtype), lengths), VQState(counts, sums, keys, values, tokens)


def empty_codes(
    batch: int, heads: int, num_codes: int, features: int, value_features: int, *, chunk_size: int, dtype
) -> VQState:
    """The state before the first token."""
    return VQState(
        counts=jnp.zeros((batch, heads, num_codes), wide(dtype)),
        values=jnp.zeros((batch, heads, num_codes, value_features), wide(dtype)),
        pending_keys=jnp.zeros((batch, chunk_size, heads, features), dtype),
        pending_values=jnp.zeros((batch, chunk_size, heads, value_features), dtype),
        tokens=jnp.zeros(batch, jnp.int32),
    )


def nearest(
    k: Float[Array, "*rest heads time d"], codebook: Float[Array, "heads n d"]
) -> Int[Array, "*rest heads time"]:
    """The code of smallest distance, the first of equals. No gradient goes through."""
    k, codebook = jax.lax.stop_gradient((k, codebook))
    closeness = jnp.einsum("bhtd,hnd->bhtn", k, codebook)
    return jnp.argmax(closeness - jnp.sum(codebook**2, axis=-1)[None, :, None] / 2, axis=-1)


def _read(sums, codebook, beta, q, k, v, seen):
    """What queries read of the codes and of the tokens they see."""
    counts, values, pulls = sums
    number = jnp.maximum(counts, 1)[..., None]
    centres = jax.lax.stop_gradient(codebook)[None] + pulls / number
    q = beta[None, :, None, None] * q
    bias = jnp.where(counts > 0, jnp.log(jnp.maximum(counts, 1)), -1e30)
    from_codes = jnp.einsum("bhtd,bhnd->bhtn", q, centres) + bias[:, :, None]
    from_tokens = jnp.where(seen, jnp.einsum("bhtd,bhsd->bhts", q, k), -1e30)
    weights = jax.nn.softmax(jnp.concatenate([from_codes, from_tokens], axis=-1))
    return weights @ jnp.concatenate([values / number, v], axis=2)


def _commit(sums, codebook, k, v, full):
    """The sums after a chunk, where it is full. The pulls are zero; through them gradients reach the keys."""
    counts, values, pulls = sums
    chosen = jax.nn.one_hot(nearest(k, codebook), codebook.shape[1], dtype=k.dtype, axis=2)  # [batch, heads, n, time]
    chosen = jnp.where(full[:, None, None, None], chosen, 0)
    pull = k - jax.lax.stop_gradient(k)
    return counts + jnp.sum(chosen, axis=-1), values + chosen @ v, pulls + chosen @ pull


@jax.custom_vjp
def _teach(k, codebook, weight):
    """The keys; in the backward pass the codebook gets the gradient of `weight/2 |k - c|^2`."""
    return k


def _teach_forward(k, codebook, weight):
    return k, (k, codebook, weight)


def _teach_backward(kept, slope):
    k, codebook, weight = kept
    keys = jnp.swapaxes(k, 1, 2)
    chosen = jax.nn.one_hot(nearest(keys, codebook), codebook.shape[1], dtype=k.dtype)
    chosen = chosen * weight[:, None, :, None]
    towards = jnp.sum(chosen, axis=(0, 2))[..., None] * codebook - jnp.einsum("bhtn,bhtd->hnd", chosen, keys)
    return slope, towards, jnp.zeros_like(weight)


_teach.defvjp(_teach_forward, _teach_backward)


def _start(q, k, v, codebook, beta, chunk_size, initial_state, lengths):
    """Checked arguments in the dtype of sums, the state to begin with, and the keys and values without padding."""
    check_arrays(q, k, v, lengths, chunk_size)
    batch, time, heads, features = q.shape
    if codebook.ndim != 3 or codebook.shape[::2] != (heads, features):
        raise ValueError(f"expected a codebook of shape [{heads}, codes, {features}], got {list(codebook.shape)}")
    sizes = batch, heads, codebook.shape[1], features, v.shape[3]
    state = started(initial_state, empty_codes(*sizes, chunk_size=chunk_size, dtype=v.dtype))
    dtype = wide(v.dtype)
    codebook = codebook.astype(dtype)
    keys, values = prepared(lengths, k, v)
    counts = not_padding(lengths, batch, time).astype(dtype)
    keys = _teach(keys, codebook, counts / jnp.maximum(jnp.sum(counts), 1))
    return codebook, temperatures(beta, heads, dtype), state, keys, values


class VQAttention(Mixer):
    """Multi-head attention to a dictionary that is learned in training and fixed while a sequence is read.

        q = unit(W_q x),   k = unit(W_k x),   v = W_v x,   beta = exp(theta) sqrt(d)   for each head
        y = W_o [head_1, head_2, ...]

    where a head is `vq_attention`. `theta` is learned and starts at 0. The codebook has a gradient of its own, which
    does not depend on the loss: see `vq_attention`.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: `d`, the length of a head's queries, keys and values; `features / heads` by default.
        num_codes: Codes of each head.
        chunk_size: Steps of a chunk.
        key: For the initial weights.

    Attributes:
        projections: `query_layer`, `key_layer`, `value_layer` and `output_layer`, without bias.
        log_temperature: `theta`, `[heads]`.
        codebook: `[heads, num_codes, d]`, initially of norm 1.

    Raises:
        ValueError: If a size is below 1, or the heads do not divide the features.

    Example:
        >>> layer = VQAttention(8, 2, num_codes=16, chunk_size=4, key=jax.random.key(0))
        >>> y, state = layer(jnp.ones((10, 8)))
        >>> y.shape, jnp.sum(state.counts, axis=-1).tolist()
        ((10, 8), [[8.0, 8.0]])

    References:
        Lingle, Transformer-VQ: linear-time transformers via vector quantization, ICLR 2024, arXiv 2309.16354.

    *Differs from the paper*: see `vq_attention`. Heads in place of one gated unit, with a learned temperature.
    """

    projections: HeadProjections
    log_temperature: Float[Array, " heads"]
    codebook: Float[Array, "heads n d"]
    chunk_size: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        num_codes: int = 512,
        chunk_size: int = 128,
        key: PRNGKeyArray,
    ):
        check_counts(num_codes=num_codes, chunk_size=chunk_size)
        projections_key, codebook_key = jax.random.split(key)
        self.projections = HeadProjections(features, heads, head_features, key=projections_key)
        self.log_temperature = jnp.zeros(heads)
        codes = jax.random.normal(codebook_key, (heads, num_codes, self.projections.size))
        self.codebook = codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)
        self.chunk_size = chunk_size

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: VQState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], VQState]:
        q, k, v = self.projections.unit_inputs(x, length)
        beta = self.projections.temperatures(self.log_temperature)
        settings = {"chunk_size": self.chunk_size, "initial_state": state, "lengths": batched(length)}
        outputs, state = vq_attention(q, k, v, codebook=self.codebook, beta=beta, **settings)
        return self.projections.output(outputs), state

    def empty(self) -> VQState:
        heads, codes, size = self.codebook.shape
        return empty_codes(1, heads, codes, size, size, chunk_size=self.chunk_size, dtype=self.projections.dtype)
