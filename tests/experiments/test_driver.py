"""The driver of experiments: what it refuses, what it resumes; and verdicts from numbers seed by seed."""

import dataclasses
import json
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import numpy as np
import pytest

from vicinal.cli.main import main
from vicinal.reproduce import ahead, experiment, experiments, reproduce, settings_in, verdict
from vicinal.reproduce.installed import installed
from vicinal_experiments import EXPERIMENTS


def test_a_verdict_needs_more_than_chance():
    assert ahead([1.0, 1.1, 1.2], [0.5, 0.6, 0.7]) == 1
    assert ahead([0.5, 0.6, 0.7], [1.0, 1.1, 1.2]) == -1
    assert ahead([1.0, 0.4, 1.2], [0.5, 0.9, 0.9]) == 0  # the interval of the differences holds 0
    assert ahead([1.0], [0.0]) == 0
    assert ahead([1.0, 1.0], [0.0, 0.0]) == 0  # two seeds have no interval
    assert ahead([1.0, np.nan, 1.2], [0.5, 0.6, 0.7]) == 0
    said = {
        (1, 1): "holds",
        (1, 0): "holds in part",
        (1, -1): "holds in part",
        (0, -1): "does not hold",
        (0, 0): "open",
    }
    assert {found: verdict(found) for found in said} == said


def test_an_experiment_needs_a_folder_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises(ValueError, match="expected a folder without a run"):
            reproduce("il-theory/online", tmp_path, quick=True, resume=resume)
    assert (tmp_path / "config.json").read_text() == "{}"


def test_the_full_experiments_say_which_data_they_need(tmp_path, monkeypatch):
    monkeypatch.setenv("VICINAL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="vicinal data fetch mnist"):
        reproduce("il-theory/stability", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_experiments_are_refused():
    with pytest.raises(ValueError, match="expected an experiment of il-theory/stability"):
        experiment("il-theory/everything")
    assert all(name == entry.name for name, entry in EXPERIMENTS.items())


class Entry(NamedTuple):
    """An entry point of another package."""

    name: str
    value: str
    offered: Any

    def load(self):
        if isinstance(self.offered, Exception):
            raise self.offered
        return self.offered


@pytest.fixture
def offer(monkeypatch):
    """Puts entry points beside vicinal's own."""
    own = tuple(entry_points(group="vicinal.experiments", name="vicinal"))

    def beside(*entries):
        monkeypatch.setattr("vicinal.reproduce.installed.entry_points", lambda group: (*entries, *own))
        installed.cache_clear()

    yield beside
    installed.cache_clear()


@pytest.mark.parametrize(
    ("offered", "words"),
    [
        (ImportError("No module named 'torch'"), "ImportError: No module named 'torch'"),
        (RuntimeError("anything"), "RuntimeError: anything"),
        ([EXPERIMENTS["fa/mnist"]], "expected a mapping from names to experiments, not list"),
        ({"theirs": 3}, "expected a vicinal.reproduce.Experiment, not int, for 'theirs'"),
        (
            {"theirs": EXPERIMENTS["fa/mnist"]},
            "expected the experiment's own name as its key, 'fa/mnist', not 'theirs'",
        ),
    ],
)
def test_a_broken_package_leaves_the_other_experiments_usable(offer, capsys, offered, words):
    offer(Entry("theirs", "their_package:ALL", offered))
    assert experiments() == EXPERIMENTS
    with pytest.raises(ValueError, match="left out: expected experiments in their_package:ALL, got ") as refused:
        experiment("theirs")
    assert words in str(refused.value)
    main(["reproduce"])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(EXPERIMENTS)
    assert words in " ".join(printed.err.split())


def test_experiments_of_another_package_are_found_and_names_differ(offer):
    theirs = dataclasses.replace(EXPERIMENTS["fa/mnist"], name="theirs/one")
    twice = dataclasses.replace(EXPERIMENTS["fa/mnist"], topic="twice")
    offer(Entry("zz", "their_package:ALL", {"theirs/one": theirs, "fa/mnist": twice}))
    assert experiment("theirs/one") is theirs
    assert experiment("fa/mnist") is EXPERIMENTS["fa/mnist"]
    assert installed().faults == (
        "expected names that differ, got the experiment 'fa/mnist' again from their_package:ALL",
    )


@pytest.mark.parametrize(
    ("name", "quick", "words"),
    [
        ("ovq/icl", False, "with large sizes, ovq/recall, .*hardware/transfer, got ovq/icl"),
        ("ovq/recall", True, "got both"),
    ],
)
def test_large_sizes_are_refused_where_there_are_none(tmp_path, name, quick, words):
    with pytest.raises(ValueError, match=words):
        reproduce(name, tmp_path / "run", quick=quick, large=True)
    assert not (tmp_path / "run").exists()


def test_a_large_run_is_resumed_as_one(tmp_path):
    config = {"experiment": "ovq/recall", "quick": False, "seeds": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | {"large": True}))
    assert settings_in(tmp_path)["large"] is True
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert settings_in(tmp_path)["large"] is False
    with pytest.raises(ValueError, match="expected a folder without a run, or the same one"):
        reproduce("ovq/recall", tmp_path, seeds=1, large=True, resume=True)
