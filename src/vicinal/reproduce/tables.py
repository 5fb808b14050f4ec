"""Tables, figures and phrases that experiments share. All of them read members by the labels of their variants."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vicinal._records import or_nan
from vicinal.report import Panel, Section, Table
from vicinal.report.formatting import capitalized
from vicinal.reproduce.members import first_step, mean, value
from vicinal.sweeping import curve, interval_text
from vicinal.train import Member

Runs = Mapping[str, Sequence[Member]]
"""The members of each variant, by label."""

ACCURACY, LOSS = "test_accuracy", "test_loss"
_HEADINGS = {ACCURACY: ("test accuracy (%)", 100.0), LOSS: ("test loss", 1.0)}


def accuracy_table(title: str, runs: Runs) -> Table:
    """A table of test accuracy at three steps of training, and the number of diverged members."""
    steps = sorted({record["step"] for members in runs.values() for member in members for record in member.records})
    shown = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    return value_table(f"{title}: test accuracy (%)", runs, ACCURACY, shown)


def value_table(title: str, runs: Runs, quantity: str, steps: Sequence[int]) -> Table:
    """A table of a quantity at some steps of training, and the number of diverged members; accuracies in percent."""
    unit = _HEADINGS.get(quantity, ("", 1.0))[1]
    table: list[list[Any]] = []
    for label, members in runs.items():
        cells = [interval_text([value(member, quantity, step) for member in members], unit) for step in steps]
        table.append([label, *cells, sum(member.diverged for member in members)])
    heading = f"{title} after so many updates (mean over seeds ± half a 95 % interval)"
    return Table(heading, ["rule", *map(str, steps), "diverged"], table)


def end_table(title: str, runs: Runs, columns: Mapping[str, str], *, first: str = "rule") -> Table:
    """A table of final quantities; `columns` maps each quantity to its heading."""
    table: list[list[Any]] = [
        [label, *(interval_text([value(member, quantity) for member in members]) for quantity in columns)]
        for label, members in runs.items()
    ]
    return Table(title, [first, *columns.values()], table)


def first_and_last_table(title: str, runs: Runs, quantity: str, *, first: str = "rule") -> Table:
    """A table of a quantity at the first evaluation and at the end of training."""
    table: list[list[Any]] = []
    for label, members in runs.items():
        initial = [or_nan(member.records[0].get(quantity)) if member.records else math.nan for member in members]
        table.append([label, interval_text(initial), interval_text([value(member, quantity) for member in members])])
    return Table(title, [first, "first mark", "end"], table)


def levels_table(runs: Runs, levels: Sequence[float] = (0.8, 0.9, 0.95)) -> Table:
    """A table of the updates that each rule needs to reach some accuracies; empty if a seed does not reach one."""
    table: list[list[Any]] = []
    for label, members in runs.items():
        steps = [[first_step(m, ACCURACY, lambda found, at=level: found >= at) for m in members] for level in levels]
        table.append([label, *(None if np.any(np.isnan(row)) else f"{np.mean(row):.0f}" for row in steps)])
    title = "Updates until an evaluation first shows an accuracy (mean over seeds; none if a seed does not reach it)"
    return Table(title, ["rule", *(f"{100 * level:.0f} %" for level in levels)], table)


def curve_panel(title: str, runs: Runs, quantity: str, heading: str, unit: float = 1.0, log: bool = False) -> Panel:
    """A figure of a quantity during training, with a line for each variant."""
    lines = [curve(label, list(members), quantity, unit) for label, members in runs.items()]
    return Panel(title, "update", heading, lines, log_y=log)


def accuracy_panel(runs: Runs, title: str = "Test accuracy") -> Panel:
    """A figure of test accuracy during training."""
    return curve_panel(title, runs, ACCURACY, *_HEADINGS[ACCURACY])


def curve_section(heading: str, runs: Runs, steps: Sequence[int], accuracy: bool = True) -> Section:
    """The learning curves of a task, and tables of them at some steps; `accuracy` is False for regression."""
    quantities = [ACCURACY, LOSS] if accuracy else [LOSS]
    words = {quantity: _HEADINGS[quantity] for quantity in quantities}
    titles = {quantity: capitalized(name) for quantity, (name, _) in words.items()}
    return Section(
        heading,
        tables=[
            *(value_table(titles[quantity], runs, quantity, steps) for quantity in quantities),
            *([levels_table(runs)] if accuracy else []),
        ],
        panels=[
            curve_panel(titles[quantity], runs, quantity, *words[quantity], log=quantity == LOSS)
            for quantity in quantities
        ],
    )


def number_words(number: float, quantity: str) -> str:
    """An accuracy in percent, or a loss, as text.

    Example:
        >>> number_words(0.3824, "test_accuracy"), number_words(16.14, "test_loss"), number_words(math.nan, "test_loss")
        ('38.2 %', '16.14', 'diverged')
    """
    if not math.isfinite(number):
        return "diverged"
    return f"{100 * number:.1f} %" if quantity.endswith("accuracy") else f"{number:.4g}"


def points_words(gaps: Mapping[str, float]) -> str:
    """Differences of accuracies in percentage points, by label.

    Example:
        >>> points_words({"FA": 0.0123, "DFA": -0.002})
        'FA 1.2, DFA -0.2'
    """
    return ", ".join(f"{label} {100 * gap:.1f}" for label, gap in gaps.items())


def mean_words(runs: Runs, quantity: str, step: int | None = None) -> str:
    """The mean of a quantity for each variant, at a step or at the end, as text."""
    return ", ".join(
        f"{label} {number_words(mean(members, quantity, step), quantity)}" for label, members in runs.items()
    )
