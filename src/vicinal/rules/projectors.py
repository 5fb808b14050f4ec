"""Fixed projections for direct feedback, from the error of a module's output to the error of a vertex."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal._numbers import check, check_count, number
from vicinal._show import module_text

Shape = tuple[int, ...]


class Projector(eqx.Module):
    """A random linear map from the error of a module's output (the source) to the error of a vertex (the target).

    The weights of every kind are uniform, in a range that gives a projected error the expected norm of an error that
    comes back through initial weights of a layer from the target to the source, uniform in `±1/sqrt(fan in)`:

        E ||projected||^2  =  scale^2 ||error||^2 / 3

    (a convolution loses a part of it at the borders of a map).
    """

    scale: eqx.AbstractVar[Float[Array, ""]]
    """Factor of the error; in plain gradient descent it scales the learning rate below the module's output."""

    def __repr__(self) -> str:
        return module_text(self)

    def misfit(self, source: Shape, target: Shape) -> str | None:
        """Describes why shapes do not fit, `"expected ..., got ..."`; None if they fit."""
        del source, target

    def draw(self, source: Shape, target: Shape, dtype: jnp.dtype, *, key: PRNGKeyArray) -> Float[Array, "..."]:
        """Draws the weights, for the shapes of one example."""
        raise NotImplementedError

    def project(self, weights: Float[Array, "..."], error: Float[Array, "..."], target: Shape) -> Float[Array, "..."]:
        """Projects the error of one example."""
        raise NotImplementedError

    def _uniform(self, shape: Shape, fan: Array | int, dtype: jnp.dtype, key: PRNGKeyArray) -> Array:
        bound = self.scale / jnp.sqrt(jnp.asarray(fan, self.scale.dtype))
        return bound.astype(dtype) * jax.random.uniform(key, shape, dtype, -1.0)


class Dense(Projector):
    """A full matrix `B`, `[units of the vertex, units of the source]`: `projected = B error`.

    Args:
        scale: Factor of the error.

    References:
        Nøkland, Direct feedback alignment provides learning in deep neural networks, NeurIPS 2016, arXiv 1609.01596.
    """

    scale: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def __check_init__(self):
        check("the scale", self.scale)

    def draw(self, source: Shape, target: Shape, dtype: jnp.dtype, *, key: PRNGKeyArray) -> Float[Array, "to from"]:
        units = math.prod(target)
        return self._uniform((units, math.prod(source)), units, dtype, key)

    def project(self, weights: Float[Array, "to from"], error: Float[Array, "..."], target: Shape) -> Array:
        return jnp.dot(weights, error.reshape(-1)).reshape(target)


class Sparse(Projector):
    """A sparse matrix: weights as in `Dense`, each kept with probability `density` and scaled to keep the norm.

    Args:
        density: In (0, 1]. If the source has few units, a low density leaves some units without an error.
        scale: Factor of the error.

    Raises:
        ValueError: If the density is out of its range.

    References:
        Crafton, Parihar, Gebhardt and Raychowdhury, Direct feedback alignment with sparse connections for local
        learning, Frontiers in Neuroscience 13, 2019. Han, Park, Ryu and Yoo, 2020, arXiv 2006.12830 (recurrent nets).
    """

    density: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    scale: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def __check_init__(self):
        check("the density", self.density, lambda v: (v > 0) & (v <= 1), "in (0, 1]")
        check("the scale", self.scale)

    def draw(self, source: Shape, target: Shape, dtype: jnp.dtype, *, key: PRNGKeyArray) -> Float[Array, "to from"]:
        units, (there, weight) = math.prod(target), jax.random.split(key)
        fan = self.density * jnp.asarray(units, self.density.dtype)
        weights = self._uniform((units, math.prod(source)), fan, dtype, weight)
        return jnp.where(jax.random.bernoulli(there, self.density, weights.shape), weights, jnp.zeros_like(weights))

    def project(self, weights: Float[Array, "to from"], error: Float[Array, "..."], target: Shape) -> Array:
        return jnp.dot(weights, error.reshape(-1)).reshape(target)


