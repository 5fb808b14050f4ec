"""Whether weights may learn at any moment: accuracy, and the direction of the update, on the time of the update."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal.graph import Graph
from vicinal.inference import Simultaneous
from vicinal.report import Claim, Panel, Section, Series, Table, interval_text
from vicinal.reproduce import Experiment, Found, Run, Size, rows, verdict
from vicinal.rules import EventInferenceLearning, InferenceLearning, Rule
from vicinal.task import Task
from vicinal_experiments.papers import IL_THEORY
from vicinal_experiments.spiking.networks import (
    DECIDED,
    accuracies,
    choose_rate,
    each,
    network,
    points,
    probe,
    rate_table,
    trained,
    within,
)

_STEPS = 20
_MARGIN = 0.005  # of the test accuracy
END, RANDOM, APART, MEAN, IL = "at the end", "at a random time", "at a time for each example", "mean", "IL"
RULES: dict[str, Rule] = {
    IL: InferenceLearning(inference=Simultaneous(steps=_STEPS, step_size=0.1)),
    END: EventInferenceLearning(),
    RANDOM: EventInferenceLearning(learn="any"),
    APART: EventInferenceLearning(learn="any", apart=True),
    MEAN: EventInferenceLearning(learn="mean"),
}
"""Inference learning, and by events with updates at some time of the second half of the steps, or at the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyTimeSize(Size):
    """When weights learn, and for how long.

    Attributes:
        times: The steps after which weights learn, where the time is fixed.
        updates: Updates of a run, and of the runs that choose learning rates.
        batch_size: Examples in a batch.
        probed: Training examples on which directions are compared.
    """

    times: tuple[int, ...] = (1, 2, 4, 7, 10, 15, 20)
    updates: int
    batch_size: int = 32
    probed: int = 256


def after(steps: int) -> EventInferenceLearning:
    """Inference learning by events whose weights learn after so many steps, from what was sent until then."""
    return EventInferenceLearning(steps=steps, learn="any", part=1 / steps)


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[AnyTimeSize]) -> dict[str, Any]:
    size, numbers = run.size, {}
    how: dict[str, Any] = {"updates": size.updates, "batch_size": size.batch_size}
    for data in size.data:
        task = network(data)
        rates = {label: choose_rate(run, label, rule, task, **how) for label, rule in RULES.items()}
        runs, directions = {}, []
        for label, rule in RULES.items():
            (members,) = trained(run, label, rule, task, [rates[label]["chosen"]], **how).values()
            runs[label] = rows(members)
            if label == END:
                directions = [_directions(run.size, task, member.model) for member in members]
        for steps in size.times:
            chosen = [rates[END]["chosen"]]
            (members,) = trained(run, f"after step {steps}", after(steps), task, chosen, **how).values()
            runs[str(steps)] = rows(members)
        numbers[data] = {"rates": rates, "runs": runs, "directions": directions}
    return numbers


@eqx.filter_jit
def _update(rule: Rule, graph: Graph, model: PyTree, x: Array, y: Array) -> PyTree:
    return rule.value_and_grad(graph, model, (), x, y, key=jax.random.key(0))[1]


def _directions(size: AnyTimeSize, task: Task, model: PyTree) -> list[float]:
    """The cosine of the update after each number of steps to that at the end, for a trained network."""
    x, y = probe(task, size.probed)
    flat = [
        jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(_update(rule, task.graph, model, x, y))])
        for rule in [*map(after, size.times), RULES[END]]
    ]
    return [float(one @ flat[-1] / (jnp.linalg.norm(one) * jnp.linalg.norm(flat[-1]))) for one in flat[:-1]]


# ---------------------------------------------------------------------------------------------------------- judge


def _accuracies(found: Found[AnyTimeSize], data: str, label: str) -> list[float]:
    return accuracies(found, data, "runs", label)


def _summary(found: Found[AnyTimeSize]) -> str:
    def say(data: str) -> str:
        return ", ".join(f"{label} {100 * np.mean(_accuracies(found, data, label)):.1f}" for label in RULES)

    words = each(found.size.data, say)
    return f"Test accuracy in % after {found.size.updates} updates, by the time of the update: {words}."


