"""What is varied around nominal arrays, one factor at a time; tables, figures and comparisons of what was found."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vicinal.report import Claim, Panel, Series, Table, interval_text
from vicinal.reproduce import Found, ahead, verdict
from vicinal.sweeping import last
from vicinal.train import Member

NOMINAL, BARE = "nominal", "bare"
CHANCE = 0.1
"""The accuracy of a run that diverged."""
LEARNS = 0.8
"""The part of the accuracy without an imperfection above which a rule counts as converging."""
DECIDED = {1: "yes", 0: "undecided", -1: "no"}
"""The results of a comparison as text."""


@dataclasses.dataclass(frozen=True, eq=False)
class Factor:
    """Something that is varied, with all else nominal.

    Attributes:
        name: A short name, of which and a value the name of a point is made.
        heading: What its values are, for a table or an axis.
        points: For each value the numbers that differ from the nominal arrays; none at the nominal value.
        shown: The values in the figure; None for all.
        log: Whether its axis is logarithmic.
    """

    name: str
    heading: str
    points: Mapping[float, Mapping[str, float]]
    shown: tuple[float, ...] | None = None
    log: bool = False

    def point(self, value: float) -> str:
        """The name of the point at a value."""
        return f"{self.name} {value:g}" if self.points[value] else NOMINAL

    @property
    def named(self) -> dict[float, str]:
        """The name of each point by its value."""
        return {value: self.point(value) for value in self.points}


def grid_of(factors: Sequence[Factor]) -> dict[str, dict[str, float]]:
    """All points of some factors, the nominal one first."""
    points = {factor.point(value): dict(point) for factor in factors for value, point in factor.points.items()}
    return {NOMINAL: {}} | points


# -------------------------------------------------------------------------------------------------- what was found


def accuracies(found: Found[Any], label: str, point: str) -> list[float]:
    """The test accuracy of each seed at the end; that of chance if it diverged."""
    return ends(found.members("runs", label, point))


def ends(members: Sequence[Member]) -> list[float]:
    """The same of members."""
    return [CHANCE if member.diverged else last(member, "test_accuracy") for member in members]


def percent(found: Found[Any], label: str, point: str) -> float:
    """The mean accuracy in percent."""
    return 100 * float(np.mean(accuracies(found, label, point)))


def leads(found: Found[Any], label: str, other: str, points: Sequence[str]) -> list[int]:
    """Whether a rule is ahead of another at each point, seed by seed: 1, 0 or -1; see `vicinal.reproduce.ahead`."""
    return [ahead(accuracies(found, label, point), accuracies(found, other, point)) for point in points]


def most_accurate(found: Found[Any], label: str, points: Sequence[str]) -> tuple[list[int], str]:
    """Compares a rule with all others at all points; and the same in words."""
    signs = {other: leads(found, label, other, points) for other in found.numbers["runs"] if other not in (label, BARE)}
    words = "; ".join(
        f"{other} at {sum(sign > 0 for sign in each)}, behind at {sum(sign < 0 for sign in each)}"
        for other, each in signs.items()
    )
    return [sign for each in signs.values() for sign in each], f"Of {len(points)} points, ahead of {words}."


def within(found: Found[Any], label: str, other: str, point: str, margin: float) -> int:
    """1 if a rule is less than `margin` behind another, beyond the 95 % interval, -1 if it is more, else 0."""
    ours = [accuracy + margin for accuracy in accuracies(found, label, point)]
    return ahead(ours, accuracies(found, other, point))


def growing_lead(found: Found[Any], worst: Sequence[str], start: str) -> Claim:
    """The claim that BP leads DFA notably with imperfections: its lead at the worst points against that at `start`."""
    lead = {
        point: np.subtract(accuracies(found, "BP", point), accuracies(found, "DFA", point)) for point in (start, *worst)
    }
    grows = {point: ahead(lead[point].tolist(), lead[start].tolist()) for point in worst}
    return Claim(
        "Backpropagation is more accurate than direct feedback notably with imperfections (abstract).",
        f"Its lead in points: {gap_words(found, 'BP', 'DFA', {point: point for point in lead})}. Ahead where nothing "
        f"is varied ({start}): {DECIDED[leads(found, 'BP', 'DFA', [start])[0]]}. A larger lead than there: "
        + ", ".join(f"{point} {DECIDED[sign]}" for point, sign in grows.items())
        + ".",
        verdict(list(grows.values())),
    )


def learns(found: Found[Any], label: str, point: str, without: str) -> int:
    """1 if a rule has more than `LEARNS` of its accuracy without an imperfection, beyond the 95 % interval, -1 or 0."""
    return ahead(accuracies(found, label, point), [LEARNS * accuracy for accuracy in accuracies(found, label, without)])


def gap_words(found: Found[Any], label: str, other: str, points: Mapping[str, str]) -> str:
    """The mean lead in points of a rule over another at some points, by what they are called."""
    gaps = {words: percent(found, label, point) - percent(found, other, point) for words, point in points.items()}
    return ", ".join(f"{words} {gap:+.1f}" for words, gap in gaps.items())


def early_words(updates: int, batch_size: int) -> str:
    """The difference that few updates make."""
    return (
        f"{updates} updates of {batch_size} examples; the plan of this experiment is 10 000 (size large). Accuracies "
        "are those of early learning."
    )


# ---------------------------------------------------------------------------------------------- tables and figures


def accuracy_table(found: Found[Any], title: str, factor: Factor, labels: Sequence[str]) -> Table:
    """The test accuracy of each rule at each value of a factor."""
    table: list[list[Any]] = []
    for label in labels:
        table.append([label, *(_cell(found.members("runs", label, point)) for point in factor.named.values())])
    heading = f"{title}: test accuracy (%, mean over seeds ± half a 95 % interval), by {factor.heading}"
    return Table(heading, ["rule", *(f"{value:g}" for value in factor.points)], table)


def _cell(members: Sequence[Member]) -> str | None:
    diverged = sum(member.diverged for member in members)
    return interval_text(ends(members), 100.0) if not diverged else f"{diverged} of {len(members)} diverged"


def accuracy_panel(found: Found[Any], title: str, factor: Factor, labels: Sequence[str]) -> Panel:
    """The test accuracy on a factor, a line for each rule."""
    values = list(factor.shown or factor.points)
    lines = []
    for label in labels:
        columns = [accuracies(found, label, factor.point(value)) for value in values]
        lines.append(Series(label, values, (100 * np.transpose(columns)).tolist()))
    return Panel(title, factor.heading, "test accuracy (%)", lines, log_x=factor.log)


def rate_table(rates: Mapping[str, Mapping[str, Any]], where: str = "") -> Table:
    """Each rule's held-out accuracy at the rates that were tried, and the chosen one; `where` says on what."""
    table: list[list[Any]] = [
        [
            label,
            *(f"{100 * accuracy:.1f} at {rate:g}" for rate, accuracy in zip(of["rates"], of["accuracy"], strict=True)),
            f"{of['chosen']:g}" + (", the last tried" if of["chosen"] in (of["rates"][0], of["rates"][-1]) else ""),
        ]
        for label, of in rates.items()
    ]
    title = f"Learning rates{where}: accuracy (%) on held-out training examples, and the chosen rate"
    columns = ["first", "second", "third", "fourth"]
    return Table(title, ["rule", *columns[: len(next(iter(rates.values()))["rates"])], "chosen"], table, folded=True)
