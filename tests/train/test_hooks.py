"""Hooks stop a run and say why, survive an interruption bit for bit, and write what the records say."""

import csv
import dataclasses
import struct
import sys
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.train import Stop, checkpoint, fit, loop
from vicinal.train.files import CHECKPOINT, METRICS
from vicinal.train.hooks import CSVLog, EarlyStopping, Hook, TensorBoard, WeightsAndBiases
from vicinal.train.log import read
from vicinal.train.progress import TrainingProgress

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(32, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 32).astype(np.int32)
MODEL = vc.nn.MLP((4, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])
BACKPROP, ADAM = vc.rules.Backprop(), optax.adam(1e-2)

# What a run measures, made up: the best is 1.0 at step 6, then three records without a better one.
CURVE = {2: 3.0, 4: 2.0, 6: 1.0, 8: 1.5, 10: 1.2, 12: float("nan"), 14: 0.5, 16: 0.4}


def measure(record, state):
    record["made_loss"] = CURVE[record["step"]]


def train(**settings):
    defaults = {"key": jax.random.key(5), "batch_size": 8, "graph": GRAPH, "progress": False, "steps": 16}
    given = defaults | {"evaluate_every": 2, "on_record": measure} | settings
    return fit(BACKPROP, MODEL, ADAM, (X, Y), **given)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))]


@pytest.fixture
def interrupted(monkeypatch):
    """interrupted(step, **settings): a run that Ctrl-C ends after a step."""

    def run(step, **settings):
        def update(self, done, *_):
            if done >= step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(loop, "_LONGEST_CHUNK", 1)
            patch.setattr(TrainingProgress, "update", update)
            with pytest.raises(KeyboardInterrupt):
                train(**settings)

    return run


# --------------------------------------------------------------------------------------------------------- stopping


def test_a_function_stops_the_run_and_the_run_says_why(tmp_path):
    def enough(record, state):
        assert int(state.step) == record["step"]
        return Stop("it is enough") if record["step"] == 6 else None

    run = train(hooks=[enough], folder=tmp_path)
    assert int(run.state.step) == 6
    assert run.stopped == "stopped by enough at step 6: it is enough"
    assert run.stopped_by == "enough"
    assert [record["step"] for record in run.records] == [2, 4, 6]
    assert "test_loss" in run.records[-1] or "train_loss" in run.records[-1]
    assert read(tmp_path / "metrics.jsonl")[-1] == {"step": 6, "stopped": run.stopped, "stopped_by": "enough"}
    assert run.best is None
    assert bits(run.model) == bits(train(steps=6).model)
    # Without the hook it goes on, as if it had never stopped.
    resumed = train(folder=tmp_path, resume=True)
    assert bits(resumed.model) == bits(train().model)
    assert resumed.stopped is None
    assert [record["step"] for record in resumed.records] == [2, 4, 6, 8, 10, 12, 14, 16]


def test_the_last_step_is_no_stop():
    run = train(hooks=[lambda record, state: Stop("late") if record["step"] == 16 else None])
    assert (run.stopped, run.stopped_by) == (None, None)


def test_divergence_is_no_hook():
    run = fit(
        BACKPROP, MODEL, optax.sgd(1e38), (X * 1e3, Y), key=jax.random.key(5), steps=9, batch_size=8, progress=False
    )
    assert run.stopped is not None
    assert run.stopped_by is None


def test_hooks_come_after_on_record_in_order_and_before_the_log(tmp_path):
    def first(record, state):
        record["twice"] = 2 * record["made_loss"]

    def second(record, state):
        assert record["twice"] == 6.0
        assert read(tmp_path / METRICS) == []
        return Stop("seen")

    assert train(hooks=[first, second], folder=tmp_path).records[0]["twice"] == 6.0


class Lasting(Hook):
    """Notes when it is begun and ended."""

    def __init__(self, notes):
        self.notes = notes

    def begin(self, start):
        self.notes.append(("begin", start.step, [record["step"] for record in start.records], start.resumed))

    def end(self):
        self.notes.append("end")


