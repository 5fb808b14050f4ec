"""When weights learn from events: at any time, from the mean, at every step; each against a loop in NumPy."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest
from event_builders import assigned, chain, chip, flat, graded, network, recorded

import vicinal as vc
from vicinal.rules import EventInferenceLearning

STEPS, GAMMA, THRESHOLD = 12, 0.2, 0.05
SETTINGS = {"steps": STEPS, "step_size": GAMMA}


def rows_of(kept):
    """What was sent after each step: values and errors of every node, `[steps, batch, ...]`."""
    values = {name: np.asarray(rows[1:]) for name, rows in kept.activities.items()}
    return values, {name: np.asarray(rows[1:-1]) for name, rows in kept.errors.items()}


class Synapses:
    """A matrix of synapses, each of which keeps its sum and the time at which one of its ends sent last."""

    def __init__(self, error, rate):
        self.error, self.rate = error.copy(), rate.copy()
        self.sum, self.last = np.zeros((len(error), len(rate))), np.zeros((len(error), len(rate)))
        self.touched = 0

    def hear(self, t, error, rate):
        """Both ends at time `t`; only synapses with an end that sent are touched."""
        rows, columns = np.flatnonzero(error != self.error), np.flatnonzero(rate != self.rate)
        sent = {(i, j) for i in rows for j in range(len(rate))} | {(i, j) for i in range(len(error)) for j in columns}
        for i, j in sent:
            self.sum[i, j] += self.error[i] * self.rate[j] * (t - self.last[i, j])
            self.last[i, j] = t
        self.touched += len(sent)
        self.error, self.rate = error.copy(), rate.copy()

    def until(self, t):
        return self.sum + np.outer(self.error, self.rate) * (t - self.last)


@pytest.mark.parametrize("part", [0.5, 1.0])
def test_the_mean_is_what_synapses_sum_that_wake_at_events_alone(x64, part):
    """Both factors are constant between events, so that a sum over events is the sum over steps."""
    model, graph, x, y = chain()
    gradient = assigned(graded(THRESHOLD, learn="mean", part=part, **SETTINGS), graph, model, x, y)[0]
    values, errors = rows_of(recorded(graded(THRESHOLD, **SETTINGS), graph, model, x, y))
    first, batch = STEPS - round(part * STEPS), len(x)
    rates = [np.broadcast_to(x, (STEPS, *x.shape)), *(np.tanh(values[name]) for name in graph.vertices)]
    for layer, rate, error in zip(gradient.layers, rates, errors.values(), strict=True):
        total, touched = np.zeros(layer.weight.shape), 0
        for example in range(batch):
            synapses = Synapses(error[first, example], rate[first, example])
            for t in range(first + 1, STEPS):
                synapses.hear(t - first, error[t, example], rate[t, example])
            total += synapses.until(STEPS - first)
            touched += synapses.touched
        np.testing.assert_allclose(layer.weight, -total / batch / (STEPS - first), rtol=0, atol=1e-12)
        assert touched < batch * layer.weight.size * (STEPS - first - 1)  # fewer than in each step


def test_any_time_averaged_over_its_part_is_the_mean(x64):
    model, graph, x, y = network()
    any_time = graded(THRESHOLD, learn="any", part=0.3, **SETTINGS)
    expected = assigned(graded(THRESHOLD, learn="mean", part=0.3, **SETTINGS), graph, model, x, y)[0]
    drawn = {}
    for key in jax.random.split(jax.random.key(0), 40):
        gradient = assigned(any_time, graph, model, x, y, key=key)[0]
        drawn[flat(gradient).tobytes()] = flat(gradient)
    assert len(drawn) == 4  # of 12 steps, rounded up
    np.testing.assert_allclose(np.mean(list(drawn.values()), axis=0), flat(expected), rtol=0, atol=1e-14)


def test_any_time_learns_from_what_was_sent_at_that_step(x64):
    """One step for the batch, or one for each example."""
    model, graph, x, y = network(batch=6)
    values, errors = rows_of(recorded(graded(THRESHOLD, **SETTINGS), graph, model, x, y))

    def steps_of(credit):
        """The steps at which each example held what it learns from."""
        held = [(credit.values[name], values[name]) for name in graph.vertices]
        held += [(credit.errors[name], errors[name]) for name in graph.vertices]
        held += [(credit.output_error, errors["output"])]
        same = [np.all(rows == np.asarray(now)[None], axis=2) for now, rows in held]
        return [set(np.flatnonzero(column)) for column in np.all(same, axis=0).T]

    for apart in (False, True):
        rule = graded(THRESHOLD, learn="any", apart=apart, **SETTINGS)
        together = []
        for key in jax.random.split(jax.random.key(1), 8):
            gradient, credit, _ = assigned(rule, graph, model, x, y, key=key)
            found = steps_of(credit)
            assert all(steps & set(range(STEPS // 2, STEPS)) for steps in found)
            together.append(bool(set.intersection(*found)))
            product = eqx.filter_jit(vc.local_gradient)(graph, model, credit, x)
            np.testing.assert_allclose(flat(gradient), flat(product), rtol=1e-12)
        assert all(together) == (not apart)


def test_any_time_needs_a_key(x64):
    model, graph, x, y = network()
    with pytest.raises(ValueError, match="expected a key for the time of the update, got None; pass key="):
        graded(THRESHOLD, learn="any").value_and_grad(graph, model, (), x, y)


def test_at_the_last_step_only_the_last_turn_of_errors_is_missing(x64):
    model, graph, x, y = network()
    rule = graded(THRESHOLD, learn="any", part=1e-6, **SETTINGS)  # one step at least
    credit = assigned(rule, graph, model, x, y, key=jax.random.key(0))[1]
    values, errors = rows_of(recorded(graded(THRESHOLD, **SETTINGS), graph, model, x, y))
    for name in graph.vertices:
        np.testing.assert_array_equal(credit.values[name], values[name][-1])
        np.testing.assert_array_equal(credit.errors[name], errors[name][-1])


def stepped(rule, graph, optimizer, model, x, y, state=()):
    memory = optimizer.init(graph.trainable(model))
    return eqx.filter_jit(rule.step)(graph, optimizer, model, memory, state, x, y)


def test_learning_at_every_step_is_a_loop_of_events_and_updates(x64):
    """Plain gradient descent: errors are sent, values move and are sent, weights change by what both ends hold."""
    model, graph, x, y = chain()
    rule = graded(THRESHOLD, learn="every", **SETTINGS)
    new, _, _, loss, info = stepped(rule, graph, optax.sgd(0.03), model, x, y)
    units = chip(model, x, y, gamma=GAMMA, threshold=THRESHOLD).sweep()
    for _ in range(STEPS):
        units.step()
        units.learn(0.03)
    units.send_errors()
    for layer, (weight, bias) in zip(new.layers, units.layers, strict=True):
        np.testing.assert_allclose(layer.weight, weight, rtol=0, atol=1e-12)
        np.testing.assert_allclose(layer.bias, bias, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(info.events.errors["output"], units.error_events[-1])
    np.testing.assert_array_equal(info.events.values["hidden2"] + info.events.sweep["hidden2"], units.value_events[1])
    output = np.asarray(info.output)  # of the network before
    np.testing.assert_allclose(output, eqx.filter_jit(graph.feedforward)(model, x)[0], rtol=1e-12)
    np.testing.assert_allclose(loss, np.mean(0.5 * np.sum((output - np.asarray(y)) ** 2, axis=1)), rtol=1e-12)


def test_the_gradient_of_every_step_is_the_sum_with_the_weights_held(x64):
    """So that it is what small steps do, to first order in the learning rate."""
    model, graph, x, y = network()
    rule = graded(THRESHOLD, learn="every", **SETTINGS)
    gradient = assigned(rule, graph, model, x, y)[0]
    mean = assigned(graded(THRESHOLD, learn="mean", part=1.0, **SETTINGS), graph, model, x, y)[0]
    np.testing.assert_allclose(flat(gradient), STEPS * flat(mean), rtol=1e-10, atol=1e-14)
    rate = 1e-9
    new = stepped(rule, graph, optax.sgd(rate), model, x, y)[0]
    moved = flat(jax.tree.map(lambda a, b: (np.asarray(b) - np.asarray(a)) / rate, model, new))
    np.testing.assert_allclose(moved, -flat(gradient), rtol=1e-4, atol=1e-6)


def test_the_optimiser_gets_what_entered_each_weight(x64):
    """The normalised step divides by the norm of what was sent."""
    model, graph, x, y = chain()
    rule = graded(THRESHOLD, **SETTINGS)
    new = stepped(rule, graph, vc.optim.nlms(0.5, eps=0.1), model, x, y)[0]
    gradient, credit, _ = assigned(rule, graph, model, x, y)
    rates = [np.asarray(x), *(np.tanh(credit.values[name]) for name in graph.vertices)]
    for before, after, change, rate in zip(model.layers, new.layers, gradient.layers, rates, strict=True):
        norm = np.mean(np.sum(rate**2, axis=1)) + 1 + 0.1  # the bias is one more input
        np.testing.assert_allclose(after.weight - before.weight, -0.5 * change.weight / norm, rtol=1e-10, atol=1e-14)


def test_phases_and_products_are_as_they_say():
    kinds = {learn: EventInferenceLearning(learn=learn) for learn in ("end", "any", "mean", "every")}
    assert {name: rule.phases for name, rule in kinds.items()} == dict.fromkeys(kinds, True) | {"every": False}
    assert [name for name, rule in kinds.items() if rule.takes_product_of_credit] == ["end", "any"]
