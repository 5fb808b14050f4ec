"""Sequential against simultaneous inference: accuracy by number of steps, errors along inference, sizes of updates."""

from typing import Any

import numpy as np

from vicinal._counted import counted
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.report.formatting import capitalized
from vicinal.reproduce import Experiment, Found, ahead, value
from vicinal.sweeping import interval_text
from vicinal_experiments.mq.inference_runs import BP, InferenceSize, measure
from vicinal_experiments.mq.layers import (
    STEP_SIZE,
    STRATEGIES,
    TRACED,
    TRACED_SIZE,
    arrivals,
)
from vicinal_experiments.papers import MQ

_POINTS = 1.0  # accuracies nearer than this, in %, count as the same
_EQUAL = 3  # a spread of sizes below this counts as equal


# ---------------------------------------------------------------------------------------------------------- judge

_Percent = dict[int, list[float]]
"""Accuracy of each seed, in percent, by number of inference steps."""


def _percent(found: Found[InferenceSize], name: str) -> _Percent:
    return {
        int(t): [100 * value(member, "test_accuracy") for member in members]
        for t, members in found.runs("accuracy", name).items()
    }


def _reference(found: Found[InferenceSize]) -> list[float]:
    return [100 * value(member, "test_accuracy") for member in found.members("accuracy", BP)]


def _means(percent: _Percent) -> list[float]:
    return [float(np.mean(values)) for values in percent.values()]


def _spreads(found: Found[InferenceSize]) -> dict[str, float]:
    """The largest mean size of a matrix's updates over the smallest, for each rule."""
    means = {
        label: np.nanmean([row for row in seeds if len(row) > 1] or [[np.nan]], axis=0)
        for label, seeds in found.numbers["sizes"].items()
    }
    return {label: float(np.max(row) / np.min(row)) for label, row in means.items()}


def _summary(found: Found[InferenceSize]) -> str:
    words = [f"{name} {', '.join(f'{v:.1f} %' for v in _means(_percent(found, name)))}" for name in STRATEGIES]
    spreads = ", ".join(f"{spread:.2g} with {label}" for label, spread in _spreads(found).items())
    shown = ", ".join(map(str, found.size.inference_steps))
    return (
        f"Test accuracy after {found.size.steps} updates with {shown} inference steps: {'; '.join(words)}; {BP} "
        f"{np.mean(_reference(found)):.1f} %. The largest mean change of a matrix over the smallest: {spreads}."
    )


def _flat(found: Found[InferenceSize]) -> Claim:
    means = {name: _means(_percent(found, name)) for name in STRATEGIES}
    spread = {name: max(values) - min(values) for name, values in means.items()}
    return Claim(
        "Accuracy with sequential inference hardly depends on the number of inference steps (second-hand).",
        f"From worst to best number of steps: {spread['sequential']:.1f} points sequential, "
        f"{spread['simultaneous']:.1f} simultaneous. Below {_POINTS:g} point counts as flat.",
        "holds" if spread["sequential"] < _POINTS else "does not hold",
    )


def _matches(found: Found[InferenceSize]) -> Claim:
    ours, bp = _percent(found, "sequential")[3], _reference(found)
    gap = float(np.mean(np.subtract(ours, bp)))
    told = {1: "ahead", 0: "not distinguishable", -1: "behind"}[ahead(ours, bp)]
    return Claim(
        "With Adam, sequential inference of three steps does as well as backpropagation (second-hand).",
        f"{np.mean(ours):.1f} % against {np.mean(bp):.1f} %: a difference of {gap:+.1f} points, {told} seed by seed at "
        f"95 %. Less than {_POINTS:g} point behind counts as matching.",
        "holds" if gap > -_POINTS else "does not hold",
    )


