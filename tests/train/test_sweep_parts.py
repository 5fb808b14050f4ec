"""Sweeps over what cannot be traced: names of rules, counts, widths. Each part is compiled once, and then trained."""

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
from vicinal.train import fit, keys_of, load_model, sweep
from vicinal.train.combinations import combinations_of, shared_programs
from vicinal.train.placing import another_pays

STEPS = {"steps": 12, "batch_size": 4, "evaluate_every": 6, "progress": False, "group_size": 2}
VOLATILE = {"examples_per_second"}


@once
def digits():
    return vc.data.load("digits").flattened()


def build(key):
    return vc.nn.MLP((64, 6, 10), vertex_at="pre", key=key)


def make(rule="il", **numbers):
    return recipe(rule).make(**numbers)


def sgd(learning_rate):
    return vc.rules.Backprop(), optax.sgd(learning_rate)


def leaves(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))]


def groups(make, numbers, build=build, seeds=1):
    rows = combinations_of(make, build, numbers)
    return shared_programs(make, build, [(row, seed) for row in rows for seed in range(seeds)])


def test_members_of_every_rule_and_count_are_what_they_would_be_alone(x64):
    grid = {"rule": ["bp-sgd", "il-sgd"], "learning_rate": [0.01, 0.1]}
    more = [{"rule": "il-sgd", "learning_rate": 0.01, "inference.steps": steps} for steps in (5, 10)]
    done = sweep(make, build, digits(), grid, seeds=2, **STEPS)
    counted = sweep(make, build, digits(), more, **STEPS)
    assert (done.parts, counted.parts, done.compilations) == (2, 2, 2)
    assert [(m.numbers["rule"], m.numbers["learning_rate"], m.seed) for m in done.members] == [
        (rule, rate, seed) for rule in ("bp-sgd", "il-sgd") for rate in (0.01, 0.1) for seed in (0, 1)
    ]
    assert [json.dumps(m.numbers["inference.steps"]) for m in counted.members] == ["5", "10"]
    for member in (done.members[1], *counted.members):  # of each rule, and of each count
        model_key, train_key = keys_of(member.seed)
        settings = {name: value for name, value in STEPS.items() if name != "group_size"}
        rule, optimizer = make(**member.numbers)
        run = fit(rule, build(model_key), optimizer, digits(), key=train_key, **settings)
        for ours, theirs in zip(leaves(member.model), leaves(run.model), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
        for ours, theirs in zip(member.records, run.records, strict=True):
            assert ours == pytest.approx({name: theirs[name] for name in ours}, rel=1e-6)
    last = [member.records[-1]["train_loss"] for member in counted.members]
    assert last[0] != pytest.approx(last[1], rel=1e-6)  # the number of steps matters


def test_a_build_may_take_numbers_and_recipes_may_have_feedback(tmp_path):
    def wide(key, width, rule):
        model = vc.nn.MLP((64, width, 10), key=key)
        return recipe(rule).attach(model, key=key)

    grid = [{"width": width, "rule": rule, "learning_rate": 0.1} for width, rule in ((4, "bp-sgd"), (6, "fa"))]
    done = sweep(make_without_width, wide, digits(), grid, folder=tmp_path, **STEPS)
    assert done.parts == 2
    widths = [jax.eval_shape(member.model, jax.ShapeDtypeStruct((64,), jnp.float32)).shape for member in done.members]
    assert widths == [(10,)] * 2
    assert [leaves(member.model)[0].shape[0] for member in done.members] == [4, 6]
    assert [type(member.model.layers[0]).__name__ for member in done.members] == ["Linear", "Fed"]
    kept = load_model(tmp_path, wide(jax.random.key(5), 6, "fa"), member=1)
    assert all(map(np.array_equal, leaves(kept), leaves(done.members[1].model)))
    with pytest.raises(ValueError, match="expected no graph with a build that takes numbers"):
        sweep(
            make_without_width, wide, digits(), grid, graph=vc.capture(build(jax.random.key(0)), jnp.ones(64)), **STEPS
        )


def make_without_width(rule, learning_rate):
    return recipe(rule).make(learning_rate=learning_rate)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("at", [6, full(12)])
def test_a_sweep_interrupted_in_a_later_part_resumes_to_the_same_end(tmp_path, at):
    grid = {"rule": ["bp-sgd", "il-sgd"], "learning_rate": [0.01, 1e30]}
    whole = sweep(make, build, digits(), grid, seeds=2, folder=tmp_path / "whole", **STEPS)
    records = []

    def interrupt(record, state):
        records.append(record)
        if len(records) == (5 if at == 6 else 7):
            raise Interrupted

    with pytest.raises(Interrupted):
        sweep(make, build, digits(), grid, seeds=2, folder=tmp_path / "cut", on_record=interrupt, **STEPS)
    again = sweep(make, build, digits(), grid, seeds=2, folder=tmp_path / "cut", resume=True, **STEPS)
    assert again.resumed
    for a, b in zip(whole.members, again.members, strict=True):
        assert (a.numbers, a.seed, a.records, a.stopped) == (b.numbers, b.seed, b.records, b.stopped)
        assert all(map(np.array_equal, leaves(a.model), leaves(b.model)))
    logs = [sorted((tmp_path / name / "metrics.jsonl").read_text().splitlines()) for name in ("whole", "cut")]
    assert logs[0] == logs[1]
    with pytest.raises(ValueError, match="with one; resume it, or choose another"):
        sweep(make, build, digits(), grid, seeds=2, folder=tmp_path / "cut", **STEPS)
    with pytest.raises(ValueError, match="expected the members of the sweep"):
        sweep(make, build, digits(), {"rule": ["bp-sgd", "bp"]}, folder=tmp_path / "cut", resume=True, **STEPS)


def test_whole_numbers_that_can_be_traced_share_a_program_and_stay_whole():
    done = sweep(sgd, build, digits(), {"learning_rate": [1, 10]}, **STEPS)
    assert done.parts == 1
    assert [json.dumps(member.numbers) for member in done.members] == ['{"learning_rate": 1}', '{"learning_rate": 10}']
    mixed = [row["learning_rate"] for row in combinations_of(sgd, build, {"learning_rate": [0.1, np.int64(3)]})]
    assert mixed == [0.1, 3]
    assert type(mixed[1]) is int


def test_only_what_cannot_be_traced_parts_the_members():
    given = []

    def counted(steps, learning_rate, flag):
        given.append((steps, flag))
        inference = vc.inference.Simultaneous(steps=steps)
        return vc.rules.InferenceLearning(inference=inference), optax.sgd(
            0.1 * learning_rate if flag else learning_rate
        )

    found = groups(counted, {"steps": [2, 3], "learning_rate": [0.1, 0.2, 0.3], "flag": [True, False]}, seeds=2)
    assert [len(group.members) for group in found] == [6] * 4
    assert [group.traced for group in found] == [("learning_rate",)] * 4
    assert sorted(i for group in found for i in group.members) == list(range(24))
    assert {(type(steps), type(flag)) for steps, flag in given if isinstance(steps, int)} == {(int, bool)}

    def deciding(learning_rate):
        return vc.rules.Backprop(), optax.sgd(1.0) if learning_rate > 1 else optax.adam(learning_rate)

    assert [group.members for group in groups(deciding, {"learning_rate": [0.1, 2.0]})] == [[0], [1]]
    assert len(groups(sgd, {"learning_rate": [0.1, 2.0]})) == 1
    assert len(groups(make, {"rule": ["il"], "inference.steps": [5, 6], "b1": [0.5, 0.9]})) == 2


@pytest.mark.parametrize(
    ("seconds", "steps", "compiling", "answer"),
    [
        (1e-3, 1000, 4.0, False),  # at best .5 s of 1 s are saved
        (1e-3, 8999, 4.0, False),  # 4.4995 s for 4.5 s
        (1e-3, 9001, 4.0, True),
        (1.0, 1, 0.0, False),
        (10.0, 2, 9.0, True),
    ],
)
def test_calibration_goes_on_only_if_it_can_pay(seconds, steps, compiling, answer):
    assert another_pays(seconds, steps, compiling) is answer


def test_a_short_sweep_is_compiled_once():
    settings = STEPS | {"group_size": None}
    assert sweep(sgd, build, digits(), {"learning_rate": [0.1]}, seeds=20, **settings).compilations == 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"make": 3}, TypeError, "expected make as a function, got 3"),
        ({"build": build(jax.random.key(0)).layers}, TypeError, "expected build as a function"),
        ({"numbers": {"lr": [0.1]}}, TypeError, r"names that make takes \(learning_rate\), got 'lr'"),
        ({"numbers": {"learning_rat": [0.1]}}, TypeError, "did you mean 'learning_rate'"),
        ({"make": lambda eps, learning_rate: None}, TypeError, "values of eps, which make needs"),
        ({"make": lambda learning_rate: vc.rules.Backprop()}, TypeError, r"a pair \(rule, optimizer\), got Backprop"),
        ({"make": lambda learning_rate: sgd(learning_rate)[::-1]}, TypeError, "the optimiser first; exchange them"),
        (
            {"make": lambda learning_rate: ("bp", optax.sgd(0.1))},
            TypeError,
            "a rule, got the string 'bp'; write rule, optimizer = vc.recipes",
        ),
        (
            {"make": lambda learning_rate: (vc.rules.Backprop(), "adam")},
            TypeError,
            "an optax optimiser, got the string 'adam'",
        ),
        ({"numbers": {"learning_rate": "0.1"}}, TypeError, "expected numbers as lists of values by name"),
        ({"numbers": {"learning_rate": [[0.1]]}}, TypeError, "expected numbers as lists of values by name"),
        ({"numbers": {"learning_rate": [optax.sgd]}}, TypeError, "with numbers, words, True, False or None as values"),
        ({"numbers": [{"learning_rate": 0.1, "eps": 1}, {"learning_rate": 0.1}]}, ValueError, "the same names"),
    ],
)
def test_mistakes(change, error, words):
    arguments = {"make": sgd, "build": build, "numbers": {"learning_rate": [0.1]}} | change
    with pytest.raises(error, match=words):
        sweep(data=digits(), **arguments, **STEPS)
