"""Activation relaxation: its fixed point, its simplifications, and the weights that carry it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import diagonal
from once import once
from precision import double, on_host

import vicinal as vc
from vicinal.rules import ActivationRelaxation, Backprop, FixedPrediction

KEY = jax.random.key(0)
ACTIVATIONS = ["tanh", "relu", "sigmoid", "gelu", "silu", "softplus", "leaky_relu"]
SQUARED = vc.losses.squared_error


@once
def task(activation="tanh", vertex_at="post", sizes=(5, 6, 4, 3)):
    model = double(vc.nn.MLP(sizes, activation=activation, vertex_at=vertex_at, key=KEY))
    x = jax.random.normal(jax.random.key(1), (4, sizes[0]), jnp.float64)
    return model, vc.capture(model, x[0]), x, jax.random.normal(jax.random.key(2), (4, sizes[-1]), jnp.float64)


def gradient(rule, graph, model, x, y):
    return eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)[1]


def assert_equal(found, expected, **tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def published_loop(model, x, y, steps, eta, derivatives):
    """The published order, for one example and rates: from the top, each layer sees the one above as it is now."""
    z, h = [], [x]
    for i, layer in enumerate(model.layers):
        z.append(layer.weight @ h[-1] + layer.bias)
        h.append(np.tanh(z[-1]) if i < len(model.layers) - 1 else z[-1])
    q = [*h[1:-1], h[-1] - y]
    slope = [1 - np.tanh(a) ** 2 for a in z[:-1]] + [np.ones_like(z[-1])]
    for _ in range(steps):
        for layer in reversed(range(len(q) - 1)):
            above = slope[layer + 1] * q[layer + 1] if derivatives else q[layer + 1]
            q[layer] = q[layer] - eta * (q[layer] - model.layers[layer + 1].weight.T @ above)
    return [np.outer(s * a, b) for s, a, b in zip(slope, q, h[:-1], strict=True)]


@pytest.mark.parametrize("derivatives", [True, False])
def test_it_is_the_published_loop(x64, derivatives):
    model, graph, x, y = task(sizes=(5, 6, 4, 5, 3))
    rule = ActivationRelaxation(steps=7, step_size=0.2, derivatives=derivatives, loss=SQUARED)
    found = gradient(rule, graph, model, x, y)
    model, x, y = on_host((model, x, y))
    each = [published_loop(model, x[i], y[i], 7, 0.2, derivatives) for i in range(4)]
    for layer, products in zip(found.layers, zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(layer.weight, sum(products) / 4, rtol=1e-11, atol=1e-14)


def test_convergence_is_geometric(x64):
    """Below the output, q - adjoint shrinks by 1 - step_size each step, from h - adjoint."""
    model, graph, x, y = task()
    _, values = eqx.filter_jit(graph.feedforward)(model, x)
    exact = np.asarray(eqx.filter_jit(Backprop(loss=SQUARED).credit)(graph, model, (), x, y)[0].errors["hidden2"])
    for steps in (1, 10, 50):
        rule = ActivationRelaxation(steps=steps, step_size=0.1, loss=SQUARED)
        found = eqx.filter_jit(rule.credit)(graph, model, (), x, y)[0].errors["hidden2"]
        expected = 0.9**steps * (-np.asarray(values["hidden2"]) - exact)
        np.testing.assert_allclose(np.asarray(found) - exact, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("order", ["sequential", "simultaneous"])
def test_relaxed_to_the_end_it_is_fixed_prediction_and_backpropagation(x64, order):
    model, graph, x, y = task()
    relaxed = gradient(ActivationRelaxation(steps=400, step_size=0.2, order=order, loss=SQUARED), graph, model, x, y)
    fixed = gradient(FixedPrediction(steps=400, step_size=0.2, order=order, loss=SQUARED), graph, model, x, y)
    assert_equal(relaxed, fixed, rtol=1e-10, atol=1e-13)
    assert_equal(relaxed, gradient(Backprop(loss=SQUARED), graph, model, x, y), rtol=1e-10, atol=1e-13)


def test_feedback_that_learns_as_the_weights_do_keeps_its_difference(x64):
    """dB = dW^T conserves W - B^T under plain gradient descent."""
    model, _, x, y = task()
    given = {f"layers[{i}].weight": jax.random.normal(k, model.layers[i].weight.shape, jnp.float64) / 5
             for i, k in ((1, jax.random.key(5)), (2, jax.random.key(6)))}  # fmt: skip
    model = vc.feedback.attach(model, vc.feedback.given(given, learned=True))
    graph, optimizer = vc.capture(model, x[0]), optax.sgd(0.1)
    before = [layer.layer.weight - layer.path.feedback for layer in model.layers[1:]]
    first, rule, state = model, ActivationRelaxation(loss=SQUARED), optimizer.init(model.layers)
    for _ in range(20):
        model, state, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, state, (), x, y)
    for layer, old, difference in zip(model.layers[1:], first.layers[1:], before, strict=True):
        assert float(jnp.max(jnp.abs(layer.layer.weight - old.layer.weight))) > 1e-2
        np.testing.assert_allclose(layer.layer.weight - layer.path.feedback, difference, atol=1e-13)


def test_given_feedback_carries_the_activities(x64):
    """One sweep through B in place of W^T, by hand; without the derivatives too."""
    model, _, x, y = task(sizes=(5, 6, 4, 3))
    b = jax.random.normal(jax.random.key(5), (3, 4), jnp.float64)
    fed = vc.feedback.attach(model, vc.feedback.given({"layers[2].weight": b}))
    graph = vc.capture(fed, x[0])
    output, values = eqx.filter_jit(graph.feedforward)(fed, x)
    q2 = (output - y) @ b
    for derivatives in (True, False):
        rule = ActivationRelaxation(steps=1, step_size=1.0, derivatives=derivatives, loss=SQUARED)
        errors = eqx.filter_jit(rule.credit)(graph, fed, (), x, y)[0].errors
        np.testing.assert_allclose(errors["hidden2"], -q2, rtol=1e-12)
        slope = 1 - values["hidden2"] ** 2 if derivatives else 1.0
        np.testing.assert_allclose(errors["hidden1"], -(slope * q2) @ model.layers[1].weight, rtol=1e-12)


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_without_derivatives_a_linear_net_learns_the_same(x64, vertex_at):
    model, graph, x, y = task(activation="identity", vertex_at=vertex_at)
    with_, without = (
        gradient(ActivationRelaxation(steps=9, derivatives=d, loss=SQUARED), graph, model, x, y) for d in (True, False)
    )
    assert_equal(without, with_, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("activation", "vertex_at"), diagonal(ACTIVATIONS, ["post", "pre"]))
def test_without_derivatives_the_errors_go_through_the_weights_alone(x64, activation, vertex_at):
    model, graph, x, y = task(activation=activation, vertex_at=vertex_at, sizes=(5, 6, 4, 6, 3))
    output, _ = eqx.filter_jit(graph.feedforward)(model, x)
    rule = ActivationRelaxation(steps=1, step_size=1.0, derivatives=False, loss=SQUARED)
    errors = eqx.filter_jit(rule.credit)(graph, model, (), x, y)[0].errors
    error = np.asarray(y) - output
    for i in (3, 2, 1):
        error = error @ np.asarray(model.layers[i].weight)
        np.testing.assert_allclose(errors[f"hidden{i}"], error, rtol=1e-11, atol=1e-14)


def test_without_derivatives_in_a_convolutional_net(x64):
    """The product keeps the derivative at the layer's own activation: against rectifiers that are stripped by hand."""

    @jax.custom_vjp
    def rectify(a):
        return jax.nn.relu(a)

    rectify.defvjp(lambda a: (jax.nn.relu(a), None), lambda _, g: (g,))
    build = {"image": (2, 8, 8), "convolutions": [(3, 3, 1), (4, 3, 2)], "sizes": (6, 3), "key": KEY}
    model, stripped = (double(vc.nn.ConvNet(activation=a, **build)) for a in ("relu", rectify))
    x = jax.random.normal(jax.random.key(1), (3, 2, 8, 8), jnp.float64)
    y = jax.random.normal(jax.random.key(2), (3, 3), jnp.float64)
    graph, other = vc.capture(model, x[0]), vc.capture(stripped, x[0])
    rule = ActivationRelaxation(steps=1, step_size=1.0, derivatives=False, loss=SQUARED)
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
    expected = eqx.filter_jit(Backprop(loss=SQUARED).credit)(other, stripped, (), x, y)[0].errors
    assert_equal(credit.errors, expected, rtol=1e-11, atol=1e-14)
    found = eqx.filter_jit(vc.local_gradient)(graph, model, credit, x).convolutions[0].weight
    bare = eqx.filter_jit(vc.local_gradient)(other, stripped, credit, x).convolutions[0].weight
    assert float(jnp.max(jnp.abs(found - bare))) > 1e-3


