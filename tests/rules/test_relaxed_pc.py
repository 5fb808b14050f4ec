"""Relaxed predictive coding: without transposed weights, derivatives, or one error unit for each value unit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from once import once
from precision import double, on_host

import vicinal as vc
from vicinal.feedback import attach, given, kolen_pollack, optimizers
from vicinal.rules import Backprop, RelaxedPC

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error


@once
def task(sizes=(5, 6, 4, 3), vertex_at="post"):
    model = double(vc.nn.MLP(sizes, vertex_at=vertex_at, key=KEY))
    x = jax.random.normal(jax.random.key(1), (4, sizes[0]), jnp.float64)
    return model, vc.capture(model, x[0]), x, jax.random.normal(jax.random.key(2), (4, sizes[-1]), jnp.float64)


def state_of(rule, graph, model):
    return rule.init(graph, model, key=jax.random.key(5))


@pytest.mark.parametrize("connections", ["one-to-one", "fixed"])
@pytest.mark.parametrize("order", ["simultaneous", "sequential"])
def test_at_rest_it_is_backpropagation_whatever_the_wiring(x64, connections, order):
    """There `value = C h + what the children send`, so that the error is what they send."""
    model, graph, x, y = task()
    rule = RelaxedPC(steps=400, order=order, connections=connections, loss=SQUARED)
    found = eqx.filter_jit(rule.value_and_grad)(graph, model, state_of(rule, graph, model), x, y)[1]
    exact = eqx.filter_jit(Backprop(loss=SQUARED).value_and_grad)(graph, model, (), x, y)[1]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def by_hand(model, x, y, c, *, steps, eta, derivatives):
    """The published loop over layers, rates as values; twice the energy, so that its step of `eta / 2` is doubled."""
    model, x, y = on_host((model, x, y))
    (w1, b1), (w2, b2), (w3, b3) = ((layer.weight, layer.bias[None]) for layer in model.layers)
    p1 = np.tanh(x @ w1.T + b1)
    z2 = p1 @ w2.T + b2
    p2 = np.tanh(z2)
    e3 = y - (p2 @ w3.T + b3)
    slope = 1 - np.tanh(z2) ** 2 if derivatives else 1.0
    a1, a2 = p1, p2
    for _ in range(steps):
        e1, e2 = a1 - p1 @ c[0].T, a2 - p2 @ c[1].T
        a1, a2 = a1 - eta / 2 * 2 * (e1 - (slope * e2) @ w2), a2 - eta / 2 * 2 * (e2 - e3 @ w3)
    return a1 - p1 @ c[0].T, a2 - p2 @ c[1].T, p1, p2


@pytest.mark.parametrize("derivatives", [True, False])
@pytest.mark.parametrize("connections", ["one-to-one", "fixed", "learned"])
def test_it_is_the_published_loop(x64, derivatives, connections):
    model, graph, x, y = task()
    rule = RelaxedPC(
        steps=7,
        step_size=0.3,
        derivatives=derivatives,
        connections=connections,
        connection_scale=0.4,
        connection_rate=0.01,
        loss=SQUARED,
    )
    state = state_of(rule, graph, model)
    c = [np.eye(6), np.eye(4)] if connections == "one-to-one" else on_host([state["hidden1"], state["hidden2"]])
    e1, e2, p1, p2 = by_hand(model, x, y, c, steps=7, eta=0.3, derivatives=derivatives)
    credit, after = eqx.filter_jit(rule.credit)(graph, model, state, x, y)
    np.testing.assert_allclose(credit.errors["hidden1"], e1, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(credit.errors["hidden2"], e2, rtol=1e-9, atol=1e-13)
    if connections == "learned":
        np.testing.assert_allclose(after["hidden1"], c[0] + 0.01 * e1.T @ p1 / 4, rtol=1e-9)
        np.testing.assert_allclose(after["hidden2"], c[1] + 0.01 * e2.T @ p2 / 4, rtol=1e-9)
    else:
        jax.tree.map(np.testing.assert_array_equal, after, state)


def test_backward_weights_learn_as_the_forward_ones(x64):
    """`dB = dW^T`, so their difference is constant."""
    model, _, x, y = task()
    fed = attach(model, kolen_pollack(), key=jax.random.key(3))
    graph, rule = vc.capture(fed, x[0]), RelaxedPC(derivatives=False, loss=SQUARED)
    optimizer = optimizers(optax.sgd(0.1))
    optimizer_state, new = optimizer.init(eqx.filter(fed, eqx.is_inexact_array)), fed
    for _ in range(5):
        new, optimizer_state, *_ = eqx.filter_jit(rule.step)(graph, optimizer, new, optimizer_state, (), x, y)
    for old, layer in zip(fed.layers, new.layers, strict=True):
        assert float(jnp.max(jnp.abs(layer.layer.weight - old.layer.weight))) > 1e-3
        np.testing.assert_allclose(
            layer.layer.weight - layer.path.feedback, old.layer.weight - old.path.feedback, rtol=1e-12, atol=1e-14
        )


def test_connections_descend_the_energy_and_climb_with_the_published_sign(x64):
    """The energy is that of the same activities before and after the update."""
    model, graph, x, y = task()
    for sign in (1, -1):
        rule = RelaxedPC(steps=5, connections="learned", connection_rate=sign * 0.01, loss=SQUARED)
        state = state_of(rule, graph, model)
        credit, after = eqx.filter_jit(rule.credit)(graph, model, state, x, y)
        credit, state, after = on_host((credit, state, after))
        for name, h in credit.values.items():
            value = credit.errors[name] + h @ state[name].T
            before, now = (np.sum(np.square(value - h @ c[name].T)) for c in (state, after))
            assert (now < before) == (sign > 0)


def test_without_transport_no_forward_weight_above_is_read(x64):
    """The audit of what is held, and of the relaxation itself: another weight above changes no error below."""
    model, _, x, y = task()
    feedback = {f"layers[{i}].weight": jnp.sin(layer.weight) for i, layer in enumerate(model.layers)}
    fed = attach(model, given(feedback))
    rule = RelaxedPC(derivatives=False, loss=SQUARED)
    graph = vc.capture(fed, x[0])
    assert vc.analysis.audit(rule, graph, fed, x, y, key=KEY).local
    other = eqx.tree_at(lambda m: m.layers[2].layer.weight, fed, -fed.layers[2].layer.weight)
    output, _ = eqx.filter_jit(graph.feedforward)(fed, x)
    moved, _ = eqx.filter_jit(graph.feedforward)(other, x)
    ours = eqx.filter_jit(rule.credit)(graph, fed, (), x, y)[0].errors
    alike = y - output + moved  # the same error of the output
    theirs = eqx.filter_jit(rule.credit)(graph, other, (), x, alike)[0].errors
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-13)


def test_vertices_of_any_shape_have_connections():
    model = vc.nn.ConvNet((1, 8, 8), [(3, 3, 2)], (4,), key=KEY)
    x, y = jax.random.normal(KEY, (5, 1, 8, 8)), jnp.arange(5) % 4
    graph, rule = vc.capture(model, x[0]), RelaxedPC(connections="learned", steps=10)
    state = state_of(rule, graph, model)
    assert state["conv1"].shape == (27, 27)
    _, gradient, after, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, state, x, y)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((gradient, after)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: RelaxedPC(connections="none"),
            "expected connections as one of .*, got 'none'",
        ),
        (lambda: RelaxedPC(derivatives=1), "expected derivatives as True or False, got 1"),
        (lambda: RelaxedPC(connection_scale=-1.0), "expected the scale of the connections of at least 0, got -1"),
        (lambda: RelaxedPC(order="random"), "expected order as 'sequential' or 'simultaneous', got 'random'"),
    ],
)
def test_settings_out_of_range_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_missing_key_is_refused():
    model = vc.nn.MLP((3, 4, 2), key=KEY)
    with pytest.raises(ValueError, match="expected a key to draw the connections with"):
        RelaxedPC(connections="fixed").init(vc.capture(model, jnp.ones(3)), model)
