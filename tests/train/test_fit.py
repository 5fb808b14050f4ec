"""The training loop: the right arithmetic, one compilation, and the given model, data and key left as they are."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_builders import (
    ADAM,
    BACKPROP,
    KEY,
    LEARNING,
    MODEL,
    RUNS,
    SETTLING,
    SGD,
    X,
    Y,
    batch_list,
    bits,
    by_hand,
    in_turn,
    shuffled,
    train,
    untimed,
)
from matrix import full

import vicinal as vc
from vicinal.data import Dataset, epoch_order
from vicinal.train.files import METRICS
from vicinal.train.log import read
from vicinal.train.progress import TrainingProgress

# ----------------------------------------------------------------------------------------------- the right arithmetic


@pytest.mark.parametrize("name", [full(name) if name.startswith("direct") else name for name in RUNS])
def test_equals_a_plain_loop_of_steps(name):
    rule, optimizer, data = RUNS[name]
    each = shuffled() if isinstance(data, tuple) else in_turn(data)
    run = train(rule, optimizer, data, steps=23, evaluate_every=7)
    states, losses = by_hand(rule, optimizer, 23, each)
    for got, expected in zip(jax.tree.leaves(run.model), jax.tree.leaves(states[-1][0]), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
    assert [record["step"] for record in run.records] == [7, 14, 21, 23]
    sizes = [len(each(i)[1]) for i in range(23)]  # an example counts the same in batches of any size
    spans = ((0, 7), (7, 14), (14, 21), (21, 23))
    means = [np.average(losses[a:b], weights=sizes[a:b]) for a, b in spans]
    np.testing.assert_allclose([record["train_loss"] for record in run.records], means, rtol=1e-5)
    assert int(run.state.step) == 23
    assert run.stopped is None


@pytest.mark.usefixtures("x64")
def test_double_precision():
    model = vc.nn.MLP((4, 6, 3), key=jax.random.key(0))
    x, y = X.astype(np.float64), Y
    run = train(LEARNING, SGD, (x, y), model, steps=9, graph=None)
    states, losses = by_hand(LEARNING, SGD, 9, shuffled(x, y), model)
    for got, expected in zip(jax.tree.leaves(run.model), jax.tree.leaves(states[-1][0]), strict=True):
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(run.records[0]["train_loss"], np.mean(losses[:6]), rtol=1e-12)


def test_records_hold_accuracies_of_training_and_test():
    run = train(steps=6, optimizer=optax.sgd(0.0), test=(X, Y))
    right = np.asarray(jax.vmap(MODEL)(X)).argmax(-1) == Y
    seen = np.asarray(epoch_order(jax.random.split(KEY, 3)[0], 0, 50))[:48]
    (record,) = run.records  # the model stays as it is: a rate of zero
    assert record["test_accuracy"] == pytest.approx(right.mean(), rel=1e-6)
    assert record["train_accuracy"] == pytest.approx(right[seen].mean(), rel=1e-6)
    assert record["epoch"] == 1.0
    assert "inference_failures" not in record


def test_a_dataset_brings_its_test_part():
    data = Dataset("mine", X, Y, X[:7], Y[:7], classes=3)
    own, other = train(data=data, steps=6), train(data=data, steps=6, test=(X, Y))
    plain = train(steps=6, test=(X[:7], Y[:7]))
    assert untimed(own.records) == untimed(plain.records)
    assert own.records[0]["test_loss"] != other.records[0]["test_loss"]


def test_targets_that_are_no_labels_have_no_accuracy(tmp_path):
    rule = vc.rules.InferenceLearning(SETTLING, loss=vc.losses.squared_error)
    model = vc.nn.MLP((4, 2, 4), key=jax.random.key(0))
    train(rule, ADAM, (X, X), model, graph=None, epochs=2, test=(X, X), folder=tmp_path)
    lines = (tmp_path / METRICS).read_text().splitlines()
    records = [json.loads(line, parse_constant=pytest.fail) for line in lines]  # no NaN, no Infinity
    assert len(records) == 2
    for record in records:
        expected = {"step", "epoch", "train_loss", "inference_failures", "examples_per_second", "test_loss"}
        assert set(record) == expected
        assert all(np.isfinite(value) for value in record.values())


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"epochs": 2}, [6, 12]),
        ({"steps": 12}, [6, 12]),
        ({"steps": 13}, [6, 12, 13]),
        ({"steps": 5, "evaluate_every": 100}, [5]),
        ({"epochs": 1, "evaluate_every": 4}, [4, 6]),
        ({"steps": 3, "evaluate_every": 1}, [1, 2, 3]),
        ({"epochs": 2, "batch_size": 50}, [1, 2]),
        ({"steps": np.int64(7), "evaluate_every": np.int64(7)}, [7]),
        ({"steps": 9, "data": batch_list([8, 8])}, [9]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_records_come_at_evaluations_and_at_the_end(settings, steps):
    run = train(**settings)
    assert [record["step"] for record in run.records] == steps
    assert int(run.state.sums["steps"]) == 0


def test_on_record_adds_to_the_record_and_may_keep_the_state(tmp_path):
    kept = []

    def add(record, state):
        record["bias"] = state.model.layers[0].bias
        kept.append(state)

    run = train(steps=12, folder=tmp_path, on_record=add)
    assert [int(state.step) for state in kept] == [6, 12]
    for record, state in zip(read(tmp_path / METRICS), kept, strict=True):
        np.testing.assert_allclose(record["bias"], state.model.layers[0].bias)
    assert run.records == read(tmp_path / METRICS)


# ------------------------------------------------------------------------------------------ one compilation, no harm


OPTIMIZERS = {
    "adam": ADAM,
    "schedule": optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(0.1, 0.01, 10)),
    "accumulated": optax.MultiSteps(ADAM, 3),
    "noisy": optax.chain(optax.add_noise(0.1, 0.55, 0), SGD),
}


@pytest.mark.parametrize("kind", ["adam", full("schedule"), "accumulated", full("noisy")])
def test_one_compilation_for_a_run_and_none_for_the_next(compiled, cut, kind):
    optimizer = OPTIMIZERS[kind]
    graph = vc.capture(MODEL, X[0])  # new, so that nothing is compiled yet
    cut(4)
    train(LEARNING, optimizer, steps=13, test=(X, Y), graph=graph)  # chunks of 1, 1, 4, then 4, 2, then 1
    assert compiled.count("_advance") == 1
    compiled.clear()
    cut(5)
    faster = vc.rules.InferenceLearning(dataclasses.replace(SETTLING, step_size=jnp.array(0.3)), start="random")
    train(faster, optimizer, (X + 1, Y), steps=17, evaluate_every=7, key=jax.random.key(8), test=(X, Y), graph=graph)
    assert not {"_advance", "_evaluate"} & set(compiled)


def test_one_compilation_for_each_size_of_batch(compiled, cut):
    cut(4)
    batches, graph = batch_list([8, 8, 8, 3]), vc.capture(MODEL, X[0])
    train(LEARNING, SGD, batches, steps=21, graph=graph)
    assert compiled.count("_advance") == 2
    compiled.clear()
    train(LEARNING, SGD, batches, steps=30, graph=graph)
    assert "_advance" not in compiled


def test_weak_types_are_no_reason_to_compile_again(compiled):
    class Counting(vc.rules.Backprop):
        """Remembers plain numbers, one of which becomes a weakly typed array."""

        def init(self, graph, model, *, key=None):
            return {"calls": 0, "half": 0.5, "of": np.ones(2, np.float32)}

        def credit(self, graph, model, state, x, y, *, key=None):
            credit, _ = super().credit(graph, model, (), x, y)
            return credit, {"calls": state["calls"] + 1, "half": jnp.asarray(0.5) * 1.0, "of": state["of"] * 2}

    model = eqx.tree_at(lambda m: m.layers[0].bias, MODEL, jnp.broadcast_to(jnp.asarray(0.5), (6,)))
    assert model.layers[0].bias.weak_type
    run = train(Counting(), ADAM, model=model, steps=13)
    assert compiled.count("_advance") == 1
    assert int(run.state.rule_state["calls"]) == 13
    assert float(run.state.rule_state["of"][0]) == 2.0**13


def test_what_was_given_stays_as_it_was():
    model = jax.tree.map(lambda leaf: leaf + 0, MODEL)
    given = (model, X, Y, KEY)
    before = bits(given)
    runs = [train(LEARNING, ADAM, model=model, steps=8) for _ in range(2)]
    assert bits(given) == before  # and no buffer is gone
    assert bits(runs[0].state) == bits(runs[1].state)
    again = train(LEARNING, ADAM, model=runs[0].model, steps=3)
    assert bits(runs[0].state) == bits(runs[1].state)
    assert bits(again.model) != bits(runs[0].model)


def test_one_array_in_two_places_becomes_two_parameters():
    shared = jax.random.normal(jax.random.key(4), (4, 4))

    def network(weights, x):
        return weights["out"] @ vc.vertex(jnp.tanh(weights["in"] @ x), "hidden")

    tied = jax.tree_util.Partial(network, {"in": shared, "out": shared})
    untied = jax.tree_util.Partial(network, {"in": shared, "out": shared + 0})
    runs = [train(BACKPROP, ADAM, (X, Y), model, steps=8, graph=None) for model in (tied, untied)]
    assert bits(runs[0].model) == bits(runs[1].model)
    assert not shared.is_deleted()


# ------------------------------------------------------------------------------------------------------------- progress


def test_progress_false_prints_nothing(capfd, monkeypatch):
    monkeypatch.setattr(TrainingProgress, "_QUIET_SECONDS", 0.0)
    train(steps=6)
    assert capfd.readouterr() == ("", "")
    train(steps=6, progress=None)
    assert "training: step 6 of 6  loss " in capfd.readouterr().err


def test_the_pace_of_a_run_is_measured():
    run = train(steps=30)
    assert run.seconds_per_step > 0
    assert all(record["examples_per_second"] > 0 for record in run.records)
