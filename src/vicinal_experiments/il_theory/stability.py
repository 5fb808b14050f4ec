"""Stability across learning rates: final accuracy, and mean and variance of the size of updates."""

import dataclasses
import time
from typing import Any

import numpy as np

from vicinal.report import Claim, Section, Table
from vicinal.report.formatting import capitalized
from vicinal.reproduce import Experiment, Found, Run, Size, Variant, by_rate, mean, rate_panel, rate_table, rows
from vicinal.sweeping import words_of
from vicinal.task import Task
from vicinal.train import Member, Sweep, fit, keys_of
from vicinal_experiments.papers import IL_THEORY, NO_TABLES
from vicinal_experiments.recipes import recipe_variant, train_measuring_path
from vicinal_experiments.tasks import classifier

RULES: dict[str, tuple[str, dict[str, float]]] = {
    "BP-SGD": ("bp-sgd", {}),
    "IL-SGD": ("il-sgd", {}),
    "IL-prox": ("il-prox", {"eps": 0.0}),
    "BP-prox": ("bp-prox", {"eps": 0.0}),
}
"""Of each rule the recipe, and the numbers set beside its learning rate."""

_NEAR = 0.05  # of test accuracy: what still counts as near the best


@dataclasses.dataclass(frozen=True, kw_only=True)
class StabilitySize(Size):
    """Updates of one example each, evaluations along them, and learning rates."""

    steps: int
    evaluations: int
    learning_rates: tuple[float, ...] = (0.01, 0.1, 1.0, 2.5, 10.0, 100.0)
    batch_size: int = 1


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[StabilitySize]) -> dict[str, Any]:
    size, task = run.size, classifier(run.size.data[0])
    every = size.steps // size.evaluations
    numbers: dict[str, Any] = {"seconds_alone": {}, "sweeps": {}}
    for label, (recipe, own) in RULES.items():
        variant = recipe_variant(label, task, recipe, size.learning_rates, own)
        group = 1 if run.size.steps < 1000 else None  # a calibration takes longer than so few steps
        done = train_measuring_path(
            run, variant, task, steps=size.steps, batch_size=size.batch_size, evaluate_every=every, group_size=group
        )
        numbers[label] = rows(done.members)
        numbers["sweeps"][label] = _times_of(done)
        numbers["seconds_alone"][label] = _seconds_alone(task, variant, size, every)
    return numbers


def _times_of(done: Sweep) -> dict[str, Any]:
    return {
        "seconds": done.seconds,
        "seconds_to_start": done.seconds_to_start,
        "steps": sum(member.steps for member in done.members),
        "resumed": done.resumed,
        "layout": words_of(done),
    }


def _seconds_alone(task: Task, variant: Variant, size: StabilitySize, every: int) -> float:
    """The wall time of one stable member by `fit`, compilation left out."""
    rule, optimizer = variant.make(learning_rate=min(size.learning_rates))
    model_key, train_key = keys_of(0)

    def seconds(steps: int) -> float:
        start = time.monotonic()
        model, how = task.build(model_key), {"steps": steps, "batch_size": size.batch_size, "evaluate_every": every}
        fit(rule, model, optimizer, task.data, key=train_key, graph=task.graph, progress=False, **how)
        return time.monotonic() - start

    seconds(min(size.steps, 50))
    return seconds(size.steps)


# ---------------------------------------------------------------------------------------------------------- judge


def _runs(found: Found[StabilitySize]) -> dict[str, list[Member]]:
    return {label: found.members(label) for label in RULES}


def _lost(found: Found[StabilitySize], label: str) -> int:
    return sum(member.diverged for member in found.members(label))


def _summary(found: Found[StabilitySize]) -> str:
    rates = found.size.learning_rates
    parts = [f"{len(rates)} learning rates, {found.size.steps} updates of one example each."]
    for label, members in _runs(found).items():
        means = {rate: mean(group, "test_accuracy") for rate, group in by_rate(members).items()}
        whole = {rate: accuracy for rate, accuracy in means.items() if not np.isnan(accuracy)}
        best = max(whole, key=lambda rate: whole[rate]) if whole else None
        at = "diverges everywhere" if best is None else f"is best at {best:g} ({100 * whole[best]:.1f} %)"
        parts.append(f"{label} {at} and loses {_lost(found, label)} of {len(members)} members.")
    return " ".join(parts)


