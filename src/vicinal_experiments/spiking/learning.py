"""What learning by events and spikes reaches, and how many synaptic operations it takes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vicinal.events import Cyclic, Graded, Ternary
from vicinal.inference import Simultaneous
from vicinal.report import Claim, Panel, Section, Series, Table, interval_text
from vicinal.reproduce import Experiment, Found, Run, Size, ahead, rows, supported, verdict
from vicinal.rules import (
    Backprop,
    EventBackprop,
    EventInferenceLearning,
    InferenceLearning,
    Rule,
    SpikingInferenceLearning,
)
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
from vicinal_experiments.spiking.operations import KINDS, operations

_MARGIN = 0.005  # of the test accuracy
_PART = 0.03  # of the dense products of settling
BP, IL, QUANTISED = "BP", "IL", "BP by events"
GRADED, RELATIVE, TERNARY, CYCLIC, SPIKES = "graded", "graded, relative", "ternary", "cyclic", "spikes"


def _by_events(code: type, threshold: float = 0.05, error: float = 0.0125, **how: Any) -> EventInferenceLearning:
    settings = {name: how.pop(name) for name in ("relative",) if name in how}
    return EventInferenceLearning(activity=code(threshold, **settings), error=code(error, **settings), **how)


RULES: dict[str, Rule] = {
    BP: Backprop(),
    QUANTISED: EventBackprop(),
    IL: InferenceLearning(inference=Simultaneous(steps=20, step_size=0.1)),
    GRADED: _by_events(Graded),
    RELATIVE: _by_events(Graded, 0.05, 0.05, relative=True),
    TERNARY: _by_events(Ternary, steps=60),
    CYCLIC: _by_events(Cyclic),
    SPIKES: SpikingInferenceLearning(learn="mean"),
}
"""Backpropagation and inference learning, dense, by events of several codes, and in spikes."""

OTHERS = (RELATIVE, TERNARY, CYCLIC, SPIKES)
"""Inference learning by other codes than graded events with fixed thresholds, and in spikes."""

_MORE = 80  # steps, against the rule's own, to see whether operations stop growing


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningSize(Size):
    """Training and counting.

    Attributes:
        updates: Updates of a run, and of the runs that choose learning rates.
        batch_size: Examples in a batch.
        counted: Training examples on which operations are counted.
    """

    updates: int
    batch_size: int = 32
    counted: int = 64


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[LearningSize]) -> dict[str, Any]:
    size, numbers = run.size, {}
    how: dict[str, Any] = {"updates": size.updates, "batch_size": size.batch_size}
    for data in size.data:
        task = network(data)
        at = probe(task, size.counted)
        rates, runs, counts = {}, {}, {}
        for label, rule in RULES.items():
            rates[label] = choose_rate(run, label, rule, task, **how)
            (members,) = trained(run, label, rule, task, [rates[label]["chosen"]], **how).values()
            runs[label] = rows(members)
            counts[label] = [operations(rule, task.graph, member.model, *at) for member in members]
            if label == GRADED:
                longer = _by_events(Graded, steps=_MORE)
                counts[f"{label}, {_MORE} steps"] = [
                    operations(longer, task.graph, member.model, *at) for member in members
                ]
        numbers[data] = {"rates": rates, "runs": runs, "operations": counts}
    return numbers


# ---------------------------------------------------------------------------------------------------------- judge


def _accuracies(found: Found[LearningSize], data: str, label: str) -> list[float]:
    return accuracies(found, data, "runs", label)


def _counts(found: Found[LearningSize], data: str, label: str, *kinds: str) -> list[float]:
    """The sum of some kinds of operations for each seed."""
    return [sum(each_seed[kind] for kind in kinds) for each_seed in found.numbers[data]["operations"][label]]


def _settling(found: Found[LearningSize], data: str, label: str) -> list[float]:
    return _counts(found, data, label, "values", "errors")


def _summary(found: Found[LearningSize]) -> str:
    def say(data: str) -> str:
        return ", ".join(f"{label} {100 * np.mean(_accuracies(found, data, label)):.1f}" for label in RULES)

    return f"Test accuracy in % after {found.size.updates} updates: {each(found.size.data, say)}."


def _near(found: Found[LearningSize], labels: Sequence[str], who: str) -> Claim:
    signs, words = [], []
    for data in found.size.data:
        il = _accuracies(found, data, IL)
        for label in labels:
            ours = _accuracies(found, data, label)
            signs.append(within(ours, il, _MARGIN))
            words.append(f"{data}, {label}: {points(ours, il)} ({DECIDED[signs[-1]]})")
    return Claim(
        f"Ours: {who}, inference learning is within {100 * _MARGIN:g} points of itself.",
        f"Points to inference learning, and whether within, by the 95 % interval: {'; '.join(words)}.",
        verdict(signs),
    )


def _as_accurate(found: Found[LearningSize]) -> Claim:
    return _near(found, [GRADED], "by graded events")


def _others_as_accurate(found: Found[LearningSize]) -> Claim:
    return _near(found, OTHERS, "by other codes and in spikes")


def _few(found: Found[LearningSize]) -> Claim:
    checks, words = [], []
    for data in found.size.data:
        ours, dense = (float(np.mean(_settling(found, data, label))) for label in (GRADED, IL))
        longer = float(np.mean(_settling(found, data, f"{GRADED}, {_MORE} steps")))
        checks += [ours <= _PART * dense, longer < 2 * ours]
        words.append(
            f"on {data} {ours:.0f} of {dense:.0f}, {100 * ours / dense:.2g} %, and {longer:.0f} in {_MORE} steps"
        )
    return Claim(
        f"Ours: settling by graded events takes at most {100 * _PART:g} % of the dense products, and fewer than twice "
        f"as many operations in {_MORE} steps as in 20.",
        f"Operations of values and errors for each example on trained networks: {'; '.join(words)}.",
        supported(checks),
    )


def _against_backpropagation(found: Found[LearningSize]) -> Claim:
    signs, words = [], []
    for data in found.size.data:
        ours, theirs = (_counts(found, data, label, *KINDS) for label in (GRADED, QUANTISED))
        signs.append(ahead(theirs, ours))
        words.append(f"on {data} {np.mean(ours):.0f} against {np.mean(theirs):.0f}")
    return Claim(
        "Ours: on single images inference learning by events takes fewer operations than backpropagation by events.",
        f"All operations of an update for each example, sweep and weights too: {'; '.join(words)}.",
        verdict(signs),
    )


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[LearningSize]) -> list[Section]:
    sections = []
    for data in found.size.data:
        rates = rate_table(found.numbers[data]["rates"], "Held-out accuracy (%) by learning rate, and the chosen rate")
        tables = [_accuracy_table(found, data), _operation_table(found, data), rates]
        sections.append(Section(f"On {data}", _NOTE, tables=tables, panels=[_panel(found, data)]))
    return sections


_NOTE = (
    "Operations are synapses that something arrives at, for each example, on trained networks; of dense rules, their "
    "multiplications. Weights: pairs of an activity and an error that are not 0. Sweep: the forward pass before, which "
    "every rule has."
)


def _accuracy_table(found: Found[LearningSize], data: str) -> Table:
    table: list[list[Any]] = [[label, interval_text(_accuracies(found, data, label), 100.0)] for label in RULES]
    return Table("Test accuracy (%, mean over seeds ± half a 95 % interval)", ["rule", "accuracy"], table)


def _operation_table(found: Found[LearningSize], data: str) -> Table:
    labels = list(found.numbers[data]["operations"])
    table: list[list[Any]] = [
        [label, *(interval_text(_counts(found, data, label, kind)) for kind in KINDS)] for label in labels
    ]
    return Table(
        "Synaptic operations for each example (mean over seeds ± half a 95 % interval)", ["rule", *KINDS], table
    )


def _panel(found: Found[LearningSize], data: str) -> Panel:
    series = [
        Series(
            label,
            [float(np.mean(_counts(found, data, label, *KINDS)))],
            [[100 * accuracy] for accuracy in _accuracies(found, data, label)],
        )
        for label in RULES
    ]
    title = f"Accuracy on synaptic operations, {data}"
    return Panel(title, "synaptic operations for each example", "test accuracy (%)", series, log_x=True)


def _differences(found: Found[LearningSize]) -> list[str]:
    return [
        "The paper has no spiking network: codes and thresholds are ours, the same for all networks.",
        f"{found.size.updates} updates of {found.size.batch_size} examples by gradient descent, whose rate falls "
        "to 0. A first rate for each rule, of four, chosen on held-out training examples by two seeds with as many "
        "updates.",
        "Spikes: 120 steps, an area of 1, no leak, the mean product over the last half; they start at the feedforward "
        "values, whose sweep is counted as dense.",
        "Backpropagation by events sends each value and each error once; one that sends only changes from example to "
        "example was not tried.",
    ]


LEARNING = Experiment(
    name="spiking/learning",
    title="Inference learning by events: accuracy and synaptic operations",
    topic="accuracy and operations of backpropagation and inference learning, dense and by events",
    paper=IL_THEORY,
    sizes={
        "quick": LearningSize(data=("digits",), updates=100),
        "full": LearningSize(data=("mnist", "fashion_mnist"), updates=2500),
    },
    time={"full": "thirty minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_as_accurate, _others_as_accurate, _few, _against_backpropagation],
    sections=_sections,
    differences=_differences,
)
"""What learning by events reaches, and what it costs."""
