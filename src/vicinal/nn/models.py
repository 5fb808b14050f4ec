"""Models whose hidden activities are vertices.

Two conventions are in use, and the results differ. With `vertex_at="post"` a vertex holds the firing rate, predicted
as `f(W a + b)`; with `vertex_at="pre"` it holds the potential, predicted as `W f(a) + b`. Only the place of the
vertex differs. The output layer is linear: the loss applies its own non-linearity.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vicinal.activations import Activation, activation_function
from vicinal.graph import vertex
from vicinal.nn.layers import Conv2d, Linear
from vicinal.nn.padding import if_there, sequence_and_length, without_padding, zero_unless

Place = Literal["pre", "post"]


def _checked_place(vertex_at: str) -> str:
    if vertex_at not in ("pre", "post"):
        raise ValueError(f"expected vertex_at as 'pre' or 'post', got {vertex_at!r}")
    return vertex_at


def activated_vertex(z: Array, name: str, activation: Callable, vertex_at: str, mask: Array | None = None) -> Array:
    """The firing rate `f(z)`, with the vertex on the rate ("post") or on the potential `z` ("pre").

    Args:
        z: The potential.
        name: Of the vertex.
        activation: `f`.
        vertex_at: `"post"` or `"pre"`.
        mask: Of the vertex; None: it is unmasked.

    Returns:
        The rate.
    """
    return vertex(activation(z), name, mask) if vertex_at == "post" else activation(vertex(z, name, mask))


class MLP(eqx.Module):
    """A fully connected network; vertices `hidden1`, `hidden2`, ...

    Args:
        sizes: Units of each layer, input and output included.
        activation: Name or function, applied to the hidden layers.
        vertex_at: `"post"` (rates) or `"pre"` (potentials).
        use_bias: Whether layers have biases.
        key: For the initial weights.

    Attributes:
        layers: `Linear` layers; `layers[i].weight` is `[out, in]`.

    Raises:
        ValueError: If there are fewer than two sizes, or an argument is unknown.

    Example:
        >>> MLP((784, 256, 256, 10), activation="relu", key=jax.random.key(0))(jnp.ones(784)).shape
        (10,)
    """

    layers: tuple[Linear, ...]
    activation: Callable = eqx.field(static=True)
    vertex_at: str = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation = "tanh",
        vertex_at: Place = "post",
        use_bias: bool = True,
        *,
        key: PRNGKeyArray,
    ):
        if len(sizes) < 2:
            raise ValueError(f"expected at least two sizes, the input's and the output's, got {tuple(sizes)}")
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            Linear(below, above, use_bias, key=k) for below, above, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.activation = activation_function(activation)
        self.vertex_at = _checked_place(vertex_at)

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        for i, layer in enumerate(self.layers[:-1], 1):
            x = activated_vertex(layer(x), f"hidden{i}", self.activation, self.vertex_at)
        return self.layers[-1](x)


class Autoencoder(eqx.Module):
    """A fully connected autoencoder; the vertices are those of its `MLP`. Its output is logits or values.

    Args:
        sizes: Units of each layer; the first and the last must be equal.
        activation: Name or function, applied to the hidden layers.
        vertex_at: `"post"` (rates) or `"pre"` (potentials).
        use_bias: Whether layers have biases.
        key: For the initial weights.

    Attributes:
        mlp: The layers.
        code_vertex: Name of the vertex with the fewest units, the code.

    Raises:
        ValueError: If the ends differ, or there is no hidden layer.

    Example:
        >>> model = Autoencoder((64, 32, 4, 32, 64), key=jax.random.key(0))
        >>> model(jnp.ones(64)).shape, model.code_vertex
        ((64,), 'hidden2')
    """

    mlp: MLP
    code_vertex: str = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation = "relu",
        vertex_at: Place = "post",
        use_bias: bool = True,
        *,
        key: PRNGKeyArray,
    ):
        if len(sizes) < 3 or sizes[0] != sizes[-1]:
            raise ValueError(f"expected sizes with equal ends and a hidden layer between, got {tuple(sizes)}")
        self.mlp = MLP(sizes, activation, vertex_at, use_bias, key=key)
        hidden = list(sizes[1:-1])
        self.code_vertex = f"hidden{1 + hidden.index(min(hidden))}"

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " in"]:
        return self.mlp(x)


class ConvNet(eqx.Module):
    """Convolutions, then fully connected layers; vertices `conv1`, ..., then `hidden1`, ...

    Args:
        image: Shape of the input, `(channels, height, width)`.
        convolutions: For each: output channels, kernel size and stride, in pixels.
        sizes: Units of the fully connected layers after the convolutions; the last is the output.
        activation: Name or function, applied to the hidden layers.
        vertex_at: `"post"` (rates) or `"pre"` (potentials).
        padding: Of every convolution.
        pool: An `equinox.nn` pooling layer, applied to the rates after each convolution's vertex; None for none.
        use_bias: Whether layers have biases.
        key: For the initial weights.

    Attributes:
        convolutions: `Conv2d` layers.
        layers: `Linear` layers.

    Raises:
        ValueError: If the image shrinks to nothing, or an argument is unknown.

    Example:
        >>> model = ConvNet((1, 8, 8), [(4, 3, 2)], (10,), key=jax.random.key(0))
        >>> model(jnp.ones((1, 8, 8))).shape
        (10,)
    """

    convolutions: tuple[Conv2d, ...]
    layers: tuple[Linear, ...]
    pool: Callable | None
    activation: Callable = eqx.field(static=True)
    vertex_at: str = eqx.field(static=True)

    def __init__(
        self,
        image: tuple[int, int, int],
        convolutions: Sequence[tuple[int, int, int]],
        sizes: Sequence[int],
        activation: Activation = "relu",
        vertex_at: Place = "post",
        padding: int | str = 0,
        pool: Callable | None = None,
        use_bias: bool = True,
        *,
        key: PRNGKeyArray,
    ):
        if not sizes:
            raise ValueError("expected at least one fully connected layer, the output, got none")
        keys = iter(jax.random.split(key, len(convolutions) + len(sizes)))
        self.pool = pool
        made, shape = [], tuple(image)
        for channels, kernel, stride in convolutions:
            layer = functools.partial(
                Conv2d, shape[0], channels, kernel, stride, padding, use_bias=use_bias, key=next(keys)
            )
            shape = self._shape_after(eqx.filter_eval_shape(layer), shape)  # before memory is taken for it
            made.append(layer())
        widths = [math.prod(shape), *sizes]
        self.convolutions = tuple(made)
        self.layers = tuple(
            Linear(below, above, use_bias, key=next(keys)) for below, above in itertools.pairwise(widths)
        )
        self.activation = activation_function(activation)
        self.vertex_at = _checked_place(vertex_at)

    def _shape_after(self, layer: Conv2d, shape: tuple[int, ...]) -> tuple[int, ...]:
        pool = self.pool or (lambda x: x)
        try:
            x = jax.ShapeDtypeStruct(shape, layer.weight.dtype)
            after = eqx.filter_eval_shape(lambda layer, x: pool(layer(x)), layer, x).shape
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected an image that the convolutions fit, got {shape} left: {error}") from error
        if 0 in after:
            raise ValueError(f"expected an image that the convolutions fit, got nothing left after one on {shape}")
        return after

    def __call__(self, x: Float[Array, "channels height width"]) -> Float[Array, " out"]:
        for i, layer in enumerate(self.convolutions, 1):
            x = activated_vertex(layer(x), f"conv{i}", self.activation, self.vertex_at)
            x = x if self.pool is None else self.pool(x)
        x = x.reshape(-1)
        for i, layer in enumerate(self.layers[:-1], 1):
            x = activated_vertex(layer(x), f"hidden{i}", self.activation, self.vertex_at)
        return self.layers[-1](x)


class RNN(eqx.Module):
    """A simple recurrent network, unrolled in time; vertices `hidden[0]`, `hidden[1]`, ...

        potential_t = input_layer(x_t) + recurrent_layer(rate_{t-1}),   rate = f(potential),   rate_{-1} = 0

    Called with `(sequence, length)` it reads only the first `length` steps (none to all): the rest is padding.
    Vertices there are masked, so that every rule learns as from the sequence without padding.

    Args:
        in_features: Length of each input vector.
        hidden_features: Units of the recurrent layer.
        out_features: Length of each output vector.
        activation: Name or function.
        vertex_at: `"post"` (rates) or `"pre"` (potentials).
        every_step: Whether to return an output at each time step (0 at padded ones), or only after the last.
        key: For the initial weights.

    Attributes:
        input_layer, recurrent_layer, output_layer: `Linear` layers; the recurrent one has no bias.

    Raises:
        ValueError: If an input is neither a sequence nor a sequence and its length. (A length out of range gives an
            output of NaN.)

    Example:
        >>> model = RNN(3, 8, 2, every_step=True, key=jax.random.key(0))
        >>> model(jnp.ones((5, 3))).shape
        (5, 2)
        >>> padded = model((jnp.ones((5, 3)), jnp.array(2)))
        >>> bool(jnp.allclose(padded[:2], model(jnp.ones((2, 3))))), padded[2:].any().item()
        (True, False)
    """

    input_layer: Linear
    recurrent_layer: Linear
    output_layer: Linear
    activation: Callable = eqx.field(static=True)
    vertex_at: str = eqx.field(static=True)
    every_step: bool = eqx.field(static=True)

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        activation: Activation = "tanh",
        vertex_at: Place = "post",
        every_step: bool = False,
        *,
        key: PRNGKeyArray,
    ):
        input_key, recurrent_key, output_key = jax.random.split(key, 3)
        self.input_layer = Linear(in_features, hidden_features, key=input_key)
        self.recurrent_layer = Linear(hidden_features, hidden_features, use_bias=False, key=recurrent_key)
        self.output_layer = Linear(hidden_features, out_features, key=output_key)
        self.activation = activation_function(activation)
        self.vertex_at = _checked_place(vertex_at)
        self.every_step = every_step

    def __call__(
        self, x: Float[Array, "time in"] | tuple[Float[Array, "time in"], Int[Array, ""]]
    ) -> Float[Array, " out"] | Float[Array, "time out"]:
        sequence, length = sequence_and_length(x)
        rate = last = jnp.zeros(self.recurrent_layer.weight.shape[0], sequence.dtype)
        outputs = []
        for t, x_t in enumerate(sequence):
            counts = None if length is None else t < length
            potential = self.input_layer(x_t) + self.recurrent_layer(rate)
            if counts is not None:  # at zero, so that activities in the padding stay bounded
                potential = zero_unless(counts, potential)
            rate = activated_vertex(potential, f"hidden[{t}]", self.activation, self.vertex_at, counts)
            if self.every_step:
                outputs.append(self.output_layer(rate))
            else:
                last = rate if counts is None or t == 0 else jnp.where(counts, rate, last)
        if self.every_step:
            output = without_padding(jnp.stack(outputs), length)
        else:
            output = self.output_layer(last if length is None else zero_unless(length > 0, last))
        return if_there(output, sequence, length)
