"""How a layer's weight lies on an array: which vectors enter its rows, and where what leaves its columns goes."""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from vicinal.nn.layers import Conv2d, Linear

Read = Callable[[Array, Array, Array], Array]
"""`(matrix [out, in], vector, index of the read) -> vector`."""


@dataclasses.dataclass(frozen=True)
class Dense:
    """A matrix and one vector: one read."""

    def product(self, weight: Array, x: Array) -> Array:
        """The exact product."""
        return jax.lax.dot_general(x, weight, (((0,), (1,)), ((), ())))

    def forward(self, read: Read, weight: Array, x: Array) -> Array:
        """The output of the reads of an input."""
        return read(weight, x, jnp.int32(0))

    def backward(self, read: Read, weight: Array, error: Array, x: Array) -> Array:
        """What the reads of an error carry to an input like `x`."""
        del x
        return read(weight, error, jnp.int32(0))


@dataclasses.dataclass(frozen=True)
class Maps:
    """A kernel and maps, `[channels, *space]`: one read for each position of the output, of its patch of the input.

    Attributes:
        kernel: Sides of the kernel.
        stride: For each axis of space.
        padding: Zeros before and after each axis of space.
        dilation: Spacing of the kernel's taps.
        groups: Groups of channels that do not mix; each is an array of its own.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int

    def product(self, weight: Array, x: Array) -> Array:
        """The exact product."""
        return jax.lax.conv_general_dilated(
            x[None], weight, self.stride, self.padding, rhs_dilation=self.dilation, feature_group_count=self.groups
        )[0]

    def forward(self, read: Read, weight: Array, x: Array) -> Array:
        """The output of the reads of an input."""
        out = self._each(read, self._matrices(weight), self._patches(x))  # [groups, positions, out / groups]
        return jnp.moveaxis(out, 1, 2).reshape(weight.shape[0], *self._space(x))

    def backward(self, read: Read, weight: Array, error: Array, x: Array) -> Array:
        """What the reads of an error carry to an input like `x`; overlapping patches are added digitally."""
        errors = jnp.moveaxis(error.reshape(self.groups, weight.shape[0] // self.groups, -1), 1, 2)
        patches = self._each(read, self._matrices(weight), errors)
        (carried,) = jax.vjp(self._patches, x)[1](patches)
        return carried

    def _each(self, read: Read, matrices: Array, vectors: Array) -> Array:
        """Reads each group's matrix with each of its vectors, `[groups, positions, length]`."""
        index = jnp.arange(math.prod(vectors.shape[:2])).reshape(vectors.shape[:2])
        if self.groups == 1:  # without another axis, so that the parameter is read as it is
            return jax.vmap(read, (None, 0, 0))(matrices[0], vectors[0], index[0])[None]
        return jax.vmap(jax.vmap(read, (None, 0, 0)))(matrices, vectors, index)

    def _matrices(self, weight: Array) -> Array:
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def _space(self, x: Array) -> tuple[int, ...]:
        """The positions of the output along each axis."""
        sides = zip(x.shape[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + sum(pad) - (k - 1) * d - 1) // s + 1 for n, k, s, pad, d in sides)

    def _patches(self, x: Array) -> Array:
        """The patch of each position, `[groups, positions, channels / groups * taps]`."""
        space = self._space(x)
        padded = jnp.pad(x, ((0, 0), *self.padding))
        taps = []
        for place in itertools.product(*map(range, self.kernel)):
            start = [p * d for p, d in zip(place, self.dilation, strict=True)]
            stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, space, self.stride, strict=True)]
            taps.append(jax.lax.slice(padded, (0, *start), (x.shape[0], *stop), (1, *self.stride)))
        stacked = jnp.stack(taps, 1).reshape(self.groups, -1, math.prod(space))
        return jnp.moveaxis(stacked, 1, 2)


def wiring_of(layer: Any, x: Array) -> Dense | Maps:
    """The wiring of a layer for an input like `x`."""
    if isinstance(layer, Linear | eqx.nn.Linear):
        return Dense()
    convolution = layer.convolution if isinstance(layer, Conv2d) else layer
    kernel, stride, dilation = convolution.kernel_size, convolution.stride, convolution.dilation
    padding = convolution.padding
    if isinstance(padding, str):
        spans = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        padding = jax.lax.padtype_to_pads(x.shape[1:], spans, stride, padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    return Maps(tuple(kernel), tuple(stride), pads, tuple(dilation), convolution.groups)


def unfit(layer: Any) -> str | None:
    """In words, why a layer cannot lie on an array; None if it can."""
    if isinstance(layer, eqx.nn.ConvTranspose):
        return "a transposed convolution"
    if isinstance(layer, eqx.nn.Linear) and "scalar" in (layer.in_features, layer.out_features):
        return "a layer of scalars"
    if isinstance(layer, eqx.nn.Conv) and layer.padding_mode.upper() != "ZEROS":
        return f"a convolution with {layer.padding_mode.lower()} padding"
    if not eqx.is_array(layer.weight):
        return "a layer that shares its weight with another"
    return None
