"""What a network shows of one example, against its recording."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from once import once

import vicinal as vc
from vicinal.compare import TrainSettings, train
from vicinal.events import Ternary
from vicinal.presentations import presented
from vicinal.rules import EventInferenceLearning, SpikingInferenceLearning
from vicinal.settings import ModelSettings


@once
def network():
    model = vc.nn.MLP((6, 60, 4, 3), vertex_at="pre", key=jax.random.key(0))
    x = 2 * jax.random.normal(jax.random.key(1), (4, 6))
    return vc.capture(model, x[0]), model, x, jnp.arange(4) % 3


def test_events_add_up_to_what_was_sent():
    rule = EventInferenceLearning(steps=9, activity=Ternary(0.03), error=Ternary(0.02))
    graph, model, x, y = network()
    found, recording = presented(rule, *network()), rule.record(graph, model, (), x[:1], y[:1])
    assert [(sent.node, sent.kind, sent.units, sent.of) for sent in found.sent] == [
        ("hidden1", "values", 48, 60),
        ("hidden2", "values", 4, 4),
        ("hidden2", "errors", 4, 4),  # nobody receives those of hidden1
        ("output", "errors", 3, 3),
    ]
    for sent, rows, size in [
        (found.sent[1], recording.activities["hidden2"], 0.03),
        (found.sent[2], recording.errors["hidden2"], 0.02),
    ]:
        rows, steps = np.asarray(rows), np.zeros((len(rows), sent.units))
        np.add.at(steps, (sent.times, sent.places), size * np.array(sent.signs))
        np.testing.assert_allclose(np.cumsum(steps, axis=0), rows[:, 0] - rows[0, 0], atol=1e-6)
    each = np.count_nonzero(np.diff(recording.activities["hidden1"][:, 0], axis=0), axis=0)
    assert len(found.sent[0].times) == np.sort(each)[-48:].sum()


def test_courses_are_those_of_units_that_sent_most():
    rule = EventInferenceLearning(steps=9, activity=Ternary(0.03))
    graph, model, x, y = network()
    found, recording = presented(rule, *network()), rule.record(graph, model, (), x[:1], y[:1])
    assert len(found.units) == 3
    for course, node in zip(found.units, ["hidden2", "hidden1"], strict=False):
        unit = int(course.name.removeprefix(f"{node}[").removesuffix("]"))
        each = np.count_nonzero(np.diff(recording.activities[node][:, 0], axis=0), axis=0)
        assert each[unit] == each.max()
        np.testing.assert_allclose(course.held, recording.values[node][:, 0, unit])
        np.testing.assert_allclose(course.sent, recording.activities[node][:, 0, unit])


def test_spikes_are_shown_in_the_same_way():
    rule = SpikingInferenceLearning(steps=9)
    graph, model, x, y = network()
    found, recording = presented(rule, *network()), rule.record(graph, model, (), x[:1], y[:1])
    assert len(found.sent[1].times) == np.count_nonzero(recording.value_spikes["hidden2"])
    assert found.steps == 9


def test_streams_are_shown_from_the_first_frame_on():
    found = presented(EventInferenceLearning(steps=9, carry=True, streams=4), *network())
    assert found.sent == presented(EventInferenceLearning(steps=9), *network()).sent


@pytest.mark.parametrize("rule", [vc.rules.Backprop(), vc.rules.EventBackprop(), vc.rules.InferenceLearning()])
def test_rules_that_do_not_settle_by_events_have_none(rule):
    assert presented(rule, *network()) is None


def test_train_writes_events_into_its_report(tmp_path):
    settings = TrainSettings(rule="il-events", model=ModelSettings(sizes=(64, 8, 10)), epochs=1, batch_size=256)
    (result,) = train(settings, tmp_path, progress=False).rules
    assert result.presentation is not None
    assert all(name in result.curve.more for name in ("value_events", "error_events"))
    page = (tmp_path / "report.html").read_text()
    assert "Value events" in page
    assert "events of errors" in page
    assert "value_events" in (tmp_path / "curves.csv").read_text()
