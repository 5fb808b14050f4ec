"""Every example runs, with small arguments."""

import re
import runpy
import sys
from pathlib import Path

import jax
import pytest

from vicinal import testing

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ARGUMENTS = {
    "own_data.py": ["--epochs", "1"],
    "own_experiment.py": ["--quick"],
    "own_network.py": ["--epochs", "1"],
    "own_rule.py": ["--epochs", "1"],
    "own_sweep.py": ["--steps", "5", "--seeds", "1"],
    "settling.py": ["--steps", "8"],
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example(name, tmp_path, monkeypatch, capsys):
    """In this process, which has imported what they need; with JAX's promotion as users have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS[name]])
    few = testing.cases()[:2]
    monkeypatch.setattr(testing, "cases", lambda *_: few)  # the contract on all networks has tests of its own
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    for written in re.findall(r"^figure: (.*)$", printed, flags=re.MULTILINE):
        assert (tmp_path / written).stat().st_size > 1000
