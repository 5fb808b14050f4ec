"""Incremental predictive coding: weights and activities from the same state, at every step."""

import itertools

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from once import once
from precision import double, on_host

import vicinal as vc
from vicinal.inference import Problem, Result, Simultaneous
from vicinal.inference.base import total
from vicinal.rules import Backprop, IncrementalPC, InferenceLearning

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error


@once
def task(sizes=(5, 6, 4, 3)):
    model = double(vc.nn.MLP(sizes, vertex_at="pre", key=KEY))
    x = jax.random.normal(jax.random.key(1), (4, sizes[0]), jnp.float64)
    return model, vc.capture(model, x[0]), x, jax.random.normal(jax.random.key(2), (4, sizes[-1]), jnp.float64)


def step(rule, graph, optimizer, model, x, y):
    return eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(eqx.filter(model, eqx.is_array)), (), x, y)


def by_hand(model, x, y, steps, gamma, alpha, norm=lambda rates: 1.0):
    """The published update, activities and weights from the same state; potentials, squared error.

    A weight and its bias move by `alpha / norm(what enters them)`.
    """
    model, x, y = on_host((model, x, y))
    weights = [(layer.weight, layer.bias) for layer in model.layers]
    f, slope = [lambda a: a, np.tanh, np.tanh], [np.ones_like, *[lambda a: 1 - np.tanh(a) ** 2] * 2]
    a = [x]
    for (w, b), g in zip(weights, f, strict=True):
        a.append(g(a[-1]) @ w.T + b[None])
    a[-1] = y
    for _ in range(steps):
        p = [g(below) @ w.T + b[None] for (w, b), g, below in zip(weights, f, a[:-1], strict=True)]
        e = [value - prediction for value, prediction in zip(a[1:], p, strict=True)]
        moved = [a[k] + gamma * (slope[k](a[k]) * (e[k] @ weights[k][0]) - e[k - 1]) for k in (1, 2)]
        weights = [
            (w + alpha / norm(g(below)) * err.T @ g(below) / 4, b + alpha / norm(g(below)) * err.mean(0))
            for (w, b), err, g, below in zip(weights, e, f, a[:-1], strict=True)
        ]
        a = [x, *moved, y]
    return weights, a


def test_a_step_is_the_published_loop(x64):
    model, graph, x, y = task()
    new, _, _, loss, info = step(
        IncrementalPC(steps=6, step_size=0.2, loss=SQUARED), graph, optax.sgd(0.05), model, x, y
    )
    weights, a = by_hand(model, x, y, 6, 0.2, 0.05)
    for layer, (w, b) in zip(new.layers, weights, strict=True):
        np.testing.assert_allclose(layer.weight, w, rtol=1e-12)
        np.testing.assert_allclose(layer.bias, b, rtol=1e-12)
    np.testing.assert_allclose(
        loss, jnp.mean(jax.vmap(SQUARED)(eqx.filter_jit(graph.feedforward)(model, x)[0], y)), rtol=1e-12
    )
    problem = Problem(graph, new, x, y, SQUARED)
    expected = eqx.filter_jit(problem.energies)({"hidden1": a[1], "hidden2": a[2]})
    for name, energy in expected.items():
        np.testing.assert_allclose(info.energies[name], energy, rtol=1e-11)


def test_a_normalised_step_divides_by_what_enters_before_the_activities_move(x64):
    model, graph, x, y = task()
    optimizer = vc.optim.nlms(0.5, eps=0.1)
    new, *_ = step(IncrementalPC(steps=6, step_size=0.2, loss=SQUARED), graph, optimizer, model, x, y)
    # The bias is one more input, of 1.
    weights, _ = by_hand(model, x, y, 6, 0.2, 0.5, norm=lambda rates: np.mean(np.sum(rates**2, axis=1)) + 1 + 0.1)
    for layer, (w, b) in zip(new.layers, weights, strict=True):
        np.testing.assert_allclose(layer.weight, w, rtol=1e-12)
        np.testing.assert_allclose(layer.bias, b, rtol=1e-12)


def test_with_a_learning_rate_of_zero_activities_move_as_in_inference_learning(x64):
    model, graph, x, y = task()
    _, _, _, _, info = step(IncrementalPC(steps=9, step_size=0.2, loss=SQUARED), graph, optax.sgd(0.0), model, x, y)
    rule = InferenceLearning(inference=Simultaneous(steps=9, step_size=0.2), loss=SQUARED)
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, y)
    for name, energy in credit.info.energies.items():
        np.testing.assert_allclose(info.energies[name], energy, rtol=1e-12)
    held, _ = eqx.filter_jit(IncrementalPC(steps=9, step_size=0.2, loss=SQUARED).credit)(graph, model, (), x, y)
    for name, value in credit.values.items():
        np.testing.assert_allclose(held.values[name], value, rtol=1e-12)


def test_small_steps_never_raise_the_energy_of_activities_and_weights(x64):
    model, graph, x, y = task()
    energies = []
    for steps in (1, 2, 3, 5, 13, 29):  # each is a program to compile
        *_, info = step(IncrementalPC(steps=steps, step_size=0.05, loss=SQUARED), graph, optax.sgd(0.02), model, x, y)
        energies.append(float(np.mean(total(on_host(info.energies)))))
        assert np.all(np.asarray(info.result) != Result.DIVERGED)
    assert np.all(np.diff(energies) < 0)


