"""Learning curves of several rules: how they are run, their tables and figures, and how rules are compared."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vicinal.report import Claim, Panel, Section, Study, Table
from vicinal.reproduce.runs import Measure, Scale, Variant, ahead, at_step, first_step, train
from vicinal.sweeping import curve, interval_text, last, plain
from vicinal.task import Task
from vicinal.train import Member, Sweep

Done = dict[str, Sweep]
"""What was run on one task, by the labels of the variants."""

ACCURACY, LOSS = "test_accuracy", "test_loss"
JPEG = "The CIFAR-10 images may have been compressed on the way here: see the data's credit."
PAIRED = "Compared seed by seed, beyond the 95 % interval of the difference"
SAID = {1: "ahead of", 0: "not told apart from", -1: "behind"}
TABLES = "The paper's tables were not at hand, so no number of it stands here."


def train_all(
    scale: Scale,
    task: Task,
    variants: Sequence[Variant],
    steps: int,
    batch_size: int,
    evaluate_every: int,
    measure: Callable[[Task, Variant], Measure] | None = None,
) -> Done:
    """Trains each variant with every seed; `measure` makes what a variant's records are added to by."""
    return {
        v.label: train(
            scale,
            task,
            v,
            steps=steps,
            batch_size=batch_size,
            evaluate_every=evaluate_every,
            measure=None if measure is None else measure(task, v),
        )
        for v in variants
    }


def study(
    title: str,
    opening: str,
    settings: dict[str, Any],
    runs: Sequence[tuple[Task, Done]],
    marks: Sequence[int] | dict[str, list[int]],
    claims: list[Claim],
    differences: list[str],
    sections: Sequence[Section] = (),
) -> Study:
    """The study of what was run on one data set or several: a section and the numbers of each.

    Args:
        title: Its title.
        opening: The first words of the summary, which says the best rule of each data set.
        settings: What it was run with.
        runs: The tasks, and what was run on each.
        marks: Steps that the tables show, of all tasks or by the name of the data.
        claims: What was judged.
        differences: From the paper.
        sections: Further ones.
    """
    accuracy = not runs[0][0].settings.model.reconstructs
    all_done = {task.data.name: done for task, done in runs}
    shown = marks if isinstance(marks, dict) else {name: list(marks) for name in all_done}
    return Study(
        title=title,
        summary=opening + best(all_done, ACCURACY if accuracy else LOSS),
        command="",
        settings=settings,
        environment={},
        sections=[*(section(task, done, shown[task.data.name], accuracy) for task, done in runs), *sections],
        claims=claims,
        differences=differences,
        numbers={data: {name: plain(s.members) for name, s in done.items()} for data, done in all_done.items()},
        data_credit=runs[-1][0].data.credit,
    )


def section(task: Task, done: Done, marks: Sequence[int], accuracy: bool) -> Section:
    """The curves of a task, and tables of them at some steps."""
    quantities = [(ACCURACY, "test accuracy (%)", 100.0, False)] if accuracy else []
    quantities += [(LOSS, "test loss", 1.0, True)]
    panels = [
        Panel(
            heading[0].upper() + heading[1:],
            "iteration",
            heading,
            [curve(name, sweep.members, quantity, unit) for name, sweep in done.items()],
            log_y=log,
        )
        for quantity, heading, unit, log in quantities
    ]
    tables = [
        Table(
            f"{heading[0].upper()}{heading[1:]} after so many iterations (mean over seeds ± half a 95 % interval)",
            ["rule", *map(str, marks), "diverged"],
            [
                [
                    name,
                    *(interval_text([at_step(m, quantity, mark) for m in sweep.members], unit) for mark in marks),
                    str(sum(m.diverged for m in sweep.members)),
                ]
                for name, sweep in done.items()
            ],
        )
        for quantity, heading, unit, _ in quantities
    ]
    if accuracy:
        tables.append(levels_table(done))
    return Section(task.data.name, panels=panels, tables=tables)


def levels_table(done: Done) -> Table:
    """How many steps each rule takes to some accuracies."""
    levels = (0.8, 0.9, 0.95)
    rows: list[list[Any]] = []
    for name, sweep in done.items():
        steps = [
            [first_step(m, ACCURACY, lambda value, level=level: value >= level) for m in sweep.members]
            for level in levels
        ]
        rows.append([name, *(None if np.any(np.isnan(row)) else f"{np.mean(row):.0f}" for row in steps)])
    title = "Iterations until an evaluation first shows an accuracy (mean over seeds; none if a seed does not reach it)"
    return Table(title, ["rule", *(f"{100 * level:.0f} %" for level in levels)], rows)


def value(member: Member, quantity: str, step: int | None = None) -> float:
    """A quantity of a member at a step, or at the end."""
    return last(member, quantity) if step is None else at_step(member, quantity, step)


def mean(sweep: Sweep, quantity: str, step: int | None = None) -> float:
    """The mean over members of a quantity at a step, or at the end; NaN if one has none."""
    return float(np.mean([value(member, quantity, step) for member in sweep.members]))


def means_text(done: Done, quantity: str, step: int | None = None) -> str:
    """The mean of each rule, in words."""
    means = {name: mean(sweep, quantity, step) for name, sweep in done.items()}
    return ", ".join(f"{name} {size_text(found, quantity)}" for name, found in means.items())


def size_text(number: float, quantity: str) -> str:
    """An accuracy in percent, or a loss."""
    if not math.isfinite(number):
        return "diverged"
    return f"{100 * number:.1f} %" if quantity.endswith("accuracy") else f"{number:.4g}"


def compared(done: Done, name: str, other: str, quantity: str, step: int | None = None) -> int:
    """Whether a rule is ahead of another (1), behind it (-1), or not told apart (0): more accuracy, or less loss."""
    sign = -1 if quantity == LOSS else 1
    ours, theirs = ([sign * value(m, quantity, step) for m in done[label].members] for label in (name, other))
    return ahead(ours, theirs)


def better(
    done: Done,
    names: Sequence[str],
    quantity: str,
    step: int | None = None,
    than: Sequence[str] = ("BP-SGD", "BP-Adam"),
) -> list[int]:
    """For each of the rules named: whether it is ahead of all the others (1), behind one (-1), or neither."""
    return [min(compared(done, name, other, quantity, step) for other in than) for name in names]


def best(all_done: dict[str, Done], quantity: str) -> str:
    """Which rule ends with the best mean on each data set, in words."""
    sentences = []
    for data, done in all_done.items():
        means = {name: mean(sweep, quantity) for name, sweep in done.items()}
        whole = {name: found for name, found in means.items() if not np.isnan(found)}
        if not whole:
            sentences.append(f"On {data}, every rule lost a seed.")
            continue
        first = (max if quantity == ACCURACY else min)(whole, key=lambda name: whole[name])
        sentences.append(f"On {data}, {first} ends with the best mean, {size_text(whole[first], quantity)}.")
    return " ".join(sentences)


def on_cifar(scale: Scale, steps: int, of: str) -> list[str]:
    """How a run on CIFAR-10, or what stands in for it, differs from the paper's."""
    if scale.quick:
        return stand_in(scale, "CIFAR-10", "learning rates are those for CIFAR-10")
    return [f"{steps} of the paper's {of} iterations, the curves' beginning alone.", JPEG]


def stand_in(scale: Scale, data: str, words: str) -> list[str]:
    """What stands in for the data, if quick."""
    return [f"The digits and a smaller network stand in for {data}; {words}."] if scale.quick else []
