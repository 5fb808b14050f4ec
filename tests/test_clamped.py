"""A clamped graph: linearised predictions, sweeps and propagated deviations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc


def _branched(w, x):
    a = vc.vertex(jnp.tanh(w["a"] @ x), "a")
    b = vc.vertex(jnp.tanh(w["b"] @ a), "b")
    return w["out"] @ b + w["skip"] @ a


def _branched_model():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"a": (4, 5), "b": (4, 4), "out": (3, 4), "skip": (3, 4)}
    w = {name: jax.random.normal(k, s) for k, (name, s) in zip(keys, shapes.items(), strict=True)}
    model = jax.tree_util.Partial(_branched, w)
    x = jax.random.normal(jax.random.key(1), (6, 5))
    return model, vc.capture(model, x[0]), x


def _anywhere(graph, model, x):
    _, values = graph.feedforward(model, x)
    keys = jax.random.split(jax.random.key(2), len(values))
    return {name: jax.random.normal(k, v.shape) for k, (name, v) in zip(keys, values.items(), strict=True)}


def test_linearised_predictions_and_their_way_back():
    model, graph, x = _branched_model()
    values = _anywhere(graph, model, x)
    linear = graph.clamp(model, x).linearize(values)
    output, predictions = graph.predict(model, values, x)
    np.testing.assert_allclose(linear.output, output, rtol=1e-6)
    for name, prediction in predictions.items():
        np.testing.assert_allclose(linear.predictions[name], prediction, rtol=1e-6)
    errors = _anywhere(graph, model, x)
    _, back = jax.vjp(lambda v: graph.predict(model, v, x), values)
    (expected,) = back((output, errors))
    carried = linear.carry(output, errors)
    for name in values:
        np.testing.assert_allclose(carried[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_sweep_visits_children_first():
    model, graph, x = _branched_model()
    values = _anywhere(graph, model, x)
    seen = []

    def respond(name, carried):
        seen.append(name)
        return 2 * carried

    linear = graph.clamp(model, x).linearize(values)
    linear.sweep(linear.output, respond)
    assert seen == ["b", "a"]


def test_propagated_deviations_reach_any_values():
    model, graph, x = _branched_model()
    values = _anywhere(graph, model, x)
    clamped = graph.clamp(model, x)
    output, predictions = clamped(values)
    reached, found = clamped.propagate({name: values[name] - predictions[name] for name in values})
    np.testing.assert_allclose(reached, output, rtol=1e-5, atol=1e-4)
    for name in values:
        np.testing.assert_allclose(found[name], values[name], rtol=1e-5, atol=1e-5)
    zero = jax.tree.map(jnp.zeros_like, values)
    np.testing.assert_allclose(clamped.propagate(zero)[0], graph.feedforward(model, x)[0], rtol=1e-6)


@pytest.mark.parametrize("build", [vc.nn.MLP, vc.nn.RNN])
def test_a_deep_program_grows_with_its_depth_alone(build):
    """Twice the vertices, about twice the equations, for a sweep as for a joint step."""

    def size(vertices):
        if build is vc.nn.MLP:
            model, x = vc.nn.MLP([4] * (vertices + 2), key=jax.random.key(0)), jnp.ones((2, 4))
        else:
            model, x = vc.nn.RNN(4, 4, 3, key=jax.random.key(0)), jnp.ones((2, vertices, 4))
        graph, y = vc.capture(model, x[0]), jnp.zeros(2, int)
        rule = vc.rules.InferenceLearning(inference=vc.inference.Sequential(steps=9))
        traced = jax.make_jaxpr(lambda m: rule.value_and_grad(graph, m, (), x, y)[1])(model)
        return len(str(traced))

    assert size(40) < 2.3 * size(20)
