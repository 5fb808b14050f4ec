"""Errors that pass activations unchanged: whatever an activation is written with, and nothing but activations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some
from precision import double

import vicinal as vc

KEY = jax.random.key(0)

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "gelu": jax.nn.gelu,
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "swish by hand": lambda x: x * jax.nn.sigmoid(x),
    "where": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "a mask": lambda x: x * (x > 0).astype(x.dtype),
    "softplus by hand": lambda x: jnp.log(1 + jnp.exp(x)),
    "sigmoid by hand": lambda x: 1 / (1 + jnp.exp(-x)),
    "squared relu": lambda x: jnp.square(jax.nn.relu(x)),
    "cube": lambda x: x**3,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "elu": jax.nn.elu,
    "hard tanh": jax.nn.hard_tanh,
    "tanh under a checkpoint": jax.checkpoint(jnp.tanh),
}


def carried(function, parameters, shape, derivatives=False):
    """An error of ones at the output, carried back to the vertex `h`; and how far the output is from the model's."""
    model = jax.tree_util.Partial(function, jax.tree.map(jnp.asarray, parameters))
    x = np.random.default_rng(0).normal(size=(4, *shape))
    graph = vc.capture(model, jnp.asarray(x[0]))
    error = np.random.default_rng(1).normal(size=(4, *graph.shapes["output"].shape))

    @jax.jit
    def run(model, x, error):
        output, values = graph.feedforward(model, x)
        linear = graph.clamp(model, x).linearize(values, derivatives)
        return linear.back("output", error)["h"], linear.output, output

    found, again, output = run(model, x, error)
    np.testing.assert_allclose(again, output, rtol=1e-12)
    return found, error


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_passes_errors_unchanged(x64, name):
    w = np.random.default_rng(2).normal(size=(3, 6))
    found, error = carried(lambda w, x: w @ ACTIVATIONS[name](vc.vertex(x + 0.03, "h")), w, (6,))
    np.testing.assert_allclose(found, error @ w, rtol=1e-12)


def test_a_scale_after_an_activation_stays(x64):
    w = np.random.default_rng(2).normal(size=(3, 6))
    found, error = carried(lambda w, x: w @ (0.5 * jnp.tanh(vc.vertex(x + 0.0, "h")) + 0.1), w, (6,))
    np.testing.assert_allclose(found, 0.5 * error @ w, rtol=1e-12)


def test_a_weight_before_an_activation_stays(x64):
    w, p = np.random.default_rng(2).normal(size=(3, 6)), np.linspace(0.5, 2.0, 6)
    found, error = carried(lambda m, x: m[0] @ jnp.tanh(m[1] * vc.vertex(x + 0.0, "h")), (w, p), (6,))
    np.testing.assert_allclose(found, error @ w * p, rtol=1e-12)


def test_activations_whose_outputs_are_pooled(x64):
    w = np.random.default_rng(2).normal(size=(3, 2))
    for f in (jax.nn.softplus, jax.nn.gelu, jax.nn.elu, jax.nn.relu):
        found, error = carried(lambda w, x, f=f: w @ f(vc.vertex(x + 0.0, "h")).mean(0), w, (5, 2))
        np.testing.assert_allclose(found, np.broadcast_to((error @ w / 5)[:, None], found.shape), rtol=1e-12)


def test_a_relaxed_transformer_keeps_its_normalisation(x64):
    """Above the last vertex there is a normalisation and no activation: the derivatives left out are none."""
    model = double(vc.nn.Transformer(3, 4, 2, length=3, key=KEY))
    x, y = jax.random.normal(KEY, (4, 3, 3), jnp.float64), jnp.arange(4) % 2
    graph = vc.capture(model, x[0])

    @eqx.filter_jit
    def errors(rule, model, x, y):
        return rule.credit(graph, model, (), x, y)[0].errors

    rule = vc.rules.ActivationRelaxation(steps=1, step_size=1.0, derivatives=False)
    found, exact = (errors(r, model, x, y) for r in (rule, vc.rules.Backprop()))
    last = graph.vertices[-1]
    np.testing.assert_allclose(found[last], exact[last], rtol=1e-9, atol=1e-12)


def test_a_residual_branch_keeps_its_scale_and_its_stream(x64):
    w = np.random.default_rng(2).normal(size=(6, 6))

    def block(w, x):
        h = vc.vertex(x + 0.0, "h")
        return h + 0.3 * jax.nn.relu(w @ h)

    found, error = carried(block, w, (6,))
    np.testing.assert_allclose(found, error + 0.3 * error @ w, rtol=1e-12)


def _shares(a):
    return a / jnp.sum(a)


