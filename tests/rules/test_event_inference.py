"""Inference learning by events against a loop of single events in NumPy, and what units send and hold in it."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from event_builders import SQUARED, assigned, chain, chip, events_of, flat, graded, network, recorded
from matrix import full

import vicinal as vc
from vicinal.events import Code, Graded
from vicinal.inference import Result
from vicinal.rules import EventInferenceLearning

STEPS, GAMMA, THRESHOLD = 13, 0.2, 0.05


def test_potentials_to_which_each_event_adds_give_the_same_presentation(x64):
    """On hardware nothing is recomputed: an event adds a column of the weights to the potentials that hear it."""
    model, graph, x, y = chain()
    gradient, credit, _ = assigned(graded(THRESHOLD, steps=STEPS, step_size=GAMMA), graph, model, x, y)
    units = chip(model, x, y, gamma=GAMMA, threshold=THRESHOLD).sweep()
    swept = [count.copy() for count in units.value_events[:-1]]
    units.run(STEPS).send_errors()
    for name, sent, error in zip(graph.vertices, units.sent, units.e, strict=False):
        np.testing.assert_allclose(credit.values[name], sent, rtol=0, atol=1e-12)
        np.testing.assert_allclose(credit.errors[name], error, rtol=0, atol=1e-12)
    np.testing.assert_allclose(credit.output_error, units.e[-1], rtol=0, atol=1e-12)
    for layer, expected in zip(gradient.layers, units.gradient(), strict=True):
        np.testing.assert_allclose(layer.weight, expected, rtol=0, atol=1e-12)
    found = events_of(credit.info)
    for name, whole, first in zip(graph.vertices, units.value_events, swept, strict=False):
        np.testing.assert_array_equal(found["sweep"][name], first)
        np.testing.assert_array_equal(found["values"][name], whole - first)
    heard = dict(zip(("hidden1", "hidden2", "output"), units.error_events, strict=True))
    assert found["errors"].keys() == {"hidden2", "output"}  # nobody receives the error of hidden1
    for name, count in found["errors"].items():
        np.testing.assert_array_equal(count, heard[name])
        assert np.all(count > 0)


def held_errors(graph, model, x, y, values, sent):
    """The errors of every node, computed from what is held and what was sent."""
    output, predictions = eqx.filter_jit(graph.predict)(model, sent, x)
    errors = {name: np.subtract(values[name], prediction) for name, prediction in predictions.items()}
    return errors | {"output": np.subtract(y, output)}


@pytest.mark.parametrize("place", ["post", full("pre")])
def test_what_was_sent_tracks_what_is_held_after_every_turn(x64, place):
    model, graph, x, y = network(vertex_at=place)
    kept = recorded(graded(THRESHOLD, steps=STEPS, step_size=GAMMA), graph, model, x, y)
    for name in graph.vertices:
        assert kept.values[name].shape[0] == STEPS + 1
        assert np.max(np.abs(kept.values[name] - kept.activities[name])) < THRESHOLD
    for t in range(STEPS + 1):
        values, sent = ({name: v[t] for name, v in tree.items()} for tree in (kept.values, kept.activities))
        for name, error in held_errors(graph, model, x, y, values, sent).items():
            assert not np.any(kept.errors[name][0])
            assert np.max(np.abs(error - kept.errors[name][t + 1])) < THRESHOLD / 4


def test_a_record_ends_as_credit_is_assigned(x64):
    model, graph, x, y = network()
    rule = graded(THRESHOLD, steps=STEPS, step_size=GAMMA)
    kept, credit = recorded(rule, graph, model, x, y), assigned(rule, graph, model, x, y)[1]
    for name in graph.vertices:
        np.testing.assert_array_equal(kept.activities[name][-1], credit.values[name])
        np.testing.assert_array_equal(kept.errors[name][-1], credit.errors[name])
    np.testing.assert_array_equal(kept.errors["output"][-1], credit.output_error)


@pytest.mark.parametrize("threshold", [0.1, 0.01])
def test_a_unit_sends_no_more_often_than_its_value_moves(x64, threshold):
    """Between two events a unit moves by half a threshold or more: at most `2 TV / threshold + 1` events."""
    model, graph, x, y = network()
    kept = recorded(graded(threshold, steps=60, step_size=GAMMA), graph, model, x, y)
    for name in graph.vertices:
        events = np.sum(np.diff(kept.activities[name], axis=0) != 0, axis=0)
        variation = np.sum(np.abs(np.diff(kept.values[name], axis=0)), axis=0)
        assert np.all(events <= 2 * variation / threshold + 1)
        assert events.sum() > 0


def test_counts_stop_growing_with_the_number_of_steps(x64):
    """So the events of long settling are those of its way, not of its steps."""
    model, graph, x, y = network()
    counts = []
    for steps in (60, 240):
        info = assigned(graded(THRESHOLD, steps=steps, step_size=GAMMA), graph, model, x, y)[1].info
        counts.append(np.sum(flat(events_of(info)["values"])))
    assert counts[1] <= 1.1 * counts[0]


@pytest.mark.parametrize("sizes", [full((4, 6, 5, 3)), (4, 7, 6, 5, 3)])
def test_counts_of_events_in_a_chain_as_thresholds_vanish(x64, sizes):
    """A unit sends in each step once the wave of errors has come down to it; the output in each, and at the end."""
    model, graph, x, y = network(sizes)
    last, steps = len(sizes) - 1, 6
    info = assigned(graded(1e-9, steps=steps, step_size=0.1), graph, model, x, y)[1].info
    found, names = events_of(info), [*graph.vertices, "output"]
    for layer in range(1, last):
        assert set(found["values"][names[layer - 1]]) == {sizes[layer] * (steps - (last - 1 - layer))}
        assert set(found["sweep"][names[layer - 1]]) == {sizes[layer]}
    for layer in range(2, last + 1):
        assert set(found["errors"][names[layer - 1]]) == {sizes[layer] * (steps + 1 - (last - layer))}


def test_units_are_silent_where_the_target_is_what_was_sent(x64):
    model, graph, x, _ = network()
    rule = graded(THRESHOLD, steps=STEPS, step_size=GAMMA)
    sent = {name: v[0] for name, v in recorded(rule, graph, model, x, jnp.zeros((3, 3))).activities.items()}
    y, _ = eqx.filter_jit(graph.predict)(model, sent, x)
    gradient, credit, _ = assigned(rule, graph, model, x, y)
    found = events_of(credit.info)
    assert not np.any(flat((found["values"], found["errors"])))
    assert np.all(flat(found["sweep"]) > 0)
    assert not np.any(flat(gradient))


@pytest.mark.parametrize("learn", ["end", full("mean"), "every"])
def test_without_error_events_no_weight_moves(learn):
    model, x, y = vc.nn.MLP((4, 6, 5, 3), key=jax.random.key(0)), jnp.ones((2, 4)), jnp.array([0, 2])
    graph, optimizer = vc.capture(model, x[0]), optax.adam(0.1)
    rule = EventInferenceLearning(error=Graded(10.0), learn=learn)
    new, *_, info = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(graph.trainable(model)), (), x, y)
    for before, after in zip(jax.tree.leaves(model), jax.tree.leaves(new), strict=True):
        np.testing.assert_array_equal(before, after)
    assert not np.any(flat(events_of(info)["errors"]))


class Exact(Code):
    """A code that a user writes: the residual as it is, but for small ones."""

    def quanta(self, residual, threshold):
        return jnp.where(jnp.abs(residual) > threshold, residual, jnp.zeros_like(residual))


def test_a_code_of_your_own(x64):
    model, graph, x, y = network()
    codes = {"activity": Exact(0.0), "error": Exact(0.0)}
    found = assigned(EventInferenceLearning(loss=SQUARED, **codes), graph, model, x, y)[0]
    expected = assigned(graded(0.0), graph, model, x, y)[0]
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-10, atol=1e-13)


def distance(units, others):
    pairs = zip([*units.v, *units.e], [*others.v, *others.e], strict=True)
    return np.sqrt(np.mean(np.concatenate([np.ravel(a - b) for a, b in pairs]) ** 2))


def test_lost_events_leave_a_distance_that_a_refresh_removes(x64):
    """Lost changes add up as in a random walk, with the root of their number; whole values, sent once, end that."""
    model, _, x, y = chain(batch=200)
    settings, steps = {"gamma": GAMMA, "threshold": 0.01}, 40
    whole = chip(model, x, y, **settings).sweep().run(steps)
    settled = chip(model, x, y, **settings).sweep().run(2 * steps)
    losses, distances, after = (0.001, 0.01, 0.1), [], []
    for loss in losses:
        tries = [chip(model, x, y, loss=loss, seed=seed, **settings).sweep().run(steps) for seed in range(3)]
        distances.append(np.sqrt(np.mean([distance(units, whole) ** 2 for units in tries])))
        for units in tries:
            units.loss = 0.0
            units.refresh().run(steps)
        after.append(np.sqrt(np.mean([distance(units, settled) ** 2 for units in tries])))
    slope = np.polyfit(np.log(losses), np.log(distances), 1)[0]
    assert 0.4 < slope < 1
    assert distances[-1] > 5 * settings["threshold"]
    assert max(after) < settings["threshold"]  # what thresholds leave open


def test_a_value_that_is_no_number_reaches_the_others():
    """It would otherwise stay where it is: no comparison with NaN says that a change is large."""
    model, x, y = vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), jnp.ones((2, 4)).at[0, 0].set(jnp.nan), jnp.array([0, 2])
    for code in (Graded(0.05), vc.events.Ternary(0.05)):
        rule = EventInferenceLearning(activity=code, error=code)
        credit = assigned(rule, vc.capture(model, x[0]), model, x, y)[1]
        assert np.all(np.isnan(credit.values["hidden1"][0]))
        assert np.all(np.isfinite(credit.values["hidden1"][1]))
        assert credit.info.result[0] == Result.NON_FINITE


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"steps": 0}, ValueError, "expected steps as an integer of at least 1, got 0"),
        ({"step_size": -1.0}, ValueError, "expected the step size of at least 0, got -1"),
        ({"activity": 0.05}, TypeError, "expected activity as a code of vicinal.events, got 0.05"),
        ({"error": Graded}, TypeError, "expected error as a code of vicinal.events"),
        ({"learn": "now"}, ValueError, "expected learn as 'end', 'any', 'mean' or 'every', got 'now'"),
        ({"part": 0.0}, ValueError, r"expected part, a part of the steps, above 0 to 1, got 0"),
        ({"part": True}, TypeError, "expected part as a Python number above 0 to 1, got True"),
        ({"apart": 1}, ValueError, "expected apart as True or False, got 1"),
        ({"streams": 0}, ValueError, "expected streams as an integer of at least 1, got 0"),
        ({"nudge": 0.0}, ValueError, r"expected nudge in \(0, 1\]"),
        ({"precision": -1.0}, ValueError, "expected precision of at least 0"),
        ({"loss": "mse"}, TypeError, "expected a loss as a function"),
    ],
)
def test_settings_out_of_range_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        EventInferenceLearning(**settings)


def test_a_precision_for_no_vertex_is_refused():
    model, x, y = vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), jnp.ones((2, 4)), jnp.array([0, 2])
    rule = EventInferenceLearning(precision={"hidden9": 1.0})
    with pytest.raises(ValueError, match="got one for 'hidden9'"):
        rule.value_and_grad(vc.capture(model, x[0]), model, (), x, y)


def test_events_of_each_step_sum_to_those_of_the_presentation(x64):
    model, graph, x, y = network()
    rule = graded(THRESHOLD, steps=STEPS, step_size=GAMMA)
    kept, info = recorded(rule, graph, model, x, y), assigned(rule, graph, model, x, y)[1].info
    found = events_of(info)
    for kind, rows in (("values", kept.activities), ("errors", kept.errors)):
        for name, count in found[kind].items():
            steps = [np.sum(b != a, axis=1) for a, b in itertools.pairwise(rows[name])]
            np.testing.assert_array_equal(np.sum(steps, axis=0), count)
