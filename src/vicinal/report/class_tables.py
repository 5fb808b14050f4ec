"""The tables of a comparison by class: each rule's correct answers and confusions."""

from typing import Any

from vicinal.report.comparison import Comparison, RuleResult
from vicinal.report.comparison_tables import labels_of
from vicinal.report.study import Table

__all__ = ["class_table", "confusion_tables"]

_MOST = 20  # classes whose confusions fit a readable table


def class_table(comparison: Comparison) -> Table | None:
    """The share of each class that each rule gets right, over all its seeds; None if nothing was counted."""
    known = [rule for rule in comparison.rules if rule.confusion]
    names = _names_of_classes(comparison)
    if not names:
        return None
    rows: list[list[Any]] = [
        [name, f"{sum(known[0].confusion[i]):.6g}", *[_right(rule, i) for rule in comparison.rules]]
        for i, name in enumerate(names)
    ]
    title = "Share of the test examples of a class that are classified correctly at the end (%)"
    columns = ["class", "examples", *labels_of(comparison).values()]
    return Table(title, columns, rows, "Over all seeds of a rule.", folded=len(names) > _MOST)


def confusion_tables(comparison: Comparison) -> list[Table]:
    """The confusions of each rule, a table each, if there are at most 20 classes."""
    names, labels = _names_of_classes(comparison), labels_of(comparison)
    if not 2 <= len(names) <= _MOST:
        return []
    return [
        Table(
            f"What {labels[rule.name]} took them for (%)",
            ["class", *names],
            [[name, *_shares(row)] for name, row in zip(names, rule.confusion, strict=True)],
            "A row is what the test examples of a class were taken for.",
            folded=True,
        )
        for rule in comparison.rules
        if rule.confusion
    ]


def _names_of_classes(comparison: Comparison) -> list[str]:
    counts = max((len(rule.confusion) for rule in comparison.rules), default=0)
    return (comparison.class_names or [str(label) for label in range(counts)]) if counts else []


def _right(rule: RuleResult, label: int) -> str | None:
    row = rule.confusion[label] if rule.confusion else []
    return f"{100 * row[label] / sum(row):.1f}" if sum(row) else None


def _shares(row: list[float]) -> list[str]:
    """The shares of a row in percent; a dot for none."""
    total = sum(row)
    shares = [100 * count / total if total else 0.0 for count in row]
    return ["\N{MIDDLE DOT}" if not share else f"{share:.0f}" if share >= 1 else "<1" for share in shares]
