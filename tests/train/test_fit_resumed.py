"""A run that was interrupted anywhere ends with the same bits."""

import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from fit_builders import (
    ADAM,
    LEARNING,
    MODEL,
    RUNS,
    SETTLING,
    X,
    Y,
    batch_list,
    bits,
    contents,
    long_run,
    train,
    untimed,
)
from matrix import diagonal

import vicinal as vc
from vicinal.train import checkpoint, loop
from vicinal.train.files import CHECKPOINT, METRICS
from vicinal.train.log import JSONLog, read

evaluation = sys.modules["vicinal.train.evaluate"]


@pytest.mark.parametrize(("kind", "step"), diagonal(RUNS, [1, 9, 15]))
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, interrupt, cut, kind, step):
    rule, optimizer, data = RUNS[kind]
    settings = {"steps": 23, "evaluate_every": 7, "test": (X, Y)}
    whole = train(rule, optimizer, data, folder=tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_LONGEST_CHUNK", 1)
        interrupt(step)
        with pytest.raises(KeyboardInterrupt):
            train(rule, optimizer, data, folder=tmp_path / "cut", **settings)
    interrupt(100)
    assert checkpoint.load(tmp_path / "cut" / CHECKPOINT, whole.state)[0].step == step
    cut(4)
    resumed = train(rule, optimizer, data, folder=tmp_path / "cut", resume=True, **settings)
    assert bits(resumed.state) == bits(whole.state)
    files = [(tmp_path / name / CHECKPOINT).read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    logs = [read(tmp_path / name / METRICS) for name in ("whole", "cut")]
    assert untimed(logs[0]) == untimed(logs[1])
    assert resumed.records == logs[1]
    assert resumed.stopped is None


CUTS = [(0.5, 1), (0.5, 3), (1e-9, 5000), (100.0, 5000), (0.5, 2)]  # seconds and steps of a call at most


@pytest.mark.parametrize(("kind", "how"), diagonal(["arrays", "batches"], CUTS))
def test_the_bits_do_not_depend_on_how_a_run_is_cut(monkeypatch, kind, how):
    data, (seconds, longest) = (X, Y) if kind == "arrays" else batch_list([8, 8, 3]), how
    whole = train(LEARNING, ADAM, data, steps=17)
    monkeypatch.setattr(loop, "_CHUNK_SECONDS", seconds)
    monkeypatch.setattr(loop, "_LONGEST_CHUNK", longest)
    other = train(LEARNING, ADAM, data, steps=17)
    assert bits(other.state) == bits(whole.state)
    assert untimed(other.records) == untimed(whole.records)


@pytest.mark.parametrize(
    ("when", "error"),
    diagonal(
        ["on_record", "evaluate", "log", "logged", "clock", "save"], [KeyboardInterrupt, RuntimeError, SystemExit]
    ),
)
def test_it_may_be_interrupted_anywhere(tmp_path, monkeypatch, when, error):
    settings = {"steps": 13, "evaluate_every": 5, "test": (X, Y), "checkpoint_seconds": 0.0}
    whole = train(LEARNING, ADAM, folder=tmp_path / "whole", **settings)
    calls = []

    def failing(function, at):
        def call(*arguments, **options):
            calls.append(1)
            if len(calls) == at:
                raise error("now")
            return function(*arguments, **options)

        return call

    given = {"on_record": failing(lambda record, state: None, at=2)} if when == "on_record" else {}
    with monkeypatch.context() as patch:
        if when == "evaluate":
            patch.setattr(evaluation, "totals", failing(evaluation.totals, at=2))
        elif when == "log":
            patch.setattr(JSONLog, "write", failing(JSONLog.write, at=1))
        elif when == "logged":
            write = JSONLog.write
            stop = failing(lambda: None, at=1)
            patch.setattr(JSONLog, "write", lambda log, record: (write(log, record), stop()))
        elif when == "clock":
            patch.setattr(time, "monotonic", failing(time.monotonic, at=17))
        elif when == "save":
            patch.setattr(checkpoint, "save", failing(checkpoint.save, at=3))
        with pytest.raises(error, match="now"):
            train(LEARNING, ADAM, folder=tmp_path / "cut", **settings, **given)
    stopped_at = int(checkpoint.load(tmp_path / "cut" / CHECKPOINT, whole.state)[0].step)
    assert 0 < stopped_at < 13
    resumed = train(LEARNING, ADAM, folder=tmp_path / "cut", resume=True, **settings)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(read(tmp_path / "cut" / METRICS)) == untimed(whole.records)
    assert all(record["examples_per_second"] > 0 for record in resumed.records)


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    whole = train(LEARNING, ADAM, steps=18, evaluate_every=6)
    first = train(LEARNING, ADAM, steps=12, evaluate_every=6, folder=tmp_path)
    before = contents(tmp_path)
    same = train(LEARNING, ADAM, steps=12, evaluate_every=6, folder=tmp_path, resume=True)
    assert contents(tmp_path) == before
    assert bits(same.state) == bits(first.state)
    assert same.records == first.records
    assert same.seconds_per_step == 0.0
    longer = train(LEARNING, ADAM, steps=18, evaluate_every=6, folder=tmp_path, resume=True)
    assert bits(longer.state) == bits(whole.state)
    assert untimed(longer.records) == untimed(whole.records)


def test_resuming_where_nothing_is_begins_a_run(tmp_path):
    plain = train(steps=8)
    fresh = train(steps=8, folder=tmp_path / "new" / "run", resume=True)
    assert bits(fresh.state) == bits(plain.state)
    # Killed before its first checkpoint, a run leaves records only.
    (tmp_path / "new" / "run" / CHECKPOINT).unlink()
    again = train(steps=8, folder=tmp_path / "new" / "run", resume=True)
    assert untimed(again.records) == untimed(plain.records)


def test_old_keys_work_and_are_compared(tmp_path, interrupt):
    key = jax.random.PRNGKey(3)
    whole = train(LEARNING, steps=9, key=key)
    interrupt(2)
    with pytest.raises(KeyboardInterrupt):
        train(LEARNING, steps=9, key=key, folder=tmp_path)
    interrupt(100)
    with pytest.raises(ValueError, match="expected the key of the run"):
        train(LEARNING, steps=9, key=jax.random.PRNGKey(4), folder=tmp_path, resume=True)
    assert bits(train(LEARNING, steps=9, key=key, folder=tmp_path, resume=True).state) == bits(whole.state)


def placed(where):
    first, second = jax.devices()[:2]
    mesh = jax.sharding.Mesh(np.array([first, second]), ("examples",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("examples"))
    places = {"second device": (second, second), "data over both": (None, split)}
    for_model, for_data = places[where]
    model = MODEL if for_model is None else jax.device_put(MODEL, for_model)
    return model, jax.device_put((X, Y), for_data)


@pytest.mark.parametrize("where", ["second device", "data over both"])
def test_devices_of_choice(tmp_path, interrupt, cut, compiled, where):
    model, data = placed(where)
    rule = vc.rules.InferenceLearning(SETTLING, start="random", nudge=0.5)
    graph = vc.capture(model, X[0])  # of its own, to count the compilations of this run alone
    settings = {"model": model, "data": data, "graph": graph, "steps": 13, "evaluate_every": 5}
    cut(2)
    whole = train(rule, ADAM, **settings)
    assert compiled.count("_advance") == 1
    interrupt(4)
    with pytest.raises(KeyboardInterrupt):
        train(rule, ADAM, folder=tmp_path, **settings)
    interrupt(100)
    resumed = train(rule, ADAM, folder=tmp_path, resume=True, **settings)
    assert compiled.count("_advance") == 1
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)
    here = train(rule, ADAM, steps=13)
    for got, expected in zip(jax.tree.leaves(whole.model), jax.tree.leaves(here.model), strict=True):
        np.testing.assert_allclose(jax.device_get(got), expected, rtol=1e-4, atol=1e-6)


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    folder = tmp_path / "killed"
    command = "import sys; sys.path[0] = sys.argv[1]; import fit_builders; fit_builders.long_run(sys.argv[2], 10**7)"
    process = subprocess.Popen([sys.executable, "-c", command, os.path.dirname(__file__), str(folder)])
    log = folder / METRICS
    try:
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
            time.sleep(0.01)
        time.sleep(0.0123)  # any moment will do: while it computes, saves or logs
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    total = 100 * len(read(log)) + 250
    resumed, whole = long_run(folder, total, resume=True), long_run(tmp_path / "whole", total)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)
    assert untimed(read(log)) == untimed(whole.records)