def _any_time(found: Found[AnyTimeSize]) -> Claim:
    signs, words = [], []
    for data in found.size.data:
        end = _accuracies(found, data, END)
        for label in (RANDOM, APART, MEAN):
            ours = _accuracies(found, data, label)
            signs.append(within(ours, end, _MARGIN))
            words.append(f"{data}, {label}: {points(ours, end)} ({DECIDED[signs[-1]]})")
    return Claim(
        f"Ours: updates at any time of the second half of the steps cost at most {100 * _MARGIN:g} points (the paper: "
        "local updates may be applied at just about any point in time).",
        f"Points to the update at the end, and whether within, by the 95 % interval: {'; '.join(words)}.",
        verdict(signs),
    )


def _early(found: Found[AnyTimeSize]) -> Claim:
    """Whether the accuracy at the first fixed time is below that at the end by more than the margin."""
    signs, words = [], []
    for data in found.size.data:
        end = _accuracies(found, data, END)
        early = {steps: within(_accuracies(found, data, str(steps)), end, _MARGIN) for steps in found.size.times}
        signs.append(-early[found.size.times[0]])
        words.append(f"{data}: " + ", ".join(f"step {steps} {DECIDED[sign]}" for steps, sign in early.items()))
    return Claim(
        "Ours: an update after the first step comes too early: the errors of hidden layers have not been sent yet.",
        f"Within {100 * _MARGIN:g} points of the update at the end, by the 95 % interval: {'; '.join(words)}.",
        verdict(signs),
    )


def _sections(found: Found[AnyTimeSize]) -> list[Section]:
    times = list(map(float, found.size.times))
    sections = []
    for data in found.size.data:
        columns = [_accuracies(found, data, str(steps)) for steps in found.size.times]
        lines = [Series("after a fixed step", times, (100 * np.transpose(columns)).tolist())]
        lines += [
            Series(label, times, [[100 * one] * len(times) for one in _accuracies(found, data, label)])
            for label in (END, RANDOM)
        ]
        accuracy = Panel(f"Accuracy on the time of the update, {data}", "inference step", "test accuracy (%)", lines)
        cosine = Panel(
            f"Direction of the update, {data}",
            "inference step",
            "cosine to the update at the end",
            [Series("trained networks", times, found.numbers[data]["directions"])],
        )
        rates = rate_table(found.numbers[data]["rates"], "Held-out accuracy (%) by learning rate, and the chosen rate")
        sections.append(Section(f"On {data}", "", tables=[_table(found, data), rates], panels=[accuracy, cosine]))
    return sections


def _table(found: Found[AnyTimeSize], data: str) -> Table:
    labels = {label: label for label in RULES} | {str(steps): f"after step {steps}" for steps in found.size.times}
    table: list[list[Any]] = [
        [words, interval_text(_accuracies(found, data, label), 100.0)] for label, words in labels.items()
    ]
    return Table("Test accuracy (%, mean over seeds ± half a 95 % interval)", ["weights learn", "accuracy"], table)


def _differences(found: Found[AnyTimeSize]) -> list[str]:
    return [
        "The paper has no spiking network and no such experiment: it says that updates that are local in time may be "
        "applied at almost any moment.",
        f"{found.size.updates} updates of {found.size.batch_size} examples by gradient descent, whose rate falls "
        "to 0. A first rate for each rule, of four, chosen on held-out training examples by two seeds; updates after a "
        "fixed step have that of updates at the end.",
    ]


ANY_TIME = Experiment(
    name="spiking/any-time",
    title="Inference learning by events: when weights may learn",
    topic="accuracy and direction of updates on their time while activities settle",
    paper=IL_THEORY,
    sizes={
        "quick": AnyTimeSize(data=("digits",), times=(1, 10, 20), updates=100),
        "full": AnyTimeSize(data=("mnist", "fashion_mnist"), updates=2000),
    },
    time={"full": "thirty minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_any_time, _early],
    sections=_sections,
    differences=_differences,
)
"""When weights may learn: accuracy and direction on the time of the update."""
