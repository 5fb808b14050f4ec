"""Layers with weights. They act on one example."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from vicinal._numbers import check_counts


class Linear(eqx.Module):
    """`weight @ x + bias`.

    The initial weights and biases are uniform in `±1/sqrt(in_features)`, as in PyTorch.

    Args:
        in_features: Length of the input.
        out_features: Length of the output.
        use_bias: Whether to add a bias.
        key: For the initial weights.

    Attributes:
        weight: `[out_features, in_features]`.
        bias: `[out_features]`, or None.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> Linear(3, 2, key=jax.random.key(0))(jnp.ones(3)).shape
        (2,)
    """

    weight: Float[Array, "out in"]
    bias: Float[Array, " out"] | None

    def __init__(self, in_features: int, out_features: int, use_bias: bool = True, *, key: PRNGKeyArray):
        check_counts(in_features=in_features, out_features=out_features)
        weight_key, bias_key = jax.random.split(key)
        bound = in_features**-0.5
        self.weight = jax.random.uniform(weight_key, (out_features, in_features), minval=-bound, maxval=bound)
        self.bias = jax.random.uniform(bias_key, (out_features,), minval=-bound, maxval=bound) if use_bias else None

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        if x.shape != self.weight.shape[1:]:
            hint = "; give one example, x[0], not a batch" if x.shape[1:] == self.weight.shape[1:] else ""
            raise ValueError(f"expected an input of shape [{self.weight.shape[1]}], got {list(x.shape)}{hint}")
        # This order keeps the batch axis first once mapped, without a transposed weight.
        product = jax.lax.dot_general(x, self.weight, (((0,), (1,)), ((), ())))
        return product if self.bias is None else product + self.bias


class Conv2d(eqx.Module):
    """A convolution of images, `[channels, height, width]`; thin over `equinox.nn.Conv2d`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel in pixels, or one for each axis.
        stride: In pixels.
        padding: Pixels of zeros at each border; or `"SAME"` or `"VALID"`.
        dilation: Spacing of the kernel's taps, in pixels.
        groups: Groups of channels that do not mix.
        use_bias: Whether to add a bias per output channel.
        key: For the initial weights, uniform in `±1/sqrt(fan in)`.

    Attributes:
        weight: `[out_channels, in_channels / groups, kernel height, kernel width]`.
        bias: `[out_channels, 1, 1]`, or None.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> Conv2d(1, 4, 3, stride=2, key=jax.random.key(0))(jnp.ones((1, 9, 9))).shape
        (4, 4, 4)
    """

    convolution: eqx.nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | str | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        use_bias: bool = True,
        *,
        key: PRNGKeyArray,
    ):
        for name, size in (
            ("kernel_size", kernel_size),
            ("stride", stride),
            ("dilation", dilation),
            ("groups", groups),
        ):
            for side in size if isinstance(size, tuple) else (size,):
                check_counts(**{name: side})
        check_counts(in_channels=in_channels, out_channels=out_channels)
        self.convolution = eqx.nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, use_bias, key=key
        )

    @property
    def weight(self) -> Float[Array, "out in height width"]:
        return self.convolution.weight

    @property
    def bias(self) -> Float[Array, "out 1 1"] | None:
        return self.convolution.bias

    def __call__(self, x: Float[Array, "in height width"]) -> Float[Array, "out height_out width_out"]:
        return self.convolution(x)
