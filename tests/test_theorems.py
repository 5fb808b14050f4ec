"""The page of theorems names tests that exist, and no test is known by a code."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "developer" / "theorems.md"


def functions(path):
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_theorem_has_its_test():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    theorems = [row for row in rows if not row.startswith(("| theorem |", "| --- |"))]
    assert len(theorems) > 60
    for row in theorems:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, f"no test for: {row}"
        for file, name in named:
            assert (TESTS / file).exists(), f"{file} does not exist"
            assert name in functions(TESTS / file), f"{file} has no test {name}"


def test_theorems_are_called_by_their_names():
    for path in TESTS.rglob("*.py"):
        assert not re.search(r"\bT-[a-m]\d|def test_[a-m]\d_", path.read_text()), path
