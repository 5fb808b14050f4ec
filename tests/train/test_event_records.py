"""Numbers of events in records: of single runs, of sweeps, of resumed ones; and none for rules without events."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fit_builders import ADAM, GRAPH, KEY, LEARNING, MODEL, X, Y, bits, by_hand, one_step, shuffled, train, untimed

import vicinal as vc
from vicinal.events import Events, Graded, Ternary
from vicinal.inference import Result
from vicinal.train import sweep
from vicinal.train.evaluate import first_sums, means, measured
from vicinal.train.files import METRICS
from vicinal.train.log import read
from vicinal.train.totals import add

EVENTS = vc.rules.EventInferenceLearning(steps=4, step_size=0.2, activity=Ternary(0.05), error=Graded(0.01))
NAMES = ("value_events", "error_events", "slew_limited", "rate_limited")


def info(values, errors, codes):
    sent = Events(*({name: jnp.array(n, jnp.int32) for name, n in each.items()} for each in (values, errors, values)))
    return vc.Info(jnp.zeros((len(codes), 3)), result=jnp.array(codes, jnp.int32), events=sent)


def test_events_are_means_over_examples():
    late, crowded = Result.SLEW_LIMITED, Result.RATE_LIMITED
    first = info({"a": [1, 2], "b": [10, 0]}, {"output": [3, 4]}, [late, crowded])
    second = info({"a": [5], "b": [0]}, {"output": [0]}, [late])
    labels = np.zeros(2, np.int32)
    sums = first_sums(GRAPH, {}, labels, True)
    for one, y in ((first, labels), (second, labels[:1])):
        sums = add(sums, measured(jnp.float32(0), one, y, {}, True))
    found = means(sums, {})
    assert [found[name] for name in NAMES] == pytest.approx([18 / 3, 7 / 3, 2 / 3, 1 / 3])


def test_what_a_rule_does_not_have_is_left_out():
    backprop = vc.Info(jnp.zeros((1, 3)), events=Events({}, {"output": jnp.array([4])}, {}))  # it settles nothing
    found = means(measured(jnp.float32(0), backprop, np.zeros(1, int), {}, True), {})
    assert found == {"train_loss": 0.0, "value_events": 0.0, "error_events": 4.0}
    with pytest.raises(ValueError, match="expected numbers of events from a rule with sends_events = True, got None"):
        measured(jnp.float32(0), vc.Info(jnp.zeros((1, 3))), np.zeros(1, int), {}, True)


@pytest.mark.parametrize("rule", [LEARNING, vc.rules.Backprop()])
def test_other_rules_keep_their_sums(rule):
    assert not rule.sends_events
    assert "events" not in first_sums(GRAPH, {}, Y)
    run = train(rule, steps=2)
    assert set(run.state.sums) == {"steps", "examples", "loss", "inference_failures", "metrics"}
    assert not set(NAMES) & set(run.records[-1])


def test_records_count_what_updates_sent(tmp_path):
    (record,) = train(EVENTS, ADAM, steps=3, folder=tmp_path).records
    states, _ = by_hand(EVENTS, ADAM, 3, shuffled())
    step_key = jax.random.split(KEY, 3)[2]
    counts = np.zeros(4)
    for i in range(3):
        *_, seen = one_step(EVENTS, GRAPH, ADAM, states[i], *shuffled()(i), jax.random.fold_in(step_key, i))
        numbers = [sum(map(np.sum, each.values())) for each in (seen.events.values, seen.events.errors)]
        counts += [*numbers, *(np.sum(seen.result == code) for code in (Result.SLEW_LIMITED, Result.RATE_LIMITED))]
    assert all(counts[:2] > 0)
    assert [record[name] for name in NAMES] == pytest.approx(list(counts / 24))
    assert read(tmp_path / METRICS) == [record]


def test_a_resumed_run_has_the_same_bits(tmp_path, interrupt, cut):
    settings = {"steps": 9, "evaluate_every": 4}
    whole = train(EVENTS, ADAM, folder=tmp_path / "whole", **settings)
    cut(1)
    interrupt(6)
    with pytest.raises(KeyboardInterrupt):
        train(EVENTS, ADAM, folder=tmp_path / "cut", **settings)
    interrupt(100)
    resumed = train(EVENTS, ADAM, folder=tmp_path / "cut", resume=True, **settings)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(read(tmp_path / "cut" / METRICS)) == untimed(read(tmp_path / "whole" / METRICS))
    assert all(name in record for name in NAMES for record in resumed.records)


def test_members_of_a_sweep_count_as_single_runs():
    def make(threshold):
        return vc.rules.EventInferenceLearning(steps=4, step_size=0.2, activity=Graded(threshold)), ADAM

    done = sweep(
        make,
        lambda key: MODEL,
        (X, Y),
        numbers={"threshold": [0.02, 0.2]},
        seeds=1,
        steps=4,
        batch_size=8,
        progress=False,
    )
    fine, coarse = (member.records[-1] for member in done.members)
    assert fine["value_events"] > coarse["value_events"]
    assert fine["slew_limited"] == 0.0  # graded events follow at once