class Broadcast(Projector):
    """For maps: broadcasts the error of the source, a vector, to every position, and convolves with a random kernel.

    All positions get the same error, except at the borders with a kernel of more than one pixel. The number of weights,
    `[channels, units of the source, size, size]`, does not depend on the size of the map.

    Args:
        kernel_size: Side of the kernel in pixels, odd.
        scale: Factor of the error.

    Raises:
        ValueError: If the kernel size is not odd.

    References:
        Sanfiz and Akrout, Benchmarking the accuracy and robustness of feedback alignment algorithms, 2021,
        arXiv 2108.13446 (BioTorch), whose kernel has the size, stride and padding of the layer above.
    """

    kernel_size: int = eqx.field(static=True, default=3)
    scale: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def __check_init__(self):
        _check_kernel(self.kernel_size)
        check("the scale", self.scale)

    def misfit(self, source: Shape, target: Shape) -> str | None:
        if len(source) == 1 and len(target) == 3:
            return None
        return f"expected a vector broadcast to a map of three axes, got {list(source)} to {list(target)}"

    def draw(self, source: Shape, target: Shape, dtype: jnp.dtype, *, key: PRNGKeyArray) -> Array:
        shape = (target[0], source[0], self.kernel_size, self.kernel_size)
        return self._uniform(shape, math.prod(target) * self.kernel_size**2, dtype, key)

    def project(self, weights: Array, error: Float[Array, " from"], target: Shape) -> Array:
        everywhere = jnp.broadcast_to(error[:, None, None], (*error.shape, *target[1:]))
        return jax.lax.conv(everywhere[None], weights, (1, 1), "SAME")[0]


class DilatedConvolution(Projector):
    """For maps: a transposed convolution with a random dilated kernel, from the source to the vertex.

    Pixel `j` of the source is the centre of a kernel at pixel `j s + o` of the vertex, with the stride `s = H // H'`
    (the height of the vertex over that of the source) and an `o` that leaves equal borders; taps are `dilation` pixels
    apart:

        projected[c, j s + o + (t - middle) dilation]  +=  kernel[c, c', t] error[c', j]      for all j, t, c'

    This is a sparse matrix with few distinct weights. A pixel that no tap reaches gets no error: avoid a dilation that
    shares a factor with the stride, and a kernel smaller than the stride.

    Args:
        kernel_size: Taps along a side, odd.
        dilation: Spacing of the taps, in pixels of the vertex.
        groups: Groups of channels that do not mix; a divisor of the channels of both maps.
        scale: Factor of the error.

    Raises:
        ValueError: If a setting is out of its range.

    References:
        In the spirit of Han, Park, Ryu and Yoo, Extension of direct feedback alignment to convolutional and recurrent
        neural network for bio-plausible deep learning, 2020, arXiv 2006.12830 (dilated, and group convolutions).
    """

    kernel_size: int = eqx.field(static=True, default=3)
    dilation: int = eqx.field(static=True, default=1)
    groups: int = eqx.field(static=True, default=1)
    scale: Float[Array, ""] = eqx.field(converter=number, default=1.0)

    def __check_init__(self):
        _check_kernel(self.kernel_size)
        check("the scale", self.scale)
        check_count("the dilation", self.dilation, 1)
        check_count("the groups", self.groups, 1)

    def misfit(self, source: Shape, target: Shape) -> str | None:
        shapes = f"got {list(source)} to {list(target)}"
        if len(source) != 3 or len(target) != 3:
            return f"expected a map of three axes projected to another, {shapes}"
        if any(ours > theirs for ours, theirs in zip(source[1:], target[1:], strict=True)):
            return f"expected a map projected to one at least as high and wide, {shapes}"
        if source[0] % self.groups or target[0] % self.groups:
            return f"expected channels that are multiples of the groups, {self.groups}, {shapes}"
        return None

    def draw(self, source: Shape, target: Shape, dtype: jnp.dtype, *, key: PRNGKeyArray) -> Array:
        shape = (target[0], source[0] // self.groups, self.kernel_size, self.kernel_size)
        return self._uniform(shape, target[0] // self.groups * self.kernel_size**2, dtype, key)

    def project(self, weights: Array, error: Float[Array, "from height width"], target: Shape) -> Array:
        strides, padding = [], []
        reach, before = self.dilation * (self.kernel_size - 1), self.dilation * (self.kernel_size // 2)
        for theirs, ours in zip(error.shape[1:], target[1:], strict=True):
            stride = ours // theirs
            spread = (theirs - 1) * stride + 1  # of the source's pixels, laid out on the vertex's
            border = (ours - spread) // 2
            strides.append(stride)
            padding.append((border + before, ours - spread - border + reach - before))
        # XLA's convolution is a correlation: turn the kernel round, so that taps point away from the source's pixel.
        return jax.lax.conv_general_dilated(
            error[None],
            jnp.flip(weights, (2, 3)),
            (1, 1),
            padding,
            lhs_dilation=strides,
            rhs_dilation=(self.dilation, self.dilation),
            feature_group_count=self.groups,
        )[0]


def _check_kernel(size: int) -> None:
    check_count("the kernel size", size, 1)
    if size % 2 == 0:
        raise ValueError(f"expected an odd kernel size, got {size}; only then has the kernel a middle")