def test_the_output_is_held_while_activities_relax(x64):
    """What the uppermost vertex relaxes to, in any number of steps, is the feedforward output's error."""
    model, graph, x, y = task()
    output, _ = eqx.filter_jit(graph.feedforward)(model, x)
    for frozen in ("all", "derivative", "product", "none"):
        for steps in (1, 2, 5):
            rule = ActivationRelaxation(steps=steps, step_size=1.0, frozen=frozen, loss=SQUARED)
            credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
            np.testing.assert_array_equal(credit.output_error, y - output)
            # The read-out is linear, so that its Jacobian is the same wherever it is taken.
            np.testing.assert_allclose(credit.errors["hidden2"], (y - output) @ model.layers[2].weight, rtol=1e-12)


def test_what_is_frozen(x64):
    """One step by hand from the feedforward activities: nothing has moved yet; a second one tells them apart."""
    model, graph, x, y = task()
    _, h = eqx.filter_jit(graph.feedforward)(model, x)
    top = np.asarray(eqx.filter_jit(graph.feedforward)(model, x)[0] - y) @ np.asarray(model.layers[2].weight)
    h, w, bias = on_host((h, model.layers[1].weight, model.layers[1].bias))
    held, errors = {}, {}
    for frozen in ("all", "derivative", "product", "none"):
        rule = ActivationRelaxation(steps=2, step_size=0.5, order="simultaneous", frozen=frozen, loss=SQUARED)
        credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
        held[frozen], errors[frozen] = on_host((credit.values, credit.errors))

    def q1(points):
        """`hidden1` after two steps, the derivative of `hidden2` taken at these activities of `hidden1`, by step."""
        one, two = h["hidden1"], h["hidden2"]
        for point in points:
            slope = 1 - np.tanh(point(one) @ w.T + bias) ** 2
            one, two = one - 0.5 * (one - (slope * two) @ w), two - 0.5 * (two - top)
        return one

    frozen_slope, moving_slope = q1([lambda one: h["hidden1"]] * 2), q1([lambda one: one] * 2)
    for name, expected in (
        ("all", frozen_slope),
        ("derivative", frozen_slope),
        ("product", moving_slope),
        ("none", moving_slope),
    ):
        np.testing.assert_allclose(errors[name]["hidden1"], -expected, rtol=1e-12)
    assert_equal(held["all"], h)
    assert_equal(held["product"], h)
    assert_equal(held["derivative"], jax.tree.map(np.negative, errors["derivative"]))
    assert_equal(held["none"], jax.tree.map(np.negative, errors["none"]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": -1}, "expected steps as an integer of at least 0, got -1"),
        ({"order": "up"}, "expected order as 'sequential' or 'simultaneous', got 'up'"),
        ({"frozen": "some"}, "expected frozen as one of all, derivative, product, none, got 'some'"),
        ({"step_size": -1.0}, "expected the step size of at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ActivationRelaxation(**settings)
