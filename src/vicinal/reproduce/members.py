"""Members of a sweep as JSON and back, and what judges ask of them: a value at a step, a comparison seed by seed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vicinal._records import or_nan
from vicinal.report import mean_interval
from vicinal.sweeping import last
from vicinal.train import Member


def rows(found: Sequence[Member]) -> list[dict[str, Any]]:
    """Members as JSON data, without their models; `members` reads them back."""
    return [
        {"numbers": m.numbers, "seed": m.seed, "steps": m.steps, "stopped": m.stopped, "records": m.records}
        for m in found
    ]


def members(stored: Sequence[dict[str, Any]]) -> list[Member]:
    """Members from the output of `rows`, without their models."""
    return [
        Member(
            numbers=row["numbers"],
            seed=row["seed"],
            records=row["records"],
            steps=row.get("steps", row["records"][-1]["step"] if row["records"] else 0),
            stopped=row["stopped"],
            model=None,
        )
        for row in stored
    ]


def value(member: Member, quantity: str, step: int | None = None) -> float:
    """A quantity of a member at a step, or at the end if None; NaN if it was not recorded or the member diverged."""
    if step is None:
        return last(member, quantity)
    found = [record for record in member.records if record["step"] == step]
    return or_nan(found[0].get(quantity)) if found else np.nan


def mean(found: Sequence[Member], quantity: str, step: int | None = None) -> float:
    """The mean of a quantity over members, at a step or at the end; NaN if one has none."""
    return float(np.mean([value(member, quantity, step) for member in found]))


def accuracy_gap(runs: Mapping[str, Sequence[Member]], label: str, other: str) -> float:
    """The mean final test accuracy of a variant minus that of another."""
    return mean(runs[label], "test_accuracy") - mean(runs[other], "test_accuracy")


def first_step(member: Member, quantity: str, reached: Callable[[float], bool]) -> float:
    """The first recorded step at which a quantity meets a condition; NaN if it never does."""
    steps = (float(record["step"]) for record in member.records if reached(or_nan(record.get(quantity))))
    return next(steps, np.nan)


def ahead(ours: Sequence[float], theirs: Sequence[float]) -> int:
    """Compares paired numbers: those of one seed share initial weights and batches.

    Returns:
        1 if the 95 % confidence interval of the mean difference lies above 0, -1 if below, 0 if it contains 0 or is
        unknown (fewer than three seeds, or a number is missing).

    Example:
        >>> ahead([1.0, 1.1, 1.2], [0.5, 0.6, 0.7]), ahead([1.0, 0.4, 1.2], [0.5, 0.9, 0.9])
        (1, 0)
    """
    differences = np.subtract(ours, theirs)
    mean, half = mean_interval(differences.tolist())
    if np.any(np.isnan(differences)) or half is None or abs(mean) <= half:
        return 0
    return 1 if mean > 0 else -1


AHEAD = {1: "ahead of", 0: "not distinguishable from", -1: "behind"}
"""The results of `compared` as text."""


def compared(
    runs: Mapping[str, Sequence[Member]], label: str, other: str, quantity: str, step: int | None = None
) -> int:
    """Compares two variants seed by seed: a higher accuracy, or a lower loss or error, is ahead.

    Returns:
        1 if `label` is significantly ahead, -1 if it is behind, 0 if the two are not distinguishable; see `ahead`.
    """
    sign = 1 if quantity.endswith("accuracy") else -1
    ours, theirs = ([sign * value(member, quantity, step) for member in runs[name]] for name in (label, other))
    return ahead(ours, theirs)


def verdict(comparisons: Sequence[int]) -> str:
    """The verdict on a claim from comparisons: 1 supports it, -1 contradicts it, 0 decides nothing.

    Example:
        >>> verdict([1, 1]), verdict([1, -1]), verdict([0, -1]), verdict([0, 0])
        ('holds', 'holds in part', 'does not hold', 'open')
    """
    if all(found > 0 for found in comparisons):
        return "holds"
    if any(found > 0 for found in comparisons):
        return "holds in part"
    return "does not hold" if any(found < 0 for found in comparisons) else "open"


def supported(checks: Sequence[bool]) -> str:
    """The verdict on a claim of several parts, from whether each is supported."""
    return verdict([1 if check else -1 for check in checks])