@pytest.mark.parametrize(
    "function",
    [
        lambda w, h: w @ ((h - h.mean()) / jnp.sqrt(jnp.var(h) + 1e-5)),  # a normalisation
        lambda w, h: jax.nn.softmax(w @ h),
        lambda w, h: w @ _shares(jnp.exp(h - jnp.max(h))),  # a softmax by hand
        lambda w, h: (w @ h) * (w @ jnp.flip(h)),  # a product of activities
        lambda w, h: 2 * (w @ h) - 1,
        lambda w, h: w @ jnp.where(jnp.arange(6) < 4, h, 0.0),  # a mask
        lambda w, h: w @ eqx.nn.LayerNorm(6, use_weight=False, use_bias=False)(h),
        lambda w, h: w @ eqx.nn.GroupNorm(2, 6, channelwise_affine=False)(h[:, None])[:, 0],
        lambda w, h: (w @ h) * jax.lax.rsqrt(jnp.clip(jnp.var(h), 1e-5)),
        lambda w, h: jax.nn.logsumexp(w @ h)[None],
        lambda w, h: jax.nn.log_softmax(w @ h),
    ],
    ids=[
        "normalisation",
        "softmax",
        "softmax by hand",
        "product",
        "affine",
        "mask",
        "layer norm",
        "group norm",
        "guarded normalisation",
        "log of a sum of exponentials",
        "log of softmax",
    ],
)
def test_what_is_no_activation_keeps_its_derivative(x64, function):
    w = np.random.default_rng(2).normal(size=(3, 6))

    def model(w, x):
        return function(w, vc.vertex(x + 0.0, "h"))

    (without, _), (with_, _) = (carried(model, w, (6,), derivatives) for derivatives in (False, True))
    np.testing.assert_allclose(without, with_, rtol=1e-9, atol=1e-12)


def test_two_activations_of_one_array_and_one_after_another(x64):
    w = np.random.default_rng(2).normal(size=(6, 6))

    def model(w, x):
        h = vc.vertex(x + 0.0, "h")
        return w @ jnp.tanh(h) + w.T @ jax.nn.relu(jnp.sin(h))

    found, error = carried(model, w, (6,))
    np.testing.assert_allclose(found, error @ w + error @ w.T, rtol=1e-12)


# ------------------------------------------------------------------------------- the activation that a vertex goes into


def slopes(function, parameters, shape):
    """The slopes, the values they are taken at, and the graph's vertices."""
    model = jax.tree_util.Partial(function, jax.tree.map(jnp.asarray, parameters))
    x = np.random.default_rng(0).normal(size=(4, *shape))
    graph = vc.capture(model, jnp.asarray(x[0]))

    @jax.jit
    def run(model, x):
        values = graph.feedforward(model, x)[1]
        return graph.slopes(model, values, x), values

    return run(model, x)


@pytest.mark.parametrize("name", some(ACTIVATIONS, "tanh", "where", "a mask", "mish", "tanh under a checkpoint"))
def test_the_slope_of_an_activation_is_its_derivative(x64, name):
    f = ACTIVATIONS[name]
    w = np.random.default_rng(2).normal(size=(3, 6))
    found, values = slopes(lambda w, x: w @ (0.5 * f(vc.vertex(x + 0.03, "h"))), w, (6,))
    expected = jax.jit(jax.vmap(jax.vmap(jax.grad(lambda z: 0.5 * f(z)))))(values["h"])
    np.testing.assert_allclose(found["h"], expected, rtol=1e-12)


def test_the_slope_of_an_activation_that_is_read_in_several_places(x64):
    def recurrent(w, x):
        rate = jnp.tanh(vc.vertex(w @ x, "a"))
        potential = vc.vertex(w @ rate, "b")
        return jnp.tanh(potential) + rate

    found, values = slopes(recurrent, np.random.default_rng(2).normal(size=(6, 6)), (6,))
    for name in ("a", "b"):
        np.testing.assert_allclose(found[name], 1 - np.tanh(values[name]) ** 2, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "function",
    [
        lambda w, h: w @ h,  # a rate
        lambda w, h: w @ (2 * h - 1),
        lambda w, h: h + jnp.tanh(w @ h),  # a residual stream
        lambda w, h: h + w @ jnp.tanh(h),
        lambda w, h: w @ jnp.tanh(h) + w @ jax.nn.relu(h),  # two activations
        lambda w, h: jnp.tanh(h) * jnp.tanh(vc.vertex(h[::-1], "g")) + jnp.tanh(h),
        lambda w, h: w @ ((h - h.mean()) / jnp.sqrt(jnp.var(h) + 1e-5)),  # a normalisation
        lambda w, h: w @ _shares(jnp.exp(h)),  # a softmax by hand
        lambda w, h: jnp.tanh(jnp.concatenate([h, w @ h])),
    ],
    ids=["rate", "affine", "post", "pre", "two", "gate", "normalisation", "softmax", "concatenated"],
)
def test_what_is_read_by_more_than_an_activation_has_no_slope(x64, function):
    found, _ = slopes(
        lambda w, x: function(w, vc.vertex(x + 0.0, "h")), np.random.default_rng(2).normal(size=(6, 6)), (6,)
    )
    assert "h" not in found


def test_shapes_of_nodes():
    graph = vc.capture(vc.nn.RNN(3, 5, 2, every_step=True, key=KEY), jnp.ones((4, 3)))
    assert graph.shapes["hidden[1]"] == jax.ShapeDtypeStruct((5,), jnp.float32)
    assert graph.shapes["output"] == jax.ShapeDtypeStruct((4, 2), jnp.float32)
