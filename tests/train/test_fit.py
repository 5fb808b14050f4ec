"""The training loop: the right arithmetic, bit for bit after any interruption, stopped at the last good state."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.data import Dataset, epoch_order
from vicinal.train import checkpoint, fit
from vicinal.train.log import read

loop = sys.modules["vicinal.train.fit"]  # the name `fit` in the package is the function
evaluation = sys.modules["vicinal.train.evaluate"]

KEY = jax.random.key(5)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 50).astype(np.int32)
MODEL = vc.nn.MLP((4, 6, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])
SETTLING = vc.inference.Simultaneous(steps=3, step_size=0.2)

BACKPROP = vc.rules.Backprop()
DIRECT = vc.rules.DirectFeedback()
LEARNING = vc.rules.InferenceLearning(SETTLING, start="random")  # random, so that the keys matter
ADAM, MOMENTUM, SGD = optax.adam(1e-2), optax.sgd(0.05, momentum=0.9), optax.sgd(0.1)


def batch_list(sizes):
    """Batches of these sizes, cut from the data."""
    ends = np.cumsum(sizes)
    return [(X[e - s : e], Y[e - s : e]) for s, e in zip(sizes, ends, strict=True)]


def train(rule=BACKPROP, optimizer=SGD, data=(X, Y), model=MODEL, **settings):
    defaults = {"key": KEY, "batch_size": 8, "graph": GRAPH, "progress": False}
    return fit(rule, model, optimizer, data, **defaults | settings)


def bits(tree):
    """Every array as bytes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    arrays = [np.asarray(jax.random.key_data(a) if k else a) for a, k in zip(leaves, keys, strict=True)]
    return [(array.shape, str(array.dtype), array.tobytes()) for array in arrays]


def is_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf))


def untimed(records):
    return [{name: value for name, value in record.items() if name != "examples_per_second"} for record in records]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@eqx.filter_jit
def one_step(rule, graph, optimizer, now, x, y, key):
    return rule.step(graph, optimizer, *now, x, y, key=key)


def by_hand(rule, optimizer, steps, batches, model=MODEL):
    """A plain loop of rule.step; the states after 0, 1, ... steps, and the loss of each step."""
    _, rule_key, step_key = jax.random.split(KEY, 3)
    graph = GRAPH if model is MODEL else vc.capture(model, batches(0)[0][0])
    now = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), rule.init(graph, model, key=rule_key)
    states, losses = [now], []
    for i in range(steps):
        *now, loss, _ = one_step(rule, graph, optimizer, states[-1], *batches(i), jax.random.fold_in(step_key, i))
        states.append(now)
        losses.append(float(loss))
    return states, losses


def shuffled(x=X, y=Y, batch_size=8):
    """The batches of a run on arrays: whole batches of each epoch's order."""
    order_key, per_epoch = jax.random.split(KEY, 3)[0], len(x) // batch_size

    def batch(step):
        epoch, index = divmod(step, per_epoch)
        rows = np.asarray(epoch_order(order_key, epoch, len(x)))[index * batch_size :][:batch_size]
        return jnp.asarray(x[rows]), jnp.asarray(y[rows])

    return batch


def in_turn(batches):
    return lambda step: jax.tree.map(jnp.asarray, batches[step % len(batches)])


