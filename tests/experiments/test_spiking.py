"""What is concluded of inference learning in spikes, from made-up numbers; and how streams move."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.data import load
from vicinal.reproduce import Found
from vicinal_experiments.spiking import any_time, learning, limits, streams as streaming
from vicinal_experiments.spiking.moving import REACH, streams
from vicinal_experiments.spiking.networks import within
from vicinal_experiments.spiking.operations import KINDS, operations

SPREAD = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])  # over five seeds
CHOSEN = {"rates": [0.1, 0.3, 1, 3], "accuracy": [0.8, 0.9, 0.7, 0.1], "chosen": 0.3}


def rows(accuracy):
    """Five stored members that end near an accuracy; None: they diverged."""
    if accuracy is None:
        return [{"numbers": {}, "seed": seed, "stopped": "diverged", "records": []} for seed in range(5)]
    return [
        {"numbers": {}, "seed": seed, "stopped": None, "records": [{"step": 1, "test_accuracy": accuracy + extra}]}
        for seed, extra in enumerate(SPREAD)
    ]


# ----------------------------------------------------------------------------------------------------------- limits


def limited(orders, last_ternary=1.0, growing=1.5):
    """Distances that fall with given orders of threshold or step, and events that grow by a factor from 20 to 80."""
    size = limits.LIMITS.sizes["full"]
    curves = {}
    for name, order in orders.items():
        places = np.array(size.time_steps if name == limits.FLOW else size.thresholds)
        curves[name] = [(scale * places**order).tolist() for scale in (0.9, 1.0, 1.1)]
    if limits.TERNARY not in orders:
        curves[limits.TERNARY] = [np.linspace(0.7, last_ternary, len(size.thresholds)).tolist()] * 3
    counts = [np.interp(size.steps, [20, 80], [100, 100 * growing]).tolist()] * 3
    return Found(size, 3, {"curves": curves, "events": counts})


FIRST = {limits.GRADED: 1.0, limits.SETTLED: 1.0, limits.FLOW: 1.0}


def test_a_slope_is_the_order_of_a_power_law():
    assert limits.slope([0.1, 0.2, 0.4], [0.03, 0.12, 0.48]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("order", "verdict"), [(1.0, "holds"), (1.14, "holds"), (1.3, "does not hold"), (0.5, "does not hold")]
)
def test_a_limit_of_first_order_has_a_slope_of_one(order, verdict):
    assert limits._limit(limited(FIRST | {limits.GRADED: order, limits.SETTLED: order})).verdict == verdict


def test_ternary_events_hold_if_they_fail_at_fixed_steps_and_reach_the_limit_otherwise():
    assert limits._ternary(limited(FIRST)).verdict == "holds"
    assert limits._ternary(limited(FIRST, last_ternary=0.01)).verdict == "holds in part"
    assert limits._ternary(limited(FIRST | {limits.FLOW: 0.0}, last_ternary=0.01)).verdict == "does not hold"


@pytest.mark.parametrize(("growing", "verdict"), [(1.9, "holds"), (2.1, "does not hold")])
def test_events_stop_growing(growing, verdict):
    assert limits._bounded(limited(FIRST, growing=growing)).verdict == verdict


# --------------------------------------------------------------------------------------------------------- any time


def timed(**changes):
    size = any_time.ANY_TIME.sizes["full"]
    labels = [*any_time.RULES, *map(str, size.times)]
    runs = {label: rows(changes.get(label, 0.9)) for label in labels}
    rates = dict.fromkeys(any_time.RULES, CHOSEN)
    directions = [np.linspace(0.5, 1, len(size.times)).tolist()] * 5
    return Found(size, 5, {data: {"runs": runs, "rates": rates, "directions": directions} for data in size.data})


def test_a_cost_is_judged_by_its_interval():
    assert within([0.9] * 5, [0.904] * 5, 0.005) == 1
    assert within([0.9] * 5, [0.906] * 5, 0.005) == -1
    assert within((0.9 + 3 * SPREAD).tolist(), [0.905] * 5, 0.005) == 0
    assert within([0.9, 0.9], [0.9, 0.9], 0.005) == 0


def test_any_time_holds_if_no_time_costs_more_than_half_a_point():
    assert any_time._any_time(timed()).verdict == "holds"
    assert any_time._any_time(timed(**{any_time.RANDOM: 0.89})).verdict == "holds in part"
    worse = dict.fromkeys((any_time.RANDOM, any_time.APART, any_time.MEAN), 0.89)
    assert any_time._any_time(timed(**worse)).verdict == "does not hold"
    assert any_time._any_time(timed(**{any_time.END: None})).verdict == "holds"


def test_the_first_step_is_too_early_if_it_costs_more_than_half_a_point():
    assert any_time._early(timed(**{"1": 0.5})).verdict == "holds"
    assert any_time._early(timed()).verdict == "does not hold"


def test_pages_show_every_time():
    sections = any_time._sections(timed(**{"1": 0.5}))
    table = sections[0].tables[0]
    assert [row[0] for row in table.rows][-7:] == [f"after step {n}" for n in (1, 2, 4, 7, 10, 15, 20)]
    assert sections[0].panels[0].series[0].y[2][0] == pytest.approx(50.0)


# --------------------------------------------------------------------------------------------------------- learning


def counts(each):
    return [dict.fromkeys(KINDS, each * (1 + extra)) for extra in SPREAD]


def learned(operations=None, **accuracies):
    size = learning.LEARNING.sizes["full"]
    longer = f"{learning.GRADED}, 80 steps"
    runs = {label: rows(accuracies.get(label, 0.9)) for label in learning.RULES}
    few = {learning.IL: 1e5, learning.QUANTISED: 500} | (operations or {})
    by_label = {label: counts(few.get(label, 1000)) for label in [*learning.RULES, longer]}
    rates = dict.fromkeys(learning.RULES, CHOSEN)
    return Found(size, 5, {data: {"runs": runs, "operations": by_label, "rates": rates} for data in size.data})


def test_events_are_as_accurate_if_they_are_within_half_a_point():
    assert learning._as_accurate(learned(ternary=0.8)).verdict == "holds"
    assert learning._as_accurate(learned(graded=0.8)).verdict == "does not hold"
    assert learning._others_as_accurate(learned(graded=0.8)).verdict == "holds"
    assert learning._others_as_accurate(learned(ternary=0.8)).verdict == "holds in part"
    assert learning._others_as_accurate(learned(**dict.fromkeys(learning.OTHERS, 0.8))).verdict == "does not hold"


def test_few_operations_are_three_percent_and_do_not_double():
    longer = f"{learning.GRADED}, 80 steps"
    assert learning._few(learned()).verdict == "holds"
    assert learning._few(learned({longer: 2100})).verdict == "holds in part"
    assert learning._few(learned({learning.GRADED: 4000, longer: 9000})).verdict == "does not hold"


def test_fewer_operations_than_backpropagation_are_judged_seed_by_seed():
    assert learning._against_backpropagation(learned()).verdict == "does not hold"
    assert learning._against_backpropagation(learned({learning.QUANTISED: 2000})).verdict == "holds"
    assert learning._against_backpropagation(learned({learning.QUANTISED: 1000})).verdict == "open"


def test_operations_of_dense_rules_are_their_multiplications():
    model = vc.nn.MLP((5, 4, 3, 2), "relu", vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((1, 5)), jnp.array([1])
    graph, above = vc.capture(model, x[0]), 4 * 3 + 3 * 2
    backprop = operations(vc.rules.Backprop(), graph, model, x, y)
    assert backprop == {"values": 0, "errors": above, "weights": 20 + above, "sweep": 20 + above}
    settled = operations(vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=7)), graph, model, x, y)
    assert settled == {"values": 7 * above, "errors": 7 * above, "weights": 20 + above, "sweep": 20 + above}


def test_a_spike_counts_at_each_of_its_synapses():
    model = vc.nn.MLP((5, 4, 3, 2), "relu", vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((1, 5)), jnp.array([1])
    graph, rule = vc.capture(model, x[0]), vc.rules.SpikingInferenceLearning(steps=30)
    sent = rule.credit(graph, model, (), x, y)[0].info.events
    found = operations(rule, graph, model, x, y)
    assert found["values"] == 3 * int(sent.values["hidden1"][0]) + 2 * int(sent.values["hidden2"][0])
    assert found["errors"] == 4 * int(sent.errors["hidden2"][0]) + 3 * int(sent.errors["output"][0])
    assert found["errors"] > 0


# ---------------------------------------------------------------------------------------------------------- streams


def streamed(operations=None, **accuracies):
    size = streaming.STREAMS.sizes["full"]
    labels = streaming.rules(size.streams)
    few = {streaming.CARRIED: 100, streaming.CARRIED_FEW: 100} | (operations or {})
    found = {
        label: {
            "accuracy": (accuracies.get(label, 0.9) + SPREAD).tolist(),
            "operations": [[one] * (size.counted * size.shown) for one in counts(few.get(label, 1000))],
        }
        for label in labels
    }
    rates = dict.fromkeys(labels, CHOSEN)
    return Found(size, 5, {data: {"found": found, "rates": rates} for data in size.data})


def test_carrying_on_saves_operations_if_it_does_for_each_seed():
    assert streaming._saves(streamed()).verdict == "holds"
    assert streaming._saves(streamed({streaming.CARRIED: 2000})).verdict == "does not hold"
    assert streaming._against_backpropagation(streamed()).verdict == "holds"
    assert streaming._against_backpropagation(streamed({streaming.CARRIED: 2000})).verdict == "holds in part"


def test_carrying_on_costs_nothing_if_accuracies_are_within_half_a_point():
    assert streaming._as_accurate(streamed()).verdict == "holds"
    assert streaming._as_accurate(streamed(carried=0.8)).verdict == "holds in part"


def test_digits_move_slowly_and_are_all_there():
    data = load("digits").flattened()
    found = streams(data, "train", number=5, turns=3, shown=16, seed=1)
    frames = [found.frame(jnp.asarray(t)) for t in range(found.frames)]
    for t, (x, y) in enumerate(frames):
        chosen = np.asarray(found.order)[t // 16]
        assert np.array_equal(y, data.y_train[chosen])
        np.testing.assert_allclose(np.sort(x, axis=1), np.sort(data.x_train[chosen], axis=1))
    pairs = itertools.pairwise(np.asarray(x) for x, _ in frames[:16])
    steps = [np.mean(np.any(a != b, axis=1)) for a, b in pairs]
    assert 0 < np.mean(steps) < 0.5  # most frames are those before
    assert REACH[28] == 3
