"""Print a study in the terminal, readable in 80 columns: its summary, tables, claims and differences."""

import textwrap
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vicinal.report.comparison import Comparison
from vicinal.report.comparison_study import as_study
from vicinal.report.formatting import unbroken
from vicinal.report.study import Claim, Study, Table as Numbers
from vicinal.report.table_text import TextTable, table_texts

__all__ = ["print_study"]

_GAP = 2  # between two columns
_CELL = 24  # a longer cell is wrapped; no number is
_NAME, _WORD = 12, 16  # the room that the names of the rows keep before the columns are parted; a longer word breaks
_LEAST = 6  # the narrowest that a heading is wrapped to
_STYLES = {"holds": "green", "holds in part": "yellow", "does not hold": "red", "open": "dim"}


def print_study(results: Study | Comparison, console: Console | None = None) -> None:
    """Print the summary of a study or a comparison, its tables, claims with their verdicts, and differences.

    A table that is too wide is printed in parts, each with the names of the rows; no number is ever broken. A folded
    table is left out.

    Args:
        results: The study, or the comparison.
        console: Where to print; by default standard output.
    """
    study, console = as_study(results), console or Console()
    console.print(Text(_wrap(study.title, console.width), style="bold"))
    console.print(Text(_wrap(study.summary, console.width)))
    for section in study.sections:
        tables = [table for table in section.tables if not table.folded]
        if tables:
            _print_heading(console, section.heading)
        for table in tables:
            _print_table(console, table)
    if study.claims:
        _print_heading(console, "What is claimed, and what was measured")
        console.print()
        console.print(_claims(study.claims, console.width))
    if study.differences:
        _print_heading(console, "Where this differs from the paper")
        console.print()
        for difference in study.differences:
            console.print(Text(_wrap(difference, console.width, "- ")))


def _print_table(console: Console, table: Numbers) -> None:
    console.print()
    if table.title:
        console.print(Text(_wrap(table.title, console.width), style="bold"))
    for index, part in enumerate(_parts(table_texts(table), console.width)):
        if index:
            console.print()
        console.print(part)
    if table.note:
        console.print(Text(_wrap(table.note, console.width), style="dim"))


def _print_heading(console: Console, heading: str) -> None:
    console.print()
    console.print(Text(_wrap(heading, console.width), style="bold underline"))


def _parts(text: TextTable, width: int) -> list[Table]:
    """Build a table, or several with some of the columns each if it is wider than the terminal."""
    heads = text.table.columns
    columns = list(zip(*text.rows, strict=True)) or [()] * len(heads)
    widths = [_width(head, column) for head, column in zip(heads, columns, strict=True)]
    longest = max(map(len, (heads[0], *columns[0])))
    names = max(width - sum(other + _GAP for other in widths[1:]), _NAME, _longest_word(heads[0], *columns[0]))
    widths[0] = min(longest, names)
    groups: list[list[int]] = [[]]
    left = width - widths[0]
    for index in range(1, len(widths)):
        if groups[-1] and widths[index] + _GAP > left:
            groups.append([])
            left = width - widths[0]
        groups[-1].append(index)
        left -= widths[index] + _GAP
    return [_part(text, widths, [0, *group]) for group in groups]


def _part(text: TextTable, widths: Sequence[int], columns: Sequence[int]) -> Table:
    part = _plain_table()
    for index in columns:
        head = Text(_wrap(text.table.columns[index], widths[index]))
        part.add_column(head, justify="left" if text.words[index] else "right", no_wrap=True)
    for row in text.rows:
        part.add_row(*[Text(_wrap(row[index], widths[index])) for index in columns])
    return part


def _plain_table() -> Table:
    return Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))


def _width(head: str, column: Sequence[str]) -> int:
    """Measure a column whose heading is wrapped to the width of its cells, or of its longest word."""
    cells = max((len(line) for cell in column for line in _wrap(cell, _CELL).split("\n")), default=0)
    room = max(cells, _LEAST, _longest_word(head))
    return max(cells, *(len(line) for line in _wrap(head, room).split("\n")))


def _longest_word(*texts: str) -> int:
    return min(max(len(word) for text in texts for word in text.split() or [""]), _WORD)


def _claims(claims: Sequence[Claim], width: int) -> Table:
    verdict = max(len(claim.verdict) for claim in claims)
    room = max((width - verdict - 2 * _GAP) // 2, _LEAST)
    table = _plain_table()
    table.leading = 1
    for head in ("claim", "measured", "verdict"):
        table.add_column(head, no_wrap=True)
    for claim in claims:
        texts = [Text(_wrap(text, room)) for text in (claim.paper, claim.measured)]
        table.add_row(*texts, Text(claim.verdict, style=_STYLES[claim.verdict]))
    return table


def _wrap(text: str, width: int, bullet: str = "") -> str:
    """Break each line of a text, but not between a number and its margin or unit."""
    lines = [
        textwrap.fill(unbroken(line), width, initial_indent=bullet, subsequent_indent=" " * len(bullet))
        for line in text.split("\n")
    ]
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}", " ")
