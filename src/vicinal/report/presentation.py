"""What the units of one example hold and send while they settle, as plain data, and figures of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vicinal.report.storage import check_lengths, numbers, set_field
from vicinal.report.study import Panel, Section, Series

__all__ = ["Presentation", "SentBy", "UnitCourse", "presentation_panels", "presentation_sections"]

_GAP = 2.0  # rows between the units of two nodes
_HOLDS, _SENT, _UP, _DOWN = "holds", "has sent", "up", "down"


@dataclasses.dataclass(frozen=True)
class SentBy:
    """The events of one node.

    Args:
        node: Its name.
        kind: `"values"` or `"errors"`.
        units: Units of the node that are shown.
        of: Units of the node in all.
        times: The inference step of each event, counted from 1.
        places: Which of the units that are shown sent it, from 0.
        signs: 1 for an event up, -1 for one down.

    Raises:
        ValueError: If times, places and signs are not equally many.
    """

    node: str
    kind: str
    units: int
    of: int
    times: list[int]
    places: list[int]
    signs: list[int]

    def __post_init__(self) -> None:
        for name in ("times", "places", "signs"):
            set_field(self, name, [int(value) for value in getattr(self, name)])
        check_lengths(f"Events of {self.node!r}", [self.places, self.signs], len(self.times), "entry per event", "0")


@dataclasses.dataclass(frozen=True)
class UnitCourse:
    """What one unit held, and what it had sent, after each inference step.

    Args:
        name: Its name, such as `"hidden1[7]"`.
        held: What it held at the start and after each step.
        sent: What others knew of that.

    Raises:
        ValueError: If these are not equally many.
    """

    name: str
    held: list[float]
    sent: list[float]

    def __post_init__(self) -> None:
        for name in ("held", "sent"):
            set_field(self, name, numbers(getattr(self, name)))
        check_lengths(f"Unit {self.name!r}", [self.sent], len(self.held), "number per step", "nan")


@dataclasses.dataclass(frozen=True)
class Presentation:
    """One example, presented to a network whose units send events.

    Args:
        steps: Inference steps.
        sent: The events of each node: values, then errors.
        units: Some units that sent much.
    """

    steps: int
    sent: list[SentBy]
    units: list[UnitCourse]

    @staticmethod
    def from_fields(fields: Mapping[str, Any]) -> "Presentation":
        """Builds one from the plain data of `dataclasses.asdict`."""
        sent, units = [SentBy(**one) for one in fields["sent"]], [UnitCourse(**one) for one in fields["units"]]
        return Presentation(fields["steps"], sent, units)


def presentation_sections(found: Mapping[str, Presentation]) -> list[Section]:
    """The sections of a report on events; none without a presentation.

    Args:
        found: Label of a rule -> a presentation.
    """
    if not found:
        return []
    events = (
        "One test example after training, while its activities settle. Each stroke is an event: a unit has sent a "
        "change of its value upwards, or of its error downwards. What the feedforward sweep has sent before is left "
        "out; after the last step errors have one more turn."
    )
    units = "Units of the same example that sent much: what each holds, and what others know of it."
    labels = {label: label * (len(found) > 1) for label in found}
    panels = [panel for label, one in found.items() for panel in presentation_panels(one, labels[label])]
    courses = [panel for panel in panels if not panel.rows]
    first = Section("Events", events, panels=[panel for panel in panels if panel.rows])
    return [first] + [Section("What units hold and send", units, panels=courses)] * bool(courses)


def presentation_panels(found: Presentation, label: str = "") -> list[Panel]:
    """Figures of a presentation: events of values and of errors, and the courses of some units.

    Args:
        found: The presentation.
        label: What it is of, for titles; may be empty.
    """
    begin = f"{label}: " * bool(label)
    rasters = [
        _raster(f"{begin}events of {kind}", [one for one in found.sent if one.kind == kind], found.steps)
        for kind in ("values", "errors")
    ]
    return [panel for panel in rasters if panel is not None] + [_course(begin, unit) for unit in found.units]


def _raster(title: str, nodes: Sequence[SentBy], steps: int) -> Panel | None:
    """Strokes at the events, a row for each unit, the units of a node together."""
    if not nodes:
        return None
    starts = [0.0]
    for node in nodes[:-1]:
        starts.append(starts[-1] + node.units + _GAP)
    up, down = (
        [
            (float(time), start + place)
            for node, start in zip(nodes, starts, strict=True)
            for time, place, sign in zip(node.times, node.places, node.signs, strict=True)
            if sign == wanted
        ]
        for wanted in (1, -1)
    )
    series = [_points(_UP, up), _points(_DOWN, down)]
    rows = {node.node: start + (node.units - 1) / 2 for node, start in zip(nodes, starts, strict=True)}
    some = [f"{node.units} of the {node.of} units of {node.node}" for node in nodes if node.units < node.of]
    note = f"{len(up) + len(down)} events." + f" Shown are those that sent most: {', '.join(some)}." * bool(some)
    extent = (0.0, steps + 1.5), (-1.0, starts[-1] + nodes[-1].units)
    return Panel(title, "inference step", "unit", series, note=note, rows=rows, extent=extent)


def _points(label: str, points: Sequence[tuple[float, float]]) -> Series:
    return Series(label, [x for x, _ in points], [[y for _, y in points]] if points else [])


def _course(begin: str, unit: UnitCourse) -> Panel:
    """What a unit has sent as a staircase, and what it holds as a line."""
    times = [float(time) for time in range(len(unit.held))]
    stairs = [time for time in times for _ in range(2)][1:]
    sent = [value for value in unit.sent for _ in range(2)][:-1]
    series = [Series(_SENT, stairs, [sent]), Series(_HOLDS, times, [unit.held])]  # what is drawn last lies on top
    return Panel(f"{begin}{unit.name}", "inference step", f"value of {unit.name}", series)
