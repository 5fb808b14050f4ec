"""Convolutions in a graph: laid out for the CPU, and otherwise as the model has them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some

import vicinal as vc

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)

LAYERS = {
    "strided": (lambda: eqx.nn.Conv2d(3, 4, 3, stride=2, key=KEY), (3, 9, 8)),
    "padded and dilated": (
        lambda: eqx.nn.Conv2d(3, 4, (3, 2), padding=((1, 2), (0, 1)), dilation=2, key=KEY),
        (3, 9, 8),
    ),
    "one axis": (lambda: eqx.nn.Conv1d(3, 4, 3, padding="SAME", key=KEY), (3, 9)),
    "three axes": (lambda: eqx.nn.Conv3d(2, 3, 2, key=KEY), (2, 4, 4, 5)),
    "transposed": (lambda: eqx.nn.ConvTranspose2d(3, 4, 3, stride=2, key=KEY), (3, 5, 6)),
    "grouped": (lambda: eqx.nn.Conv2d(4, 4, 3, groups=2, key=KEY), (4, 9, 8)),
    "channels last": (None, (9, 8, 3)),
}


def channels_last(kernel, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x[None], kernel, (1, 2), "SAME", dimension_numbers=numbers)[0]


def network(name):
    build, shape = LAYERS[name]
    layer = jax.tree_util.Partial(channels_last, jax.random.normal(KEY, (3, 3, 3, 4))) if build is None else build()
    layer = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_inexact_array(leaf) else leaf, layer)
    model = jax.tree_util.Partial(lambda layer, x: jnp.tanh(vc.vertex(layer(x), "h")), layer)
    return model, jax.random.normal(KEY, (5, *shape), jnp.float64)


@pytest.mark.parametrize("name", some(LAYERS, "padded and dilated", "transposed", "channels last"))
def test_values_and_derivatives_are_the_models(x64, name):
    """Forward, backward, forward over backward, and a network for each of two members."""
    model, x = network(name)
    graph = vc.capture(model, x[0])
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def plain(arrays, x):
        return jnp.sum(jnp.sin(jax.vmap(eqx.combine(arrays, static))(x)))

    def ours(arrays, x):
        return jnp.sum(jnp.sin(graph.feedforward(eqx.combine(arrays, static), x)[0]))

    def found(f):  # in one program, which takes less time than each step of each on its own
        def transformed(arrays, x):
            two = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), arrays)
            return (
                f(arrays, x),
                jax.grad(f, (0, 1))(arrays, x),
                jax.jvp(jax.grad(f), (arrays, x), (arrays, x))[1],
                jax.vmap(jax.grad(f), (0, None))(two, x),
            )

        return jax.tree.leaves(jax.jit(transformed)(arrays, x))

    for a, b in zip(found(ours), found(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_in_a_loop_every_convolution_has_the_layout_of_the_fast_kernel():
    """Else XLA compiles it to scalar loops on the CPU: the derivatives too."""
    model = vc.nn.ConvNet((3, 12, 12), [(4, 3, 2), (5, 3, 1)], (6, 3), key=KEY)
    x, y = jax.random.normal(KEY, (4, 3, 12, 12)), jnp.arange(4) % 3
    graph = vc.capture(model, x[0])
    arrays, static = eqx.partition(model, eqx.is_array)
    rule = vc.rules.InferenceLearning()

    def train(arrays):
        def body(arrays, _):
            gradient = rule.value_and_grad(graph, eqx.combine(arrays, static), (), x, y)[1]
            return jax.tree.map(lambda a, g: a - 0.01 * g, arrays, eqx.filter(gradient, eqx.is_array)), None

        return jax.lax.scan(body, arrays, length=3)[0]

    text = jax.jit(train).lower(arrays).compile().as_text()
    layouts = [line.split("dim_labels=")[1].split(",")[0] for line in text.splitlines() if " convolution(" in line]
    assert len(layouts) >= 6
    assert set(layouts) == {"b01f_01io->b01f"}