def test_one_step_teaches_the_output_layer_alone(x64):
    """Hidden errors are zero at the feedforward pass, and the output layer's update is backpropagation's."""
    model, graph, x, y = task()
    _, gradient, _, _ = eqx.filter_jit(IncrementalPC(steps=1, loss=SQUARED).value_and_grad)(graph, model, (), x, y)
    exact = eqx.filter_jit(Backprop(loss=SQUARED).value_and_grad)(graph, model, (), x, y)[1]
    np.testing.assert_allclose(gradient.layers[2].weight, exact.layers[2].weight, rtol=1e-12)
    for layer in gradient.layers[:2]:
        np.testing.assert_array_equal(layer.weight, 0)


def test_without_moving_activities_it_is_the_delta_rule_on_the_output_layer(x64):
    """`T` updates of the last layer on fixed features."""
    model, graph, x, y = task()
    new, *_ = step(IncrementalPC(steps=7, step_size=0.0, loss=SQUARED), graph, optax.sgd(0.1), model, x, y)
    features = np.tanh(eqx.filter_jit(graph.feedforward)(model, x)[1]["hidden2"])
    w, b, y = on_host((model.layers[2].weight, model.layers[2].bias, y))
    for _ in range(7):
        error = y - (features @ w.T + b[None])
        w, b = w + 0.1 * error.T @ features / 4, b + 0.1 * error.mean(0)
    np.testing.assert_allclose(new.layers[2].weight, w, rtol=1e-12)
    for layer, old in zip(new.layers[:2], model.layers[:2], strict=True):
        # A compiler may sum a prediction in two orders, so that hidden errors are 0 up to rounding.
        np.testing.assert_allclose(layer.weight, old.weight, rtol=0, atol=1e-15)


def test_the_gradient_is_what_a_step_does_to_first_order(x64):
    model, graph, x, y = task()
    rule = IncrementalPC(steps=5, step_size=0.2, loss=SQUARED, nudge=0.8, precision={"hidden1": 2.0})
    gradient = eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)[1]
    distances = []
    for rate in (1e-2, 1e-3):
        new, *_ = step(rule, graph, optax.sgd(rate), model, x, y)
        trees = (on_host(eqx.filter(tree, eqx.is_array)) for tree in (model, new, gradient))
        apart = jax.tree.map(lambda a, b, g, rate=rate: np.sum(((b - a) / rate + g) ** 2), *trees)
        distances.append(float(np.sqrt(sum(jax.tree.leaves(apart)))))
    for larger, smaller in itertools.pairwise(distances):
        assert smaller == pytest.approx(larger / 10, rel=0.3)


def test_the_optimiser_is_called_at_every_step_and_given_what_it_asks_for():
    model = vc.nn.MLP((5, 6, 3), key=KEY)
    x, y = jax.random.normal(KEY, (4, 5)), jnp.arange(4) % 3
    graph = vc.capture(model, x[0])
    for optimizer in (optax.adam(1e-3), vc.optim.nlms(0.1, eps=1.0)):
        new, state, *_ = step(IncrementalPC(steps=6), graph, optimizer, model, x, y)
        assert np.all(np.isfinite(new.layers[0].weight))
        counts = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.integer)]
        assert [int(c) for c in counts] == [6] * len(counts)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": 0}, "expected steps as an integer of at least 1, got 0"),
        ({"nudge": 0.0}, r"expected nudge in \(0, 1\]"),
        ({"precision": -1.0}, "expected precision of at least 0"),
        ({"loss": "mse"}, "expected a loss as a function"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises((ValueError, TypeError), match=words):
        IncrementalPC(**settings)


def test_a_precision_for_no_vertex_is_refused():
    model = vc.nn.MLP((5, 6, 3), key=KEY)
    x, y = jnp.ones((4, 5)), jnp.zeros(4, int)
    with pytest.raises(ValueError, match="got one for 'hidden9'"):
        IncrementalPC(precision={"hidden9": 1.0}).value_and_grad(vc.capture(model, x[0]), model, (), x, y)


def test_an_example_that_the_batch_outvotes_has_not_diverged():
    model, x, y = vc.nn.MLP((4, 5, 3), key=KEY), jnp.ones((6, 4)), jnp.array([0, 0, 0, 0, 0, 1])
    rule, graph = IncrementalPC(), vc.capture(model, x[0])
    for optimizer in (optax.sgd(0.2), optax.adam(2e-2)):
        *_, info = step(rule, graph, optimizer, model, x, y)
        assert set(info.result.tolist()) == {int(Result.STEP_LIMIT)}


def test_a_batch_of_targets_of_another_length_is_refused():
    model, x = vc.nn.MLP((4, 5, 3), key=KEY), jnp.ones((6, 4))
    with pytest.raises(ValueError, match=r"expected .* got"):
        step(IncrementalPC(), vc.capture(model, x[0]), optax.sgd(0.1), model, x, jnp.zeros(3, int))
