"""A study in the terminal, readable in 80 columns: its summary, tables, claims and differences."""

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.report.study import Claim, Study
from vicinal.report.study_cells import TextTable, table_texts
from vicinal.report.tables import plain_table
from vicinal.report.words import unbroken

__all__ = ["print_study"]

_GAP = 2  # between two columns
_CELL = 24  # a longer cell is wrapped; no number is
_NAME = 16  # the room that the names of the rows keep before the columns are parted
_LEAST = 8  # the narrowest that a heading is wrapped to
_STYLES = {"holds": "green", "holds in part": "yellow", "does not hold": "red", "open": "dim"}


def print_study(study: Study, console: Console | None = None) -> None:
    """Print what a study found: its summary, every table, the claims with their verdicts, and the differences.

    A table that is too wide is printed in parts, each with the names of the rows; no number is ever broken.

    Args:
        study: The study.
        console: Where to print; by default standard output.
    """
    console = console or Console()
    console.print(Text(_wrap(study.title, console.width), style="bold"))
    console.print(Text(_wrap(study.summary, console.width)))
    for section in study.sections:
        if section.tables:
            _print_heading(console, section.heading)
        for table in section.tables:
            console.print()
            if table.title:
                console.print(Text(_wrap(table.title, console.width), style="bold"))
            for index, part in enumerate(_parts(table_texts(table), console.width)):
                if index:
                    console.print()
                console.print(part)
    if study.claims:
        _print_heading(console, "What is claimed, and what was measured")
        console.print()
        console.print(_claims(study.claims, console.width))
    if study.differences:
        _print_heading(console, "Where this differs from the paper")
        console.print()
        for difference in study.differences:
            console.print(Text(_wrap(difference, console.width, "- ")))


def _print_heading(console: Console, heading: str) -> None:
    console.print()
    console.print(Text(_wrap(heading, console.width), style="bold underline"))


def _parts(table: TextTable, width: int) -> list[Table]:
    """Build a table, or several with some of the columns each if it is wider than the terminal."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.columns)
    widths = [_width(head, column) for head, column in zip(table.columns, columns, strict=True)]
    longest = max(map(len, (table.columns[0], *columns[0])))
    names = max(width - sum(other + _GAP for other in widths[1:]), _NAME)
    widths[0] = min(longest, names)
    groups: list[list[int]] = [[]]
    left = width - widths[0]
    for index in range(1, len(widths)):
        if groups[-1] and widths[index] + _GAP > left:
            groups.append([])
            left = width - widths[0]
        groups[-1].append(index)
        left -= widths[index] + _GAP
    return [_part(table, widths, [0, *group]) for group in groups]


def _part(table: TextTable, widths: Sequence[int], columns: Sequence[int]) -> Table:
    part = plain_table()
    for index in columns:
        head = Text(_wrap(table.columns[index], max(widths[index], _LEAST)))
        part.add_column(head, justify="left" if table.words[index] else "right", no_wrap=True)
    for row in table.rows:
        part.add_row(*[Text(_wrap(row[index], widths[index])) for index in columns])
    return part


def _width(head: str, column: Sequence[str]) -> int:
    """Measure a column whose heading is wrapped to the width of its cells."""
    cells = max((len(line) for cell in column for line in _wrap(cell, _CELL).split("\n")), default=0)
    return max(cells, *(len(line) for line in _wrap(head, max(cells, _LEAST)).split("\n")))


def _claims(claims: Sequence[Claim], width: int) -> Table:
    verdict = max(len(claim.verdict) for claim in claims)
    room = max((width - verdict - 2 * _GAP) // 2, _LEAST)
    table = plain_table()
    table.leading = 1
    for head in ("claim", "measured", "verdict"):
        table.add_column(head, no_wrap=True)
    for claim in claims:
        texts = [Text(_wrap(text, room)) for text in (claim.paper, claim.measured)]
        table.add_row(*texts, Text(claim.verdict, style=_STYLES[claim.verdict]))
    return table


def _wrap(text: str, width: int, bullet: str = "") -> str:
    """Break a text into lines, but not between a number and its margin or unit."""
    lines = textwrap.fill(unbroken(text), width, initial_indent=bullet, subsequent_indent=" " * len(bullet))
    return lines.replace("\N{NO-BREAK SPACE}", " ")
