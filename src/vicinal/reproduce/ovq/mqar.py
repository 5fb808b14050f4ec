"""Multi-query associative recall: models side by side, one layer alone, and a stack under local rules."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vicinal.data.sequences import Sequences, mqar as task_of_mqar
from vicinal.inference import ErrorBased, Sequential
from vicinal.losses import masked_softmax_cross_entropy
from vicinal.report import Claim, Section, Study, Table
from vicinal.reproduce.ovq import one_layer
from vicinal.reproduce.ovq.recall import (
    DIFFERENCES,
    FILLED,
    FIXED,
    Axes,
    Task,
    mean,
    run,
    sections,
    settings,
    state_table,
)
from vicinal.reproduce.ovq.training import (
    DELTA,
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
from vicinal.reproduce.runs import Scale, borne_out
from vicinal.rules import ZIL, Backprop, DirectFeedback, InferenceLearning, Rule
from vicinal.sweeping import interval_text


def setup(scale: Scale) -> tuple[Shape, Axes]:
    """The models' sizes, and where they are trained and tested."""
    shape = Shape(80, features=scale.pick(16, 64), window=8, chunk_size=16)
    axes = Axes(
        time=32,
        facts=(4,),
        times=scale.pick((32, 64), (32, 64, 128, 256)),
        per_fact=8,
        tested=scale.pick(8, 64),
        examples=scale.pick(256, 8192),
    )
    return shape, axes


def tasks(shape: Shape, axes: Axes) -> list[tuple[Task, Axes]]:
    """MQAR alone."""
    return [(_task(shape.vocabulary), axes)]


def mqar(scale: Scale) -> Study:
    """Zoology's task along both axes; its continuous form for one layer; and learning by local rules."""
    scale = scale.by_default(3)
    shape, axes = setup(scale)
    sizes = scale.pick((16,), (8, 64))
    labels = [FULL, *map(ovq, sizes), *scale.pick((), (WINDOW, LINEAR, DELTA, MAMBA, MESA, VQ))]
    how = Training(scale.pick(20, 600), batch_size=32, learning_rate=5e-3)
    ((task, _),) = tasks(shape, axes)
    found, told = run(scale, labels, shape, how, axes, task, "MQAR")
    alone = one_layer.one_layer(scale)
    local = _local_rules(scale)
    return Study(
        title="Multi-query associative recall",
        summary=_summary(found, labels, axes, local),
        command="",
        settings=settings(scale, shape, how, axes),
        environment={},
        claims=[_recalls(found, sizes, axes), one_layer.claim(alone), _by_local_rules(local)],
        differences=[
            *DIFFERENCES,
            f"Zoology's generator with {shape.vocabulary} tokens in place of 8192, models with perceptrons, sliding "
            "windows in place of its short convolutions; training at one length. Ten iterations in the Mesa layer.",
        ],
        sections=[
            *sections("MQAR", found, axes),
            Section(
                "What the models keep",
                "Bytes of all layers' states after so many tokens, and the temperatures learned (of a cosine).",
                tables=[state_table(told, axes)],
            ),
            one_layer.section(alone),
            Section(
                "By local rules",
                "The same stack with a window and OVQ, on a short task; vertices hold the stream after each layer.",
                tables=[_local_table(local)],
            ),
        ],
        numbers={
            "mqar": found,
            "models": told,
            "one layer": [dataclasses.asdict(each) for each in alone],
            "local rules": local,
        },
        data_credit="",
    )


def _task(vocabulary: int) -> Task:
    def task(examples: int, time: int, facts: int, seed: int, once: bool) -> Sequences:
        del once  # each key is asked for once anyway
        return task_of_mqar(examples, time, facts, vocabulary=vocabulary, seed=seed)

    return task


