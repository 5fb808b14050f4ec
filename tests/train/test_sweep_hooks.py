"""In a sweep each member has hooks of its own: one that is stopped is frozen, and the others go on."""

import csv
import sys
import types

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.train import Stop, fit, keys_of, load_model, showing, sweep
from vicinal.train.hooks import CSVLog, EarlyStopping, TensorBoard, WeightsAndBiases
from vicinal.train.progress import TrainingProgress

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 32).astype(np.int32)
GRAPH = vc.capture(vc.nn.MLP((4, 3), key=jax.random.key(0)), X[0])
STOPPING = EarlyStopping("made_loss", patience=2)


def build(key):
    return vc.nn.MLP((4, 3), key=key)


def make(learning_rate):
    return vc.rules.Backprop(), optax.sgd(learning_rate)


def measure(record, state):
    """A made-up loss, which is best at step 4 for a small bias and falls for ever otherwise."""
    small = float(np.abs(state.model.layers[0].weight).max()) < 100
    record["made_loss"] = abs(record["step"] - 4) if small else -record["step"]


def run(**settings):
    defaults = {"steps": 12, "batch_size": 8, "evaluate_every": 2, "group_size": 2, "graph": GRAPH, "progress": False}
    given = defaults | {"on_record": measure, "hooks": [STOPPING], "devices": jax.devices()[:1]} | settings
    return sweep(make, build, (X, Y), {"learning_rate": [0.1, 1e3, 0.2]}, **given)


def alone(rate, **settings):
    given = {"steps": 12, "batch_size": 8, "evaluate_every": 2, "graph": GRAPH, "progress": False}
    model_key, key = keys_of(0)
    return fit(*make_pair(rate, model_key), (X, Y), key=key, on_record=measure, hooks=[STOPPING], **given | settings)


def make_pair(rate, key):
    rule, optimizer = make(rate)
    return rule, build(key), optimizer


def close(got, expected):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))]


def untimed(member):
    return [
        {name: value for name, value in record.items() if name != "examples_per_second"} for record in member.records
    ]


def test_each_member_stops_as_it_would_alone(tmp_path):
    done = run(folder=tmp_path)
    assert [member.steps for member in done.members] == [8, 12, 8]
    assert [member.stopped_by for member in done.members] == ["EarlyStopping", None, "EarlyStopping"]
    assert done.members[0].stopped == (
        "stopped by EarlyStopping at step 8: made_loss has not improved for 2 records (best 0 at step 4)"
    )
    for i in (0, 1):
        member = done.members[i]
        single = alone(member.numbers["learning_rate"])
        assert single.stopped == member.stopped
        close(member.model, single.model)
        close(member.best, single.best)
        assert [record["step"] for record in member.records] == [
            record["step"] for record in single.records if "stopped" not in record
        ]
        assert bits(load_model(tmp_path, member.model, member=i, best=True)) == bits(member.best)


def test_an_interrupted_sweep_stops_the_same_members_at_the_same_steps(tmp_path, monkeypatch):
    whole = run(folder=tmp_path / "whole")
    for step in (4, 8):
        folder = tmp_path / f"cut{step}"

        def update(self, done, *_, step=step):
            if done >= step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(TrainingProgress, "update", update)
            with pytest.raises(KeyboardInterrupt):
                run(folder=folder, checkpoint_seconds=0.0)
        resumed = run(folder=folder, resume=True)
        for got, expected in zip(resumed.members, whole.members, strict=True):
            assert (got.steps, got.stopped) == (expected.steps, expected.stopped)
            assert bits(got.model) == bits(expected.model)
            assert bits(got.best) == bits(expected.best)
            assert untimed(got) == untimed(expected)


def test_functions_and_tables_of_each_member(tmp_path):
    def enough(record, state):
        return Stop("enough") if record["step"] == 4 and abs(record["made_loss"]) == 0 else None

    done = run(hooks=[enough, CSVLog(tmp_path / "table.csv")])
    assert [(member.steps, member.stopped_by) for member in done.members] == [(4, "enough"), (12, None), (4, "enough")]
    for i, member in enumerate(done.members):
        with open(tmp_path / f"table-{i}.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [int(row["step"]) for row in rows] == [record["step"] for record in member.records]
        assert [float(row["train_loss"]) for row in rows] == [record["train_loss"] for record in member.records]
        assert member.best is None


def test_each_member_has_curves_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    begun = []

    class Run:
        def __init__(self, **settings):
            self.settings, self.steps, self.finished = settings, [], False
            begun.append(self)

        def log(self, row, step):
            self.steps.append(step)

        def finish(self):
            self.finished = True

    fake = types.ModuleType("wandb")
    fake.init = Run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    done = run(hooks=[TensorBoard(tmp_path), WeightsAndBiases("mine", config={"rule": "bp"})])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["member-0", "member-1", "member-2"]
    for member, (i, logged) in zip(done.members, enumerate(begun), strict=True):
        assert logged.settings["config"] == {"rule": "bp", **member.numbers, "seed": 0}
        assert (logged.settings["name"], logged.settings["reinit"]) == (f"member-{i}", "create_new")
        assert logged.steps == [record["step"] for record in member.records]
        assert logged.finished


def test_a_member_that_a_hook_stopped_may_be_the_best():
    members = [
        vc.train.Member({"rate": rate}, 0, [{"step": 2, "test_loss": loss}], 2, stopped, None, by)
        for rate, loss, stopped, by in (
            (0.1, 0.5, "enough", "enough"),
            (0.2, 0.7, None, None),
            (0.3, 0.1, "broke", None),
        )
    ]
    assert showing.best(members) == ("test_loss", members[0])
    text = showing.sweep_text(members)
    assert "best test_loss=0.5 at rate=0.1, seed=0; 1 diverged; 1 stopped by a hook)" in text


def test_what_is_no_hook_is_refused():
    with pytest.raises(TypeError, match=r"expected hooks as a list, got EarlyStopping"):
        run(hooks=STOPPING)
