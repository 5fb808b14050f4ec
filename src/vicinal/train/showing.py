"""The display of runs and sweeps: a line at a prompt, curves in a notebook, rows in a data frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vicinal._counted import counted
from vicinal._optional import optional
from vicinal._records import flat_record, is_number, or_nan, stop_words
from vicinal._show import record_text, value_text

if TYPE_CHECKING:
    import pandas

Records = Sequence[Mapping[str, Any]]


class Member(Protocol):
    """The parts of a member of a sweep (`vicinal.train.Member`) that are shown."""

    @property
    def numbers(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def records(self) -> Records: ...
    @property
    def stopped(self) -> str | None: ...
    @property
    def stopped_by(self) -> str | None: ...
    @property
    def diverged(self) -> bool: ...


_SHOWN = ("train_loss", "test_loss", "test_accuracy")
_BETTER = (("test_accuracy", 1), ("test_loss", -1), ("train_loss", -1))  # whether more is better


def run_text(steps: int, records: Records, stopped: str | None) -> str:
    """`Run(200 steps: train_loss=0.12, test_loss=0.2, test_accuracy=0.95)`, and why it stopped."""
    return f"Run({_course(steps, records, stopped)})"


def member_text(member: Member) -> str:
    """`Member(learning_rate=0.1, seed=0: 200 steps, test_loss=0.2, ...)`, and why it stopped."""
    numbers = _numbers({**member.numbers, "seed": member.seed})
    return f"Member({numbers}: {_course(member.steps, member.records, member.stopped)})"


def sweep_text(members: Sequence[Member]) -> str:
    """`Sweep(6 members: learning_rate, 3 seeds; best test_accuracy=0.95 at learning_rate=0.1, seed=2)`."""
    seeds = len({member.seed for member in members})
    named = ", ".join([*_names(members), counted(seeds, "seed")])
    parts = [f"{counted(len(members), 'member')}: {named}"]
    found = best(members)
    if found is not None:
        quantity, member = found
        where = _numbers({**member.numbers, "seed": member.seed})
        parts.append(f"best {record_text(member.records[-1], (quantity,))} at {where}")
    diverged = sum(member.diverged for member in members)
    early = sum(member.stopped_by is not None for member in members)
    parts += [f"{diverged} diverged"] * bool(diverged) + [f"{early} stopped by a hook"] * bool(early)
    return f"Sweep({'; '.join(parts)})"


def best(members: Sequence[Member]) -> tuple[str, Member] | None:
    """The member with the best last record, and the quantity that was compared.

    That is the highest test accuracy, else the lowest test loss, else the lowest training loss. A member that
    diverged counts only if all did; one that a hook stopped counts.
    """
    there = [member for member in members if member.records and not member.diverged]
    there = there or [member for member in members if member.records]
    for quantity, sign in _BETTER:
        values = [(_finite(member.records[-1].get(quantity)), member) for member in there]
        known = [(sign * value, member) for value, member in values if value is not None]
        if known:
            return quantity, max(known, key=lambda pair: pair[0])[1]
    return None


def run_html(steps: int, records: Records, stopped: str | None) -> str:
    """The line and the curves of a run, for a notebook."""
    from vicinal.report.notebook import curves_html  # imports matplotlib and jinja2, only needed for display

    return curves_html(run_text(steps, records, stopped), {"": [records]})


def sweep_html(members: Sequence[Member]) -> str:
    """The line and the curves of a sweep, one for each combination of numbers, for a notebook."""
    from vicinal.report.notebook import curves_html

    groups: dict[str, list[Records]] = {}
    for member in members:
        groups.setdefault(_numbers(member.numbers), []).append(member.records)
    return curves_html(sweep_text(members), groups)


def run_frame(records: Records) -> pandas.DataFrame:
    """The records of a run, a row each; what is nested gets a dot in its name."""
    return _frame(_rows(records))


def sweep_frame(members: Sequence[Member]) -> pandas.DataFrame:
    """The records of all members, a row each, with the member's numbers, its seed and why it stopped in front."""
    rows = []
    for index, member in enumerate(members):
        own = {"member": index, **member.numbers, "seed": member.seed, "stopped": member.stopped}
        # Keep a member that ended before its first record.
        measured = _rows(member.records) or [{"step": member.steps}]
        # A number may have the name of a measurement.
        rows += [
            {f"numbers.{name}" if name in row else name: value for name, value in own.items()} | row for row in measured
        ]
    return _frame(rows)


def _rows(records: Records) -> list[dict[str, Any]]:
    return [{name: or_nan(value) for name, value in flat_record(record).items()} for record in records]


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    return optional("pandas", "a data frame", "pandas", "tables").DataFrame(rows)


def _course(steps: int, records: Records, stopped: str | None) -> str:
    numbers = record_text(records[-1], _SHOWN) if records else ""
    end = "" if stopped is None else f"; {stop_words(stopped)}"
    return f"{steps} steps{': ' * bool(numbers)}{numbers}{end}"


def _numbers(numbers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value_text(value)}" for name, value in numbers.items())


def _names(members: Sequence[Member]) -> list[str]:
    values: dict[str, dict[Any, None]] = {}
    for member in members:
        for name, value in member.numbers.items():
            values.setdefault(name, {})[value] = None
    return [counted(len(found), name) for name, found in values.items()]


def _finite(value: Any) -> float | None:
    return value if is_number(value) and math.isfinite(value) else None