@pytest.fixture
def compiled():
    """The names of what is compiled while a test runs."""
    names, logger = [], logging.getLogger("jax")

    class Listener(logging.Handler):
        def emit(self, record):
            message = record.getMessage()
            if message.startswith("Compiling "):
                names.append(message.split()[1].removeprefix("jit(").removesuffix(")"))

    handler, propagate = Listener(), logger.propagate
    jax.config.update("jax_log_compiles", True)
    logger.addHandler(handler)
    logger.propagate = False
    yield names
    logger.propagate = propagate
    logger.removeHandler(handler)
    jax.config.update("jax_log_compiles", False)


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(step): Ctrl-C once that many steps are done. `cut` sets how many steps a compiled call takes."""

    def at(step):
        def update(self, done, *_):
            if done >= step:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop.TrainingProgress, "update", update)

    return at


@pytest.fixture
def cut(monkeypatch):
    return lambda steps: monkeypatch.setattr(loop, "_LONGEST_CHUNK", steps)


# ----------------------------------------------------------------------------------------------- the right arithmetic


RUNS = {
    "backpropagation, adam, arrays": (BACKPROP, ADAM, (X, Y)),
    "inference learning, momentum, arrays": (LEARNING, MOMENTUM, (X, Y)),
    "inference learning, adam, batches": (LEARNING, ADAM, batch_list([8, 8, 8, 8])),
    "direct feedback, adam, arrays": (DIRECT, ADAM, (X, Y)),  # a state that never changes
    "backpropagation, momentum, ragged batches": (BACKPROP, MOMENTUM, batch_list([8, 8, 8, 3])),
}


@pytest.mark.parametrize(("rule", "optimizer", "data"), RUNS.values(), ids=RUNS)
def test_equals_a_plain_loop_of_steps(rule, optimizer, data):
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
    lines = (tmp_path / loop.METRICS).read_text().splitlines()
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
    for record, state in zip(read(tmp_path / loop.METRICS), kept, strict=True):
        np.testing.assert_allclose(record["bias"], state.model.layers[0].bias)
    assert run.records == read(tmp_path / loop.METRICS)


# ------------------------------------------------------------------------------------------ one compilation, no harm


OPTIMIZERS = {
    "adam": ADAM,
    "schedule": optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(0.1, 0.01, 10)),
    "accumulated": optax.MultiSteps(ADAM, 3),
    "noisy": optax.chain(optax.add_noise(0.1, 0.55, 0), SGD),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_one_compilation_for_a_run_and_none_for_the_next(compiled, cut, optimizer):
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


# ------------------------------------------------------------------------------------------------ resuming, bit for bit


@pytest.mark.parametrize(("rule", "optimizer", "data"), RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("step", [1, 9, 15])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, interrupt, cut, rule, optimizer, data, step):
    settings = {"steps": 23, "evaluate_every": 7, "test": (X, Y)}
    whole = train(rule, optimizer, data, folder=tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_LONGEST_CHUNK", 1)
        interrupt(step)
        with pytest.raises(KeyboardInterrupt):
            train(rule, optimizer, data, folder=tmp_path / "cut", **settings)
    interrupt(100)
    assert checkpoint.load(tmp_path / "cut" / loop.CHECKPOINT, whole.state)[0].step == step
    cut(4)
    resumed = train(rule, optimizer, data, folder=tmp_path / "cut", resume=True, **settings)
    assert bits(resumed.state) == bits(whole.state)
    files = [(tmp_path / name / loop.CHECKPOINT).read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    logs = [read(tmp_path / name / loop.METRICS) for name in ("whole", "cut")]
    assert untimed(logs[0]) == untimed(logs[1])
    assert resumed.records == logs[1]
    assert resumed.stopped is None


@pytest.mark.parametrize(("seconds", "longest"), [(0.5, 1), (0.5, 2), (0.5, 3), (1e-9, 5000), (100.0, 5000)])
@pytest.mark.parametrize("data", [(X, Y), batch_list([8, 8, 3])], ids=["arrays", "batches"])
def test_the_bits_do_not_depend_on_how_a_run_is_cut(monkeypatch, data, seconds, longest):
    whole = train(LEARNING, ADAM, data, steps=17)
    monkeypatch.setattr(loop, "_CHUNK_SECONDS", seconds)
    monkeypatch.setattr(loop, "_LONGEST_CHUNK", longest)
    other = train(LEARNING, ADAM, data, steps=17)
    assert bits(other.state) == bits(whole.state)
    assert untimed(other.records) == untimed(whole.records)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
@pytest.mark.parametrize("when", ["on_record", "evaluate", "log", "logged", "clock", "save"])
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
            patch.setattr(loop.JSONLog, "write", failing(loop.JSONLog.write, at=1))
        elif when == "logged":
            write = loop.JSONLog.write
            stop = failing(lambda: None, at=1)
            patch.setattr(loop.JSONLog, "write", lambda log, record: (write(log, record), stop()))
        elif when == "clock":
            patch.setattr(loop.time, "monotonic", failing(time.monotonic, at=17))
        elif when == "save":
            patch.setattr(checkpoint, "save", failing(checkpoint.save, at=3))
        with pytest.raises(error, match="now"):
            train(LEARNING, ADAM, folder=tmp_path / "cut", **settings, **given)
    stopped_at = int(checkpoint.load(tmp_path / "cut" / loop.CHECKPOINT, whole.state)[0].step)
    assert 0 < stopped_at < 13
    resumed = train(LEARNING, ADAM, folder=tmp_path / "cut", resume=True, **settings)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(read(tmp_path / "cut" / loop.METRICS)) == untimed(whole.records)
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
    (tmp_path / "new" / "run" / loop.CHECKPOINT).unlink()
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


def long_run(folder, steps, resume=False):
    settings = {"batch_size": 4, "evaluate_every": 1000, "checkpoint_seconds": 0.0}
    return train(LEARNING, ADAM, steps=steps, folder=folder, resume=resume, **settings)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    folder = tmp_path / "killed"
    command = "import sys; sys.path[0] = sys.argv[1]; import test_fit; test_fit.long_run(sys.argv[2], 10**7)"
    process = subprocess.Popen([sys.executable, "-c", command, os.path.dirname(__file__), str(folder)])
    log = folder / loop.METRICS
    try:
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
            time.sleep(0.01)
        time.sleep(0.0123)  # any moment will do: while it computes, saves or logs
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    total = 1000 * len(read(log)) + 2500
    resumed, whole = long_run(folder, total, resume=True), long_run(tmp_path / "whole", total)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)
    assert untimed(read(log)) == untimed(whole.records)


# --------------------------------------------------------------------------------------- stopped at the last good state


def assert_stopped_well(run, sentence, rule, optimizer, data, **settings):
    """All is finite, the sentence fits, and a run of just that many steps has the same bits."""
    assert run.stopped is not None
    step = int(run.state.step)
    assert run.stopped.startswith(f"stopped at step {step}, the last good state: ")
    assert sentence in run.stopped
    assert is_finite(run.state.model)
    assert is_finite(run.state.optimizer_state)
    assert is_finite(run.state.rule_state)
    assert not any("stopped" in record for record in run.records)
    if step:
        clean = train(rule, optimizer, data, **settings | {"steps": step})
        assert clean.stopped is None
        assert bits(clean.state.model) == bits(run.model)
        assert bits(clean.state.optimizer_state) == bits(run.state.optimizer_state)


SQUARED = vc.losses.squared_error
REGARDLESS = optax.sgd(100.0, momentum=0.9)


@pytest.mark.parametrize("longest", [3, 5000])
@pytest.mark.parametrize(
    "rule",
    [vc.rules.Backprop(loss=SQUARED), vc.rules.InferenceLearning(SETTLING, loss=SQUARED)],
    ids=["backpropagation", "inference learning"],
)
def test_a_learning_rate_that_blows_up(tmp_path, cut, rule, longest):
    cut(longest)
    optimizer = REGARDLESS
    run = train(rule, optimizer, steps=200, folder=tmp_path)
    assert 0 < int(run.state.step) < 200
    assert_stopped_well(run, "meets a non-finite loss at the output: outputs have grown to", rule, optimizer, (X, Y))
    assert run.stopped.endswith("training diverges; lower the learning rate")
    # By hand, the step that was not taken breaks something, and the one before does not.
    states, losses = by_hand(rule, optimizer, int(run.state.step) + 1, shuffled())
    assert not (is_finite(states[-1][:2]) and np.isfinite(losses[-1]))
    assert is_finite(states[-2][:2])
    # What is on the disk is the good state; resumed, it meets the same end.
    saved, _ = checkpoint.load(tmp_path / loop.CHECKPOINT, run.state)
    assert bits(saved) == bits(run.state)
    again = train(rule, optimizer, steps=200, folder=tmp_path, resume=True)
    assert again.stopped == run.stopped
    assert untimed(again.records) == untimed(run.records)


def test_a_step_size_of_the_activities_that_blows_up():
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=100, step_size=50.0), loss=SQUARED)
    run = train(rule, SGD, steps=20)
    assert int(run.state.step) == 0
    assert bits(run.model) == bits(MODEL)
    sentence = "meets a non-finite value at vertex 'hidden1': inference diverges; lower the step size of the activities"
    assert_stopped_well(run, sentence, rule, SGD, (X, Y))


@pytest.mark.parametrize("part", ["input", "target"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_batch_that_is_not_finite(part, wrong):
    batches = [(x.copy(), x.copy()) for x, _ in batch_list([8] * 6)]
    batches[4][["input", "target"].index(part)][3, 2] = wrong
    rule, model = vc.rules.Backprop(loss=SQUARED), vc.nn.MLP((4, 3, 4), key=jax.random.key(0))
    settings = {"model": model, "graph": vc.capture(model, X[0])}
    run = train(rule, ADAM, batches, steps=20, **settings)
    assert int(run.state.step) == 4
    sentence = f"the next batch holds an infinite or undefined {part}; check the data"
    assert_stopped_well(run, sentence, rule, ADAM, batches, **settings)


def test_an_example_that_is_not_finite_among_arrays():
    x = X.copy()
    x[17, 0] = np.nan
    for name, data, test in (("training", (x, Y), None), ("test", (X, Y), (x, Y))):
        with pytest.raises(ValueError, match=f"infinite or undefined one in example 17 of the {name} set"):
            train(BACKPROP, SGD, data, steps=100, test=test)


def test_a_loss_that_overflows_while_all_else_is_finite():
    model = jax.tree_util.Partial(lambda bias, x: vc.vertex(x, "hidden") + bias, jnp.zeros(4))
    batches = [(X[:8], np.full((8, 4), 1e20 if i == 3 else 0.0, np.float32)) for i in range(5)]
    rule, optimizer = vc.rules.Backprop(loss=SQUARED), optax.sgd(1e-3)
    settings = {"model": model, "graph": vc.capture(model, X[0])}
    run = train(rule, optimizer, batches, steps=9, **settings)
    assert int(run.state.step) == 3  # 1/2 (1e20)^2 is beyond float32, its slope 1e20 is not
    sentence = "meets a non-finite loss at the output: targets are as large as 1e+20; scale them"
    assert_stopped_well(run, sentence, rule, optimizer, batches, **settings)


def test_an_optimiser_that_overflows_is_named():
    optimizer = optax.chain(optax.scale(1e30), optax.trace(0.9), optax.set_to_zero())
    batches = [((X[:8] * np.float32(scale)), Y[:8]) for scale in (1, 1, 1e12)]
    model = vc.nn.MLP((4, 3), key=jax.random.key(0))
    settings = {"model": model, "graph": vc.capture(model, X[0])}
    run = train(BACKPROP, optimizer, batches, steps=9, **settings)
    assert int(run.state.step) == 2
    sentence = "makes optimizer_state[1].trace.layers[0].weight non-finite, though every vertex is finite"
    assert_stopped_well(run, sentence, BACKPROP, optimizer, batches, **settings)


def test_failures_that_the_optimiser_masks_are_recorded():
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=100, step_size=50.0), loss=SQUARED)
    run = train(rule, optax.apply_if_finite(SGD, 1000), steps=12)
    assert run.stopped is None
    assert bits(run.model) == bits(MODEL)  # no update was ever taken
    assert [record["inference_failures"] for record in run.records] == [1.0, 1.0]
    assert all(np.isfinite(record["train_loss"]) for record in run.records)


def test_a_rule_that_throws_does(tmp_path):
    batches = batch_list([8] * 3)
    batches.append((np.full((8, 4), 3e38, np.float32), batches[0][1]))
    rule = vc.rules.InferenceLearning(vc.inference.Simultaneous(steps=30, step_size=0.1), loss=SQUARED, throw=True)
    identity = jax.tree_util.Partial(lambda w, x: w @ vc.vertex(w @ x, "hidden"), jnp.full((4, 4), 2.0))
    with pytest.raises(RuntimeError, match=r"inference reached an infinite or undefined activity|inference diverged"):
        fit(rule, identity, optax.sgd(0.0), batches, key=KEY, steps=9, progress=False, folder=tmp_path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_refused(tmp_path, wrong):
    model = eqx.tree_at(lambda m: m.layers[1].bias, MODEL, MODEL.layers[1].bias.at[2].set(wrong))
    with pytest.raises(ValueError, match=r"expected finite numbers to start from, .* model\.layers\[1\]\.bias"):
        train(model=model, steps=3, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------------- iterables


@pytest.mark.parametrize("every", [5, 12], ids=["at a record", "between records"])
def test_a_generator_that_ends_early(tmp_path, every):
    given, settings = batch_list([8] * 5), {"steps": 12, "evaluate_every": every}
    run = train(data=iter(given), folder=tmp_path, **settings)
    assert run.stopped == "the data ended after 5 of 12 steps; give an iterable that can begin anew"
    assert not any("stopped" in record for record in run.records)
    assert read(tmp_path / "metrics.jsonl")[-1] == {"step": 5, "stopped": run.stopped}
    assert int(run.state.step) == 5
    clean = train(data=given, steps=5)
    assert bits(clean.model) == bits(run.model)
    # The checkpoint is whole: with data that begin anew the run goes on, and forgets that it stopped.
    resumed = train(data=given, folder=tmp_path, resume=True, **settings)
    whole = train(data=given, **settings)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)


def test_data_that_fail_leave_a_checkpoint(tmp_path, cut):
    def failing():
        yield from batch_list([8] * 3)
        raise OSError("the disk is gone")

    cut(2)
    with pytest.raises(OSError, match="the disk is gone"):
        train(data=failing(), steps=12, folder=tmp_path)
    saved, _ = checkpoint.load(tmp_path / loop.CHECKPOINT, train(steps=1).state)
    clean = train(data=batch_list([8] * 3), steps=int(saved.step))
    assert bits(saved.model) == bits(clean.model)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "error", "sentence"),
    [
        ({}, ValueError, "expected either epochs or steps, got epochs=None and steps=None"),
        ({"steps": 3, "epochs": 1}, ValueError, "expected either epochs or steps, got epochs=1 and steps=3"),
        ({"steps": 0}, ValueError, "expected steps of at least 1, got 0"),
        ({"epochs": -1}, ValueError, "expected epochs of at least 1, got -1"),
        ({"steps": 1e3}, TypeError, r"expected steps as an integer, got 1000\.0"),
        ({"epochs": 0.5}, TypeError, r"expected epochs as an integer, got 0\.5"),
        ({"steps": 3, "evaluate_every": 0}, ValueError, "expected evaluate_every of at least 1, got 0"),
        ({"steps": 3, "evaluate_every": 2.5}, TypeError, r"expected evaluate_every as an integer, got 2\.5"),
        ({"steps": 3, "batch_size": 51}, ValueError, "expected a batch size from 1 to 50"),
        ({"steps": 3, "batch_size": 0}, ValueError, "expected a batch size from 1 to 50"),
        ({"steps": 3, "data": (X, Y[:-1])}, ValueError, "as many targets as inputs, got 49 and 50 examples"),
        ({"steps": 3, "test": (X, Y[:-1])}, ValueError, "as many targets as inputs, got 49 and 50 examples"),
        ({"steps": 3, "test": X}, TypeError, "expected test as a pair of arrays"),
        ({"steps": 3, "test": (X[:0], Y[:0])}, ValueError, "expected at least one example, got none"),
        (
            {"epochs": 3, "data": iter(batch_list([8]))},
            ValueError,
            "iterable of batches that has no length, got epochs",
        ),
        ({"steps": 3, "data": []}, ValueError, "expected at least one batch, got an empty iterable"),
        ({"steps": 3, "data": 7}, TypeError, "expected data as a Dataset"),
        ({"steps": 3, "data": lambda: None}, TypeError, "got function; call it"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, settings, error, sentence):
    with pytest.raises(error, match=sentence):
        train(**settings, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resuming_needs_a_folder():
    with pytest.raises(ValueError, match="expected the folder of the run to resume, got folder=None"):
        train(steps=3, resume=True)


OTHER = vc.nn.MLP((4, 7, 3), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resume": False}, "expected a folder without a run"),
        ({"batch_size": 7}, "expected the batch size of the run in .*, 8, got 7; resume with it"),
        ({"data": (X[:40], Y[:40])}, "expected the steps per epoch of the run in .*, 6, got 5; resume with it"),
        ({"data": batch_list([8])}, "expected the batch size of the run in .*, 8, got None"),
        ({"key": jax.random.key(6)}, "expected the key of the run"),
        ({"steps": 8}, "expected at least the 9 steps that the run in .* has taken, got 8"),
        ({"model": OTHER, "graph": None}, "expected the model of the run in .*, got another"),
        ({"optimizer": MOMENTUM}, "expected the optimiser of the run in .*, got another"),
        ({"key": jax.random.key(5, impl="rbg")}, "Expected key<rbg>"),
    ],
    ids=[
        "not resumed",
        "batch size",
        "size of data",
        "kind of data",
        "key",
        "fewer steps",
        "model",
        "optimiser",
        "rng",
    ],
)
def test_a_folder_with_another_run_is_refused_and_left_alone(tmp_path, settings, sentence):
    train(steps=9, folder=tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=sentence) as refused:
        train(**{"steps": 12, "resume": True, "folder": tmp_path} | settings)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


def test_a_damaged_checkpoint_is_refused_and_left_alone(tmp_path):
    train(steps=9, folder=tmp_path)
    path = tmp_path / loop.CHECKPOINT
    path.write_bytes(path.read_bytes()[:-100])
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="cut short or altered"):
        train(steps=12, folder=tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_records_without_a_checkpoint_are_a_run_too(tmp_path):
    (tmp_path / loop.METRICS).write_text('{"step": 5}\n')
    with pytest.raises(ValueError, match="expected a folder without a run"):
        train(steps=3, folder=tmp_path)
    assert read(tmp_path / loop.METRICS) == [{"step": 5}]


def test_a_run_that_fails_in_its_first_step_does_not_block_its_folder(tmp_path):
    with pytest.raises(ValueError, match="expected a target of the output's shape"):
        train(data=(X, jnp.ones((50, 7))), steps=3, folder=tmp_path)
    assert train(steps=3, folder=tmp_path).stopped is None


# ---------------------------------------------------------------------------------------------------------- full disk


def full_disk(after=0):
    calls, save = [], checkpoint.save

    def call(path, *arguments, **options):
        calls.append(path)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        save(path, *arguments, **options)

    return call


def test_a_full_disk_ends_the_run_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", full_disk(after=2))
    with pytest.raises(
        OSError, match=r"could not write the checkpoint .No space left on device.; the one before"
    ) as error:
        train(steps=24, folder=tmp_path, checkpoint_seconds=0.0)
    assert error.value.errno == 28
    assert error.value.filename == str(tmp_path / loop.CHECKPOINT)
    monkeypatch.undo()
    resumed, whole = train(steps=24, folder=tmp_path, resume=True), train(steps=24)
    assert bits(resumed.state) == bits(whole.state)
    assert untimed(resumed.records) == untimed(whole.records)


def test_a_full_disk_does_not_hide_why_the_run_was_interrupted(tmp_path, monkeypatch, interrupt):
    interrupt(3)
    monkeypatch.setattr(checkpoint, "save", full_disk())
    with pytest.raises(KeyboardInterrupt) as error:
        train(steps=24, folder=tmp_path)
    assert "could not write the checkpoint (No space left on device)" in error.value.__notes__[0]


def test_a_full_disk_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "save", full_disk())
    with pytest.raises(OSError, match="could not write the checkpoint"):
        train(steps=4, folder=tmp_path)


def test_checkpoints_are_written_as_often_as_asked(tmp_path, monkeypatch, cut):
    saved, save = [], checkpoint.save

    def note(path, state, **options):
        saved.append(int(state.step))
        save(path, state, **options)

    monkeypatch.setattr(checkpoint, "save", note)
    cut(1)
    train(steps=4, folder=tmp_path / "often", checkpoint_seconds=0.0)
    assert saved == [1, 2, 3, 4]
    saved.clear()
    train(steps=4, folder=tmp_path / "once")
    assert saved == [4]


# ------------------------------------------------------------------------------------------------------------- progress


def test_progress_false_prints_nothing(capfd, monkeypatch):
    monkeypatch.setattr(loop.TrainingProgress, "_QUIET_SECONDS", 0.0)
    train(steps=6)
    assert capfd.readouterr() == ("", "")
    train(steps=6, progress=None)
    assert "training: step 6 of 6  loss " in capfd.readouterr().err


def test_the_pace_of_a_run_is_measured():
    run = train(steps=30)
    assert run.seconds_per_step > 0
    assert all(record["examples_per_second"] > 0 for record in run.records)
