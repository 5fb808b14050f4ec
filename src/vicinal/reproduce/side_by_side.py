"""Rules side by side: each learns from the same first weights and the same batches."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.graph import capture
from vicinal.report import Panel, Table
from vicinal.reproduce.runs import Measure, Scale, at_step
from vicinal.rules import Rule
from vicinal.sweeping import curve, interval_text
from vicinal.task import Task
from vicinal.train import Sweep, keys_of, sweep


@dataclasses.dataclass(frozen=True)
class Contender:
    """A rule in a comparison.

    Attributes:
        label: In tables and figures.
        rule: The rule.
        build: From a key to its model, where that is not the task's.
        measure: Called with each record, to which it may add, and the state.
        optimizer: From a learning rate to its optimiser, where that is not plain gradient descent.
        learning_rate: Where that is not the comparison's.
    """

    label: str
    rule: Rule
    build: Callable[[PRNGKeyArray], PyTree] | None = None
    measure: Measure | None = None
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.sgd
    learning_rate: float | None = None


def train_side_by_side(
    scale: Scale,
    task: Task,
    contenders: Sequence[Contender],
    *,
    name: str,
    learning_rate: float,
    steps: int,
    batch_size: int,
    evaluate_every: int,
) -> dict[str, Sweep]:
    """Trains each with every seed; `name` tells the task's runs from others."""
    done = {}
    for contender in contenders:
        scale.say(f"{contender.label}, {name} on {task.data.name}, {steps} updates, {scale.seeds} seeds")
        run = "-".join([name, task.data.name, contender.label, str(steps), str(scale.seeds)])
        folder = None if scale.folder is None else scale.folder / "runs" / _file_name(run)
        build = contender.build or task.build
        done[contender.label] = sweep(
            lambda learning_rate, contender=contender: (contender.rule, contender.optimizer(learning_rate)),
            build,
            task.data,
            {"learning_rate": [contender.learning_rate or learning_rate]},
            seeds=scale.seeds,
            steps=steps,
            batch_size=batch_size,
            evaluate_every=evaluate_every,
            graph=task.graph if contender.build is None else capture(build(keys_of(0)[0]), first_input(task)),
            group_size=1,
            folder=folder,
            resume=folder is not None,
            progress=scale.progress,
            on_record=contender.measure,
        )
    return done


def first_input(task: Task) -> Any:
    """One input of a task."""
    return jnp.asarray(task.data.x_train[0])


def on_first_device(model: PyTree) -> PyTree:
    """The model on the first device: members lie on several."""
    arrays, static = eqx.partition(model, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, jax.devices()[0]), static)


def accuracy_table(title: str, done: Mapping[str, Sweep]) -> Table:
    """Test accuracy at three steps of training, and how many diverged."""
    steps = sorted({record["step"] for sweep in done.values() for member in sweep.members for record in member.records})
    shown = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    rows: list[list[Any]] = []
    for label, found in done.items():
        values = [[at_step(member, "test_accuracy", step) for member in found.members] for step in shown]
        diverged = sum(member.diverged for member in found.members)
        rows.append([label, *(interval_text(row, 100.0) for row in values), diverged])
    heading = f"{title}: test accuracy (%) after so many updates (mean over seeds ± half a 95 % interval)"
    return Table(heading, ["rule", *map(str, shown), "diverged"], rows)


def panel(title: str, done: Mapping[str, Sweep], quantity: str, heading: str, unit: float = 1.0) -> Panel:
    """A quantity along training."""
    series = [curve(label, found.members, quantity, unit) for label, found in done.items()]
    return Panel(title, "update", heading, series)


def largest_gap(ours: Sweep, theirs: Sweep, quantity: str) -> float:
    """The largest difference of a quantity between runs of the same seed, anywhere along training."""
    gaps = [
        abs(record[quantity] - at_step(other, quantity, record["step"]))
        for member, other in zip(ours.members, theirs.members, strict=True)
        for record in member.records
    ]
    return float(np.max(gaps, initial=0.0))


def _file_name(words: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in words.lower())
