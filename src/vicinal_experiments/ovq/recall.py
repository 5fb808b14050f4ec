"""Recall in context, of trained models: length with the facts fixed, and facts that fill the length."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vicinal.data.sequences import Sequences, basic_recall, positional_recall
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.report.formatting import capitalized
from vicinal.reproduce import Experiment, Found, Run, Size, supported
from vicinal.sweeping import interval_text
from vicinal_experiments import papers
from vicinal_experiments.ovq.training import (
    DELTA,
    DIFFERENCES,
    FULL,
    LINEAR,
    WINDOW,
    Shape,
    Training,
    accuracy,
    ovq,
    state_bytes,
    temperatures,
    train,
)

Task = Callable[[int, int, int, int, bool], Sequences]
"""`(examples, time, facts, seed, once)` to examples. With `once` each fact is asked for once, after noise."""
Accuracies = dict[str, dict[str, dict[str, list[float]]]]
"""Accuracy of each seed, by axis, model, and length (as text, for JSON)."""
FIXED, FILLED = "facts fixed", "facts fill the length"


@dataclasses.dataclass(frozen=True)
class Before:
    """Shorter examples to begin training with, with as many tokens in an update as later.

    Attributes:
        time: Steps of these.
        facts: How many facts they have: one of these numbers each.
        updates: How many.
    """

    time: int
    facts: tuple[int, ...]
    updates: int


@dataclasses.dataclass(frozen=True)
class Axes:
    """What models are trained on, and where they are tested.

    Attributes:
        time: Steps of the training examples.
        facts: How many facts these have: one of these numbers each.
        times: Lengths of the tests.
        per_fact: Steps for each fact where facts fill the length; the most of `facts` where they are fixed.
        tested: Examples of each test, a multiple of 8.
        examples: For training.
        before: What training begins with, if with something else.
    """

    time: int
    facts: tuple[int, ...]
    times: tuple[int, ...]
    per_fact: int
    tested: int = 32
    examples: int = 4096
    before: Before | None = None

    def count(self, axis: str, time: int) -> int:
        """The facts of a test."""
        return self.facts[-1] if axis == FIXED else time // self.per_fact


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallSize(Size):
    """Models of a shape, trained at one length and tested along both axes.

    Attributes:
        shape: Of the models.
        axes: Where they are trained and tested.
        labels: The models.
        steps: Updates.
        batch_size: Examples of an update.
        learning_rate: The highest.
    """

    shape: Shape
    axes: Axes
    labels: tuple[str, ...]
    steps: int
    batch_size: int = 16
    learning_rate: float = 5e-3

    @property
    def training(self) -> Training:
        """How the models are trained."""
        return Training(self.steps, batch_size=self.batch_size, learning_rate=self.learning_rate)

    @property
    def ovq_sizes(self) -> list[int]:
        """The numbers of centroids of the models with OVQ layers."""
        return [int(label.split()[1]) for label in self.labels if label.startswith("OVQ ")]


def measure_recall(
    run: Run[RecallSize], labels: Sequence[str], axes: Axes, task: Task, name: str
) -> tuple[Accuracies, dict[str, Any]]:
    """Trains each model with every seed and tests it along both axes.

    Returns:
        The accuracies, and of each model its temperatures and the bytes of its state at each length.
    """
    shape, how = run.size.shape, run.size.training
    found: Accuracies = {
        axis: {label: {str(t): [] for t in axes.times} for label in labels} for axis in (FIXED, FILLED)
    }
    kept: dict[str, Any] = {label: {"temperatures": []} for label in labels}
    tests = {
        (axis, time): task(axes.tested, time, axes.count(axis, time), 10_000 + time, True)
        for axis in found
        for time in axes.times
    }
    parameters = shape.parameters()
    for label in labels:
        for seed in range(run.seeds):
            model = shape.build(label, key=jax.random.key(seed), parameters=parameters)
            if axes.before is not None:
                short, ratio = axes.before, axes.time // axes.before.time
                data = _examples(task, axes.examples * ratio, short.time, short.facts, seed)
                first = dataclasses.replace(how, steps=short.updates, batch_size=how.batch_size * ratio)
                model = train(run, f"{label}, {name} in {short.time} steps", model, data, first, seed)
            data = _examples(task, axes.examples, axes.time, axes.facts, seed)
            model = train(run, f"{label}, {name}", model, data, how, seed)
            for (axis, time), test in tests.items():
                found[axis][label][str(time)].append(accuracy(model, test))
            kept[label]["temperatures"].append(temperatures(model))
            kept[label]["state_bytes"] = {str(time): state_bytes(shape, label, time) for time in axes.times}
    return found, kept


def _examples(task: Task, examples: int, time: int, facts: Sequence[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets for training, with each of the numbers of facts as often."""
    each = examples // len(facts)
    parts = [task(each, time, number, 100 * seed + i, False) for i, number in enumerate(facts)]
    return np.concatenate([part.inputs for part in parts]), np.concatenate([part.targets for part in parts])


