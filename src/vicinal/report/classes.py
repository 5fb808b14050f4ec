"""Class by class: the share of the test set that each rule gets right, and what it takes the others for."""

import dataclasses

from vicinal.report.results import Comparison, RuleResult
from vicinal.report.words import MISSING

__all__ = ["ClassRow", "Confusion", "class_rows", "confusions", "names_of_classes"]

_MOST = 20  # classes whose confusions fit a table that can be read


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """One class.

    Args:
        name: What it is called.
        examples: How many there are in the test set.
        cells: The share that each rule gets right, in percent.
    """

    name: str
    examples: str
    cells: list[str]


@dataclasses.dataclass(frozen=True)
class Confusion:
    """What one rule took the classes for.

    Args:
        label: The rule.
        names: The classes.
        rows: The share of a class (row) that was taken for each class (column), in percent; a dot for none.
    """

    label: str
    names: list[str]
    rows: list[list[str]]


def names_of_classes(comparison: Comparison) -> list[str]:
    """The classes by their names, or by their labels if they have none; empty if nothing was counted."""
    counted = max((len(rule.confusion) for rule in comparison.rules), default=0)
    return (comparison.class_names or [str(label) for label in range(counted)]) if counted else []


def class_rows(comparison: Comparison) -> list[ClassRow]:
    """Write the share of each class that each rule gets right, over all its seeds.

    Args:
        comparison: The results.

    Returns:
        A row for each class.
    """
    counted = [rule for rule in comparison.rules if rule.confusion]
    return [
        ClassRow(
            name,
            f"{sum(counted[0].confusion[i]):.6g}",
            [MISSING if (share := _right(rule, i)) is None else f"{100 * share:.1f}" for rule in comparison.rules],
        )
        for i, name in enumerate(names_of_classes(comparison))
    ]


def confusions(comparison: Comparison) -> list[Confusion]:
    """Write what each rule took the classes for, if there are 20 classes at most.

    Args:
        comparison: The results.

    Returns:
        A table for each rule whose predictions were counted.
    """
    names = names_of_classes(comparison)
    if not 2 <= len(names) <= _MOST:
        return []
    return [
        Confusion(rule.label, names, [[_percent(count, sum(row)) for count in row] for row in rule.confusion])
        for rule in comparison.rules
        if rule.confusion
    ]


def _right(rule: RuleResult, label: int) -> float | None:
    row = rule.confusion[label] if rule.confusion else []
    return row[label] / sum(row) if sum(row) else None


def _percent(count: float, total: float) -> str:
    if not count:
        return "\N{MIDDLE DOT}"
    share = 100 * count / total
    return f"{share:.0f}" if share >= 1 else "<1"
