"""Many runs in one compiled loop: each must be what it would have been alone."""

import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import full
from once import once

import vicinal as vc
from vicinal.recipes import recipe
from vicinal.train import fit, keys_of, sweep
from vicinal.train.combinations import shared_programs
from vicinal.train.compiled import Examples, Layout
from vicinal.train.options import Options
from vicinal.train.part import Part
from vicinal.train.placing import Room, place
from vicinal.train.progress import Pace
from vicinal.train.wave import Wave

STEPS = {"steps": 40, "batch_size": 4, "evaluate_every": 16, "progress": False}
VOLATILE = {"examples_per_second"}


@once
def digits():
    return vc.data.load("digits").flattened()


def build(key):
    return vc.nn.MLP((64, 7, 10), activation="relu", vertex_at="pre", key=key)


def sgd(learning_rate):
    return vc.rules.Backprop(), optax.sgd(learning_rate)


def leaves(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def alone(make, member, **settings):
    rule, optimizer = make(**member.numbers)
    model_key, train_key = keys_of(member.seed)
    return fit(rule, build(model_key), optimizer, digits(), key=train_key, **(STEPS | settings))


def assert_same_runs(ours, theirs):
    assert len(ours.members) == len(theirs.members)
    for a, b in zip(ours.members, theirs.members, strict=True):
        assert (a.numbers, a.seed, a.records, a.stopped) == (b.numbers, b.seed, b.records, b.stopped)
        for x, y in zip(leaves(a.model), leaves(b.model), strict=True):
            np.testing.assert_array_equal(x, y)


GRIDS = {
    "bp-sgd": {"learning_rate": [0.01, 0.1, 0.3]},
    "il-adam": {"learning_rate": [1e-3, 1e-2], "inference.step_size": [0.02, 0.1], "b1": [0.9]},
    "il-prox": {"learning_rate": [1.0, 10.0], "eps": [0.0, 0.5]},
    "dfa": {"learning_rate": [1e-3, 1e-2], "projector.scale": [0.5, 2.0]},
}


@pytest.mark.parametrize(
    ("name", "size"), [full("bp-sgd", 1), full("bp-sgd", 3), full("il-adam", 1), ("il-prox", 3), full("dfa", 2)]
)
def test_members_equal_the_same_runs_one_by_one(x64, name, size):
    def make(**numbers):
        return recipe(name).make(**numbers)

    done = sweep(make, build, digits(), GRIDS[name], seeds=[3, 5], group_size=size, **STEPS)
    assert (done.layout.size, done.layout.devices, done.compilations) == (size, 2, 1)
    for member in (done.members[0], done.members[-1]):
        run = alone(make, member)
        for ours, theirs in zip(leaves(member.model), leaves(run.model), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
        assert [record["step"] for record in member.records] == [16, 32, 40]
        for ours, theirs in zip(member.records, run.records, strict=True):
            assert ours.keys() == theirs.keys() - VOLATILE
            assert ours == pytest.approx({name: theirs[name] for name in ours}, rel=1e-6)


@pytest.mark.parametrize("size", [full(1), 4])
def test_a_diverged_member_is_frozen_where_it_would_stop_alone_and_its_neighbours_go_on(size):
    steady, mixed = [0.01, 0.02, 0.05, 0.1], [0.01, 1e20, 0.05, 1e38]
    reference = sweep(sgd, build, digits(), {"learning_rate": steady}, seeds=2, group_size=size, **STEPS)
    done = sweep(sgd, build, digits(), {"learning_rate": mixed}, seeds=2, group_size=size, **STEPS)
    for ours, theirs in zip(done.members, reference.members, strict=True):
        if ours.numbers == theirs.numbers:  # a neighbour: the same to the last bit
            assert ours.stopped is None
            assert ours.records == theirs.records
            assert all(map(np.array_equal, leaves(ours.model), leaves(theirs.model)))
            continue
        if ours.seed == 0:
            continue  # one seed is enough of a comparison
        run = alone(sgd, ours)
        assert ours.stopped.startswith(f"stopped at step {int(run.state.step)}, the last good state")
        for x, y in zip(leaves(ours.model), leaves(run.model), strict=True):
            assert np.all(np.isfinite(x))
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6 * np.abs(y).max())


def test_members_that_stop_at_different_steps_of_one_group(monkeypatch):
    """Each member stops when its own learning rate, which grows with the steps, passes a limit."""

    def make(limit):
        def update(updates, state, params=None):
            bad = state >= limit.astype(state.dtype)
            return jax.tree.map(lambda g: jnp.where(bad, jnp.inf, 0 * g), updates), state + 1

        limit = jnp.asarray(limit)
        return vc.rules.Backprop(), optax.GradientTransformation(lambda params: jnp.int32(0), update)

    limits = [7, 100, 0, 31, 32, 33, 12]
    done = sweep(make, build, digits(), {"limit": limits}, group_size=4, **STEPS)
    for member, limit in zip(done.members, limits, strict=True):
        if limit == 100:
            assert member.stopped is None
            assert member.records[-1]["step"] == 40
        else:
            assert member.stopped.startswith(f"stopped at step {limit},")
            assert [record["step"] for record in member.records] == [step for step in (16, 32) if step <= limit]


def part_of(build, members, batch_size=4):
    examples = Examples((jnp.asarray(digits().x_train), jnp.asarray(digits().y_train)), {})
    runs = [({"learning_rate": 0.1}, seed) for seed in range(members)]
    (program,) = shared_programs(sgd, build, runs)
    fields = dict.fromkeys(field.name for field in dataclasses.fields(Options))
    chosen = {"steps": 40, "batch_size": batch_size, "hooks": (), "checkpoint_seconds": 60.0, "keep": 1}
    options = Options(**fields | chosen)
    return Part(program, runs, examples, options, jax.devices())


def needed(part, members, size):
    return Wave(part, part.compiled(members, size), range(members)).bytes_needed()


def test_waves_equal_one_wave():
    def wide(key):
        return vc.nn.MLP((64, 300, 10), key=key)

    settings = STEPS | {"group_size": 2}
    grid = {"learning_rate": [0.01, 0.02, 0.03]}
    whole = sweep(sgd, wide, digits(), grid, seeds=3, **settings)
    data = 2 * sum(array.nbytes for array in (digits().x_train, digits().y_train, digits().x_test, digits().y_test))
    orders = 2 * 3 * 4 * 45 * (1437 // 4 * 4)  # on two devices, of three seeds, 45 epochs ahead
    room = int(0.7 * needed(part_of(wide, 9), 9, 2))
    parts = sweep(sgd, wide, digits(), grid, seeds=3, memory=data + orders + room, **settings)
    assert whole.waves == 1
    assert parts.waves > 1
    assert parts.layout.size == 2
    assert_same_runs(whole, parts)
    with pytest.raises(ValueError, match=r"expected memory of at least [\d.]+ MB.*got 1 MB"):
        sweep(sgd, build, digits(), {"learning_rate": [0.01]}, memory=10**6, **settings)


@pytest.mark.parametrize(("sizes", "batch"), [full((64, 500, 500, 10), 1), ((64, 200, 200, 10), 256)])
def test_memory_is_what_the_compiler_counts(sizes, batch):
    """States of float32 numbers, old and new, and activities that the states do not tell of."""

    def wide(key):
        return vc.nn.MLP(sizes, key=key)

    part = part_of(wide, 8, batch)
    state = sum(leaf.nbytes for leaf in leaves(wide(jax.random.key(0))))
    four, eight = needed(part, 4, 1), needed(part, 8, 1)
    assert eight >= 8 * 3 * state
    assert eight - four >= 4 * 3 * state
    waves, compiled = place(part, Room(jax.devices(), 10**12, 1), steps=40)
    assert len(waves) == 1
    assert compiled.layout.rows == 8


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("seconds", [0.0, full(1e9)])
def test_an_interrupted_sweep_resumes_to_the_same_end(tmp_path, seconds):
    settings = STEPS | {"group_size": 2, "checkpoint_seconds": seconds}
    grid = {"learning_rate": [0.01, 1e30, 0.1]}
    whole = sweep(sgd, build, digits(), grid, seeds=2, folder=tmp_path / "whole", **settings)

    def interrupt(record, state):
        if record["step"] == 32:
            raise Interrupted

    with pytest.raises(Interrupted):
        sweep(sgd, build, digits(), grid, seeds=2, folder=tmp_path / "cut", on_record=interrupt, **settings)
    again = sweep(sgd, build, digits(), grid, seeds=2, folder=tmp_path / "cut", resume=True, **settings)
    assert_same_runs(whole, again)
    logs = [
        sorted((tmp_path / name / "metrics.jsonl").read_text().splitlines(), key=lambda line: json.dumps(line))
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1]
    longer = sweep(
        sgd, build, digits(), grid, seeds=2, folder=tmp_path / "cut", resume=True, **(settings | {"steps": 50})
    )
    assert longer.members[0].records[:3] == whole.members[0].records
    assert longer.members[0].records[-1]["step"] == 50
    with pytest.raises(ValueError, match="with one; resume it, or choose another"):
        sweep(sgd, build, digits(), grid, seeds=2, folder=tmp_path / "cut", **settings)
    with pytest.raises(ValueError, match="expected the members of the sweep"):
        sweep(sgd, build, digits(), grid, seeds=1, folder=tmp_path / "cut", resume=True, **settings)
    with pytest.raises(ValueError, match="at least the 50 steps"):
        sweep(sgd, build, digits(), grid, seeds=2, folder=tmp_path / "cut", resume=True, **settings)


def test_what_stopped_since_the_last_checkpoint_stops_again(tmp_path, monkeypatch):
    """Members that break in the steps that an interrupted record takes back, one of them in the very first."""
    monkeypatch.setattr(Pace, "next", lambda self, seconds, longest: longest)  # the first call takes all four steps
    settings = STEPS | {"evaluate_every": 4, "steps": 8, "group_size": 1, "batch_size": 4}
    grid = {"learning_rate": [0.01, 1e30, float("inf")]}
    whole = sweep(sgd, build, digits(), grid, folder=tmp_path / "whole", **settings)
    assert [member.steps for member in whole.members][::2] == [8, 0]
    assert 0 < whole.members[1].steps < 4

    def interrupt(record, state):
        raise Interrupted

    with pytest.raises(Interrupted):
        sweep(sgd, build, digits(), grid, folder=tmp_path / "cut", on_record=interrupt, **settings)
    again = sweep(sgd, build, digits(), grid, folder=tmp_path / "cut", resume=True, **settings)
    assert_same_runs(whole, again)
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")]
    assert sorted(logs[0]) == sorted(logs[1])


def test_a_sweep_without_its_log_is_not_resumed(tmp_path):
    sweep(sgd, build, digits(), {"learning_rate": [0.1]}, group_size=1, folder=tmp_path, **STEPS)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match=r"expected the log of the sweep to resume, metrics.jsonl"):
        sweep(sgd, build, digits(), {"learning_rate": [0.1]}, folder=tmp_path, resume=True, **STEPS)


def test_numbers_take_the_precision_of_the_parameters(x64):
    """A float32 model stays one in float64 mode, and a bfloat16 model with momentum equals its run alone."""

    def half(key):
        return jax.tree.map(lambda a: a.astype(jnp.bfloat16) if eqx.is_inexact_array(a) else a, build(key))

    def make(learning_rate):
        return vc.rules.Backprop(), optax.sgd(learning_rate, momentum=0.9)

    x, y = jnp.asarray(digits().x_train, jnp.bfloat16), jnp.asarray(digits().y_train)
    settings = {"steps": 20, "batch_size": 4, "evaluate_every": 20, "progress": False}
    (member,) = sweep(make, half, (x, y), {"learning_rate": [0.1]}, group_size=1, **settings).members
    model_key, train_key = keys_of(0)
    run = fit(*make(0.1)[:1], half(model_key), make(0.1)[1], (x, y), key=train_key, **settings)
    for ours, theirs in zip(leaves(member.model), leaves(run.model), strict=True):
        assert ours.dtype == theirs.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, theirs)