def _twice(axes: Axes) -> Axes:
    """The axes of positional recall, whose facts take twice as many steps."""
    return dataclasses.replace(axes, facts=tuple(max(1, n // 2) for n in axes.facts), per_fact=2 * axes.per_fact)


def tasks(size: RecallSize) -> list[tuple[Task, Axes]]:
    """Basic recall; positional recall too, except after shorter examples."""
    basic, positional = (
        (_basic(size.shape.vocabulary), size.axes),
        (_positional(size.shape.vocabulary), _twice(size.axes)),
    )
    return [basic, positional] if size.axes.before is None else [basic]


def _measure(run: Run[RecallSize]) -> dict[str, Any]:
    (basic_task, axes), *rest = tasks(run.size)
    basic, kept = measure_recall(run, run.size.labels, axes, basic_task, "basic recall")
    numbers: dict[str, Any] = {"basic": basic, "models": kept}
    for task, own in rest:
        labels = [FULL, ovq(run.size.ovq_sizes[-1]), WINDOW]
        numbers["positional"], _ = measure_recall(run, labels, own, task, "positional recall")
    return numbers


def _basic(vocabulary: int) -> Task:
    def task(examples: int, time: int, facts: int, seed: int, once: bool) -> Sequences:
        sizes = {"vocabulary": vocabulary, "key_tokens": 1, "value_tokens": 1, "seed": seed}
        return basic_recall(examples, time, facts, queries=facts if once else None, **sizes)

    return task


def _positional(vocabulary: int) -> Task:
    def task(examples: int, time: int, facts: int, seed: int, once: bool) -> Sequences:
        sizes = {"vocabulary": vocabulary, "key_tokens": 1, "value_tokens": 1, "seed": seed}
        return positional_recall(examples, time, facts, occurrences=2, queries=2 * facts if once else None, **sizes)

    return task


# ---------------------------------------------------------------------------------------------------------- judge


def _sections(found: Found[RecallSize]) -> list[Section]:
    axes = found.size.axes
    shown = recall_sections("Basic recall", found.numbers["basic"], axes)
    if "positional" in found.numbers:
        shown += recall_sections("Positional recall", found.numbers["positional"], _twice(axes))
    return [*shown, state_section(found.numbers["models"], axes)]


def state_section(kept: dict[str, Any], axes: Axes) -> Section:
    """What each model keeps of a sequence at each length, and its temperatures."""
    table: list[list[Any]] = []
    for label, model in kept.items():
        warm = ", ".join(f"{value:.1f}" for value in np.mean(model["temperatures"], axis=0)) or "none"
        table.append([label, *(model["state_bytes"][str(time)] for time in axes.times), warm])
    return Section(
        "What the models keep",
        "Bytes of all layers' states after so many tokens, and the temperatures learned (of a cosine).",
        tables=[Table("Bytes kept of one sequence", ["model", *map(str, axes.times), "temperatures"], table)],
    )


def recall_sections(title: str, found: Accuracies, axes: Axes) -> list[Section]:
    """A table and a figure for each axis."""
    notes = {
        FIXED: f"{axes.count(FIXED, 0)} facts at every length.",
        FILLED: "A fact for every "
        f"{axes.per_fact} steps: {', '.join(str(axes.count(FILLED, time)) for time in axes.times)} facts.",
    }
    before = axes.before
    first = "" if before is None else f", after {before.updates} updates at {before.time}"
    return [
        Section(
            f"{title}, {axis}",
            f"Trained at {axes.time} steps{first}. {notes[axis]}",
            tables=[_table(found[axis], axes)],
            panels=[_panel(f"{title}, {axis}", found[axis], axes)],
        )
        for axis in found
    ]


def _table(found: dict[str, dict[str, list[float]]], axes: Axes) -> Table:
    rows: list[list[Any]] = [
        [label, *(interval_text(by_time[str(time)], 100.0) for time in axes.times)] for label, by_time in found.items()
    ]
    return Table(
        "Accuracy (%), by steps (mean over seeds ± half a 95 % interval)", ["model", *map(str, axes.times)], rows
    )


def _panel(title: str, found: dict[str, dict[str, list[float]]], axes: Axes) -> Panel:
    series = [
        Series(
            label, [float(t) for t in axes.times], (100 * np.array([by_time[str(t)] for t in axes.times])).T.tolist()
        )
        for label, by_time in found.items()
    ]
    return Panel(title, "steps", "accuracy (%)", series, log_x=True)


def mean_accuracy(found: Accuracies, axis: str, label: str, time: int) -> float:
    """The mean accuracy of a model over seeds."""
    return float(np.mean(found[axis][label][str(time)]))


def _summary(found: Found[RecallSize]) -> str:
    basic, short, long = found.numbers["basic"], found.size.axes.times[0], found.size.axes.times[-1]
    parts = [
        f"{capitalized(axis)}: "
        + ", ".join(
            f"{label} {100 * mean_accuracy(basic, axis, label, short):.0f} and "
            f"{100 * mean_accuracy(basic, axis, label, long):.0f} %"
            for label in basic[axis]
        )
        for axis in basic
    ]
    return f"Basic recall at {short} and {long} steps. " + ". ".join(parts) + "."


def _as_full(found: Found[RecallSize]) -> Claim:
    """Whether the layer keeps up with full attention where facts are few."""
    basic, axes, ours = found.numbers["basic"], found.size.axes, ovq(found.size.ovq_sizes[-1])
    full, own = ({t: mean_accuracy(basic, FIXED, label, t) for t in axes.times} for label in (FULL, ours))
    gaps = {time: full[time] - own[time] for time in axes.times}
    return Claim(
        "OVQ-attention is competitive with, sometimes identical to, full attention at many times the training length "
        "(arXiv 2602.03922).",
        f"Points behind full attention, {axes.count(FIXED, 0)} facts: "
        + ", ".join(f"{100 * gap:.1f} at {time}" for time, gap in gaps.items())
        + f" steps. At most 2 counts as identical; full attention has {100 * full[axes.time]:.0f} % at the training "
        "length, and below 90 % the comparison is left open.",
        supported([gap <= 0.02 for gap in gaps.values()]) if full[axes.time] > 0.9 else "open",
    )


def _capacity(found: Found[RecallSize]) -> Claim:
    basic, axes = found.numbers["basic"], found.size.axes
    rows = {n: {t: mean_accuracy(basic, FILLED, ovq(n), t) for t in axes.times} for n in found.size.ovq_sizes}
    first, last = axes.times[0], axes.times[-1]
    facts = axes.count(FILLED, last)
    learned = all(row[first] > 0.9 for row in rows.values())
    # Too few centroids have to fail, and enough of them must not.
    as_counted = [(row[last] < row[first] - 0.1) == (size < facts) for size, row in rows.items()]
    return Claim(
        "Recall ends where the facts outnumber the centroids: constant memory cannot hold a growing number of facts.",
        "; ".join(
            f"{size} centroids: "
            + ", ".join(f"{100 * value:.0f} % of {axes.count(FILLED, time)}" for time, value in row.items())
            for size, row in rows.items()
        )
        + " facts.",
        supported(as_counted) if learned else "open",
    )


def _in_order(found: Found[RecallSize]) -> Claim:
    claim = "OVQ-attention recalls by position in the context as well, with the help of layers that know positions."
    if "positional" not in found.numbers:
        return Claim(claim, "Positional recall was left out at this size.", "open")
    axes, positional = _twice(found.size.axes), found.numbers["positional"]
    at = {label: mean_accuracy(positional, FIXED, label, axes.time) for label in positional[FIXED]}
    ours = next(label for label in at if label.startswith("OVQ "))
    helped = at[ours] - at[WINDOW] > 0.5 * (at[FULL] - at[WINDOW])
    return Claim(
        claim,
        f"Accuracy at the training length, {axes.time} steps: "
        + ", ".join(f"{label} {100 * value:.0f} %" for label, value in at.items())
        + ". Beyond half of what full attention has over the window alone counts.",
        supported([helped]) if at[FULL] > 0.9 else "open",
    )


def _differences(found: Found[RecallSize]) -> list[str]:
    return [
        *DIFFERENCES,
        "We could not read the paper's recall tasks and their sizes: these are our own. In training questions come "
        "again and again; in the tests each fact is asked for once, after noise.",
    ]


_SHAPE = Shape(80, window=8, chunk_size=16)

RECALL = Experiment(
    name="ovq/recall",
    title="Recall in context",
    topic="recall in context, basic and by position, beyond the length of training",
    paper=papers.OVQ,
    sizes={
        "quick": RecallSize(
            shape=dataclasses.replace(_SHAPE, features=16),
            axes=Axes(64, (4, 6), (64, 128), per_fact=16, tested=8, examples=256),
            labels=(FULL, ovq(16), WINDOW),
            steps=20,
        ),
        "full": RecallSize(
            shape=_SHAPE,
            axes=Axes(64, (4, 6), (64, 128, 256, 512), per_fact=16, tested=32, examples=8192),
            labels=(FULL, ovq(16), ovq(128), WINDOW, LINEAR, DELTA),
            steps=1500,
        ),
        "large": RecallSize(
            shape=Shape(260, features=256, window=64, chunk_size=128, pairs=2, max_length=65_536, heads=2),
            axes=Axes(
                4096,
                (16, 64),
                (4096, 8192, 16_384, 32_768, 65_536),
                per_fact=512,
                tested=8,
                examples=2048,
                before=Before(256, (4, 16), 800),
            ),
            labels=(FULL, ovq(64), ovq(256), ovq(1024), WINDOW, DELTA),
            steps=200,
            learning_rate=2e-3,
        ),
    },
    time={"full": "half an hour", "large": "not timed yet"},
    measure=_measure,
    summary=_summary,
    claims=[_as_full, _capacity, _in_order],
    sections=_sections,
    differences=_differences,
    seeds=3,
)
"""Basic and positional recall; basic recall alone in large."""
