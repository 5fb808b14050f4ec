"""How inference ends: batches, tolerances, what is reported, and traces, in float64."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inference_learning_builders import network, run, squared
from precision import on_host

import vicinal as vc
from vicinal.inference import Problem, Result, Simultaneous

pytestmark = pytest.mark.usefixtures("x64")


# -------------------------------------------------------------------------------------------- batches and results


def test_inference_does_not_depend_on_the_batch():
    model, graph, x, y = network(batch=5)
    for options in ({"steps": 9}, {"steps": 500, "tolerance": 1e-4}):
        whole, _ = run(squared(step_size=0.2, **options), model, graph, x, y)
        for i in range(5):
            alone = (jnp.asarray(np.asarray(batch)[i : i + 1]) for batch in (x, y))
            one, _ = run(squared(step_size=0.2, **options), model, graph, *alone)
            assert int(one.info.steps[0]) == int(whole.info.steps[i])
            for name in graph.vertices:
                np.testing.assert_allclose(one.values[name][0], whole.values[name][i], rtol=1e-12, atol=1e-14)


def test_a_tolerance_stops_early_and_at_the_right_place():
    model, graph, x, y = network()
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    credit, _ = run(squared(steps=10000, step_size=0.2, tolerance=1e-3), model, graph, x, y)
    feedback, own, _ = eqx.filter_jit(problem.descent)(credit.values)
    feedback, own, taken = on_host((feedback, own, credit.info.steps))
    slope = np.stack([np.max(np.abs(feedback[n] - own[n]), axis=1) for n in graph.vertices])
    assert np.all(np.max(slope, axis=0) <= 1e-3)
    assert np.all((taken > 3) & (taken < 200))
    assert set(credit.info.result.tolist()) == {Result.CONVERGED}
    # One step less and the tolerance is not met yet.
    for i, steps in enumerate(credit.info.steps.tolist()):
        earlier, _ = run(squared(steps=steps - 1, step_size=0.2), model, graph, x, y)
        feedback, own, _ = eqx.filter_jit(problem.descent)(earlier.values)
        feedback, own = on_host((feedback, own))
        assert max(np.max(np.abs(feedback[n][i] - own[n][i])) for n in graph.vertices) > 1e-3


def test_the_step_limit_is_reported():
    model, graph, x, y = network()
    credit, _ = run(squared(steps=3, tolerance=1e-9), model, graph, x, y)
    assert credit.info.result.tolist() == [Result.STEP_LIMIT] * 3
    assert credit.info.steps.tolist() == [3] * 3


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_divergence_and_non_finite_values_are_noticed_per_example(tolerance):
    model, graph, x, y = network(scale=3.0)
    x = x.at[1].set(jnp.nan)
    credit, _ = run(squared(steps=40, step_size=1.0, tolerance=tolerance), model, graph, x, y)
    assert credit.info.result.tolist() == [Result.DIVERGED, Result.NON_FINITE, Result.DIVERGED]
    calm, _ = run(squared(steps=40, step_size=0.02, tolerance=tolerance), model, graph, x, y)
    assert int(calm.info.result[1]) == Result.NON_FINITE
    assert all(int(code) in (Result.STEP_LIMIT, Result.CONVERGED) for code in np.asarray(calm.info.result)[[0, 2]])


def test_a_slope_that_is_not_a_number_is_not_convergence():
    def network(p, x):
        h = vc.vertex(jax.nn.relu(p["a"] @ x), "h")
        return p["o"] @ h / (1 + jnp.sqrt(jnp.sum(h * h)))  # the slope at zero is not a number

    model = jax.tree_util.Partial(network, {"a": -jnp.ones((4, 5)), "o": jnp.ones((2, 4))})
    x = jnp.ones((3, 5))
    for tolerance in (None, 1e-3):
        credit, _ = run(squared(steps=5, tolerance=tolerance), model, vc.capture(model, x[0]), x, jnp.ones((3, 2)))
        assert credit.info.result.tolist() == [Result.NON_FINITE] * 3


def test_rounding_is_not_divergence():
    """In single precision the energy of a fitted network may seem to rise by rounding; that is no divergence."""
    model = vc.nn.MLP((4, 16, 16, 3), activation="relu", key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_array(leaf) else leaf, model)
    x = 3 * jax.random.normal(jax.random.key(1), (512, 4), jnp.float32)
    graph = vc.capture(model, x[0])
    output, _ = eqx.filter_jit(graph.feedforward)(model, x)
    for noise in (0.0, 1e-7, 1e-5, 1e-3):
        y = output + noise * jax.random.normal(jax.random.key(2), output.shape, jnp.float32)
        credit, _ = run(squared(steps=20, step_size=0.1), model, graph, x, y)
        assert Result.DIVERGED not in credit.info.result.tolist()
    sharp = vc.rules.InferenceLearning(inference=Simultaneous(steps=20, step_size=0.1))
    sure, _ = run(sharp, model, graph, x, jax.nn.softmax(output))
    assert Result.DIVERGED not in sure.info.result.tolist()


def test_overflow_is_non_finite():
    model, graph, x, y = network(activation="identity", scale=10.0)
    credit, _ = run(squared(steps=2000, step_size=10.0), model, graph, x, y)
    assert credit.info.result.tolist() == [Result.NON_FINITE] * 3


def test_throw_raises_the_sentence():
    model, graph, x, y = network(scale=3.0)
    with pytest.raises(RuntimeError, match="diverged: the energy ended above where it started"):
        run(squared(steps=40, step_size=1.0, throw=True), model, graph, x, y)
    run(squared(steps=40, step_size=0.01, throw=True), model, graph, x, y)


@pytest.mark.parametrize("tolerance", [None, 1e-3])
def test_trace_and_energies(tolerance):
    model, graph, x, y = network()
    steps = 60
    credit, _ = run(squared(steps=steps, step_size=0.2, tolerance=tolerance, trace=True), model, graph, x, y)
    trace = credit.info.trace
    assert set(trace) == {*graph.vertices, "output"}
    problem = Problem(graph, model, x, y, vc.losses.squared_error)
    for t in (0, 1, 5, steps):
        short, _ = run(squared(steps=t, step_size=0.2, tolerance=tolerance), model, graph, x, y)
        for name, energy in eqx.filter_jit(problem.energies)(short.values).items():
            np.testing.assert_allclose(trace[name][t], energy, rtol=1e-10, atol=1e-14)
            np.testing.assert_allclose(short.info.energies[name], energy, rtol=1e-10, atol=1e-14)
    output_loss = 0.5 * np.sum(np.square(y - eqx.filter_jit(graph.feedforward)(model, x)[0]), axis=1)
    np.testing.assert_allclose(trace["output"][0], output_loss, rtol=1e-12)
    np.testing.assert_allclose(credit.loss, output_loss, rtol=1e-12)


def test_a_network_without_hidden_vertices_learns_as_backpropagation():
    model = vc.nn.Linear(4, 3, key=jax.random.key(0))
    x, y = jnp.ones((2, 4), jnp.float32), jnp.zeros((2, 3), jnp.float32)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), model)
    graph = vc.capture(model, x[0])
    il, bp = squared(steps=5, tolerance=1e-3), vc.rules.Backprop(loss=vc.losses.squared_error)
    ours, theirs = (eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)[1] for rule in (il, bp))
    np.testing.assert_allclose(ours.weight, theirs.weight, rtol=1e-6)


def test_momentum_reaches_the_same_equilibrium_sooner():
    model, graph, x, y = network(activation="identity", scale=2.0)
    results = {
        m: run(squared(steps=20000, step_size=0.05, tolerance=1e-10, momentum=m), model, graph, x, y)[0]
        for m in (None, 0.8)
    }
    for name in graph.vertices:
        np.testing.assert_allclose(results[None].values[name], results[0.8].values[name], atol=1e-8)
    assert np.all(2 * np.asarray(results[0.8].info.steps) < results[None].info.steps)


def test_every_result_has_a_sentence():
    sentences = [code.sentence for code in Result]
    assert len(set(sentences)) == len(Result)
    assert all(sentence.split(":")[0] for sentence in sentences)


def test_credit_is_a_plain_tree():
    model, graph, x, y = network()
    credit, _ = run(squared(steps=1), model, graph, x, y)
    doubled = dataclasses.replace(credit, errors=jax.tree.map(lambda e: 2 * e, credit.errors))
    ours = eqx.filter_jit(vc.local_gradient)(graph, model, doubled, x).layers[0].weight
    np.testing.assert_allclose(
        ours, 2 * eqx.filter_jit(vc.local_gradient)(graph, model, credit, x).layers[0].weight, rtol=1e-12
    )
