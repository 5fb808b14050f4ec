"""The cells of a table as text, for the page, the terminal and Markdown."""

import dataclasses
import re

from vicinal.report.formatting import MISSING, significant
from vicinal.report.study import Table

__all__ = ["TextTable", "cell_text", "table_texts"]

_DIGITS = 4
_LONG = 32  # a longer text is a sentence, whatever it begins with


@dataclasses.dataclass(frozen=True)
class TextTable:
    """A table whose cells are written out.

    Args:
        table: The table.
        words: Whether a column holds words rather than numbers; `[columns]`.
        rows: The cells.
    """

    table: Table
    words: list[bool]
    rows: list[list[str]]


def table_texts(table: Table) -> TextTable:
    """Write out the cells of a table.

    Args:
        table: The table.

    Returns:
        The table in text. A float that names a row is written without trailing zeros.
    """
    rows = [[_name(row[0]), *map(cell_text, row[1:])] for row in table.rows]
    columns = zip(*rows, strict=True) if rows else [()] * len(table.columns)
    words = [not any(map(_is_number, column)) or max(map(_length, column)) > _LONG for column in columns]
    return TextTable(table, [True, *words[1:]], rows)


def _length(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def cell_text(value: str | float | int | None) -> str:
    """Write a cell.

    Args:
        value: What it holds.

    Returns:
        A text as it is, a float with four significant digits, a dash for None.

    Example:
        >>> cell_text(0.91234), cell_text(25), cell_text("diverged"), cell_text(None)
        ('0.9123', '25', 'diverged', '–')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return significant(value, _DIGITS) if isinstance(value, float) else str(value)


def _name(value: str | float | int | None) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else cell_text(value)


def _is_number(cell: str) -> bool:
    return re.match(r"[-+±<>≤≥~≈]?\s*[.\d]", cell) is not None
