"""Multi-query associative recall: models side by side, one layer alone, and a stack under local rules."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from vicinal.data.sequences import Sequences, mqar as task_of_mqar
from vicinal.inference import ErrorBased, Sequential
from vicinal.losses import masked_softmax_cross_entropy
from vicinal.report import Claim, Section, Table
from vicinal.reproduce import Experiment, Found, Run, supported
from vicinal.rules import ZIL, Backprop, DirectFeedback, InferenceLearning, Rule
from vicinal.sweeping import interval_text
from vicinal_experiments import papers
from vicinal_experiments.ovq.one_layer import (
    OneLayerSize,
    Recalled,
    measure_one_layer,
    one_layer_claim,
    one_layer_section,
)
from vicinal_experiments.ovq.recall import (
    FILLED,
    FIXED,
    Axes,
    RecallSize,
    Task,
    mean_accuracy,
    measure_recall,
    recall_sections,
    state_section,
)
from vicinal_experiments.ovq.training import (
    DELTA,
    DIFFERENCES,
    FULL,
    LINEAR,
    MAMBA,
    MESA,
    VQ,
    WINDOW,
    Shape,
    Training,
    accuracy,
    ovq,
    train,
)


@dataclasses.dataclass(frozen=True)
class LocalSize:
    """A stack that learns a short task by local rules.

    Attributes:
        shape: Of the stack.
        time: Steps of an example.
        facts: Pairs in it.
        error_based: Step sizes of error-based inference.
        sequential: Step sizes of sequential inference.
        steps: Updates.
        examples: For training.
    """

    shape: Shape
    time: int
    facts: int
    error_based: tuple[float, ...]
    sequential: tuple[float, ...]
    steps: int
    examples: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class MQARSize(RecallSize):
    """Models side by side, layers alone, and a stack under local rules."""

    one_layer: OneLayerSize
    local: LocalSize


def tasks(size: RecallSize) -> list[tuple[Task, Axes]]:
    """MQAR alone."""
    return [(_task(size.shape.vocabulary), size.axes)]


def _measure(run: Run[MQARSize]) -> dict[str, Any]:
    size = run.size
    ((task, axes),) = tasks(size)
    found, kept = measure_recall(run, size.labels, axes, task, "MQAR")
    alone = [dataclasses.asdict(each) for each in measure_one_layer(run, size.one_layer)]
    return {"mqar": found, "models": kept, "one layer": alone, "local rules": _local_rules(run, size.local)}


def _task(vocabulary: int) -> Task:
    def task(examples: int, time: int, facts: int, seed: int, once: bool) -> Sequences:
        del once  # each key is asked for once anyway
        return task_of_mqar(examples, time, facts, vocabulary=vocabulary, seed=seed)

    return task


def _local_rules(run: Run, size: LocalSize) -> dict[str, list[float]]:
    """Accuracy by rule. With larger steps, inference ends further from where backpropagation has its activities."""
    loss = masked_softmax_cross_entropy
    rules: dict[str, Rule] = {"BP": Backprop(loss=loss)}
    for step_size in size.error_based:
        inference = ErrorBased(steps=5, step_size=step_size)
        rules[f"IL, error-based, steps of {step_size:g}"] = InferenceLearning(inference=inference, loss=loss)
    for step_size in size.sequential:
        inference = Sequential(steps=3, step_size=step_size)
        rules[f"IL, sequential, steps of {step_size:g}"] = InferenceLearning(inference=inference, loss=loss)
    rules |= {"Z-IL": ZIL(loss=loss), "DFA": DirectFeedback(loss=loss)}
    draw = functools.partial(task_of_mqar, vocabulary=size.shape.vocabulary)
    found: dict[str, list[float]] = {label: [] for label in rules}
    for label, rule in rules.items():
        how = Training(size.steps, batch_size=32, learning_rate=5e-3, rule=rule)
        for seed in range(run.seeds):
            data = draw(size.examples, size.time, size.facts, seed=seed)
            test = draw(256, size.time, size.facts, seed=1000 + seed)
            model = size.shape.build(ovq(32), key=jax.random.key(seed))
            found[label].append(accuracy(train(run, f"{label}, MQAR", model, data, how, seed), test))
    return found


# ---------------------------------------------------------------------------------------------------------- judge


def _sections(found: Found[MQARSize]) -> list[Section]:
    numbers, axes = found.numbers, found.size.axes
    local = [[label, interval_text(row, 100.0)] for label, row in numbers["local rules"].items()]
    return [
        *recall_sections("MQAR", numbers["mqar"], axes),
        state_section(numbers["models"], axes),
        one_layer_section(_alone(found)),
        Section(
            "By local rules",
            "The same stack with a window and OVQ, on a short task; vertices hold the stream after each layer.",
            tables=[Table("Accuracy (%)", ["rule", "MQAR"], local)],
        ),
    ]


def _alone(found: Found[MQARSize]) -> list[Recalled]:
    return [Recalled(**row) for row in found.numbers["one layer"]]


def _summary(found: Found[MQARSize]) -> str:
    axes, numbers = found.size.axes, found.numbers
    at = {label: mean_accuracy(numbers["mqar"], FIXED, label, axes.times[-1]) for label in found.size.labels}
    models = ", ".join(f"{label} {100 * value:.0f} %" for label, value in at.items())
    rules = ", ".join(f"{label} {100 * np.mean(row):.0f} %" for label, row in numbers["local rules"].items())
    return f"{axes.count(FIXED, 0)} pairs at {axes.times[-1]} steps: {models}. By local rules: {rules}."


def _recalls(found: Found[MQARSize]) -> Claim:
    mqar, axes, ours = found.numbers["mqar"], found.size.axes, ovq(found.size.ovq_sizes[-1])
    last = axes.times[-1]
    rows = {axis: [mean_accuracy(mqar, axis, ours, time) for time in axes.times] for axis in (FIXED, FILLED)}
    full = {axis: mean_accuracy(mqar, axis, FULL, last) for axis in (FIXED, FILLED)}
    keeps = rows[FIXED][-1] > rows[FIXED][0] - 0.05
    return Claim(
        "What OVQ-attention has learned to recall it recalls at lengths that it was not trained on, as long as the "
        "facts are few against the centroids.",
        f"{ours} at {', '.join(map(str, axes.times))} steps: "
        + "; ".join(f"{axis} " + ", ".join(f"{100 * v:.0f} %" for v in row) for axis, row in rows.items())
        + f". Full attention at {last}: {100 * full[FIXED]:.0f} and {100 * full[FILLED]:.0f} %. Below 90 % at the "
        "training length it is left open.",
        supported([keeps]) if rows[FIXED][0] > 0.9 else "open",
    )


def _by_centroids(found: Found[MQARSize]) -> Claim:
    return one_layer_claim(_alone(found))


def _by_local_rules(found: Found[MQARSize]) -> Claim:
    means = {label: float(np.mean(row)) for label, row in found.numbers["local rules"].items()}
    near = [value > means["BP"] - 0.05 for label, value in means.items() if label.startswith("IL")]
    return Claim(
        "A stack of sequence layers learns by inference learning as it does by backpropagation (our question; no paper "
        "claims it).",
        "Accuracy: " + ", ".join(f"{label} {100 * value:.0f} %" for label, value in means.items()) + ".",
        supported(near) if means["BP"] >= 0.5 else "open",
    )


def _differences(found: Found[MQARSize]) -> list[str]:
    return [
        *DIFFERENCES,
        f"Zoology's generator with {found.size.shape.vocabulary} tokens instead of 8192, models with perceptrons, "
        "sliding windows instead of its short convolutions; training at one length. Ten iterations in the Mesa layer.",
    ]


_SHAPE, _LOCAL_SHAPE = Shape(80, window=8, chunk_size=16), Shape(32, window=8, chunk_size=16)

MQAR = Experiment(
    name="ovq/mqar",
    title="Multi-query associative recall",
    topic="multi-query associative recall; one layer alone; learning by local rules",
    paper=papers.OVQ,
    sizes={
        "quick": MQARSize(
            shape=dataclasses.replace(_SHAPE, features=16),
            axes=Axes(32, (4,), (32, 64), per_fact=8, tested=8, examples=256),
            labels=(FULL, ovq(16)),
            steps=20,
            batch_size=32,
            one_layer=OneLayerSize(("min",), (16,), (16,), steps=60, examples=256),
            local=LocalSize(
                dataclasses.replace(_LOCAL_SHAPE, features=16), 16, 2, (0.003,), (0.1,), steps=10, examples=256
            ),
        ),
        "full": MQARSize(
            shape=_SHAPE,
            axes=Axes(32, (4,), (32, 64, 128, 256), per_fact=8, tested=64, examples=8192),
            labels=(FULL, ovq(8), ovq(64), WINDOW, LINEAR, DELTA, MAMBA, MESA, VQ),
            steps=600,
            batch_size=32,
            one_layer=OneLayerSize(("plateau", "min"), (16, 64, 256), (32, 128), steps=200, examples=1024),
            local=LocalSize(_LOCAL_SHAPE, 32, 4, (0.0003, 0.003, 0.03), (0.001, 0.1), steps=400, examples=8192),
        ),
    },
    time={"full": "an hour"},
    measure=_measure,
    summary=_summary,
    claims=[_recalls, _by_centroids, _by_local_rules],
    sections=_sections,
    differences=_differences,
    seeds=3,
)
"""Zoology's task along both axes; its continuous form for one layer; and learning by local rules."""
