"""Inference learning as implicit SGD: the identities of the theory, in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some
from once import once

import vicinal as vc
from vicinal.analysis import proximal_activities, proximal_objective, proximal_residual
from vicinal.inference import Proximal, Simultaneous

pytestmark = pytest.mark.slow

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.xdist_group("implicit")]

LOSS = vc.losses.squared_error
NLMS = vc.optim.nlms()  # one, so that a step with it is compiled once
RATES = (0.01, 0.1, 1.0, 10.0, 100.0)


@once  # one graph for each network, so that what is compiled for it is shared
def network(sizes=(4, 6, 5, 3), activation="tanh", vertex_at="pre", batch=1, scale=1.0, use_bias=True):
    model = vc.nn.MLP(sizes, activation, vertex_at, use_bias, key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: scale * leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    x = jax.random.normal(jax.random.key(1), (batch, sizes[0]), jnp.float64)
    y = jax.random.normal(jax.random.key(2), (batch, sizes[-1]), jnp.float64)
    return model, vc.capture(model, x[0]), x, y


@eqx.filter_jit
def solve(rule, graph, model, x, y):
    return rule.solve(graph, model, x, y)


@eqx.filter_jit
def gradient_of(rule, graph, model, x, y):
    return rule.value_and_grad(graph, model, (), x, y)


@eqx.filter_jit
def by_activities_at(rate, graph, model, x, y):
    return proximal_activities(graph, model, x, y, loss=LOSS, learning_rate=rate)


def implicit(rate, **settings):
    return vc.rules.ImplicitSGD(learning_rate=rate, loss=LOSS, **{"steps": 5000, "tolerance": 1e-11} | settings)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))])


def norms_by_hand(model, x, values):
    """1 + ||f(a)||^2 of what enters each layer of an MLP with vertices at potentials."""
    below = [np.asarray(x)[0]] + [np.tanh(np.asarray(values[name])[0]) for name in sorted(values)]
    return [1 + float(np.sum(a**2)) for a in below]


# ------------------------------------------------------------------------------------ implicit SGD and activities


@pytest.mark.parametrize("rate", some(RATES, 0.1, 10.0))
def test_the_proximal_problem_is_one_of_activities(rate):
    """The two problems have the same minimum and the same minimiser, to 1e-10."""
    model, graph, x, y = network()
    by_parameters, _, _ = solve(implicit(rate, tolerance=1e-12), graph, model, x, y)
    values, output, by_activities = by_activities_at(jnp.array(rate), graph, model, x, y)
    objectives = [
        eqx.filter_jit(proximal_objective)(
            graph,
            model,
            jax.tree.map(np.subtract, eqx.filter(after, eqx.is_array), eqx.filter(model, eqx.is_array)),
            x,
            y,
            loss=LOSS,
            learning_rate=rate,
        )
        for after in (by_parameters, by_activities)
    ]
    np.testing.assert_allclose(objectives[0], objectives[1], atol=1e-10)
    np.testing.assert_allclose(flat(by_parameters), flat(by_activities), atol=1e-7)
    # The same objective, written in activities.
    _, predictions = eqx.filter_jit(graph.predict)(model, values, x)
    predicted, _ = eqx.filter_jit(graph.predict)(model, values, x)
    moved = [values[n] - predictions[n] for n in graph.vertices] + [output - predicted]
    squares = [float(jnp.sum(e**2)) / n for e, n in zip(moved, norms_by_hand(model, x, values), strict=True)]
    written = float(LOSS(output[0], y[0])) + sum(squares) / (2 * rate)
    assert written == pytest.approx(float(objectives[1]), abs=1e-10)


@pytest.mark.parametrize("rate", RATES)
def test_after_the_proximal_step_the_forward_pass_is_the_minimiser(rate):
    model, graph, x, y = network()
    values, output, after = by_activities_at(jnp.array(rate), graph, model, x, y)
    again, feedforward = eqx.filter_jit(graph.feedforward)(after, x)
    np.testing.assert_allclose(again, output, atol=1e-13)
    for name in graph.vertices:
        np.testing.assert_allclose(feedforward[name], values[name], atol=1e-13)


@pytest.mark.parametrize("rate", RATES[:-1])
def test_the_residual_of_implicit_sgd_is_small(rate):
    model, graph, x, y = network(batch=5, vertex_at="post")
    after, converged, _ = solve(implicit(rate), graph, model, x, y)
    assert bool(converged)
    assert float(eqx.filter_jit(proximal_residual)(graph, model, after, x, y, loss=LOSS, learning_rate=rate)) < 1e-8


def test_implicit_sgd_is_the_gradient_where_the_step_ends():
    model, graph, x, y = network(batch=4)
    rate = 0.7
    loss, gradient, _, info = gradient_of(implicit(rate), graph, model, x, y)
    after, _, _ = solve(implicit(rate), graph, model, x, y)
    np.testing.assert_allclose(flat(gradient), (flat(model) - flat(after)) / rate, atol=1e-9)
    np.testing.assert_allclose(loss, jnp.mean(jax.vmap(LOSS)(jax.vmap(model)(x), y)), rtol=1e-12)
    assert set(info.result.tolist()) == {vc.inference.Result.CONVERGED}


def test_small_rates_give_the_explicit_step():
    model, graph, x, y = network(batch=3)
    _, reference, _, _ = eqx.filter_jit(vc.rules.Backprop(loss=LOSS).value_and_grad)(graph, model, (), x, y)
    for rate in (1e-4, 1e-6):
        _, gradient, _, _ = gradient_of(implicit(rate, tolerance=1e-15), graph, model, x, y)
        assert float(np.max(np.abs(flat(gradient) - flat(reference)))) < 100 * rate


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e6])
def test_implicit_sgd_is_stable_at_any_learning_rate_on_a_quadratic(rate):
    """Each proximal step on a quadratic loss contracts towards the minimum; explicit steps blow up."""
    model = vc.nn.Linear(3, 2, key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model)
    x = jax.random.normal(jax.random.key(1), (6, 3), jnp.float64)
    y = jax.random.normal(jax.random.key(2), (6, 2), jnp.float64)
    graph = vc.capture(model, x[0])
    design = np.concatenate([np.asarray(x), np.ones((6, 1))], axis=1)
    best, *_ = np.linalg.lstsq(design, np.asarray(y), rcond=None)
    curvature = design.T @ design / 6
    rule = implicit(rate, steps=500, tolerance=1e-13)
    start = np.concatenate([np.asarray(model.weight).T, np.asarray(model.bias)[None]])
    for step in range(1, 4):
        model, _, _ = solve(rule, graph, model, x, y)
        theta = np.concatenate([np.asarray(model.weight).T, np.asarray(model.bias)[None]])
        shrink = np.linalg.matrix_power(np.linalg.inv(np.eye(4) + rate * curvature), step)
        np.testing.assert_allclose(theta, best + shrink @ (start - best), atol=1e-8)


@pytest.mark.parametrize("rate", [0.1, 5.0, 1e4])
def test_one_linear_layer_equals_the_closed_form(rate):
    """dW = alpha / (1 + alpha n) (y - p) x^T for implicit SGD and for IL-prox alike."""
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), vc.nn.Linear(3, 2, key=jax.random.key(0)))
    x, y = jnp.array([[0.3, -2.0, 1.0]]), jnp.array([[1.0, -1.0]])
    graph, n = vc.capture(model, x[0]), 1 + float(jnp.sum(x**2))
    error = np.asarray(y - jax.vmap(model)(x))
    expected = rate / (1 + rate * n) * error.T @ np.asarray(x)
    proximal, _, _ = solve(implicit(rate, tolerance=1e-13), graph, model, x, y)
    il_prox = vc.rules.InferenceLearning(loss=LOSS, proximal=Proximal(rate))
    stepped, *_ = eqx.filter_jit(il_prox.step)(graph, NLMS, model, NLMS.init(model), (), x, y)
    np.testing.assert_allclose(proximal.weight - model.weight, expected, atol=1e-9)
    np.testing.assert_allclose(stepped.weight - model.weight, expected, rtol=1e-12, atol=1e-15)


# --------------------------------------------------------------------------------------------------------- IL-prox


@pytest.mark.parametrize("vertex_at", ["pre"])
@pytest.mark.parametrize("rate", RATES)
def test_after_the_normalised_unit_step_the_forward_pass_is_what_inference_settled_on(rate, vertex_at):
    model, graph, x, y = network(vertex_at=vertex_at)
    rule = vc.rules.InferenceLearning(
        inference=Simultaneous(steps=25, step_size=0.015), loss=LOSS, proximal=Proximal(rate)
    )
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
    stepped, *_ = eqx.filter_jit(rule.step)(graph, NLMS, model, NLMS.init(model), (), x, y)
    output, values = eqx.filter_jit(graph.feedforward)(stepped, x)
    for name in graph.vertices:
        np.testing.assert_allclose(values[name], credit.values[name], atol=1e-13)
    predicted, _ = eqx.filter_jit(graph.predict)(model, credit.values, x)
    n = norms_by_hand(model, x, credit.values)[-1]
    np.testing.assert_allclose(output, (predicted + rate * n * y) / (1 + rate * n), atol=1e-13)


@pytest.mark.parametrize("norm", ["example", "mean", "sum"])
def test_the_output_is_held_at_its_proximal_optimum(norm):
    model, graph, x, y = network(batch=3)
    rate, eps = 2.0, 0.25
    rule = vc.rules.InferenceLearning(
        inference=Simultaneous(steps=5, step_size=0.1), loss=LOSS, proximal=Proximal(rate, eps=eps, norm=norm)
    )
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
    predicted, _ = eqx.filter_jit(graph.predict)(model, credit.values, x)
    square = np.sum(np.tanh(np.asarray(credit.values["hidden2"])) ** 2, axis=1) + 1
    n = {"example": square, "mean": np.full(3, square.mean()), "sum": np.full(3, square.sum())}[norm] + eps
    held = (np.asarray(predicted) + rate * n[:, None] * np.asarray(y)) / (1 + rate * n[:, None])
    np.testing.assert_allclose(credit.output_error, held - np.asarray(predicted), rtol=1e-12)


def test_a_large_learning_rate_clamps_the_output_and_a_small_one_does_not():
    model, graph, x, y = network()
    settle = Simultaneous(steps=20, step_size=0.1)
    clamped, _ = eqx.filter_jit(vc.rules.InferenceLearning(inference=settle, loss=LOSS).credit)(graph, model, (), x, y)
    for rate, atol in ((1e9, 1e-8),):
        rule = vc.rules.InferenceLearning(inference=settle, loss=LOSS, proximal=Proximal(rate))
        credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
        for name in graph.vertices:
            np.testing.assert_allclose(credit.values[name], clamped.values[name], atol=atol)
    free = vc.rules.InferenceLearning(inference=settle, loss=LOSS, proximal=Proximal(0.0))
    for error in jax.tree.leaves(eqx.filter_jit(free.credit)(graph, model, (), x, y)[0].errors):
        np.testing.assert_allclose(error, 0.0, atol=1e-15)


def test_bp_prox_is_backpropagation_of_the_softened_target():
    model, graph, x, _ = network(batch=3)
    y = jnp.array([0, 2, 1])
    rate = 1.5
    rule = vc.rules.Backprop(proximal=Proximal(rate))
    _, gradient, _, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)
    logits, values = eqx.filter_jit(graph.feedforward)(model, x)
    n = 1 + jnp.sum(jnp.tanh(values["hidden2"]) ** 2, axis=1, keepdims=True)
    p = jax.nn.softmax(logits)
    soft = (p + rate * n * jax.nn.one_hot(y, 3)) / (1 + rate * n)

    def loss(model):
        return jnp.mean(jax.vmap(vc.losses.softmax_cross_entropy)(jax.vmap(model)(x), soft))

    expected = eqx.filter_jit(eqx.filter_grad(loss))(model)
    np.testing.assert_allclose(flat(gradient), flat(expected), rtol=1e-10, atol=1e-14)


def test_inference_learning_is_closer_to_implicit_sgd_than_backpropagation_is():
    """The comparison of the theory, on the network of the specification: frozen norms cost some exactness."""
    model, graph, x, y = network((4, 6, 5, 3), scale=2.0)
    settle = Simultaneous(steps=3000, step_size=0.05, tolerance=1e-10)
    for rate in (0.1, 1.0, 10.0, 100.0):
        _, proximal, _, _ = gradient_of(implicit(rate, tolerance=1e-10), graph, model, x, y)
        rule = vc.rules.InferenceLearning(inference=settle, loss=LOSS, proximal=Proximal(rate))
        stepped, *_ = eqx.filter_jit(rule.step)(graph, NLMS, model, NLMS.init(model), (), x, y)
        il = flat(model) - flat(stepped)
        _, bp, _, _ = eqx.filter_jit(vc.rules.Backprop(loss=LOSS).value_and_grad)(graph, model, (), x, y)
        assert eqx.filter_jit(vc.analysis.angle)(il, flat(proximal)) < eqx.filter_jit(vc.analysis.angle)(
            flat(bp), flat(proximal)
        )


def test_clear_errors():
    model, graph, x, y = network(batch=2)
    with pytest.raises(ValueError, match="'example', 'mean' or 'sum', got 'median'"):
        Proximal(1.0, norm="median")
    with pytest.raises(ValueError, match="expected one example, got 2"):
        proximal_activities(graph, model, x, y, loss=LOSS, learning_rate=1.0)
