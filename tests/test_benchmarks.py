"""The harness of the benchmarks: what a ratio is, and that each benchmark has what the harness needs."""

import importlib
import sys
from pathlib import Path

import pytest

from vicinal.report import Study

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "harness")


@pytest.fixture
def harness(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("harness")


def test_a_ratio_is_taken_within_a_round(harness):
    """A machine that gets slower from round to round changes medians, and no ratio."""
    slower = iter([1.0, 10.0, 100.0])
    floor = harness.Times({"floor": [1.0, 10.0, 100.0], "ours": [2.0 * next(slower) for _ in range(3)]})
    assert floor.median("ours") == 20
    assert floor.ratio("ours", "floor") == 2
    assert floor.table("Batch", "floor").rows == [["floor", "10000000", "1.00"], ["ours", "20000000", "2.00"]]


def test_contestants_take_turns_after_one_run_each(harness):
    calls = []

    def measured(name):
        calls.append(name)
        return float(len(calls))

    found = harness.take_turns({name: lambda name=name: measured(name) for name in "ab"}, rounds=2)
    assert calls == ["a", "b", "a", "b", "a", "b"]
    assert found.seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_benchmark_writes_a_study_with_its_command(harness, monkeypatch, tmp_path, capsys):
    def run(rounds, names):
        return harness.Result(f"{rounds} rounds of {', '.join(names)}.", [], {"rounds": rounds})

    arguments = ["sweep.py", "--rounds", "3", "--names", "a", "b", "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    harness.main("sweep", "A sweep", "A line.", run, rounds=9, names=["a"])
    study = Study.from_json((tmp_path / "found.json").read_text())
    assert study.command == "python benchmarks/sweep.py --rounds 3 --names a b"
    assert study.summary == "3 rounds of a, b."
    assert "3 rounds of a, b." in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_uses_the_harness(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert "from harness import" in text
    assert f'"{name}"' in text.split("main(")[-1]
    assert "argparse" not in text
