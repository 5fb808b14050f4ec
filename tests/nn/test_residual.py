"""Residual networks: what they compute, where their vertices are, and the size of what these hold."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.settings import ModelSettings

KEY = jax.random.key(0)


def drawn(make):
    """A model of these shapes with random parameters; JAX would compile one random number generator per shape."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(make)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(-0.6, 0.6, leaf.shape), leaf.dtype), shapes)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), float)


def by_hand(model, x):
    """The output and what each vertex holds, in NumPy, for tanh."""
    weights = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in model.layers]
    (w, b), *branches, (w_out, b_out) = weights
    post = model.vertex_at == "post"
    h = np.tanh(w @ x + b) if post else w @ x + b
    held = [h]
    for w, b in branches:
        h = h + model.branch_scale * (np.tanh(w @ h + b) if post else w @ np.tanh(h) + b)
        held.append(h)
    return w_out @ (h if post else np.tanh(h)) + b_out, held


@pytest.mark.parametrize(("vertex_at", "branch_scale"), [("post", None), ("pre", None), ("post", 0.7)])
def test_by_hand(vertex_at, branch_scale):
    model = drawn(lambda: vc.nn.ResidualMLP((4, 6, 3), 5, "tanh", vertex_at, branch_scale, key=KEY))
    assert model.branch_scale == pytest.approx(branch_scale or {"post": 1 / 3, "pre": 3**-0.5}[vertex_at])
    assert [layer.weight.shape for layer in model.layers] == [(6, 4), (6, 6), (6, 6), (6, 6), (3, 6)]
    x = normal(2, 4)
    graph = vc.capture(model, x[0])
    both = jax.jit(lambda model, x: (graph.feedforward(model, x), jax.vmap(model)(x)))
    (output, values), called = both(model, x)
    assert graph.vertices == ("hidden1", "hidden2", "hidden3", "hidden4")
    for i in range(2):
        expected, held = by_hand(model, np.asarray(x[i]))
        np.testing.assert_allclose(output[i], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose([values[name][i] for name in graph.vertices], held, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output, called, rtol=1e-5, atol=1e-6)


def test_a_vertex_feeds_the_next_alone_and_every_weight_is_a_synapse():
    model = drawn(lambda: vc.nn.ResidualMLP((4, 6, 3), 64, key=KEY))
    graph = vc.capture(model, jnp.zeros(4))
    assert graph.vertices == tuple(f"hidden{i}" for i in range(1, 64))
    for below, above in itertools.pairwise((*graph.vertices, "output")):
        assert graph.parents[above] == (below,)
    found = [(synapse.weight, synapse.bias) for synapse in graph.synapses()]
    assert found == [(f".layers[{i}].weight", f".layers[{i}].bias") for i in range(64)]


def mean_squares(depth, activation, vertex_at, branch_scale=None):
    """Of what each vertex holds at initialisation."""
    x = normal(64, 32)
    model = vc.nn.ResidualMLP((32, 128, 10), depth, activation, vertex_at, branch_scale, key=KEY)
    _, values = vc.capture(model, x[0]).feedforward(model, x)
    return np.asarray([np.mean(np.square(value)) for value in values.values()])


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_activities_keep_their_size_at_any_depth(activation, vertex_at):
    deep, shallow = (mean_squares(depth, activation, vertex_at) for depth in (64, 4))
    assert 1 / 3 < deep[-1] / shallow[-1] < 3
    assert np.all(deep > 0.05)
    assert np.all(deep < 3)


def test_an_odd_activation_bears_the_scale_of_independent_branches_everywhere():
    deep, shallow = (mean_squares(depth, "tanh", "post", (depth - 2) ** -0.5) for depth in (64, 4))
    assert 1 / 3 < deep[-1] / shallow[-1] < 3


def test_the_branches_of_a_relu_add_up_at_the_scale_of_independent_ones():
    """Why the scale of "post" is not that of "pre"."""
    deep, shallow = (mean_squares(depth, "relu", "post", (depth - 2) ** -0.5) for depth in (64, 4))
    assert deep[-1] / shallow[-1] > 8


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_backprop_is_the_gradient(x64, vertex_at):
    model = drawn(lambda: vc.nn.ResidualMLP((4, 6, 3), 6, "tanh", vertex_at, key=KEY))
    x = normal(5, 4)
    y = jnp.arange(5) % 3
    graph = vc.capture(model, x[0])

    def loss(model):
        return jnp.mean(jax.vmap(vc.losses.softmax_cross_entropy)(jax.vmap(model)(x), y))

    rule = vc.rules.Backprop()
    both = jax.jit(lambda model: (rule.value_and_grad(graph, model, (), x, y)[1], jax.grad(loss)(model)))
    gradient, expected = both(model)
    for found, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sizes": (4, 3)}, r"three sizes, \(in, width, out\), got \(4, 3\)"),
        ({"sizes": (4, 0, 3)}, "out_features as an integer of at least 1, got 0"),
        ({"depth": 2}, "depth as an integer of at least 3, got 2"),
        ({"depth": 4.0}, "depth as an integer of at least 3, got 4.0"),
        ({"vertex_at": "middle"}, "'pre' or 'post', got 'middle'"),
        ({"activation": "tan"}, "activation of tanh"),
        ({"branch_scale": 0.0}, "branch_scale above 0, got 0.0"),
        ({"branch_scale": float("nan")}, "branch_scale above 0, got nan"),
    ],
)
def test_clear_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        vc.nn.ResidualMLP(**{"sizes": (4, 6, 3), "depth": 4, "key": KEY} | arguments)


def test_settings():
    settings = ModelSettings(kind="residual", depth=4, activation="relu", vertex_at="pre")
    data = settings.shaped(vc.data.load("digits"))
    model = jax.eval_shape(lambda: settings.build(data, key=KEY))
    assert isinstance(model, vc.nn.ResidualMLP)
    assert [layer.weight.shape for layer in model.layers] == [(64, 64), (64, 64), (64, 64), (10, 64)]
    assert model.vertex_at == "pre"
    assert jax.eval_shape(lambda model, x: model(x), model, data.x_train[0]).shape == (10,)
    narrow = jax.eval_shape(lambda: ModelSettings(kind="residual", sizes=(16,)).build(data, key=KEY))
    assert [layer.weight.shape for layer in narrow.layers] == [(16, 64), *[(16, 16)] * 6, (10, 16)]
    for kind in ("mlp", "autoencoder", "recurrent", "convolutional"):
        ModelSettings(kind=kind, vertex_at="pre").check()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ModelSettings(depth=4), r"settings that the model \(mlp\) reads, got model.depth"),
        (ModelSettings(preset="mnist-mlp", depth=4), r"the model \(preset\) reads, got model.depth"),
        (ModelSettings(kind="residual", stride=3), r"the model \(residual\) reads, got model.stride"),
        (ModelSettings(kind="residual", sizes=(64, 16, 10)), "one size, the width, for a residual network, got"),
        (ModelSettings(kind="residual", depth=2), "depth as an integer of at least 3, got 2"),
    ],
)
def test_refused_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        settings.build(settings.shaped(vc.data.load("digits")), key=KEY)


def test_numbers_to_predict_have_an_output_each():
    settings = ModelSettings(kind="residual")
    data = settings.shaped(vc.data.load("digits"))
    assert settings.build(data, key=KEY)(jnp.ones(64)).shape == (10,)
    assert settings.build(data.as_autoencoding(), key=KEY)(jnp.ones(64)).shape == (64,)
