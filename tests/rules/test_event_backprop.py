"""Backpropagation by events: the quantisers under one sweep down, against NumPy and against backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from event_builders import SQUARED, assigned, events_of, flat, layers_of, network
from precision import double

import vicinal as vc
from vicinal.events import Graded, Ternary
from vicinal.rules import Backprop, EventBackprop
from vicinal.testing import cases

CASES = {case.name: case for case in cases()}


def quantised(threshold, ratio=0.25, **settings):
    return EventBackprop(activity=Graded(threshold), error=Graded(ratio * threshold), **settings)


@pytest.mark.parametrize("name", CASES)
def test_events_of_everything_are_backpropagation(x64, name):
    case = CASES[name]
    model, x = double(case.model), double(case.x)
    graph = vc.capture(model, x[0])
    expected, theirs, _ = assigned(Backprop(), graph, model, x, case.y)
    for threshold, close in ((1e-9, 1e-7), (0.0, 1e-12)):
        gradient, ours, _ = assigned(quantised(threshold), graph, model, x, case.y)
        for found, other in ((gradient, expected), (ours.values, theirs.values), (ours.errors, theirs.errors)):
            np.testing.assert_allclose(flat(found), flat(other), rtol=0, atol=close)
        np.testing.assert_allclose(ours.output_error, theirs.output_error, rtol=0, atol=close)
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-12)


def rounded(value, threshold):
    return np.where(np.abs(value) >= threshold, threshold * np.round(value / threshold), 0.0)


def test_each_unit_sends_a_multiple_of_the_threshold_once(x64):
    """Up, then down, in NumPy: rates, squared error. The derivative is that at what was sent."""
    model, graph, x, y = network()
    threshold, small = 0.1, 0.02
    rule = EventBackprop(activity=Graded(threshold, initial=3.0), error=Graded(small, initial=3.0), loss=SQUARED)
    gradient, credit, _ = assigned(rule, graph, model, x, y)
    (w1, b1), (w2, b2), (w3, b3) = layers_of(model)
    p1 = np.tanh(np.asarray(x) @ w1.T + b1[None])
    v1 = rounded(p1, threshold)
    p2 = np.tanh(v1 @ w2.T + b2[None])
    v2 = rounded(p2, threshold)
    top = rounded(np.asarray(y) - (v2 @ w3.T + b3[None]), small)
    e2 = rounded(top @ w3, small)
    e1 = rounded(((1 - p2**2) * e2) @ w2, small)
    pairs = [(credit.values["hidden1"], v1), (credit.values["hidden2"], v2), (credit.output_error, top)]
    for found, expected in (*pairs, (credit.errors["hidden2"], e2), (credit.errors["hidden1"], e1)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    products = (((1 - p1**2) * e1, np.asarray(x)), ((1 - p2**2) * e2, v1), (top, v2))
    for layer, (error, below) in zip(gradient.layers, products, strict=True):
        np.testing.assert_allclose(layer.weight, -error.T @ below / len(x), rtol=0, atol=1e-12)
    found = events_of(credit.info)
    np.testing.assert_array_equal(found["sweep"]["hidden1"], np.sum(v1 != 0, axis=1))
    np.testing.assert_array_equal(found["errors"]["hidden2"], np.sum(e2 != 0, axis=1))
    np.testing.assert_array_equal(found["errors"]["output"], np.sum(top != 0, axis=1))
    assert "hidden1" not in found["errors"]  # nobody receives it
    assert not np.any(flat(found["values"]))


def test_the_feedforward_output_and_loss_are_those_of_the_network(x64):
    model, graph, x, y = network()
    ours, theirs = (assigned(rule, graph, model, x, y)[1] for rule in (quantised(0.3, loss=SQUARED), Backprop(SQUARED)))
    np.testing.assert_allclose(ours.info.output, theirs.info.output, rtol=1e-12)
    np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-12)


@pytest.mark.parametrize("name", ["activity", "error"])
def test_codes_that_cannot_send_a_value_at_once_are_refused(name):
    with pytest.raises(TypeError, match=rf"expected {name} as vicinal.events.Graded, since each unit sends once"):
        EventBackprop(**{name: Ternary(0.1)})
    with pytest.raises(TypeError, match="expected a loss as a function"):
        EventBackprop(loss="mse")


def test_thresholds_relative_to_what_a_vertex_holds(x64):
    model, graph, x, y = network()
    credit = assigned(EventBackprop(Graded(0.2, relative=True), loss=SQUARED), graph, model, x, y)[1]
    (w, b), *_ = layers_of(model)
    p = np.tanh(np.asarray(x) @ w.T + b[None])
    expected = rounded(p, 0.2 * np.max(np.abs(p), axis=1, keepdims=True))
    np.testing.assert_allclose(credit.values["hidden1"], expected, rtol=0, atol=1e-12)


def test_without_error_events_no_weight_moves():
    model = vc.nn.MLP((4, 6, 3), key=jax.random.key(0))
    x, y = jnp.ones((2, 4)), jnp.array([0, 2])
    gradient = assigned(EventBackprop(error=Graded(10.0)), vc.capture(model, x[0]), model, x, y)[0]
    assert not np.any(flat(gradient))
