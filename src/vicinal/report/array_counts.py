"""What an update asks of arrays that hold the weights, rule by rule, as a table and figures."""

import dataclasses
from collections.abc import Mapping

from vicinal.report.study import Panel, Section, Series, Table

__all__ = ["ARRAY_COUNTS", "array_panels", "array_section", "array_table"]

ARRAY_COUNTS = {
    "forward": "forward reads",
    "transposed": "transposed reads",
    "outer": "outer products",
    "passes": "passes",
    "depth": "depth",
    "busiest": "busiest",
    "digital": "digital products",
}
"""The counts and their headings."""

_TEXT = (
    "What an update asks of arrays that hold the weights and multiply where they lie, such as crossbars: counted from "
    "the program of the gradient. `vicinal ledger` adds conversions, energy and time."
)
_NOTE = (
    "For each example. A read is one product of a stored matrix with one vector; passes are the multiplications of all "
    "reads in forward passes. Depth is the longest chain of reads in which each needs the one before. Busiest is the "
    "number of reads of the array that is read most often: an array does one at a time. Digital products are "
    "multiplications in products that no array takes."
)


def array_section(counts: Mapping[str, Mapping[str, float]]) -> Section | None:
    """The section of a report on what was trained, with the table folded; None without counts.

    Args:
        counts: Rule -> the counts named in `ARRAY_COUNTS`.
    """
    if not counts:
        return None
    table = dataclasses.replace(array_table(counts), folded=True)
    return Section("On arrays", _TEXT, [table], array_panels(counts))


def array_table(counts: Mapping[str, Mapping[str, float]]) -> Table:
    """The counts of each rule as a table.

    Args:
        counts: Rule -> the counts named in `ARRAY_COUNTS`.
    """
    rows = [[rule, *(_whole(found[name]) for name in ARRAY_COUNTS)] for rule, found in counts.items()]
    return Table("Reads and outer products", ["rule", *ARRAY_COUNTS.values()], [list(row) for row in rows], note=_NOTE)


def array_panels(counts: Mapping[str, Mapping[str, float]]) -> list[Panel]:
    """Reads by rule, and the chains and queues they make; nothing for a single rule."""
    if len(counts) < 2:
        return []
    rules, places = list(counts), [float(place) for place in range(len(counts))]

    def panel(label: str, names: tuple[str, ...]) -> Panel:
        lines = [Series(ARRAY_COUNTS[n], places, [[found[n] for found in counts.values()]]) for n in names]
        return Panel("", "rule", label, lines, log_y=True, places=rules)

    return [
        panel("Reads and outer products for each example", ("forward", "transposed", "outer")),
        panel("Reads one after another", ("depth", "busiest")),
    ]


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value
