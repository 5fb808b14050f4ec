"""Large matrices of tests: a part runs always, the rest in `pytest -m full`."""

import pytest


def full(*values):
    """One set of values for `pytest.mark.parametrize` that runs in `pytest -m full` alone."""
    return pytest.param(*values, marks=pytest.mark.full)


def some(values, *always):
    """The values of one parameter: those in `always` run always, the others in `pytest -m full` alone."""
    return [value if value in always else full(value) for value in values]


def diagonal(rows, columns):
    """All pairs of two lists, for `pytest.mark.parametrize`.

    The pairs on the diagonal, which is repeated along the longer list, run always: each row and each column comes up
    there at least once. All others are marked `full`.
    """
    period = min(len(rows), len(columns))
    return [
        pytest.param(row, column) if i % period == j % period else full(row, column)
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]
