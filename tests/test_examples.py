"""Every example runs, with small arguments."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ARGUMENTS = {
    "own_data.py": ["--epochs", "1"],
    "own_network.py": ["--epochs", "1"],
    "own_rule.py": ["--epochs", "1"],
    "own_sweep.py": ["--steps", "5", "--seeds", "1"],
    "settling.py": ["--steps", "8"],
}


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example(name, tmp_path):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *ARGUMENTS[name]]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout
    for written in re.findall(r"^figure: (.*)$", finished.stdout, flags=re.MULTILINE):
        assert (tmp_path / written).stat().st_size > 1000
