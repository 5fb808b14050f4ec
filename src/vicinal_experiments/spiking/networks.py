"""The network of these experiments, learning rates chosen on held-out examples, and how accuracies are compared."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from vicinal.report import Table, mean_interval
from vicinal.reproduce import Found, Problem, Run, Variant, rows
from vicinal.rules import Rule
from vicinal.sweeping import last
from vicinal.task import Task
from vicinal_experiments.hardware.networks import accuracy_of, held_out
from vicinal_experiments.tasks import task_of

LEARNING_RATES = (0.1, 0.3, 1.0, 3.0)
"""The learning rates, at first, of gradient descent that are tried for each rule."""

DECIDED = {1: "yes", 0: "undecided", -1: "no"}
"""The results of a comparison as text."""


def network(data: str) -> Task:
    """784-128-64-10, or 64-64-32-10 on the digits: ReLU, vertices at potentials."""
    sizes = (64, 64, 32, 10) if data == "digits" else (784, 128, 64, 10)
    return task_of(data, kind="mlp", sizes=sizes)


def trained(
    run: Run[Any],
    label: str,
    rule: Rule,
    task: Any,
    learning_rates: Sequence[float],
    *,
    updates: int,
    batch_size: int,
    part: str = "",
) -> dict[float, list[Any]]:
    """Trains a rule with every seed by gradient descent, whose rate falls to 0; returns the members at each rate.

    Not by Adam: updates by events are mostly 0, and it divides by their root mean square.
    """

    def make(learning_rate: Any) -> tuple[Rule, optax.GradientTransformation]:
        return rule, optax.sgd(optax.linear_schedule(learning_rate, 0.0, updates))

    variant = Variant(label, make, {"learning_rate": learning_rates})
    how: dict[str, Any] = {"steps": updates, "evaluate_every": updates, "batch_size": batch_size}
    found = iter(run.train(variant, task, part=part, **how).members)
    return {rate: [next(found) for _ in range(run.seeds)] for rate in learning_rates}


def choose_rate(run: Run[Any], label: str, rule: Rule, task: Task, *, updates: int, batch_size: int) -> dict[str, Any]:
    """Chooses a learning rate on held-out training examples by two seeds, a diverged member counted as 0."""
    few = dataclasses.replace(run, seeds=min(2, run.seeds))
    how: dict[str, Any] = {"updates": updates, "batch_size": batch_size, "part": "choice of the rate"}
    ends = trained(few, label, rule, Problem(held_out(task.data), task.build), LEARNING_RATES, **how)
    accuracy = [accuracy_of(rows(members)) for members in ends.values()]
    return {"rates": LEARNING_RATES, "accuracy": accuracy, "chosen": LEARNING_RATES[int(np.argmax(accuracy))]}


def probe(task: Task, number: int) -> tuple[Array, Array]:
    """Training examples on which something is measured, drawn from all of them."""
    rows = np.random.default_rng(0).choice(len(task.data.x_train), number, replace=False)
    return jnp.asarray(task.data.x_train[rows]), jnp.asarray(task.data.y_train[rows])


def accuracies(found: Found[Any], *path: str) -> list[float]:
    """The test accuracy of each seed at the end; that of chance if it diverged."""
    return [0.1 if member.diverged else last(member, "test_accuracy") for member in found.members(*path)]


def within(ours: Sequence[float], theirs: Sequence[float], margin: float) -> int:
    """Whether paired numbers are at most a margin below others: 1, 0 or -1, by the 95 % interval of the difference."""
    mean, half = mean_interval(np.subtract(ours, theirs).tolist())
    if half is None or np.isnan(mean):
        return 0
    return 1 if mean - half > -margin else -1 if mean + half < -margin else 0


def points(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The mean difference of accuracies in points."""
    return f"{100 * float(np.mean(np.subtract(ours, theirs))):+.1f}"


def rate_table(rates: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Each rule's held-out accuracy at the rates that were tried, and the chosen one."""
    table: list[list[Any]] = [
        [label, *(f"{100 * accuracy:.1f}" for accuracy in of["accuracy"]), f"{of['chosen']:g}"]
        for label, of in rates.items()
    ]
    tried = next(iter(rates.values()))["rates"]
    return Table(title, ["rule", *(f"{rate:g}" for rate in tried), "chosen"], table, folded=True)


def each(data: Sequence[str], say: Callable[[str], str]) -> str:
    """One sentence for each data set."""
    return "; ".join(f"on {name} {say(name)}" for name in data)
