"""The results of a study (a sweep, or a reproduced figure of a paper) as plain data that JSON can hold.

As in `vicinal.report.comparison`, nothing here needs JAX, and each class cleans and checks what it is given when it
is built.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from vicinal.report.outline import Node
from vicinal.report.palette import check_color
from vicinal.report.storage import check_lengths, numbers, plain, read_json, set_field, texts, write_json

__all__ = ["VERDICTS", "Claim", "Panel", "Section", "Series", "Study", "Table"]

VERDICTS = ("holds", "holds in part", "does not hold", "open")
"""The verdicts on a claim; "open" if these runs do not decide it."""

_FORMAT = "vicinal-study-1"


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a figure.

    Args:
        label: Name of the line. A label keeps its colour and its dashes through all figures of a study.
        x: Where each point stands; the line joins the points in this order; `[points]`.
        y: The values, nan where a repetition was lost; `[repetitions][points]`. The line is their mean, the band
            spans them from lowest to highest.
        color: `"#rrggbb"`, or None to take one from the colour-blind-safe palette.

    Raises:
        ValueError: If a repetition does not have one value per point, or the colour is written otherwise.
    """

    label: str
    x: list[float]
    y: list[list[float]]
    color: str | None = None

    def __post_init__(self) -> None:
        set_field(self, "x", numbers(self.x))
        set_field(self, "y", [self._repetition(row) for row in self.y])
        check_lengths(f"Series {self.label!r}: y", self.y, len(self.x), "value per x", "nan")
        check_color(f"Series {self.label!r}", self.color)

    def _repetition(self, row: Any) -> list[float]:
        if not isinstance(row, Iterable):
            raise ValueError(f"Series {self.label!r}: expected y to hold one list per repetition, got {row!r} for one.")
        return numbers(row)


