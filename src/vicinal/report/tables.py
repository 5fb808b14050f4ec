"""Tables for the terminal; on anything else, rich writes them as plain text in the width it is given."""

import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal._records import stop_words
from vicinal.report.cells import WHOLE, Cell, angle_cells, main_columns, more_cells, row_cells, seeds_text
from vicinal.report.interval import FEWEST
from vicinal.report.results import CONCATENATED, Comparison

__all__ = ["angle_table", "comparison_table", "more_table", "plain_table", "print_tables"]

_LEAST_WIDTH = 8
_ROOM, _LONGEST = 79, 20  # columns of a terminal, and the longest word that a label is not broken for


def comparison_table(comparison: Comparison) -> Table:
    """Build the main table: one row per rule.

    It can be read in 80 columns: where that leaves too little room for the labels of the rules, they go by their short
    names. The angles layer by layer are in `angle_table`.

    Args:
        comparison: The results.

    Returns:
        A table for `rich.console.Console.print`.
    """
    notes = [seeds_text(comparison)]
    if any(rule.seeds >= FEWEST for rule in comparison.rules):
        notes.append("± is half a 95 % interval")
    if any(rule.norm_ratios for rule in comparison.rules):
        notes.append("× is the norm over BP's")
    table = plain_table(f"{comparison.title} ({'; '.join(notes)})")
    columns = main_columns(comparison)
    rows = [row_cells(rule, columns) for rule in comparison.rules]
    room = _ROOM - sum(width + 1 for width in _widths(rows))
    words = max(len(word) for rule in comparison.rules for word in rule.label.split() or [""])
    labels = [Text(rule.label if min(words, _LONGEST) <= room else rule.name) for rule in comparison.rules]
    for label, rule in zip(labels, comparison.rules, strict=True):
        if rule.stopped:
            label.append(" (stopped)", style="yellow")
    heads = [f"{column.heading} ({column.unit.strip()})" if column.unit else column.heading for column in columns]
    return _fill(table, "rule", labels, heads, rows)


def angle_table(comparison: Comparison) -> Table | None:
    """Build the table of angles to backpropagation's update, layer by layer, with the norms over those of BP's.

    Rules or layers become the columns, whichever are fewer. Rules go by their short names.

    Args:
        comparison: The results.

    Returns:
        A table, or None if no angle was measured.
    """
    angles = angle_cells(comparison)
    if not angles:
        return None
    names = [rule.name for rule in comparison.rules]
    layers = [layer for layer, _ in angles]
    by_layer = [cells for _, cells in angles]
    sized = any(rule.norm_ratios for rule in comparison.rules)
    table = plain_table("Angle to backpropagation (°)" + ", and × the norm over that of BP's" * sized)
    if len(names) < len(layers):
        return _fill(table, "layer", layers, names, by_layer)
    return _fill(table, "rule", names, layers, list(zip(*by_layer, strict=True)))


def more_table(comparison: Comparison) -> Table | None:
    """Build the table of what else was measured at the end of training, such as R2 or a user's own metrics.

    Args:
        comparison: The results.

    Returns:
        A table, or None if there is nothing more.
    """
    heads, rows = more_cells(comparison)
    if not heads:
        return None
    return _fill(plain_table("Also measured at the end"), "rule", [rule.name for rule in comparison.rules], heads, rows)


def print_tables(comparison: Comparison, console: Console | None = None) -> None:
    """Print the tables, and why a rule was stopped if one was.

    Args:
        comparison: The results.
        console: Where to print; by default standard output.
    """
    console = console or Console()
    for table in (comparison_table(comparison), more_table(comparison), angle_table(comparison)):
        if table is not None:
            console.print(table)
            console.print()
    if any(CONCATENATED in rule.angles and len(rule.angles) > 1 for rule in comparison.rules):
        console.print(Text(WHOLE))
    for rule in comparison.rules:
        if rule.stopped:
            console.print(Text(f"{rule.label} was {stop_words(rule.stopped)}"))


def plain_table(title: str = "") -> Table:
    """Start a table in the look that all of them share.

    Args:
        title: Heading of the table; may be empty.

    Returns:
        A table without columns.
    """
    return Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )


def _fill(
    table: Table, corner: str, sides: Sequence[str | Text], heads: Sequence[str], rows: Sequence[Sequence[Cell]]
) -> Table:
    """Fill a table in which only the first column gives way when there is little room.

    Headings and notes are wrapped to the width of the numbers, and numbers are never broken.
    """
    table.add_column(corner, overflow="fold", min_width=8)
    widths = _widths(rows)
    for head, width in zip(heads, widths, strict=True):
        table.add_column(Text(textwrap.fill(head, width)), justify="right", no_wrap=True)
    for side, cells in zip(sides, rows, strict=True):
        texts = (_cell_text(cell, width) for cell, width in zip(cells, widths, strict=True))
        table.add_row(Text(side) if isinstance(side, str) else side, *texts)
    return table


def _widths(rows: Sequence[Sequence[Cell]]) -> list[int]:
    return [max(_LEAST_WIDTH, *map(_width, cells)) for cells in zip(*rows, strict=True)]


def _width(cell: Cell) -> int:
    size = cell.note.split("; ")[0] if cell.note.startswith("×") else ""  # as a number, it is not broken
    return max(len(cell.number), len(size) + 2 * bool(size))


def _cell_text(cell: Cell, width: int) -> Text:
    note = f"\n{textwrap.fill(f'({cell.note})', width)}" if cell.note else ""
    return Text(cell.number + note)