def _local_rules(scale: Scale) -> dict[str, list[float]]:
    """Accuracy by rule. With larger steps, inference ends further from where backpropagation has its activities."""
    shape = Shape(32, features=scale.pick(16, 64), chunk_size=16, window=8)
    time, facts = scale.pick((16, 2), (32, 4))
    loss = masked_softmax_cross_entropy
    rules: dict[str, Rule] = {"BP": Backprop(loss=loss)}
    for size in scale.pick((0.003,), (0.0003, 0.003, 0.03)):
        inference = ErrorBased(steps=5, step_size=size)
        rules[f"IL, error-based, steps of {size:g}"] = InferenceLearning(inference=inference, loss=loss)
    for size in scale.pick((0.1,), (0.001, 0.1)):
        inference = Sequential(steps=3, step_size=size)
        rules[f"IL, sequential, steps of {size:g}"] = InferenceLearning(inference=inference, loss=loss)
    rules |= {"Z-IL": ZIL(loss=loss), "DFA": DirectFeedback(loss=loss)}
    found: dict[str, list[float]] = {label: [] for label in rules}
    for label, rule in rules.items():
        for seed in range(scale.seeds):
            data = task_of_mqar(scale.pick(256, 8192), time, facts, vocabulary=32, seed=seed)
            test = task_of_mqar(256, time, facts, vocabulary=32, seed=1000 + seed)
            model = shape.build(ovq(32), key=jax.random.key(seed))
            how = Training(scale.pick(10, 400), batch_size=32, learning_rate=5e-3, rule=rule)
            found[label].append(accuracy(train(scale, f"{label}, MQAR", model, data, how, seed), test))
    return found


# ------------------------------------------------------------------------------------------------ tables and claims


def _local_table(found: dict[str, list[float]]) -> Table:
    return Table("Accuracy (%)", ["rule", "MQAR"], [[label, interval_text(row, 100.0)] for label, row in found.items()])


def _summary(found: Any, labels: Sequence[str], axes: Axes, local: dict[str, list[float]]) -> str:
    at = ", ".join(f"{label} {100 * mean(found, FIXED, label, axes.times[-1]):.0f} %" for label in labels)
    rules = ", ".join(f"{label} {100 * np.mean(row):.0f} %" for label, row in local.items())
    return f"{axes.count(FIXED, 0)} pairs at {axes.times[-1]} steps: {at}. By local rules: {rules}."


def _recalls(found: Any, sizes: Sequence[int], axes: Axes) -> Claim:
    ours, last = ovq(sizes[-1]), axes.times[-1]
    rows = {axis: [mean(found, axis, ours, time) for time in axes.times] for axis in (FIXED, FILLED)}
    learned = rows[FIXED][0] > 0.9
    fixed = rows[FIXED][-1] > rows[FIXED][0] - 0.05
    return Claim(
        "What OVQ-attention has learned to recall it recalls at lengths that it was not trained on, as long as the "
        "facts are few against the centroids.",
        f"{ours} at {', '.join(map(str, axes.times))} steps: "
        + "; ".join(f"{axis} " + ", ".join(f"{100 * v:.0f} %" for v in row) for axis, row in rows.items())
        + f". Full attention at {last}: {100 * mean(found, FIXED, FULL, last):.0f} and "
        f"{100 * mean(found, FILLED, FULL, last):.0f} %. Below 90 % at the training length it is left open.",
        "open" if not learned else "holds" if fixed else "does not hold",
    )


def _by_local_rules(local: dict[str, list[float]]) -> Claim:
    means = {label: float(np.mean(row)) for label, row in local.items()}
    near = [value > means["BP"] - 0.05 for label, value in means.items() if label.startswith("IL")]
    return Claim(
        "A stack of sequence layers learns by inference learning as it does by backpropagation (our question; no paper "
        "claims it).",
        "Accuracy: " + ", ".join(f"{label} {100 * value:.0f} %" for label, value in means.items()) + ".",
        "open" if means["BP"] < 0.5 else borne_out(near),
    )
