"""OVQ-attention as a layer."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check_count
from vicinal.attention._parts import unit
from vicinal.attention._projections import HeadProjections, ShortConvolution, batched
from vicinal.attention.base import Mixer
from vicinal.attention.ovq.arguments import check_choices
from vicinal.attention.ovq.attention import ovq_attention
from vicinal.attention.ovq.dictionary import Rule
from vicinal.attention.ovq.schedule import Schedule
from vicinal.attention.ovq.state import OVQState, empty_state
from vicinal.nn.padding import without_padding


class OVQAttentionState(eqx.Module):
    """What an `OVQAttention` layer has read.

    Attributes:
        attention: The `OVQState`, for a batch of one.
        convolution: The last steps that the short convolution needs, or None.
    """

    attention: OVQState
    convolution: Float[Array, "width-1 channels"] | None


class OVQAttention(Mixer):
    """Multi-head OVQ-attention. It acts on one sequence, and has no positional encoding.

        q = W_q x,   k = W_k x,   v = W_v x,   under silu after a short convolution if there is one
        q = q / (|q| + 1e-5),   k = k / (|k| + 1e-5),   beta = exp(theta) sqrt(d)   for each head
        y = W_o [head_1, head_2, ...]

    where a head is `ovq_attention`. `theta` is learned and starts at 0. Exact recall takes a `beta` of tens, so leave
    `theta` out of any weight decay, and think of a larger learning rate for it.

    A token's key and value come from the same step. A task that asks for the token after one that was seen needs a
    layer below that brings the two together: a sliding window, or the short convolution.

    Args:
        features: Length of each vector, in and out.
        heads: Number of heads.
        head_features: `d`, the length of a head's queries, keys and values; `features / heads` by default.
        chunk_size: Tokens of a chunk.
        num_centroids: The most centroids of a head. No weight depends on it; see `with_schedule`.
        growth: How the dictionary grows; see `Schedule`.
        join: Which centroids a chunk's tokens can go to; see `assign`.
        bias: What is added to the logits of the dictionary; see `ovq_attention`.
        learning_rate: Of the centroids; the running mean by default. See `ovq_attention`.
        normalize_centroids: Whether mean keys are taken to norm 1.
        short_convolution: Width of a causal convolution of `q`, `k` and `v` over time; none by default.
        memory: `"lean"` or `"autodiff"`; see `ovq_attention`.
        max_length: The length that `growth="linear"` is for.
        seed: Of the choice of `join="random"`.
        key: For the initial weights.

    Attributes:
        projections: The `Linear` layers without bias: `query_layer`, `key_layer`, `value_layer`, `output_layer`.
        log_temperature: `theta`, `[heads]`.
        convolution: The `ShortConvolution`, or None.

    Raises:
        ValueError: If a size is below 1, the heads do not divide the features, or a choice is not one of those named.

    Example:
        >>> layer = OVQAttention(8, 2, chunk_size=4, num_centroids=16, key=jax.random.key(0))
        >>> x = jax.random.normal(jax.random.key(1), (10, 8))
        >>> y, state = layer(x)
        >>> first, middle = layer(x[:7])
        >>> last, _ = layer(x[7:], middle)
        >>> y.shape, bool(jnp.allclose(y, jnp.concatenate([first, last]), atol=1e-6))
        ((10, 8), True)

    References:
        Alonso, Figliolia and Millidge, Online vector quantized attention, arXiv 2602.03922.

    *Differs from the paper*: see `ovq_attention`. The paper has no short convolution.
    """

    projections: HeadProjections
    log_temperature: Float[Array, " heads"]
    convolution: ShortConvolution | None
    schedule: Schedule = eqx.field(static=True)
    rule: Rule = eqx.field(static=True)
    memory: str = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        head_features: int | None = None,
        chunk_size: int = 128,
        num_centroids: int = 512,
        growth: str | Sequence[int] = "plateau",
        join: str = "all",
        bias: str = "count",
        learning_rate: float | None = None,
        normalize_centroids: bool = False,
        short_convolution: int | None = None,
        memory: str = "lean",
        max_length: int | None = None,
        seed: int = 0,
        key: PRNGKeyArray,
    ):
        check_count("short_convolution", 1 if short_convolution is None else short_convolution)
        projection_key, convolution_key = jax.random.split(key)
        self.projections = HeadProjections(features, heads, head_features, key=projection_key)
        self.schedule = Schedule(growth, num_centroids, chunk_size, max_length)
        self.rule = Rule(join, bias, learning_rate, normalize_centroids)
        check_choices(self.rule, memory, jax.random.key(seed))
        self.log_temperature = jnp.zeros(heads)
        self.convolution = None
        if short_convolution is not None:
            self.convolution = ShortConvolution(
                3 * heads * self.projections.size, short_convolution, key=convolution_key
            )
        self.memory = memory
        self.seed = seed

    def __call__(
        self,
        x: Float[Array, "time features"],
        state: OVQAttentionState | None = None,
        *,
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], OVQAttentionState]:
        projected = self.projections.joint(without_padding(x, length))
        last = None
        if self.convolution is not None:
            before = None if state is None else state.convolution
            before = self.convolution.empty() if before is None else before
            projected, last = self.convolution(projected, before, length)
        q, k, v = (part[None] for part in self.projections.split(projected))
        outputs, attention = ovq_attention(
            unit(q),
            unit(k),
            v,
            beta=self.projections.temperatures(self.log_temperature),
            chunk_size=self.schedule.chunk_size,
            num_centroids=self.schedule.num_centroids,
            growth=self.schedule.growth,
            max_length=self.schedule.max_length,
            join=self.rule.join,
            bias=self.rule.bias,
            learning_rate=self.rule.learning_rate,
            normalize_centroids=self.rule.normalize_centroids,
            initial_state=None if state is None else state.attention,
            lengths=batched(length),
            key=jax.random.key(self.seed),
            memory=self.memory,
        )
        return self.projections.output(outputs), OVQAttentionState(attention, last)

    def empty(self) -> OVQAttentionState:
        """The state before the first step."""
        attention = empty_state(
            1,
            self.projections.heads,
            self.projections.size,
            chunk_size=self.schedule.chunk_size,
            num_centroids=self.schedule.num_centroids,
            dtype=self.projections.dtype,
        )
        return OVQAttentionState(attention, None if self.convolution is None else self.convolution.empty())


def with_schedule(layer: OVQAttention, **changes: Any) -> OVQAttention:
    """The same layer, with the same weights, and another schedule of its dictionary's size.

    Args:
        layer: The layer.
        changes: `num_centroids`, `growth` or `max_length`; see `Schedule`. A state that was made before has to be grown
            by `grow_state`.

    Returns:
        The layer with the other schedule.

    Raises:
        ValueError: If a number is out of its range.

    Example:
        >>> layer = OVQAttention(8, 2, num_centroids=16, chunk_size=4, key=jax.random.key(0))
        >>> with_schedule(layer, num_centroids=64).schedule.num_centroids
        64
    """
    leaves, structure = jax.tree.flatten(layer)
    changed = jax.tree.unflatten(structure, leaves)
    # A static field, and this copy is still ours alone.
    object.__setattr__(changed, "schedule", dataclasses.replace(layer.schedule, **changes))
    return changed
