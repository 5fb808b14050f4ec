"""Variants at several learning rates: members by rate, and a table and a figure against the rate."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from vicinal.report import Panel, Series, Table
from vicinal.reproduce.members import value
from vicinal.reproduce.tables import Runs
from vicinal.sweeping import combinations, interval_text
from vicinal.train import Member


def by_rate(members: Iterable[Member]) -> dict[float, list[Member]]:
    """The members at each learning rate, one for each seed."""
    return {group[0].numbers["learning_rate"]: group for group in combinations(list(members))}


def rate_table(title: str, runs: Runs, quantity: str, unit: float = 1.0) -> Table:
    """A table of a final quantity at each learning rate; "diverged" where no seed has a number."""
    table: list[list[Any]] = []
    rates: dict[float, None] = {}
    for label, members in runs.items():
        groups = by_rate(members)
        rates |= dict.fromkeys(groups)
        texts = [interval_text([value(member, quantity) for member in group], unit) for group in groups.values()]
        table.append([label, *("diverged" if text is None else text for text in texts)])
    return Table(title, ["rule", *(f"{rate:g}" for rate in rates)], table)


def rate_panel(title: str, runs: Runs, quantity: str, heading: str, unit: float = 1.0, log: bool = False) -> Panel:
    """A figure of a final quantity against the learning rate, with a line for each variant."""
    lines = []
    for label, members in runs.items():
        groups = by_rate(members)
        values = [[unit * value(member, quantity) for member in group] for group in groups.values()]
        lines.append(Series(label, list(groups), np.transpose(values).tolist()))
    return Panel(title, "learning rate", heading, lines, log_x=True, log_y=log)
