"""Projections, convolutions and gates that several sequence layers share. They act on one sequence."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal._numbers import check_count, check_counts, wide
from vicinal.attention._parts import EPSILON, rotated, unit
from vicinal.nn.layers import Linear
from vicinal.nn.padding import without_padding


def head_size(features: int, heads: int, head_features: int | None) -> int:
    """The length of a head's vectors, `features / heads` by default."""
    check_counts(features=features, heads=heads)
    if head_features is None and features % heads:
        raise ValueError(f"expected features that heads={heads} divides, got {features}; or give head_features")
    size = features // heads if head_features is None else head_features
    check_count("head_features", size)
    return size


def check_rotary(rotary: bool, size: int) -> None:
    """Raises a ValueError if the features of a head cannot be turned in pairs."""
    if rotary and size % 2:
        raise ValueError(f"expected an even number of head_features with rotary=True, got {size}; change it")


def batched(length: Int[Array, ""] | None) -> Int[Array, " one"] | None:
    """The length of one sequence as that of a batch of one."""
    return None if length is None else jnp.asarray(length)[None]


class HeadProjections(eqx.Module):
    """Linear layers without bias to queries, keys and values, and from the heads' outputs.

    Attributes:
        query_layer, key_layer, value_layer: `[heads * size, features]`.
        output_layer: `[features, heads * size]`.
    """

    query_layer: Linear
    key_layer: Linear
    value_layer: Linear
    output_layer: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, features: int, heads: int, head_features: int | None, *, key: PRNGKeyArray):
        size = heads * head_size(features, heads, head_features)
        *input_keys, output_key = jax.random.split(key, 4)
        layers = (Linear(features, size, use_bias=False, key=k) for k in input_keys)
        self.query_layer, self.key_layer, self.value_layer = layers
        self.output_layer = Linear(size, features, use_bias=False, key=output_key)
        self.heads = heads

    @property
    def size(self) -> int:
        """The length of a head's vectors."""
        return len(self.value_layer.weight) // self.heads

    @property
    def dtype(self):
        return self.value_layer.weight.dtype

    def joint(self, x: Float[Array, "time features"]) -> Float[Array, "time channels"]:
        """Queries, keys and values of all heads, one after the other."""
        layers = (self.query_layer, self.key_layer, self.value_layer)
        return jnp.concatenate([jax.vmap(layer)(x) for layer in layers], axis=1)

    def split(self, joint: Float[Array, "time channels"]) -> list[Float[Array, "time heads d"]]:
        """Undoes `joint`, head by head."""
        return [x.reshape(len(x), self.heads, self.size) for x in jnp.split(joint, 3, axis=1)]

    def output(self, heads: Float[Array, "1 time heads d"]) -> Float[Array, "time features"]:
        """The layer's output from those of the heads."""
        return jax.vmap(self.output_layer)(heads.reshape(heads.shape[1], self.heads * self.size))

    def temperatures(self, log_temperature: Float[Array, " heads"]) -> Float[Array, " heads"]:
        """`beta = exp(theta) sqrt(d)`, so that `theta = 0` gives queries and keys of norm 1 the usual scale."""
        return jnp.exp(log_temperature) * self.size**0.5

    def unit_inputs(
        self,
        x: Float[Array, "time features"],
        length: Int[Array, ""] | None,
        rotary: bool = False,
        first: Int[Array, ""] | None = None,
    ) -> list[Float[Array, "1 time heads d"]]:
        """Queries and keys of norm 1, with `rotary` turned by their positions from `first` on, and values."""
        q, k, v = self.split(self.joint(without_padding(x, length)))
        q, k = unit(q), unit(k)
        if rotary:
            first = jnp.zeros((), jnp.int32) if first is None else first
            q, k = rotated(q, first), rotated(k, first)
        return [q[None], k[None], v[None]]


class ShortConvolution(eqx.Module):
    """Each channel on its own: `silu(sum over s of  weight_s x_{t-s})`, with zeros before the first step.

    Attributes:
        weight: `[width, channels]`; the present step is the last row. Initially uniform in `±1/sqrt(width)`.
    """

    weight: Float[Array, "width channels"]

    def __init__(self, channels: int, width: int = 4, *, key: PRNGKeyArray):
        bound = width**-0.5
        self.weight = jax.random.uniform(key, (width, channels), minval=-bound, maxval=bound)

    def __call__(
        self, x: Float[Array, "time channels"], last: Float[Array, "width-1 channels"], length: Int[Array, ""] | None
    ) -> tuple[Float[Array, "time channels"], Float[Array, "width-1 channels"]]:
        """The outputs, and the last `width - 1` inputs that count; `last` are those before the sequence."""
        time, width = len(x), len(self.weight)
        x = jnp.concatenate([last, x])
        y = sum((row[None] * x[s : s + time] for s, row in enumerate(self.weight[1:], 1)), self.weight[:1] * x[:time])
        return jax.nn.silu(y), jax.lax.dynamic_slice_in_dim(x, time if length is None else length, width - 1)

    def empty(self) -> Float[Array, "width-1 channels"]:
        """Zeros, as before the first step."""
        return jnp.zeros_like(self.weight[1:])


