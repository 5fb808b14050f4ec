"""Inference learning in spikes: against a loop in NumPy, inference learning as areas vanish, and what is reported."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from event_builders import SQUARED, assigned, chain, events_of, flat, layers_of, network, settled
from matrix import full, some
from precision import double

import vicinal as vc
from vicinal.feedback import attach
from vicinal.inference import Result
from vicinal.rules import SpikingInferenceLearning
from vicinal.spikes import Generator
from vicinal.testing import CHECKS, cases, check_rule

KEY = jax.random.key(0)
CASES = {case.name: case for case in cases()}
STEPS, SIZE, AREA, TRACE = 25, 0.15, 0.3, 4.0


def spiking(area=AREA, trace=TRACE, most=8, leak=None, **settings):
    generators = {name: Generator(area, most, leak, trace) for name in ("activity", "error")}
    return SpikingInferenceLearning(**{"loss": SQUARED, "steps": STEPS, "step_size": SIZE} | generators | settings)


@eqx.filter_jit
def recorded(rule, graph, model, x, y):
    return rule.record(graph, model, (), x, y)


class Pairs:
    """A positive and a negative generator for each unit, and the trace of both."""

    def __init__(self, trace):
        self.up, self.down, self.trace = np.full_like(trace, AREA / 2), np.full_like(trace, AREA / 2), trace.copy()
        self.rows, self.count = [], 0

    def send(self, value):
        self.up, self.down = self.up + np.maximum(value, 0), self.down + np.maximum(-value, 0)
        n = np.minimum(self.up // AREA, 8), np.minimum(self.down // AREA, 8)
        self.up, self.down = self.up - AREA * n[0], self.down - AREA * n[1]
        self.trace += (1 - np.exp(-1 / TRACE)) * (AREA * (n[0] - n[1]) - self.trace)
        self.rows.append((self.trace.copy(), n[0] - n[1]))
        self.count = self.count + np.sum(n[0] + n[1], axis=1)


def by_hand(model, x, y):
    """A chain with vertices at potentials, tanh: `v' = p - v + f'(r) W^T q`; returns potentials and generators."""
    (w1, b1), (w2, b2), (w3, b3) = layers_of(model)
    p1 = np.asarray(x) @ w1.T + b1[None]
    v = [p1.copy(), np.tanh(p1) @ w2.T + b2[None]]
    values = [Pairs(v[0]), Pairs(v[1])]
    errors = [Pairs(0 * v[0]), Pairs(0 * v[1]), Pairs(0 * np.asarray(y))]

    def send_errors():
        r = [np.tanh(pair.trace) for pair in values]
        held = [v[0] - p1, v[1] - (r[0] @ w2.T + b2[None]), np.asarray(y) - (r[1] @ w3.T + b3[None])]
        for pair, error in zip(errors, held, strict=True):
            pair.send(error)
        return held

    for _ in range(STEPS):
        held = send_errors()
        for i, weight in enumerate((w2, w3)):
            gate = 1 - np.tanh(values[i].trace) ** 2
            v[i] = v[i] + SIZE * (gate * (errors[i + 1].trace @ weight) - held[i])
        for pair, potential in zip(values, v, strict=True):
            pair.send(potential)
    send_errors()
    return v, values, errors


def test_a_chain_is_a_loop_over_its_steps(x64):
    model, graph, x, y = chain()
    gradient, credit, _ = assigned(spiking(), graph, model, x, y)
    kept = recorded(spiking(), graph, model, x, y)
    v, values, errors = by_hand(model, x, y)
    below = [np.asarray(x), *(np.tanh(pair.trace) for pair in values)]
    for layer, error, rate in zip(gradient.layers, errors, below, strict=True):
        np.testing.assert_allclose(layer.weight, -error.trace.T @ rate / len(x), rtol=0, atol=1e-12)
    names = (*graph.vertices, "output")
    for name, potential, pair in zip(names, v, values, strict=False):
        np.testing.assert_allclose(kept.potentials[name][-1], potential, rtol=0, atol=1e-12)
        np.testing.assert_allclose(kept.values[name][1:], [row[0] for row in pair.rows], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(kept.value_spikes[name], [row[1] for row in pair.rows])
        np.testing.assert_allclose(credit.values[name], pair.trace, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(credit.info.events.values[name], pair.count)
    found = events_of(credit.info)
    assert found["errors"].keys() == {"hidden2", "output"}  # nobody receives the error of hidden1
    for name, pair in zip(names, errors, strict=True):
        np.testing.assert_allclose(kept.errors[name][1:], [row[0] for row in pair.rows[:-1]], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(kept.error_spikes[name], [row[1] for row in pair.rows[:-1]])
        np.testing.assert_array_equal(found["errors"].get(name, pair.count), pair.count)
        assert np.all(pair.count > 0)
    assert not np.any(flat(found["sweep"]))


def slope(areas, distances):
    return np.polyfit(np.log(areas), np.log(distances), 1)[0]


AREAS = 0.02 / 2.0 ** np.arange(5)


@pytest.mark.parametrize("name", some(CASES, "mlp", "mlp, potentials", "recurrent"))
def test_small_spikes_and_short_traces_are_inference_learning(x64, name):
    """Of the same steps and step size, in first order of the area of a spike."""
    model, x = double(CASES[name].model), double(CASES[name].x)
    graph, y = vc.capture(model, x[0]), CASES[name].y
    loss, steps = vc.losses.softmax_cross_entropy, 20
    expected = flat(assigned(settled(steps, 0.1, loss), graph, model, x, y)[0])
    settings = {"trace": 1e-3, "most": None, "steps": steps, "step_size": 0.1, "loss": loss}
    found = [flat(assigned(spiking(area, **settings), graph, model, x, y)[0]) for area in AREAS]
    distances = [np.linalg.norm(gradient - expected) for gradient in found]
    assert slope(AREAS, distances) == pytest.approx(1, abs=0.2)
    assert distances[-1] < 0.02 * np.linalg.norm(expected)


@pytest.mark.parametrize("leak", [None, 20.0])
def test_small_spikes_settle_where_inference_learning_does(x64, leak):
    """With long traces as well, and with a leak, whose loss of half an area over its time constant is linear."""
    model, graph, x, y = chain()
    expected = flat(assigned(settled(3000, 0.1), graph, model, x, y)[0])
    areas, settings = 0.4 / 2.0 ** np.arange(5), {"steps": 600, "step_size": 0.05, "trace": 5.0, "most": None}
    found = [
        flat(assigned(spiking(area, leak=leak, learn="mean", part=0.3, **settings), graph, model, x, y)[0])
        for area in areas
    ]
    distances = [np.linalg.norm(gradient - expected) for gradient in found]
    assert slope(areas, distances) == pytest.approx(1, abs=0.3)
    assert distances[-1] < 0.05 * np.linalg.norm(expected)


def products(graph, model, x, kept, steps):
    """The local product of the traces after each of some steps."""
    rows = []
    for t in steps:
        values = {name: kept.values[name][t] for name in graph.vertices}
        errors = {name: kept.errors[name][t] for name in graph.vertices}
        credit = vc.Credit(jnp.zeros(len(x)), values, errors, kept.errors["output"][t], vc.credit.Info(None))
        rows.append(flat(eqx.filter_jit(vc.local_gradient)(graph, model, credit, x)))
    return rows


def test_weights_learn_at_any_time_or_from_the_mean(x64):
    model, graph, x, y = network()
    last = range(STEPS - 8 + 1, STEPS + 1)  # of 25 steps, .3 rounded up
    expected = products(graph, model, x, recorded(spiking(), graph, model, x, y), last)
    mean = assigned(spiking(learn="mean", part=0.3), graph, model, x, y)[0]
    np.testing.assert_allclose(flat(mean), np.mean(expected, axis=0), rtol=0, atol=1e-12)
    drawn, any_time = set(), spiking(learn="any", part=0.3)
    for key in jax.random.split(KEY, 40):
        found = flat(assigned(any_time, graph, model, x, y, key=key)[0])
        distances = [np.max(np.abs(found - one)) for one in expected]
        drawn.add(int(np.argmin(distances)))
        assert min(distances) < 1e-12
    assert len(drawn) == 8
    with pytest.raises(ValueError, match="expected a key for the time of the update, got None"):
        spiking(learn="any").value_and_grad(graph, model, (), x, y)


@pytest.mark.parametrize("learn", ["end", "any", "mean"])
def test_each_synapse_learns_from_its_two_ends(learn):
    case = CASES["mlp"]
    found = vc.analysis.audit(spiking(learn=learn), case.graph, case.model, case.x, jnp.ones((4, 3)), key=KEY)
    assert found.local
    assert found.support["hidden1"] == {"error hidden1"}


@pytest.mark.parametrize(("route", "transported"), [(vc.feedback.random(), False), (vc.feedback.tied(), True)])
def test_separate_feedback_carries_no_forward_weight(x64, route, transported):
    """Before a spike of the errors has come down twice, the weights above say nothing where feedback is separate."""
    plain, _, x, y = chain()
    model = attach(plain, route, key=jax.random.key(3))
    graph = vc.capture(model, x[0])
    found = []
    for factor in (1.0, -1.0):
        other = eqx.tree_at(lambda m: m.layers[2].layer.weight, model, factor * model.layers[2].layer.weight)
        error = jnp.ones_like(y)  # of the output, whatever the weights above: one step from the feedforward values
        rule = spiking(steps=1, area=1e-3, most=None)
        target = eqx.filter_jit(graph.feedforward)(other, x)[0] + error
        found.append(recorded(rule, graph, other, x, target).potentials["hidden2"])
    assert np.array_equal(found[0][0], found[1][0])
    assert np.allclose(found[0][1], found[1][1], rtol=1e-9) == (not transported)
    assert not np.allclose(found[0][1], found[0][0])


def test_a_rate_too_close_to_the_limit_is_reported():
    model, x, y = vc.nn.MLP((4, 6, 5, 3), vertex_at="pre", key=KEY), 6 * jnp.ones((2, 4)), jnp.array([0, 2])
    graph, x = vc.capture(model, x[0]), x.at[0].set(3.0)
    held = eqx.filter_jit(graph.feedforward)(model, x)[1]
    rates = np.max([np.max(np.abs(v), axis=1) for v in held.values()], axis=0)
    assert rates[0] > 1.2  # errors of the output are below 1
    cross_entropy = {"loss": vc.losses.softmax_cross_entropy, "steps": 4, "step_size": 0.05}
    assert rates[1] > 1.2 * rates[0]
    for limit, expected in ((1.6 * rates[1], "none"), (1.6 * rates[0], "second"), (1.4 * rates[0], "both")):
        info = assigned(spiking(limit / 8, **cross_entropy), graph, model, x, y)[1].info
        crowded = {"none": [False, False], "second": [False, True], "both": [True, True]}[expected]
        np.testing.assert_array_equal(info.result == Result.RATE_LIMITED, crowded)
        assert np.all((info.result == Result.STEP_LIMIT) | (info.result == Result.RATE_LIMITED))
    assert "came too close to the most that its spikes can send" in Result.RATE_LIMITED.sentence


def test_rates_above_the_limit_keep_values_from_settling():
    model, x, y = vc.nn.MLP((4, 6, 5, 3), vertex_at="pre", key=KEY), 6 * jnp.ones((2, 4)), jnp.array([0, 2])
    graph = vc.capture(model, x[0])
    rule = spiking(area=0.1, most=2, loss=vc.losses.softmax_cross_entropy, steps=200)
    info = assigned(rule, graph, model, x, y)[1].info
    assert np.all(info.result == Result.DIVERGED)
    wide = dataclasses.replace(rule, activity=Generator(0.1, 100), error=Generator(0.1, 100))
    assert np.all(assigned(wide, graph, model, x, y)[1].info.result == Result.STEP_LIMIT)


def test_ripple_of_spikes_at_the_target_is_no_divergence():
    """The energy starts at 0, and spikes that stand for constant values do not leave it there."""
    case = CASES["mlp"]
    y = eqx.filter_jit(case.graph.feedforward)(case.model, case.x)[0]
    credit = assigned(spiking(3.0, steps=60), case.graph, case.model, case.x, y)[1]
    assert np.all(sum(credit.info.energies.values()) > 1e-4)
    assert np.all(credit.info.result == Result.STEP_LIMIT)


def test_with_a_leak_units_start_where_they_would_come_to_rest(x64):
    """Traces at what is sent of values, values at their predictions from these traces: nothing moves but by ripple."""
    model, graph, x, _ = chain()
    rule = spiking(0.01, leak=5.0, most=None, steps=1)
    y, _ = eqx.filter_jit(graph.feedforward)(model, x)
    kept = recorded(rule, graph, model, x, y)
    values = {name: v[0] for name, v in kept.values.items()}
    _, predictions = eqx.filter_jit(graph.predict)(model, values, x)
    for name in graph.vertices:
        held = np.asarray(kept.potentials[name][0])
        np.testing.assert_allclose(held, predictions[name], rtol=1e-12)
        sent = np.sign(held) * np.asarray(rule.activity.rate(jnp.abs(kept.potentials[name][0])))
        np.testing.assert_allclose(values[name], sent, rtol=1e-12)
        assert np.max(np.abs(sent - held)) > 5e-4


CONTRACT = {
    "end": SpikingInferenceLearning(steps=40),
    "any": SpikingInferenceLearning(steps=40, learn="any"),
    "mean": SpikingInferenceLearning(steps=40, learn="mean"),
    "leak": SpikingInferenceLearning(steps=40, activity=Generator(0.3, leak=20.0), error=Generator(0.1, leak=50.0)),
}
# Spikes of values that do not move make traces ripple, and so weights move where nothing is left to learn.
DOES_NOT_APPLY = {"zero error"}
LONG = {"jit", "vmap", "learns"}  # to compile


@pytest.mark.parametrize(
    ("rule", "name", "left_out"),
    [("mean", "mlp, potentials", LONG), ("end", "function", LONG)]
    + [full(rule, name, set()) for rule in CONTRACT for name in CASES],
)
def test_contract(rule, name, left_out):
    check_rule(CONTRACT[rule], skip=DOES_NOT_APPLY | left_out, only=[CASES[name]])


@pytest.mark.parametrize("name", some(CASES, "convolutional", "tied weights", "recurrent"))
def test_it_learns_on_every_kind_of_model(name):
    CHECKS["learns"](SpikingInferenceLearning(steps=20, learn="mean"), CASES[name])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"steps": 0}, ValueError, "expected steps as an integer of at least 1, got 0"),
        ({"step_size": -1.0}, ValueError, "expected the step size of at least 0, got -1"),
        ({"activity": 1.0}, TypeError, "expected activity as a vicinal.spikes.Generator, got 1.0"),
        ({"error": Generator}, TypeError, "expected error as a vicinal.spikes.Generator"),
        ({"learn": "every"}, ValueError, "expected learn as 'end', 'any' or 'mean', got 'every'"),
        ({"part": 0.0}, ValueError, "expected part, a part of the steps, above 0 to 1, got 0"),
        ({"nudge": 0.0}, ValueError, r"expected nudge in \(0, 1\]"),
        ({"precision": -1.0}, ValueError, "expected precision of at least 0"),
        ({"loss": "mse"}, TypeError, "expected a loss as a function"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        SpikingInferenceLearning(**settings)
