"""Phaseless alignment: what noise teaches feedback, where it settles, and what the high-pass keeps out."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from phaseless_builders import KEY, SHORT, SQUARED, batch_of, conv_net, network
from precision import double

import vicinal as vc
from vicinal.analysis import angle, learned_feedback_angles, voltage_traces
from vicinal.rules import PhaselessAlignment, TimeConstants

pytestmark = pytest.mark.slow

# ------------------------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize(
    ("dt", "xi", "filtered"), [(0.1, 1.0, 1.0), (0.5, 1.0, 1.0), (0.25, 2.0, 0.5), (1.0, 1.0, 1.0)]
)
def test_the_gain_is_the_covariance_of_noise_and_its_high_pass(dt, xi, filtered):
    times = TimeConstants(dt=dt, xi=xi, high_pass=filtered, presentation=10.0)
    a, h, kick = 1 - dt / xi, 1 - dt / filtered, math.sqrt(dt / xi)
    move, drive = np.array([[a, 0.0], [a - 1, h]]), np.array([[kick], [kick]])

    def covariance(start, steps):
        seen = [np.array(start)]
        for _ in range(steps):
            seen.append(move @ seen[-1] @ move.T + drive @ drive.T)
        return np.array(seen[1:])

    settled = covariance(np.zeros((2, 2)), 400)[-1]
    assert times.variance == pytest.approx(settled[0, 0], rel=1e-12)
    assert times.gain(fresh=False) == pytest.approx(settled[0, 1], rel=1e-12)
    fresh = covariance([[settled[0, 0], 0.0], [0.0, 0.0]], times.steps)
    assert times.gain(fresh=True) == pytest.approx(np.mean(fresh[:, 0, 1]), rel=1e-12)


def copies_of_learned(rule, model, x, y, copies):
    """What one presentation teaches each of many networks that differ in their noise; `[copies, above, below]`."""
    graph = vc.capture(model, x[0])
    first = eqx.filter_jit(rule.init)(graph, model, key=KEY)

    @jax.jit
    @jax.vmap
    def learned(key):
        begun = dataclasses.replace(first, key=key)
        return rule.value_and_grad(graph, model, begun, x, y)[2].feedback["output"] - first.feedback["output"]

    return np.asarray(learned(jax.random.split(jax.random.key(5), copies)), dtype=float)


def test_noise_teaches_the_transpose_and_a_finer_step_changes_that_by_first_order():
    """The gain tends to `c = 1/4` in proportion to dt."""
    model = network(3, 4, 3, activation="identity")
    x, y = batch_of(model, 1)
    weight, excess = np.asarray(model.layers[1].weight, dtype=float), []
    for dt in (0.5, 0.25, 0.125):
        times = TimeConstants(dt=dt, presentation=20.0)
        rule = PhaselessAlignment(times=times, sigma=0.05, feedback_rate=1.0, decay=0.0, loss=SQUARED)
        found = copies_of_learned(rule, model, x, y, 4000) / (20.0 * 0.05**2)
        mean, error = found.mean(0), found.std(0) / math.sqrt(len(found))
        assert np.all(np.abs(mean - times.gain(fresh=True) * weight) < 4.5 * error)
        scale = np.sum(found * weight, axis=(1, 2)) / np.sum(weight**2)
        fresh = times.gain(fresh=True) / times.gain(fresh=False)
        excess.append(scale.mean() / fresh - 0.25)
        assert scale.std() / math.sqrt(len(found)) < 0.005
    # c - 1/4 = dt/4 (1 + 3/4 dt + ...) for times of 1 ms: it falls by a little more than half.
    assert 0.35 < excess[1] / excess[0] < 0.5
    assert 0.35 < excess[2] / excess[1] < 0.56


# ------------------------------------------------------------------------------------------ decay and fixed points


def test_without_noise_feedback_decays_exponentially(x64):
    model = double(network(3, 5, 4, 2))
    x, y = batch_of(model, 2)
    graph, rule = vc.capture(model, x[0]), PhaselessAlignment(times=SHORT, sigma=0.0, decay=0.03, loss=SQUARED)
    first = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    _, _, state, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, first, x, y)
    for name, feedback in state.feedback.items():
        np.testing.assert_allclose(feedback, first.feedback[name] * (1 - 0.5 * 10.0 * 0.03) ** 10, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 20_000], ids=["anew", "running"])
def test_with_the_default_decay_the_transpose_stays_where_it_is(batch_size):
    model = network(3, 4, 3, activation="identity")
    x, y = batch_of(model, 20_000)
    # Of four steps: the mean of a filter that begins empty is a twelfth below that of one that runs on.
    times = TimeConstants(dt=0.5, xi=1.0, high_pass=1.0, presentation=2.0)
    rule = PhaselessAlignment(times=times, sigma=0.05, feedback_rate=1.0, batch_size=batch_size, loss=SQUARED)
    graph, weight = vc.capture(model, x[0]), np.asarray(model.layers[1].weight, dtype=float)
    show = jax.jit(lambda state: rule.value_and_grad(graph, model, state, x, y)[2])
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    for _ in range(8):  # so that what runs on has forgotten that it began at rest
        state = show(state)
    moved = show(dataclasses.replace(state, feedback={"output": model.layers[1].weight})).feedback["output"] - weight
    moved = np.asarray(moved, dtype=float) / (2.0 * times.gain(fresh=batch_size is None) * 0.05**2)
    scale = np.sum(moved * weight) / np.sum(weight**2)
    error = np.std(moved - scale * weight) / np.linalg.norm(weight)
    assert error < 0.012
    assert abs(scale) < 4.5 * error


@pytest.mark.parametrize(
    ("regularizer", "fires"),
    [full("plain", "identity"), full("slopes", "identity"), ("plain", "sigmoid")],
)
def test_the_fixed_point(regularizer, fires):
    """Feedback settles at what noise carries; with slopes in its decay, at the transpose."""
    model = network(4, 8, 6, 3, activation="sigmoid", gain=5.0)
    x, y = batch_of(model, 500)
    times = TimeConstants(dt=0.5, xi=1.0, high_pass=1.0, presentation=10.0)
    alpha = 1.5 * times.gain(fresh=True) * 0.1**2  # so that B settles at 2/3 of what is carried
    rate = {"plain": 0.02, "slopes": 0.3}[regularizer] / alpha  # slopes make the decay that much slower
    rule = PhaselessAlignment(
        times=times,
        sigma=0.1,
        feedback_rate=rate,
        decay=alpha,
        regularizer=regularizer,
        feedback_scale=0.0,
        output_activation=fires,
        loss=SQUARED,
    )
    graph = vc.capture(model, x[0])

    @jax.jit
    def settle(state):
        def show(state, _):
            state = rule.value_and_grad(graph, model, state, x, y)[2]
            return state, state.feedback

        state, _ = jax.lax.scan(show, state, length=40)
        return jax.tree.map(lambda seen: seen.mean(0), jax.lax.scan(show, state, length=40)[1])

    found = settle(eqx.filter_jit(rule.init)(graph, model, key=KEY))
    output, values = eqx.filter_jit(graph.feedforward)(model, x)
    rates = {name: np.asarray(jax.nn.sigmoid(value)) for name, value in (values | {"output": output}).items()}
    slopes = {name: rate * (1 - rate) for name, rate in rates.items()}
    if fires == "identity":
        slopes["output"] = np.ones((500, 3), np.float32)
    likeness = eqx.filter_jit(learned_feedback_angles)(graph, model, found, x, output_activation=fires)
    for i, (below, node) in enumerate([("hidden1", "hidden2"), ("hidden2", "output")], 1):
        weight = np.asarray(model.layers[i].weight)
        carried = weight * (slopes[node].T @ slopes[below]) / 500
        expected = (carried if regularizer == "plain" else weight) / 1.5
        feedback = np.asarray(found[node])
        assert np.linalg.norm(feedback - expected) < 0.08 * np.linalg.norm(expected), node
        clear = np.abs(expected) > 0.1 * np.abs(expected).max()
        assert np.all(np.sign(feedback)[clear] == np.sign(weight)[clear])
        np.testing.assert_allclose(likeness[node].weight, eqx.filter_jit(angle)(feedback, weight), atol=1e-2)
        np.testing.assert_allclose(likeness[node].transported, eqx.filter_jit(angle)(feedback, carried), atol=1e-2)
    near, far = ("transported", "weight") if regularizer == "plain" else ("weight", "transported")
    assert all(float(getattr(found, near)) < 5 for found in likeness.values())
    assert float(getattr(likeness["hidden2"], far)) > 10


# -------------------------------------------------------------------------------------------------- the high-pass


def test_the_high_pass_keeps_a_slow_input_from_disturbing_what_is_learned():
    model = network(3, 6, 4, activation="identity")
    x, y = batch_of(model, 400)
    graph, times = vc.capture(model, x[0]), TimeConstants(dt=0.5, presentation=20.0)
    rule = PhaselessAlignment(times=times, sigma=0.05, loss=SQUARED)
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    traces = jax.jit(lambda: voltage_traces(rule, graph, model, state, x, y))()
    noise, weight = np.asarray(traces.noise["hidden1"]), np.asarray(model.layers[1].weight)

    def error(rates, gain):
        return np.linalg.norm(np.asarray(rates).T @ noise / len(noise) / (gain * 0.05**2) - weight)

    with_filter = error(traces.filtered["output"], times.gain(fresh=False))
    without = error(traces.rates["output"], times.variance)  # the same expectation: the noise is that of one time
    assert with_filter < 0.3 * np.linalg.norm(weight)
    assert without > 4 * with_filter


# --------------------------------------------------------------------------------------------------------- pooling


def test_the_fixed_point_without_derivatives_is_not_for_pooling():
    model = conv_net(vc.nn.AvgPool2d(2))
    graph = vc.capture(model, jnp.ones((2, 8, 8)))
    with pytest.raises(ValueError, match="'slopes' and 'hidden1', whose 75 inputs are pooled from 'conv1'"):
        PhaselessAlignment(regularizer="slopes").init(graph, model, key=KEY)
    unpooled = conv_net()
    PhaselessAlignment(regularizer="slopes").init(vc.capture(unpooled, jnp.ones((2, 8, 8))), unpooled, key=KEY)


def test_feedback_to_pooled_rates_learns_from_the_noise_that_arrives():
    model = conv_net(vc.nn.AvgPool2d(2), sizes=(3,))
    x, y = jax.random.normal(KEY, (64, 2, 8, 8)), jnp.zeros((64, 3))
    graph = vc.capture(model, x[0])
    rule = PhaselessAlignment(
        times=TimeConstants(dt=0.5, presentation=10.0), decay=0.0, feedback_scale=0.0, loss=SQUARED
    )
    state = eqx.filter_jit(rule.init)(graph, model, key=KEY)
    _, _, state, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, state, x, y)
    assert float(eqx.filter_jit(angle)(state.feedback["output"], model.layers[0].weight)) < 60  # by chance 90 +- 6
