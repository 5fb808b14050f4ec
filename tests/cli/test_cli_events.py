"""Rules of events on the command line."""

import json

import pytest

from vicinal.cli import main
from vicinal.event_settings import EventSettings
from vicinal.events import Cyclic, Graded, Ternary
from vicinal.inference_settings import InferenceSettings
from vicinal.recipes import recipe
from vicinal.settings import TaskSettings

QUICK = ("--epochs", "1", "--batch-size", "256", "--model.sizes", "64", "8", "10")


def run(*arguments):
    main(list(map(str, arguments)))


def test_networks_of_events_are_trained_and_their_settings_are_kept_and_resumed(capsys, tmp_path):
    options = ("--events.threshold", "0.1", "--events.learn", "any", "--events.steps", "5")
    run("compare", "--rules", "il-events", "bp-events", *QUICK, *options, "--seeds", "1", "--folder", tmp_path / "a")
    settings = json.loads((tmp_path / "a" / "config.json").read_text())["events"]
    given = {name: value for name, value in settings.items() if value is not None}
    assert given == {"threshold": 0.1, "learn": "any", "steps": 5}
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert [rule["name"] for rule in results["rules"]] == ["il-events", "bp-events"]
    before = (tmp_path / "a" / "il-events-seed0" / "metrics.jsonl").read_text()
    run("compare", "--resume", tmp_path / "a")
    assert (tmp_path / "a" / "il-events-seed0" / "metrics.jsonl").read_text() == before


def test_thresholds_vary_in_one_program_and_times_of_the_update_in_several(tmp_path):
    vary = ("activity.threshold=0.05,0.2", "learn=end,mean")
    run("sweep", "--rule", "il-events", *QUICK, "--seeds", "1", "--vary", *vary, "--folder", tmp_path / "b")
    members = json.loads((tmp_path / "b" / "results.json").read_text())["numbers"]["members"]
    assert len({member["records"][-1]["train_loss"] for member in members}) == 4


def test_the_ledger_counts_as_many_steps_as_are_set(capsys):
    run("ledger", "il-events", "--events.steps", "3", "--model.vertex-at", "pre")
    assert "il-events" in capsys.readouterr().out


def made(name="il-events", *, inference=None, words=(), **settings):
    task = TaskSettings(events=EventSettings(**settings), inference=inference or InferenceSettings(), set=words)
    return task.make(name)[name][0]


def test_every_setting_reaches_the_rule():
    rule = made(threshold=0.2, error_threshold=0.1, code="cyclic", relative=True, learn="mean", part=0.25, steps=7)
    assert (type(rule.activity), type(rule.error)) == (Cyclic, Cyclic)
    assert (float(rule.activity.threshold), float(rule.error.threshold)) == (pytest.approx(0.2), pytest.approx(0.1))
    assert (rule.activity.relative, rule.error.relative) == (True, True)
    assert (rule.learn, rule.part, rule.steps, float(rule.step_size)) == ("mean", 0.25, 7, pytest.approx(0.1))
    assert float(made(step_size=0.3).step_size) == pytest.approx(0.3)


def test_what_is_not_set_is_as_in_the_recipe():
    plain, _ = recipe("il-events").make()
    ternary = made(code="ternary")
    assert isinstance(ternary.activity, Ternary)
    for own, other in ((ternary.activity, plain.activity), (ternary.error, plain.error)):
        assert (float(own.threshold), own.relative) == (float(other.threshold), other.relative)
    assert type(made(relative=True).activity) is Graded
    alone = made(error_threshold=0.3)
    assert (float(alone.activity.threshold), float(alone.error.threshold)) == (pytest.approx(0.05), pytest.approx(0.3))


@pytest.mark.parametrize("name", ["il-events", "bp-events"])
def test_the_threshold_of_errors_keeps_its_part_of_that_of_values(name):
    rule = made(name, threshold=0.4)
    assert (float(rule.activity.threshold), float(rule.error.threshold)) == (pytest.approx(0.4), pytest.approx(0.1))


def test_settings_of_inference_and_numbers_by_name_reach_it_too():
    rule = made(
        inference=InferenceSettings(steps=9, nudge=0.5), words=("activity.cycle=2",), code="cyclic", step_size=0.2
    )
    assert (rule.steps, float(rule.nudge), rule.activity.cycle) == (9, 0.5, 2)
    assert (float(rule.step_size), rule.error.cycle) == (pytest.approx(0.2), 4)


def test_a_comparison_ignores_what_one_of_its_rules_reads_alone():
    task = TaskSettings(events=EventSettings(code="ternary", learn="any"))
    rules = task.make("il", "il-events", "bp-events")
    assert isinstance(rules["il-events"][0].activity, Ternary)
    assert isinstance(rules["bp-events"][0].activity, Graded)
