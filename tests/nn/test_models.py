"""Layers and models: what they compute, where their vertices are, and the papers' architectures."""

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc

KEY = jax.random.key(0)


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(model) if jnp.issubdtype(leaf.dtype, jnp.inexact))


def test_linear():
    layer = vc.nn.Linear(4, 3, key=KEY)
    x = jnp.arange(4.0)
    np.testing.assert_allclose(layer(x), np.asarray(layer.weight) @ np.asarray(x) + np.asarray(layer.bias), rtol=1e-6)
    assert float(jnp.max(jnp.abs(layer.weight))) <= 0.5
    assert vc.nn.Linear(4, 3, use_bias=False, key=KEY).bias is None
    with pytest.raises(ValueError, match=r"input of shape \[4\], got \[5\]"):
        layer(jnp.ones(5))
    with pytest.raises(ValueError, match="out_features as an integer of at least 1, got 0"):
        vc.nn.Linear(4, 0, key=KEY)


def test_initial_weights_are_uniform_with_the_deviation_of_pytorch():
    weight = np.asarray(vc.nn.Linear(400, 300, key=KEY).weight)
    assert weight.std() == pytest.approx(400**-0.5 / 3**0.5, rel=0.01)
    kernel = np.asarray(vc.nn.Conv2d(16, 64, 5, key=KEY).weight)
    assert kernel.std() == pytest.approx((16 * 25) ** -0.5 / 3**0.5, rel=0.02)


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1)])
def test_conv2d_by_loops(stride, padding, dilation, groups):
    layer = vc.nn.Conv2d(2, 4, 3, stride, padding, dilation, groups, key=KEY)
    x = np.asarray(jax.random.normal(KEY, (2, 7, 6)))
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    weight, bias = np.asarray(layer.weight), np.asarray(layer.bias)
    found = np.asarray(layer(jnp.asarray(x)))
    per_group, outs = 2 // groups, 4 // groups
    for o in range(4):
        chosen = padded[(o // outs) * per_group : (o // outs + 1) * per_group]
        for i in range(found.shape[1]):
            for j in range(found.shape[2]):
                rows = slice(i * stride, i * stride + 2 * dilation + 1, dilation)
                columns = slice(j * stride, j * stride + 2 * dilation + 1, dilation)
                expected = np.sum(weight[o] * chosen[:, rows, columns]) + bias[o, 0, 0]
                np.testing.assert_allclose(found[o, i, j], expected, rtol=1e-4, atol=1e-5)


def test_the_two_conventions_are_one_network_with_two_kinds_of_vertex():
    post, pre = (vc.nn.MLP((4, 6, 5, 3), vertex_at=place, key=KEY) for place in ("post", "pre"))
    x = jax.random.normal(KEY, (3, 4))
    rates = eqx.filter_jit(vc.capture(post, x[0]).feedforward)(post, x)
    potentials = eqx.filter_jit(vc.capture(pre, x[0]).feedforward)(pre, x)
    np.testing.assert_allclose(rates[0], potentials[0], rtol=1e-6)
    for name in ("hidden1", "hidden2"):
        np.testing.assert_allclose(rates[1][name], jnp.tanh(potentials[1][name]), rtol=1e-6)


def test_rnn_by_a_loop():
    model = vc.nn.RNN(2, 4, 3, every_step=True, key=KEY)
    last = vc.nn.RNN(2, 4, 3, key=KEY)
    x = np.asarray(jax.random.normal(KEY, (5, 2)))
    h, outputs = np.zeros(4), []
    for x_t in x:
        potential = np.asarray(model.input_layer.weight) @ x_t + np.asarray(model.input_layer.bias)
        h = np.tanh(potential + np.asarray(model.recurrent_layer.weight) @ h)
        outputs.append(np.asarray(model.output_layer.weight) @ h + np.asarray(model.output_layer.bias))
    np.testing.assert_allclose(model(jnp.asarray(x)), outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last(jnp.asarray(x)), outputs[-1], rtol=1e-5, atol=1e-6)
    assert vc.capture(model, jnp.asarray(x)).vertices == tuple(f"hidden[{t}]" for t in range(5))


def test_convnet_vertices_and_pooling():
    pool = vc.nn.MaxPool2d(2, 2)
    model = vc.nn.ConvNet((1, 8, 8), [(3, 3, 1)], (6, 2), padding="SAME", pool=pool, key=KEY)
    graph = vc.capture(model, jnp.ones((1, 8, 8)))
    assert graph.vertices == ("conv1", "hidden1")
    _, values = eqx.filter_jit(graph.feedforward)(model, jnp.ones((2, 1, 8, 8)))
    assert values["conv1"].shape == (2, 3, 8, 8)
    assert model.layers[0].weight.shape == (6, 3 * 4 * 4)


def shapes_of(name, **settings):
    """A model of the papers' sizes without its numbers."""
    return eqx.filter_eval_shape(lambda: vc.nn.preset(name, key=KEY, **settings))


def test_presets_have_the_papers_sizes():
    sizes = {
        "mnist-mlp": [784, 256, 256, 10],
        "cifar-mlp": [3072, 1024, 1024, 1024, 10],
        "cifar-autoencoder-100": [3072, 1024, 256, 100, 256, 1024, 3072],
        "cifar-autoencoder-20": [3072, 1024, 256, 20, 256, 1024, 3072],
    }
    for name, widths in sizes.items():
        model = shapes_of(name)
        expected = sum(below * above + above for below, above in pairwise(widths))
        assert count(model) == expected
        assert eqx.filter_eval_shape(model, jnp.zeros(widths[0])).shape == (widths[-1],)
    conv = shapes_of("cifar-conv", vertex_at="post")
    kernels = [(64, 3, 5), (128, 64, 5), (256, 128, 3)]
    assert count(conv) == sum(o * i * k * k + o for o, i, k in kernels) + 1024 * 10 + 10

    def vertices():
        conv, x = vc.nn.preset("cifar-conv", vertex_at="post", key=KEY), jnp.zeros((1, 3, 32, 32))
        return vc.capture(conv, x[0]).feedforward(conv, x)[1]

    values = jax.eval_shape(vertices)
    assert [values[f"conv{i}"].shape[1:] for i in (1, 2, 3)] == [(64, 14, 14), (128, 5, 5), (256, 2, 2)]


def test_autoencoder_names_its_code():
    model = vc.nn.Autoencoder((8, 6, 2, 6, 8), key=KEY)
    graph = vc.capture(model, jnp.zeros(8))
    assert model.code_vertex == "hidden2"
    assert eqx.filter_jit(graph.feedforward)(model, jnp.zeros((1, 8)))[1]["hidden2"].shape == (1, 2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: vc.nn.MLP((4,), key=KEY), "at least two sizes"),
        (lambda: vc.nn.MLP((4, 2), activation="tan", key=KEY), "activation of tanh"),
        (lambda: vc.nn.MLP((4, 2), vertex_at="middle", key=KEY), "'pre' or 'post', got 'middle'"),
        (lambda: vc.nn.Autoencoder((4, 2, 3), key=KEY), "equal ends"),
        (lambda: vc.nn.ConvNet((1, 4, 4), [(2, 3, 2), (2, 3, 2)], (3,), key=KEY), "image that the convolutions fit"),
        (lambda: vc.nn.ConvNet((1, 4, 4), [(2, 3, 2)], (), key=KEY), "at least one fully connected layer"),
        (lambda: vc.nn.preset("resnet", key=KEY), "expected a preset of mnist-mlp"),
    ],
)
def test_clear_errors(make, words):
    with pytest.raises(ValueError, match=words):
        make()