def _stable(found: Found[StabilitySize]) -> Claim:
    """Counts the rates at which a rule comes near to the best that any rule reaches, and the members it loses."""
    accuracies = {
        label: [mean(group, "test_accuracy") for group in by_rate(members).values()]
        for label, members in _runs(found).items()
    }
    best = max(float(np.nanmax([0.0, *means])) for means in accuracies.values())
    usable = {label: sum(mean >= best - _NEAR for mean in means) for label, means in accuracies.items()}
    lost = {label: _lost(found, label) for label in RULES}
    count = len(found.size.learning_rates)
    words = "; ".join(
        f"{label}: {usable[label]} of {count} rates within {100 * _NEAR:.0f} points of the best of all "
        f"({100 * best:.1f} %), {lost[label]} members diverged"
        for label in RULES
    )
    better = lost["IL-prox"] == 0 and usable["IL-prox"] > max(usable["BP-SGD"], usable["IL-SGD"])
    nearly_all = usable["IL-prox"] >= count - 1
    return Claim(
        "IL-prox is stable across learning rates, where BP-SGD and IL-SGD are not (abstract and stability figure).",
        words + ". BP-prox has the proximal output and the normalised step, but no inference.",
        ("holds" if nearly_all else "holds in part") if better else "does not hold",
    )


def _differences(found: Found[StabilitySize]) -> list[str]:
    return [
        NO_TABLES,
        "A member whose next step would make an infinite number is frozen and counted as diverged; the published code "
        "carries on with undefined numbers.",
        "Sizes of updates are those of all updates; the published code takes every fiftieth.",
        "BP-prox divides by the squared norm plus 1 for a bias, as IL-prox does; the published BP-prox leaves out "
        "the 1.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[StabilitySize]) -> list[Section]:
    runs = _runs(found)
    accuracy = "Test accuracy at the end, in %, at each learning rate (mean over seeds ± half a 95 % interval)"
    against = "against the learning rate"
    return [
        Section(
            "Accuracy",
            tables=[rate_table(accuracy, runs, "test_accuracy", 100)],
            panels=[rate_panel(f"Test accuracy (%) {against}", runs, "test_accuracy", "test accuracy (%)", 100)],
        ),
        Section(
            "Size of updates",
            "The norm of the change of all weights in one update: its mean over training, and its variance.",
            tables=[rate_table("Mean norm of an update, at each learning rate", runs, "update_norm")],
            panels=[
                rate_panel(f"{capitalized(heading)} {against}", runs, quantity, heading, log=True)
                for quantity, heading in (
                    ("update_norm", "mean norm of an update"),
                    ("update_norm_variance", "variance of the norm"),
                )
            ],
        ),
        Section("Time", _TIME, tables=[_time_table(found)]),
    ]


_TIME = (
    "A sweep is one compiled run of all learning rates and seeds of a rule. One by one: the wall time of one member, "
    "run to the end by `fit` with the same evaluations, its compilation left out, times the updates that the members "
    "took. The first ratio is to the whole sweep, compilation and calibration included; the second leaves them out."
)


def _time_table(found: Found[StabilitySize]) -> Table:
    alone, steps = found.numbers["seconds_alone"], found.size.steps
    table: list[list[Any]] = []
    for label in RULES:
        took = found.numbers["sweeps"][label]
        if took["resumed"]:
            table.append([label, *[None] * 6, "resumed, so not timed"])
            continue
        one_by_one = alone[label] * took["steps"] / steps
        compiled = took["seconds"] - took["seconds_to_start"]
        cells = [f"{took['seconds']:.1f}", f"{one_by_one:.1f}", f"{one_by_one / took['seconds']:.2f}"]
        cells += [f"{one_by_one / compiled:.2f}", f"{1e6 * alone[label] / steps:.0f}"]
        table.append([label, *cells, f"{alone[label] / alone['BP-SGD']:.1f}", took["layout"]])
    columns = ["rule", "sweep (s)", "one by one (s)", "ratio", "ratio, once compiled"]
    return Table("Wall time", [*columns, "update alone, evaluations included (µs)", "of BP-SGD", "layout"], table)


STABILITY = Experiment(
    name="il-theory/stability",
    title="Stability across learning rates",
    topic="accuracy and size of updates across learning rates",
    paper=IL_THEORY,
    sizes={
        "quick": StabilitySize(data=("digits",), steps=400, evaluations=2),
        "full": StabilitySize(data=("mnist",), steps=20_000, evaluations=10),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_stable],
    sections=_sections,
    differences=_differences,
)
"""BP-SGD, IL-SGD, IL-prox and BP-prox at learning rates from 0.01 to 100, batch size 1."""