@dataclasses.dataclass(frozen=True)
class Panel:
    """One figure.

    Args:
        title: Heading of the figure.
        x_label: What the horizontal axis shows.
        y_label: What the vertical axis shows.
        series: The lines, each with a label of its own.
        log_x: Whether the horizontal axis is logarithmic; then every x must be positive.
        log_y: Whether to prefer a logarithmic vertical axis. It stays linear where the values hardly spread; a
            value that is not positive has no place on a logarithmic one.
        note: A sentence to stand under the figure; may be empty.
        places: Names of the places 0, 1, ... on the x axis, which must be the `x` of every series. With names the
            figure shows marks in place of lines: a row for each place, the values along the horizontal axis, the mean
            of each series with its 95 % interval, and a stroke for each repetition.
        decades: The most powers of ten that a logarithmic axis of values shows, counted from the largest value. The
            default is all that single precision can hold.
        level: A value at which to draw a line across the figure, such as 1 for a ratio; None for no line.
        rows: Names of places on the vertical axis. With names the figure shows a short upright stroke at each point in
            place of lines, as for the events of many units, a row for each.
        extent: Ends of the horizontal and of the vertical axis of a figure with rows.

    Raises:
        ValueError: If two lines share a label, or an x has no place on the axis.
    """

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False
    note: str = ""
    places: list[str] = dataclasses.field(default_factory=list)
    decades: float = 80.0
    level: float | None = None
    rows: dict[str, float] = dataclasses.field(default_factory=dict)
    extent: tuple[tuple[float, float], tuple[float, float]] = ((0.0, 1.0), (0.0, 1.0))

    def __post_init__(self) -> None:
        set_field(self, "series", list(self.series))
        set_field(self, "extent", tuple((float(low), float(high)) for low, high in self.extent))
        set_field(self, "places", texts(f"Panel {self.title!r}: places", self.places))
        labels = [series.label for series in self.series]
        if len(set(labels)) < len(labels):
            raise ValueError(f"Panel {self.title!r}: expected labels that differ, got {', '.join(labels)}.")
        for series in self.series:
            if self.places and series.x != list(range(len(self.places))):
                raise ValueError(
                    f"Panel {self.title!r}: expected x from 0 to {len(self.places) - 1}, one for each place, got "
                    f"{series.x} in series {series.label!r}."
                )
            for x in series.x:
                if self.log_x and x <= 0:  # nan compares false
                    raise ValueError(
                        f"Panel {self.title!r}: expected x above 0 on a logarithmic axis, got {x:g} in series "
                        f"{series.label!r}. Leave the point out, or set log_x=False."
                    )


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers in rows and columns.

    Args:
        title: Heading of the table.
        columns: Headings of the columns; the first column names the rows.
        rows: One cell per column in each: a text is shown as it is, a float with four significant digits, and
            None (which a float that is not finite becomes) as a dash. A second line of a text is a remark.
        note: Sentences to stand under the table; may be empty.
        folded: Whether to show the table on demand only: closed in a page, and not in a terminal.

    Raises:
        ValueError: If there is no column, a row has too few or too many cells, or a cell holds a list.
    """

    title: str
    columns: list[str]
    rows: list[list[str | float | int | None]]
    note: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        set_field(self, "columns", texts(f"Table {self.title!r}: columns", self.columns))
        if not self.columns:
            raise ValueError(f"Table {self.title!r}: expected at least one column, got none.")
        set_field(self, "rows", [[self._cell(cell) for cell in row] for row in self.rows])
        check_lengths(f"Table {self.title!r}: rows", self.rows, len(self.columns), "cell per column", "None")

    def _cell(self, cell: Any) -> str | float | int | None:
        value = plain(cell)
        if isinstance(value, list | dict):
            raise ValueError(f"Table {self.title!r}: expected a text, a number or None in a cell, got {value!r}.")
        return value


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement of a paper beside our measurement.

    Args:
        paper: The claim in our words, with its source.
        measured: What we measured, in words and numbers.
        verdict: One of `VERDICTS`.

    Raises:
        ValueError: If the verdict is another.
    """

    paper: str
    measured: str
    verdict: str

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            allowed = ", ".join(map(repr, VERDICTS))
            raise ValueError(f"Claim {self.paper!r}: expected one of {allowed} as verdict, got {self.verdict!r}.")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a study, with a heading of its own.

    Args:
        heading: The heading.
        text: Paragraphs of plain text, separated by blank lines.
        tables: Tables.
        panels: Figures.
        graph: The nodes of a network to draw (`outline`).
    """

    heading: str
    text: str = ""
    tables: list[Table] = dataclasses.field(default_factory=list)
    panels: list[Panel] = dataclasses.field(default_factory=list)
    graph: list[Node] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        set_field(self, "tables", list(self.tables))
        set_field(self, "panels", list(self.panels))
        set_field(self, "graph", list(self.graph))


@dataclasses.dataclass(frozen=True)
class Study:
    """A sweep of settings, or the reproduction of a paper's figure: everything that its page shows.

    Args:
        title: Heading of the page.
        summary: A paragraph: what was asked, and what was found.
        command: The command line that reproduces these numbers.
        settings: Resolved settings of the run; a value that JSON cannot hold is kept as text.
        environment: Versions, number of cores, machine and the like.
        sections: The parts, in the order in which to show them.
        claims: What the paper says beside what was measured; empty if the study is of no paper.
        differences: Where the study differs from the paper, a sentence each.
        numbers: Raw results, which are stored but not shown; anything nested that JSON can hold.
        data_credit: Source and licence of the data; may be empty.
        when: Date and time of the run, as text; may be empty.

    Raises:
        ValueError: If the differences are one text in place of a list, or settings or environment no mapping.

    Example:
        >>> line = Series("bp", x=[0.01, 0.1], y=[[0.8, 0.9], [0.7, float("nan")]])
        >>> panel = Panel("Learning rates", "learning rate", "test accuracy", [line], log_x=True)
        >>> study = Study("Digits", "A sweep.", "python sweep.py", {}, {}, [Section("Accuracy", panels=[panel])])
        >>> Study.from_json(study.to_json()) == study
        True
    """

    title: str
    summary: str
    command: str
    settings: dict[str, Any]
    environment: dict[str, Any]
    sections: list[Section]
    claims: list[Claim] = dataclasses.field(default_factory=list)
    differences: list[str] = dataclasses.field(default_factory=list)
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    data_credit: str = ""
    when: str = ""

    def __post_init__(self) -> None:
        for name in ("settings", "environment", "numbers"):
            set_field(self, name, plain(getattr(self, name)))
        for name in ("settings", "environment"):
            if not isinstance(found := getattr(self, name), dict):
                raise ValueError(f"Study.{name}: expected a mapping from names to values, got {found!r}.")
        set_field(self, "sections", list(self.sections))
        set_field(self, "claims", list(self.claims))
        set_field(self, "differences", texts("Study.differences", self.differences))

    def to_json(self) -> str:
        """Write the study as strict JSON, in which a number that is not finite is `null`.

        Returns:
            Text that `from_json` reads.
        """
        return write_json(_FORMAT, self)

    @staticmethod
    def from_json(text: str) -> "Study":
        """Read what `to_json` wrote; `null` in place of a value of a line becomes `nan`.

        Args:
            text: The JSON text.

        Returns:
            The study.

        Raises:
            ValueError: If the text is not a study.
        """
        return read_json(_FORMAT, "study", text, _study)


def _study(fields: dict[str, Any]) -> Study:
    sections = [_section(section) for section in fields.pop("sections")]
    return Study(sections=sections, claims=[Claim(**claim) for claim in fields.pop("claims")], **fields)


def _section(fields: dict[str, Any]) -> Section:
    tables = [Table(**table) for table in fields.pop("tables")]
    panels = [_panel(panel) for panel in fields.pop("panels")]
    graph = [Node(**node) for node in fields.pop("graph", [])]
    return Section(tables=tables, panels=panels, graph=graph, **fields)


def _panel(fields: dict[str, Any]) -> Panel:
    return Panel(series=[Series(**series) for series in fields.pop("series")], **fields)