def test_a_hook_is_begun_with_the_records_and_ended_whatever_happens(tmp_path, interrupted):
    notes = []
    interrupted(5, hooks=[Lasting(notes)], folder=tmp_path)
    train(hooks=[Lasting(notes)], folder=tmp_path, resume=True)
    assert notes == [("begin", 0, [], False), "end", ("begin", 5, [2, 4], True), "end"]


@pytest.mark.parametrize(
    ("hooks", "sentence"),
    [
        (EarlyStopping(), r"expected hooks as a list, got EarlyStopping; write hooks=\[...\]"),
        ([EarlyStopping], r"expected a hook, got the class EarlyStopping; write EarlyStopping\(...\)"),
        (["early"], r"expected a hook as a function of \(record, state\), got 'early'"),
        ([lambda record, state: True], r"expected a hook to return None or vc\.train\.Stop\(reason\), got True"),
    ],
    ids=["no list", "class", "string", "truth"],
)
def test_what_is_no_hook_is_refused(hooks, sentence):
    with pytest.raises(TypeError, match=sentence):
        train(hooks=hooks)


class Failing(Hook):
    """Cannot begin."""

    def begin(self, start):
        raise OSError("no place to write")


def test_a_hook_that_cannot_begin_ends_those_before_it():
    notes = []
    with pytest.raises(OSError, match="no place to write"):
        train(hooks=[Lasting(notes), Failing(), Lasting(notes)])
    assert notes == [("begin", 0, [], False), "end"]


@pytest.mark.parametrize("step", [2, 6, 10])
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_hook_that_fails_costs_nothing(tmp_path, step, first):
    def failing(record, state):
        if record["step"] == step:
            raise OSError("the disk is full")

    stopping = EarlyStopping("made_loss", patience=3)
    whole = train(hooks=[stopping], folder=tmp_path / "whole")
    with pytest.raises(OSError, match="the disk is full"):
        train(hooks=[failing, stopping] if first else [stopping, failing], folder=tmp_path / "cut")
    assert step == 2 or checkpoint.read_metadata(tmp_path / "cut" / "best.npz")["step"] < step  # it has a record
    resumed = train(hooks=[stopping], folder=tmp_path / "cut", resume=True)
    assert resumed.stopped == whole.stopped
    assert bits(resumed.model) == bits(whole.model)
    assert bits(resumed.best) == bits(whole.best)
    records = [
        [{**row, "examples_per_second": 0} for row in run.records if "stopped" not in row] for run in (resumed, whole)
    ]
    assert repr(records[0]) == repr(records[1])


# --------------------------------------------------------------------------------------------------- early stopping


STOPPING = EarlyStopping("made_loss", patience=3)


def test_early_stopping_keeps_the_best_model():
    run = train(hooks=[STOPPING])
    assert run.stopped == (
        "stopped by EarlyStopping at step 12: made_loss has not improved for 3 records (best 1 at step 6)"
    )
    assert int(run.state.step) == 12
    assert bits(run.best) == bits(train(steps=6).model)
    assert bits(run.model) == bits(train(steps=12).model)


@pytest.mark.parametrize(
    ("settings", "stops", "best"),
    [
        ({"patience": 1}, 8, 6),
        ({"patience": 2}, 10, 6),
        ({"patience": 4}, None, 16),  # 0.5 at step 14 comes in time
        ({"minimum_change": 1.5, "patience": 1}, 4, 2),
        ({"minimum_change": 1.5, "patience": 2}, 10, 6),  # 2.0 is no better than 3.0, and 1.0 is
        ({"goal": "largest", "patience": 2}, 6, 2),
    ],
    ids=str,
)
def test_when_early_stopping_stops(settings, stops, best):
    run = train(hooks=[dataclasses.replace(STOPPING, **settings)])
    assert int(run.state.step) == (stops or 16)
    assert (run.stopped is None) == (stops is None)
    assert bits(run.best) == bits(train(steps=best).model)


