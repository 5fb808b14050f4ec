"""The normalised step, and the presynaptic norms it divides by."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full

import vicinal as vc
from vicinal.credit import presynaptic_norms

KEY = jax.random.key(0)


def norms(model, x):
    graph = vc.capture(model, x[0])
    return eqx.filter_jit(lambda model, x: graph.presynaptic(model, graph.feedforward(model, x)[1], x))(model, x)


def square(a):
    return np.sum(np.square(np.asarray(a)), axis=-1)


def test_norms_of_a_perceptron():
    model = vc.nn.MLP((4, 6, 3), vertex_at="pre", key=KEY)
    x = jax.random.normal(KEY, (5, 4))
    found = norms(model, x)
    hidden = jnp.tanh(x @ model.layers[0].weight.T + model.layers[0].bias[None])
    for path in (".layers[0].weight", ".layers[0].bias"):
        np.testing.assert_allclose(found[path], square(x) + 1, rtol=1e-5)
    np.testing.assert_allclose(found[".layers[1].weight"], square(hidden) + 1, rtol=1e-5)


def test_norms_without_bias_and_of_stock_layers():
    model = eqx.nn.Sequential(
        [eqx.nn.Linear(4, 3, use_bias=False, key=KEY), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(3, 2, key=KEY)]
    )
    x = jax.random.normal(KEY, (5, 4))
    found = norms(model, x)
    np.testing.assert_allclose(found[".layers[0].weight"], square(x), rtol=1e-5)
    hidden = jnp.tanh(x @ model.layers[0].weight.T)
    np.testing.assert_allclose(found[".layers[2].weight"], square(hidden) + 1, rtol=1e-5)


@pytest.mark.parametrize(
    "product",
    [
        lambda w, x: jnp.einsum("oi,i->o", w, x),
        lambda w, x: x @ w.T,
        lambda w, x: jnp.dot(w, x),
        lambda w, x: jax.jit(lambda w, x: w @ x)(w, x),
        lambda w, x: jnp.tensordot(w.reshape(3, 2, 2), x.reshape(2, 2), 2),
    ],
)
def test_every_way_to_write_a_product_is_found(product):
    model = jax.tree_util.Partial(product, jax.random.normal(KEY, (3, 4)))
    x = jax.random.normal(KEY, (5, 4))
    (found,) = norms(model, x).values()
    np.testing.assert_allclose(found, square(x), rtol=1e-5)


def test_norms_of_positions_are_averaged():
    def tokens(w, x):  # x: [tokens, in]
        return jax.vmap(lambda token: w @ token)(x)

    x = jax.random.normal(KEY, (2, 7, 4))
    (found,) = norms(jax.tree_util.Partial(tokens, jnp.ones((3, 4))), x).values()
    np.testing.assert_allclose(found, square(x).mean(axis=1), rtol=1e-5)


def test_norms_of_a_convolution_are_per_position_over_channels():
    model = vc.nn.ConvNet((3, 6, 6), [(4, 3, 1)], (2,), key=KEY)
    x = jax.random.normal(KEY, (5, 3, 6, 6))
    found = norms(model, x)
    expected = np.square(np.asarray(x)).sum(axis=1).mean(axis=(1, 2)) + 1
    np.testing.assert_allclose(found[".convolutions[0].convolution.weight"], expected, rtol=1e-5)


def test_norms_of_shared_weights_add():
    model = vc.nn.RNN(2, 4, 3, key=KEY)
    x = jax.random.normal(KEY, (5, 6, 2))
    found = norms(model, x)
    np.testing.assert_allclose(found[".input_layer.weight"], (square(x) + 1).sum(axis=1), rtol=1e-5)


def test_the_step_divides_by_the_mean_norm(x64):
    model = vc.nn.MLP((4, 6, 3), vertex_at="pre", key=KEY)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    x, y = jax.random.normal(KEY, (5, 4), jnp.float64), jnp.arange(5) % 3
    graph, rule = vc.capture(model, x[0]), vc.rules.Backprop()
    rate, eps = 0.5, 0.25
    optimizer = vc.optim.nlms(rate, eps)
    stepped, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(model), (), x, y)
    _, gradient, _, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)
    hidden = jnp.tanh(x @ model.layers[0].weight.T + model.layers[0].bias[None])
    for i, below in enumerate((x, hidden)):
        n = square(below).mean() + 1 + eps
        layer, g = model.layers[i], gradient.layers[i]
        np.testing.assert_allclose(stepped.layers[i].weight, layer.weight - rate * g.weight / n, rtol=1e-12)
        np.testing.assert_allclose(stepped.layers[i].bias, layer.bias - rate * g.bias / n, rtol=1e-12)


def test_it_chains_with_adam_and_trains():
    digits = vc.data.load("digits").flattened().subset(200, 50)
    model = vc.nn.MLP((64, 16, 10), vertex_at="pre", key=KEY)
    for optimizer in (
        vc.optim.nlms(0.5, eps=0.5),
        optax.chain(vc.optim.scale_by_presynaptic_norm(5.0), optax.adam(0.01)),
    ):
        run = vc.train.fit(
            vc.rules.InferenceLearning(), model, optimizer, digits, key=KEY, epochs=20, batch_size=10, progress=False
        )
        assert run.records[-1]["train_accuracy"] > 0.85


def test_clear_errors():
    def scaled(parameters, x):
        return parameters["scale"] * (parameters["w"] @ x)

    model = jax.tree_util.Partial(scaled, {"scale": jnp.ones(3), "w": jnp.ones((3, 4))})
    x, y = jnp.ones((2, 4)), jnp.zeros(2, jnp.int32)
    optimizer = vc.optim.nlms()
    with pytest.raises(ValueError, match=r"multiply an activity.*'scale'"):
        vc.rules.Backprop().step(vc.capture(model, x[0]), optimizer, model, optimizer.init(model), (), x, y)
    with pytest.raises(ValueError, match="expected the presynaptic norms, got none"):
        optimizer.update({"w": jnp.ones(3)}, optimizer.init({"w": jnp.ones(3)}))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (vc.nn.ConvNet((1, 6, 6), [(2, 3, 2)], (3,), key=jax.random.key(0)), (1, 6, 6)),
        full(vc.nn.RNN(4, 3, 3, key=jax.random.key(0)), (5, 4)),
        (vc.nn.MLP((4, 3, 3), use_bias=False, key=jax.random.key(0)), (4,)),
    ],
    ids=["convolutional", "recurrent", "without bias"],
)
def test_models_with_empty_fields(model, shape):
    """A tree with None in it, as for a missing bias or pooling: only parameters have norms."""
    x = jax.random.normal(jax.random.key(1), (2, *shape))
    graph, optimizer = vc.capture(model, x[0]), vc.optim.nlms(1.0, 0.5)
    parameters = eqx.filter(model, eqx.is_inexact_array)
    rule = vc.rules.InferenceLearning()
    after, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(parameters), (), x, jnp.zeros(2, int))
    gradient, credit, _ = eqx.filter_jit(rule.assign)(graph, model, (), x, jnp.zeros(2, int))
    norms = presynaptic_norms(graph, model, credit.values, x)
    for new, old, g, n in zip(*map(jax.tree.leaves, (after, model, gradient, norms)), strict=False):
        if eqx.is_inexact_array(new):
            np.testing.assert_allclose(new - old, -g / (n + 0.5), rtol=1e-4, atol=1e-6)