def _needs_fewer(found: Found[InferenceSize]) -> Claim:
    ours, theirs = (_percent(found, name) for name in STRATEGIES)
    signs = {t: ahead(ours[t], theirs[t]) for t in ours}
    words = "; ".join(f"{t}: {np.mean(ours[t]):.1f} % and {np.mean(theirs[t]):.1f} %" for t in ours)
    at = {side: ", ".join(str(t) for t, sign in signs.items() if sign == side) or "none" for side in (1, -1)}
    return Claim(
        "With few steps sequential inference does better than simultaneous.",
        f"Sequential and simultaneous by number of steps: {words}. Sequential ahead seed by seed, beyond the 95 % "
        f"interval, at: {at[1]}; behind at {at[-1]}.",
        "holds" if signs[1] > 0 else "does not hold" if signs[1] < 0 else "open",
    )


def _reaches(found: Found[InferenceSize]) -> Claim:
    errors = found.numbers["errors"]
    first = {name: [arrivals(by[name]) for by in errors.values()] for name in STRATEGIES}
    depth = len(first["sequential"][0])
    expected = {"sequential": [1] * depth, "simultaneous": list(range(depth, 0, -1))}
    words = "; ".join(f"{name} {', '.join(map(str, stages[0]))}" for name, stages in first.items())
    last = {name: np.mean([rows[-1] for rows in by], axis=0) for name, by in next(iter(errors.values())).items()}
    return Claim(
        "From the feedforward values simultaneous inference needs a step for each layer on the way down; a sequential "
        "sweep reaches all at once.",
        f"Steps until a layer has an error, from layer 1 up: {words}. After {TRACED} steps the mean squared error of "
        f"layer 1 is {last['sequential'][0]:.2g} sequential, {last['simultaneous'][0]:.2g} simultaneous.",
        "holds" if all(stage == expected[name] for name in first for stage in first[name]) else "does not hold",
    )


def _equalised(found: Found[InferenceSize]) -> Claim:
    spreads = _spreads(found)
    words = ", ".join(f"{label} {spread:.3g}" for label, spread in spreads.items())
    better = "holds in part" if spreads["SeqIL-MQ"] < spreads["SeqIL-SGD"] else "does not hold"
    return Claim(
        "Inference learning by gradient descent changes its lower matrices far less than the upper ones; MQ makes the "
        "changes equal.",
        f"Largest over smallest mean |dW|: {words}. MQ divides by a running mean of the gradient's size, plus r = "
        "1e-6. A matrix whose gradient is smaller than r changes less; and the running mean begins at the learning "
        "rate, which it forgets as 1/N in N updates. Adam adds 1e-8 where MQ adds r. A spread below "
        f"{_EQUAL} counts as equal.",
        "holds" if spreads["SeqIL-MQ"] < _EQUAL else better,
    )