def test_accuracies_should_be_large():
    made = {2: 0.1, 4: 0.5, 6: 0.4}

    def measure(record, state):
        record["made_accuracy"] = made[record["step"]]

    run = train(hooks=[EarlyStopping("made_accuracy", patience=1)], on_record=measure)
    assert int(run.state.step) == 6
    assert "(best 0.5 at step 4)" in (run.stopped or "")


@pytest.mark.parametrize("step", [1, 5, 6, 9, 11])
def test_interrupted_and_resumed_it_stops_at_the_same_step_with_the_same_best_model(tmp_path, interrupted, step):
    whole = train(hooks=[STOPPING], folder=tmp_path / "whole")
    interrupted(step, hooks=[STOPPING], folder=tmp_path / "cut")
    resumed = train(hooks=[STOPPING], folder=tmp_path / "cut", resume=True)
    assert resumed.stopped == whole.stopped
    assert bits(resumed.state.model) == bits(whole.state.model)
    assert bits(resumed.best) == bits(whole.best)
    files = [(tmp_path / name / "best.npz").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    best, metadata = checkpoint.load(tmp_path / "cut" / "best.npz", MODEL)
    assert bits(best) == bits(whole.best)
    assert metadata == {"step": 6}


def test_a_run_that_was_stopped_says_so_again_and_goes_on_with_more_patience(tmp_path):
    first = train(hooks=[STOPPING], folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = train(hooks=[STOPPING], folder=tmp_path, resume=True)
    assert again.stopped == first.stopped
    assert bits(again.best) == bits(first.best)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    patient = train(hooks=[dataclasses.replace(STOPPING, patience=4)], folder=tmp_path, resume=True)
    assert patient.stopped is None
    assert bits(patient.best) == bits(train().model)


def test_a_best_model_that_is_ahead_of_the_checkpoint_comes_again(tmp_path, monkeypatch):
    """The process dies between the two files: the best model is of step 6, the checkpoint of step 4."""
    train(hooks=[STOPPING], folder=tmp_path, steps=4)
    save = checkpoint.save

    def dies(path, *arguments, **options):
        if path.name == CHECKPOINT:
            raise KeyboardInterrupt
        save(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            train(hooks=[STOPPING], folder=tmp_path, resume=True, steps=6)
    assert checkpoint.read_metadata(tmp_path / "best.npz") == {"step": 6}
    assert checkpoint.load(tmp_path / CHECKPOINT, train(steps=2).state)[0].step == 4
    resumed, whole = train(hooks=[STOPPING], folder=tmp_path, resume=True), train(hooks=[STOPPING])
    assert resumed.stopped == whole.stopped
    assert bits(resumed.best) == bits(whole.best)


def test_a_best_model_that_nobody_kept_is_missed(tmp_path):
    train(folder=tmp_path, steps=8)
    with pytest.raises(ValueError, match=r"expected the best model of the run to resume, that of step 6, .* got none"):
        train(folder=tmp_path, resume=True, hooks=[STOPPING])
    run = train(folder=tmp_path, resume=True, hooks=[dataclasses.replace(STOPPING, keep_best=False)])
    assert (int(run.state.step), run.best) == (12, None)


def test_wrong_arguments_of_early_stopping():
    with pytest.raises(ValueError, match="expected patience as an integer of at least 1, got 0"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="expected a minimum_change of 0 or more, got -1"):
        EarlyStopping(minimum_change=-1)
    with pytest.raises(ValueError, match="expected the goal for 'angle', which is no loss or accuracy, got None"):
        EarlyStopping("angle")
    with pytest.raises(ValueError, match="expected 'test_loss' in the record, got step, epoch, train_loss"):
        train(hooks=[EarlyStopping()])
    with pytest.raises(ValueError, match="expected one hook that keeps the best model, got EarlyStopping and Early"):
        train(hooks=[STOPPING, EarlyStopping("train_loss")])


# ------------------------------------------------------------------------------------------------------ other places


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_table_holds_the_records_and_resumes_without_rows_twice(tmp_path, interrupted):
    def measure(record, state):
        record |= {"made_loss": CURVE[record["step"]], "angles": {"first": jnp.asarray(0.25)}}
        if record["step"] > 4:
            record["note"] = 'a "late", one'

    def table(name):
        return {"hooks": [CSVLog(tmp_path / name / "table.csv")], "folder": tmp_path / name, "on_record": measure}

    whole = train(**table("whole"))
    rows = rows_of(tmp_path / "whole" / "table.csv")
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [float(row["train_loss"]) for row in rows] == [record["train_loss"] for record in whole.records]
    assert [row["made_loss"] for row in rows][4:7] == ["1.2", "", "0.5"]
    assert [row["note"] for row in rows] == ["", ""] + ['a "late", one'] * 6
    assert {row["angles.first"] for row in rows} == {"0.25"}
    interrupted(9, **table("cut"))
    train(**table("cut") | {"resume": True})
    untimed = [
        [{**row, "examples_per_second": ""} for row in rows_of(tmp_path / n / "table.csv")] for n in ("whole", "cut")
    ]
    assert untimed[0] == untimed[1]


def test_a_table_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "table.csv").write_text("mine\n")
    with pytest.raises(ValueError, match=r"expected no file at .*table\.csv', got one"):
        train(hooks=[CSVLog(tmp_path / "table.csv")])
    assert (tmp_path / "table.csv").read_text() == "mine\n"


def events_in(folder):
    """The scalars in the event files, `(name, step, value)`, and the steps at which a writer purged."""
    from tensorboardX.proto.event_pb2 import Event

    scalars, purged = [], []
    for path in sorted(folder.glob("events*"), key=lambda path: path.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)  # a length, its checksum, the event, its checksum
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 16 + length
            if event.HasField("session_log"):
                purged.append(event.step)
            scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return scalars, purged


def test_tensorboard_gets_every_number(tmp_path, interrupted):
    pytest.importorskip("tensorboardX")
    hook = TensorBoard(tmp_path / "board")
    interrupted(5, hooks=[hook], folder=tmp_path / "run")
    run = train(hooks=[hook], folder=tmp_path / "run", resume=True)
    scalars, purged = events_in(tmp_path / "board")
    losses = [(step, value) for name, step, value in scalars if name == "train_loss"]
    assert losses == [(r["step"], pytest.approx(r["train_loss"], rel=1e-6)) for r in run.records]
    assert [step for name, step, _ in scalars if name == "made_loss"] == [2, 4, 6, 8, 10, 14, 16]  # not the undefined
    assert purged == [6]  # what an interrupted run had written from there on is hidden


def test_weights_and_biases_gets_every_number(monkeypatch):
    class Run:
        def __init__(self):
            self.rows, self.finished = [], False

        def log(self, row, step):
            self.rows.append((step, row))

        def finish(self):
            self.finished = True

    made, given, fake = Run(), {}, types.ModuleType("wandb")
    fake.init = lambda **settings: given.update(settings) or made
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run = train(hooks=[WeightsAndBiases("learning", config={"rate": 0.1}, mode="offline")])
    assert given == {"project": "learning", "config": {"rate": 0.1}, "mode": "offline"}
    assert made.finished
    assert [step for step, _ in made.rows] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert made.rows[0][1]["train_loss"] == run.records[0]["train_loss"]
    assert "made_loss" not in made.rows[5][1]
    assert "step" not in made.rows[0][1]


@pytest.mark.parametrize(
    ("hook", "module", "extra"),
    [(TensorBoard("nowhere"), "tensorboardX", "tensorboard"), (WeightsAndBiases("mine"), "wandb", "wandb")],
    ids=["tensorboard", "wandb"],
)
def test_a_package_that_is_missing_is_named(monkeypatch, hook, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}; pip install 'vicinal\[{extra}\]'"):
        train(hooks=[hook])
