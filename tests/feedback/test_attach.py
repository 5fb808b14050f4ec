"""Feedback weights of a layer's own: what goes forward and the weights' gradient are as before, the error is not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some
from once import once
from precision import double

import vicinal as vc
from vicinal.feedback import Fed, attach, given

KEY = jax.random.key(0)

LAYERS = {
    "linear": (lambda: vc.nn.Linear(4, 3, key=KEY), (4,)),
    "stock linear": (lambda: eqx.nn.Linear(4, 3, key=KEY), (4,)),
    "stock linear, no bias": (lambda: eqx.nn.Linear(4, 3, use_bias=False, key=KEY), (4,)),
    "strided convolution": (lambda: vc.nn.Conv2d(2, 4, 3, stride=2, key=KEY), (2, 8, 8)),
    "padded convolution": (lambda: vc.nn.Conv2d(2, 4, 3, padding=1, key=KEY), (2, 6, 6)),
    "dilated convolution": (lambda: eqx.nn.Conv2d(2, 4, 3, dilation=2, key=KEY), (2, 8, 8)),
    "grouped convolution": (lambda: eqx.nn.Conv2d(4, 6, 3, groups=2, key=KEY), (4, 6, 6)),
    "transposed convolution": (lambda: eqx.nn.ConvTranspose2d(2, 4, 3, stride=2, key=KEY), (2, 4, 4)),
    "convolution in one dimension": (lambda: eqx.nn.Conv1d(2, 4, 3, key=KEY), (2, 7)),
}


def weight_of(layer):
    return layer.weight


@once
def plain_and_input(name):
    """A layer and an input, made while double precision is on."""
    build, shape = LAYERS[name]
    return double(build()), jnp.asarray(np.random.default_rng(1).normal(size=shape))


@eqx.filter_jit
def backwards(layers, x):
    """For each layer: its output, and what an error of it carries to its arrays and to its input."""
    found = []
    for layer in layers:
        arrays, static = eqx.partition(layer, eqx.is_inexact_array)
        out, back = jax.vjp(lambda arrays, x, static=static: eqx.combine(arrays, static)(x), arrays, x)
        error = np.random.default_rng(2).normal(size=out.shape)
        found.append((out, *back(jnp.asarray(error))))
    return found


@pytest.mark.parametrize(
    "name", some(LAYERS, "linear", "stock linear", "strided convolution", "transposed convolution")
)
def test_the_transpose_as_feedback_changes_nothing(x64, name):
    plain, x = plain_and_input(name)
    fed = attach(plain, given({"weight": weight_of(plain)}))
    (out, own, carried), (bare, expected, through) = backwards((fed, plain), x)
    np.testing.assert_array_equal(out, bare)
    np.testing.assert_allclose(carried, through, rtol=1e-12)
    for a, b in zip(jax.tree.leaves(own.layer), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_array_equal(own.path.feedback, 0)


@pytest.mark.parametrize("name", LAYERS)
def test_the_error_goes_back_through_the_feedback_alone(x64, name):
    plain, x = plain_and_input(name)
    other = jnp.asarray(np.random.default_rng(3).normal(size=weight_of(plain).shape))
    layers = [attach(plain, given({"weight": other}, learned)) for learned in (False, True)]
    *found, replaced, (bare, expected, _) = backwards((*layers, attached_in_place(plain, other), plain), x)
    for (out, own, carried), feedback in zip(found, (0, weight_of(expected)), strict=True):
        np.testing.assert_array_equal(out, bare)
        np.testing.assert_allclose(carried, replaced[2], rtol=1e-12)
        np.testing.assert_allclose(weight_of(own.layer), weight_of(expected), rtol=1e-12)
        np.testing.assert_allclose(own.path.feedback, feedback, rtol=1e-12)


def attached_in_place(layer, weight):
    """The layer with another weight."""
    where = (lambda m: m.convolution.weight) if isinstance(layer, vc.nn.Conv2d) else weight_of
    return eqx.tree_at(where, layer, weight)


RULES = {
    "backpropagation": vc.rules.Backprop(),
    "inference learning": vc.rules.InferenceLearning(),
    "sequential": vc.rules.InferenceLearning(inference=vc.inference.Sequential()),
    "error-based": vc.rules.InferenceLearning(inference=vc.inference.ErrorBased()),
    "Z-IL": vc.rules.ZIL(),
    "fixed prediction": vc.rules.FixedPrediction(),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=20),
    "incremental": vc.rules.IncrementalPC(),
    "events": vc.rules.EventInferenceLearning(),
    "spikes": vc.rules.SpikingInferenceLearning(),
}


@once
def plain_and_fed():
    """A convolutional network without and with feedback, each with its graph, and a batch."""
    model = vc.nn.ConvNet((2, 7, 7), [(3, 3, 2)], (5, 3), key=KEY)
    names = ("layers[0].weight", "layers[1].weight")
    weights = {
        name: jax.random.normal(k, layer.weight.shape)
        for name, layer, k in zip(names, model.layers, jax.random.split(KEY), strict=True)
    }
    fed = attach(model, given(weights))
    x, y = jax.random.normal(KEY, (4, 2, 7, 7)), jnp.arange(4) % 3
    return [(vc.capture(m, x[0]), m) for m in (model, fed)], x, y


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_runs_on_feedback_weights_and_uses_them(rule):
    networks, x, y = plain_and_fed()
    losses, gradients = [], []
    for graph, model in networks:
        loss, gradient, _, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)
        losses.append(loss)
        gradients.append(gradient)
    assert losses[0] == pytest.approx(float(losses[1]))
    assert gradients[1].layers[1].path.feedback is None  # it is no parameter
    plain, separate = gradients[0].convolutions[0].weight, gradients[1].convolutions[0].weight
    assert np.max(np.abs(np.subtract(plain, separate))) > 1e-3 * np.max(np.abs(plain))


def test_names_go_through_marked_modules_and_unknown_ones_are_refused():
    stock = eqx.nn.MLP(4, 2, width_size=5, depth=2, key=KEY)
    marked = vc.mark(stock, lambda mlp: mlp.layers[:-1])
    fed = attach(marked, given({"layers[1].module.weight": jnp.ones((5, 5))}))
    assert isinstance(fed.layers[1].module, Fed)
    assert vc.capture(fed, jnp.ones(4)).vertices == ("layers[0]", "layers[1]")
    with pytest.raises(ValueError, match=r"expected weights of layers\[0\].module.weight, .*got feedback for 'head'"):
        attach(marked, given({"head": jnp.ones((2, 2))}))


@pytest.mark.parametrize("wrong", [jnp.ones((3, 2)), jnp.ones((2, 3), jnp.bfloat16), jnp.ones((2, 3), int)])
def test_feedback_of_another_kind_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected feedback for weight as float32\[2, 3\], got"):
        attach(vc.nn.Linear(3, 2, key=KEY), given({"weight": wrong}))


def test_the_synapses_and_norms_of_a_fed_layer_are_found():
    model = vc.nn.MLP((4, 3, 2), key=KEY)
    fed = attach(model, given({"layers[1].weight": jnp.ones((2, 3))}))
    x = jax.random.normal(KEY, (5, 4))

    @eqx.filter_jit
    def norms(m):
        graph = vc.capture(m, x[0])
        return graph.presynaptic(m, graph.feedforward(m, x)[1], x)

    plain, separate = norms(model), norms(fed)
    np.testing.assert_allclose(separate[".layers[1].layer.weight"], plain[".layers[1].weight"], rtol=1e-6)


@pytest.mark.parametrize("route", [vc.feedback.random, vc.feedback.kolen_pollack, vc.feedback.activation_alignment])
def test_what_feedback_learns_from_is_no_input_of_a_prediction(route):
    """Learned feedback is run forwards beside the weight; the norm of what enters the prediction does not count it."""
    model = vc.nn.MLP((4, 5, 3), vertex_at="pre", key=KEY)
    fed, x = attach(model, route(), key=KEY), jax.random.normal(KEY, (3, 4))
    graph = vc.capture(fed, x[0])

    @eqx.filter_jit
    def entering(fed):
        _, values = graph.feedforward(fed, x)
        return values["hidden1"], graph.entering("output", fed, values, x)

    hidden, found = entering(fed)
    rates = np.tanh(np.asarray(hidden))
    np.testing.assert_allclose(found, np.sum(rates**2, axis=1) + 1, rtol=1e-5)  # the bias is one more input, of 1


def test_models_that_read_their_layers_weights_run_with_feedback():
    model = vc.nn.RNN(4, 5, 3, key=KEY)
    fed = attach(model, given({"recurrent_layer.weight": jnp.ones((5, 5))}))
    x = jax.random.normal(KEY, (6, 4))
    np.testing.assert_array_equal(fed(x), model(x))


def test_feedback_twice_for_none_or_for_a_shared_weight_is_refused():
    model = vc.nn.MLP((4, 3, 2), key=KEY)
    route = given({"layers[1].weight": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match=r"layers\[1\].weight, which has feedback already"):
        attach(attach(model, route), route)
    with pytest.raises(ValueError, match="expected feedback for a weight of layers"):
        attach(model, lambda name, weight, key: None)
    shared = eqx.nn.Shared([eqx.nn.Linear(3, 3, key=KEY), eqx.nn.Linear(3, 3, key=KEY)],
                           lambda pair: pair[1].weight, lambda pair: pair[0].weight)  # fmt: skip
    with pytest.raises(ValueError, match="which shares its weight with another"):
        attach(shared, lambda name, weight, key: vc.feedback.Separate(jnp.ones((3, 3))))