def test_calibration_chooses_a_layout_and_counts_compilations():
    done = sweep(sgd, build, digits(), {"learning_rate": [0.1]}, seeds=6, **STEPS)
    assert done.layout.devices == 2
    assert done.layout.size in (1, 3)
    assert 1 <= done.compilations <= 2
    assert 0 < done.seconds_to_start < done.seconds


def test_a_sweep_on_one_device():
    done = sweep(
        sgd, build, digits(), {"learning_rate": [0.1]}, seeds=3, group_size=2, devices=jax.devices()[1:], **STEPS
    )
    assert done.layout == Layout(devices=1, groups=2, size=2)


@pytest.mark.parametrize("members", [1, 2, 3, 7, 30])
@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_a_layout_has_room_and_no_empty_device(members, devices, size):
    layout = Layout.of(members, devices, size)
    assert layout.rows >= members
    assert layout.size <= size
    assert layout.devices <= min(members, devices)
    assert layout.groups == 1 or layout.devices * (layout.groups - 1) * layout.size < members


def test_on_record_sees_the_state_of_its_member():
    seen = []

    def note(record, state):
        record["norm"] = float(jnp.linalg.norm(state.model.layers[0].weight))
        seen.append((record["step"], int(state.step)))

    done = sweep(sgd, build, digits(), {"learning_rate": [0.0, 0.1]}, group_size=1, on_record=note, **STEPS)
    assert seen == [(step, step) for step in (16, 16, 32, 32, 40, 40)]
    assert len({record["norm"] for record in done.members[0].records}) == 1
    assert len({record["norm"] for record in done.members[1].records}) == 3


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"numbers": {"learning_rate": []}}, ValueError, "at least one value of each number"),
        ({"numbers": [{"learning_rate": 0.1}, {"rate": 0.1}]}, ValueError, "the same names in all combinations"),
        ({"seeds": 0}, ValueError, "seeds as an integer of at least 1, got 0"),
        ({"seeds": [1, 1]}, ValueError, "different seeds"),
        ({"seeds": [-1]}, ValueError, "expected a seed from 0"),
        ({"data": iter([])}, TypeError, "expected data as a Dataset or a pair of arrays"),
        ({"steps": None}, ValueError, "either epochs or steps"),
        ({"group_size": 0}, ValueError, "group_size as an integer of at least 1"),
        ({"batch_size": 10**6}, ValueError, "batch size from 1 to"),
        ({"resume": True}, ValueError, "the folder of the sweep to resume"),
        ({"devices": []}, ValueError, "at least one device"),
        ({"devices": 5}, ValueError, "at least one device"),
        ({"numbers": {"learning_rate": 0.1}}, TypeError, "expected numbers as lists of values by name"),
        ({"numbers": {"learning_rate": ["a"]}}, TypeError, "write numbers without quotes"),
        ({"numbers": None}, TypeError, "expected numbers as lists of values by name"),
        ({"seeds": 2.5}, TypeError, "seeds as an integer"),
        ({"seeds": [0.5]}, TypeError, "seeds as an integer or a list of integers"),
        ({"memory": float("nan")}, ValueError, "memory as a number of bytes"),
    ],
)
def test_mistakes(change, error, words):
    arguments = {"data": digits(), "numbers": {"learning_rate": [0.1]}, **STEPS} | change
    with pytest.raises(error, match=words):
        sweep(sgd, build, **arguments)


def test_a_number_out_of_its_range_is_found_before_anything_runs():
    def make(nudge):
        return vc.rules.InferenceLearning(nudge=nudge), optax.sgd(0.1)

    with pytest.raises(ValueError, match=r"expected nudge in \(0, 1\], got 2"):
        sweep(make, lambda key: pytest.fail("it began"), digits(), {"nudge": [0.5, 2.0]}, **STEPS)