def _differences(found: Found[InferenceSize]) -> list[str]:
    return [
        "The paper has SVHN and CIFAR-10, layers of 1024 and up to 110 epochs; here MNIST, layers of 256 and 1000 "
        "updates, so that accuracies tell how fast the rules begin rather than where they end.",
        f"All runs of the comparison by number of steps take Adam at {found.size.learning_rate:g} and activity steps "
        f"of {STEP_SIZE}; the paper has a pair of rates for each number of steps, which we could not read.",
        "We could not read the paper's tables: its claims are told second-hand, and no number of it is quoted.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[InferenceSize]) -> list[Section]:
    return [
        Section(
            "Accuracy by number of inference steps",
            f"Three hidden layers, Adam, batches of 64, {found.size.steps} updates. Both strategies start from the "
            "feedforward values, hold the output at the same soft target and divide step t by 1 + t.",
            tables=[_accuracy_table(found)],
            panels=[_accuracy_panel(found)],
        ),
        Section(
            "Errors along inference",
            "Four hidden layers, layer 1 the lowest; mean squared error of a unit, over the first 256 training "
            f"examples; steps of {TRACED_SIZE}/(1 + t), in double precision (in single, most of the error of "
            "layer 1 is lost to rounding). The logarithmic axis has no zero: a line begins where errors first arrive.",
            panels=[
                _error_panel(stage, name, models)
                for stage, by in found.numbers["errors"].items()
                for name, models in by.items()
            ],
        ),
        Section(
            "Sizes of updates",
            f"Four hidden layers, matrix 1 the lowest; mean |dW| over the second half of {found.size.steps} updates, "
            "in single precision, as the paper trains, so that rounding is part of the lowest matrix's numbers. The "
            "spread is the largest over the smallest.",
            tables=[_size_table(found)],
            panels=[_size_panel(found)],
        ),
    ]


def _accuracy_table(found: Found[InferenceSize]) -> Table:
    table: list[list[Any]] = [[name, *map(interval_text, _percent(found, name).values())] for name in STRATEGIES]
    table.append([BP, interval_text(_reference(found)), *[None] * (len(found.size.inference_steps) - 1)])
    steps = [counted(t, "step") for t in found.size.inference_steps]
    return Table("Test accuracy (%), mean over seeds ± half a 95 % interval", ["inference", *steps], table)


def _accuracy_panel(found: Found[InferenceSize]) -> Panel:
    steps = [float(t) for t in found.size.inference_steps]
    lines = [Series(name, steps, np.array(list(_percent(found, name).values())).T.tolist()) for name in STRATEGIES]
    ends = [min(steps), max(steps)]
    lines.append(Series(BP, ends, [[accuracy, accuracy] for accuracy in _reference(found)]))
    return Panel("Test accuracy by number of inference steps", "inference steps", "test accuracy (%)", lines)


def _error_panel(stage: str, strategy: str, models: list[list[list[float]]]) -> Panel:
    values = np.where(np.array(models) > 0, models, np.nan)  # models, time, layers
    time = [float(t) for t in range(1, values.shape[1])]
    lines = [Series(f"layer {i + 1}", time, values[:, 1:, i].tolist()) for i in range(values.shape[2])]
    return Panel(f"{capitalized(strategy)}, {stage}", "inference step", "squared error", lines, log_y=True)


def _size_table(found: Found[InferenceSize]) -> Table:
    sizes, spreads = found.numbers["sizes"], _spreads(found)
    depth = max(len(row) for seeds in sizes.values() for row in seeds)
    table: list[list[Any]] = []
    for label, seeds in sizes.items():
        means = np.mean([row if len(row) > 1 else [np.nan] * depth for row in seeds], axis=0)
        table.append([label, *means.tolist(), spreads[label]])
    return Table("Mean |dW|", ["rule", *(f"matrix {i + 1}" for i in range(depth)), "spread"], table)


def _size_panel(found: Found[InferenceSize]) -> Panel:
    lines = [
        Series(label, list(range(1, len(seeds[0]) + 1)), [row for row in seeds if len(row) == len(seeds[0])])
        for label, seeds in found.numbers["sizes"].items()
    ]
    return Panel("Mean change of a weight, by matrix", "matrix, from the input up", "mean |dW|", lines, log_y=True)


INFERENCE = Experiment(
    name="mq/inference",
    title="Sequential inference and the sizes of updates",
    topic="sequential against simultaneous inference, and the size of each matrix's update",
    paper=MQ,
    sizes={
        "quick": InferenceSize(
            data=("digits",), width=32, steps=200, inference_steps=(1, 3), learning_rate=1e-3, small_rate=3e-4
        ),
        "full": InferenceSize(
            data=("mnist",), width=256, steps=1000, inference_steps=(1, 2, 3, 4, 5), learning_rate=1e-4, small_rate=3e-5
        ),
    },
    time={"full": "five minutes"},
    measure=measure,
    summary=_summary,
    claims=[_flat, _matches, _needs_fewer, _reaches, _equalised],
    sections=_sections,
    differences=_differences,
    seeds=3,
)
"""Accuracy at one to five inference steps; errors of each layer along inference; sizes of each matrix's update."""