class DecayGate(eqx.Module):
    """The log of the share of its memory that a head keeps: `log_decay = -exp(log_speed) softplus(W x + bias)`.

    Initially `exp(log_speed)` is uniform between 1 and 16 and `softplus(bias)` log-uniform between 0.001 and 0.1, so
    that memories last from one step to a thousand.

    Attributes:
        layer: `Linear` layer without bias, to one number for each head.
        bias: `[heads]`.
        log_speed: `[heads]`.
    """

    layer: Linear
    bias: Float[Array, " heads"]
    log_speed: Float[Array, " heads"]

    def __init__(self, features: int, heads: int, *, key: PRNGKeyArray):
        layer_key, step_key, speed_key = jax.random.split(key, 3)
        self.layer = Linear(features, heads, use_bias=False, key=layer_key)
        step = jnp.exp(jax.random.uniform(step_key, (heads,), minval=jnp.log(0.001), maxval=jnp.log(0.1)))
        self.bias = jnp.log(jnp.expm1(step))
        self.log_speed = jnp.log(jax.random.uniform(speed_key, (heads,), minval=1.0, maxval=16.0))

    def __call__(
        self, x: Float[Array, "time features"]
    ) -> tuple[Float[Array, "time heads"], Float[Array, "time heads"]]:
        """The step sizes, `softplus(W x + bias)`, and the log decays."""
        dtype = wide(x.dtype)
        step = jax.nn.softplus(jax.vmap(self.layer)(x).astype(dtype) + self.bias.astype(dtype)[None])
        return step, -jnp.exp(self.log_speed.astype(dtype))[None] * step


class GatedNorm(eqx.Module):
    """`silu(W x) * gain * y / rms(y)`, or `gain * y' / rms(y')` with `y' = silu(W x) * y` if the gate comes before.

    The root mean square is over the last axis of `y`.

    Attributes:
        gate_layer: `Linear` layer without bias.
        gain: Of each entry of `y`'s last axis; initially 1.
        before: Whether the gate comes before the normalisation.
    """

    gate_layer: Linear
    gain: Float[Array, " d"]
    before: bool = eqx.field(static=True)

    def __init__(self, features: int, channels: int, size: int, before: bool = False, *, key: PRNGKeyArray):
        self.gate_layer = Linear(features, channels, use_bias=False, key=key)
        self.gain = jnp.ones(size)
        self.before = before

    def __call__(self, y: Float[Array, "*time d"], x: Float[Array, "time features"]) -> Float[Array, "*time d"]:
        gate = jax.nn.silu(jax.vmap(self.gate_layer)(x)).reshape(y.shape)
        gated = (gate * y if self.before else y).astype(wide(y.dtype))
        scale = jax.lax.rsqrt(jnp.mean(gated**2, axis=-1, keepdims=True) + EPSILON)
        normed = self.gain.reshape(*[1] * (y.ndim - 1), -1) * (gated * scale).astype(y.dtype)
        return normed if self.before else gate * normed


class MemoryState(NamedTuple):
    """The state of a layer with a memory and a short convolution.

    Attributes:
        memory: The state of the layer's operator, for a batch of one.
        convolution: The last 3 inputs of the convolution.
    """

    memory: Any
    convolution: Float[Array, "3 channels"]


class GatedHeads(eqx.Module):
    """`GatedDeltaNet` and `MesaLayer` without their memory.

        q, k, v = silu(convolution(W x)),   q = unit(q),   k = unit(k)
        g = -exp(log_speed) softplus(W_g x + bias),   b = sigmoid(W_b x)   for each head
        y = W_o [norm(head_1), norm(head_2), ...],   norm(o) = silu(W_z x) * gain * o / rms(o)

    Attributes:
        projections: `query_layer`, `key_layer`, `value_layer` and `output_layer`, without bias.
        convolution: Over 4 steps of each channel; `weight` is `[4, channels]`.
        decay: The gate of `g`: `layer`, `bias` and `log_speed`.
        rate_layer: `Linear` layer without bias, of `b`.
        norm: The gated normalisation of each head: `gate_layer` and `gain`.
    """

    projections: HeadProjections
    convolution: ShortConvolution
    decay: DecayGate
    rate_layer: Linear
    norm: GatedNorm

    def __init__(self, features: int, heads: int, head_features: int | None, *, key: PRNGKeyArray):
        projections_key, convolution_key, decay_key, rate_key, norm_key = jax.random.split(key, 5)
        self.projections = HeadProjections(features, heads, head_features, key=projections_key)
        size = self.projections.size
        self.convolution = ShortConvolution(3 * heads * size, key=convolution_key)
        self.decay = DecayGate(features, heads, key=decay_key)
        self.rate_layer = Linear(features, heads, use_bias=False, key=rate_key)
        self.norm = GatedNorm(features, heads * size, size, key=norm_key)

    def __call__(
        self,
        operator: Callable,
        x: Float[Array, "time features"],
        state: MemoryState | None,
        length: Int[Array, ""] | None,
    ) -> tuple[Float[Array, "time features"], MemoryState]:
        """Applies an operator, `operator(q, k, v, g, b, initial_state=..., lengths=...)`, between projections."""
        x = without_padding(x, length)
        memory, last = (None, self.convolution.empty()) if state is None else state
        joint, last = self.convolution(self.projections.joint(x), last, length)
        q, k, v = self.projections.split(joint)
        inputs = unit(q), unit(k), v, self.decay(x)[1], jax.nn.sigmoid(jax.vmap(self.rate_layer)(x))
        outputs, memory = operator(*(a[None] for a in inputs), initial_state=memory, lengths=batched(length))
        return self.projections.output(self.norm(outputs[0], x)[None]), MemoryState(memory, last)

    def empty_memory(self) -> Float[Array, "1 heads d d"]:
        """A memory of zeros, from keys to values."""
        size, heads = self.projections.size, self.projections.heads
        return jnp.zeros((1, heads, size, size), wide(self.projections.dtype))
