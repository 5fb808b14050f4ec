"""Sequential against simultaneous inference: accuracy by number of steps, errors along inference, sizes of updates."""

from typing import Any

import numpy as np
import optax

from vicinal.recipes.builders import BETA
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.mq.layers import (
    STEP_SIZE,
    STRATEGIES,
    TRACED_SIZE,
    equalised,
    error_panel,
    errors_along,
    optimisers,
    reaches,
    settling,
    size_panel,
    size_table,
    spreads_of,
    train,
)
from vicinal.reproduce.runs import Scale, ahead, task_of
from vicinal.rules import Backprop
from vicinal.sweeping import interval_text, last, plain
from vicinal.task import Task
from vicinal.train import keys_of

BP = "BP-Adam"
_POINTS = 1.0  # accuracies nearer than this, in %, count as the same


def inference(scale: Scale) -> Study:
    """Accuracy at one to five inference steps; errors of each layer along inference; sizes of each matrix's update."""
    shallow, deep = _network(scale, 3), _network(scale, 4)
    steps, rate = scale.pick(200, 1000), scale.pick(1e-3, 1e-4)
    numbers = scale.pick((1, 3), (1, 2, 3, 4, 5))
    accuracies = {
        name: {t: train(scale, shallow, f"{name} {t}", settling(name, t), optax.adam, rate, steps)[0] for t in numbers}
        for name in STRATEGIES
    }
    reference, _ = train(scale, shallow, BP, Backprop(), optax.adam, rate, steps)
    sizes, trained = {}, []
    for name, (rule, optimizer, own) in optimisers(scale).items():
        members, sizes[name] = train(scale, deep, f"sizes {name}", rule, optimizer, own, steps)
        trained = members if name == "SeqIL-Adam" else trained
    scale.say("errors of each layer along inference")
    models = {
        "at the start": [deep.build(keys_of(seed)[0]) for seed in range(scale.seeds)],
        f"after {steps} updates": [member.model for member in trained],
    }
    errors = {stage: {name: errors_along(deep, found, name) for name in STRATEGIES} for stage, found in models.items()}
    percent = {
        name: {t: [100 * last(member, "test_accuracy") for member in members] for t, members in rows.items()}
        for name, rows in accuracies.items()
    }
    bp = [100 * last(member, "test_accuracy") for member in reference]
    layers = [[layer.weight.shape[0] for layer in task.build(keys_of(0)[0]).layers] for task in (shallow, deep)]
    return Study(
        title=f"Sequential inference and the sizes of updates, on {shallow.data.name}",
        summary=_summary(percent, bp, sizes, steps),
        command="",
        settings={
            "data": shallow.data.name,
            "layers": layers,
            "batch_size": 64,
            "updates": steps,
            "learning_rate": rate,
            "inference_step_size": STEP_SIZE,
            "beta": BETA,
        },
        environment={},
        claims=[_flat(percent), _matches(percent, bp), _needs_fewer(percent), reaches(errors), equalised(sizes)],
        differences=[
            *(["The digits and narrower networks stand in for MNIST."] if scale.quick else []),
            "The paper has SVHN and CIFAR-10, layers of 1024 and up to 110 epochs; here MNIST, layers of 256 and 1000 "
            "updates, so that accuracies tell how fast the rules begin rather than where they end.",
            f"All runs of the comparison by number of steps take Adam at {rate:g} and activity steps of {STEP_SIZE}; "
            "the paper has a pair of rates for each number of steps, which were not at hand.",
            "The paper's tables were not at hand: its claims are told second-hand, and no number of it is quoted.",
        ],
        sections=[
            Section(
                "Accuracy by number of inference steps",
                f"Three hidden layers, Adam, batches of 64, {steps} updates. Both strategies start from the "
                "feedforward values, hold the output at the same soft target and divide step t by 1 + t.",
                tables=[_accuracy_table(percent, bp)],
                panels=[_accuracy_panel(percent, bp)],
            ),
            Section(
                "Errors along inference",
                f"Four hidden layers, layer 1 the lowest; mean squared error of a unit, over the first 256 training "
                f"examples; steps of {TRACED_SIZE}/(1 + t), in double precision (in single, most of the error of "
                "layer 1 is lost to rounding). What is exactly zero has no place on the logarithmic axis: a line "
                "begins where errors first arrive.",
                panels=[error_panel(stage, name, rows) for stage, by in errors.items() for name, rows in by.items()],
            ),
            Section(
                "Sizes of updates",
                f"Four hidden layers, matrix 1 the lowest; mean |dW| over the second half of {steps} updates, in "
                "single precision, as the paper trains, so that rounding is part of the lowest matrix's numbers. The "
                "spread is the largest over the smallest.",
                tables=[size_table(sizes)],
                panels=[size_panel(sizes)],
            ),
        ],
        numbers={
            "accuracy": {name: {str(t): plain(rows) for t, rows in by.items()} for name, by in accuracies.items()}
            | {BP: plain(reference)},
            "errors": errors,
            "sizes": sizes,
        },
        data_credit=shallow.data.credit,
    )


def _network(scale: Scale, hidden: int) -> Task:
    data, inputs, width = scale.pick(("digits", 64, 32), ("mnist", 784, 256))
    return task_of(data, kind="mlp", sizes=(inputs, *[width] * hidden, 10))


# ------------------------------------------------------------------------------------------------- what was found

_Percent = dict[str, dict[int, list[float]]]


def _means(rows: dict[int, list[float]]) -> dict[int, float]:
    return {t: float(np.mean(values)) for t, values in rows.items()}


def _summary(percent: _Percent, bp: list[float], sizes: dict[str, Any], steps: int) -> str:
    words = [f"{name} {', '.join(f'{v:.1f} %' for v in _means(rows).values())}" for name, rows in percent.items()]
    spreads = ", ".join(f"{spread:.2g} with {name}" for name, spread in spreads_of(sizes).items())
    shown = ", ".join(map(str, percent["sequential"]))
    return (
        f"Test accuracy after {steps} updates with {shown} inference steps: {'; '.join(words)}; {BP} "
        f"{np.mean(bp):.1f} %. The largest mean change of a matrix over the smallest: {spreads}."
    )


def _flat(percent: _Percent) -> Claim:
    means = {name: list(_means(rows).values()) for name, rows in percent.items()}
    spread = {name: max(rows) - min(rows) for name, rows in means.items()}
    return Claim(
        "Accuracy with sequential inference hardly depends on the number of inference steps (second-hand).",
        f"From worst to best number of steps: {spread['sequential']:.1f} points sequential, "
        f"{spread['simultaneous']:.1f} simultaneous. Below {_POINTS:g} point counts as flat.",
        "holds" if spread["sequential"] < _POINTS else "does not hold",
    )


def _matches(percent: _Percent, bp: list[float]) -> Claim:
    ours = percent["sequential"][3]
    gap = float(np.mean(np.subtract(ours, bp)))
    told = {1: "told apart, ahead", 0: "not told apart", -1: "told apart, behind"}[ahead(ours, bp)]
    return Claim(
        "With Adam, sequential inference of three steps does as well as backpropagation (second-hand).",
        f"{np.mean(ours):.1f} % against {np.mean(bp):.1f} %: a difference of {gap:+.1f} points, {told} seed by seed at "
        f"95 %. Less than {_POINTS:g} point behind counts as matching.",
        "holds" if gap > -_POINTS else "does not hold",
    )


def _needs_fewer(percent: _Percent) -> Claim:
    ours, theirs = percent["sequential"], percent["simultaneous"]
    found = {t: ahead(ours[t], theirs[t]) for t in ours}
    words = "; ".join(f"{t}: {np.mean(ours[t]):.1f} % and {np.mean(theirs[t]):.1f} %" for t in ours)
    better = [t for t, side in found.items() if side > 0]
    return Claim(
        "With few steps sequential inference does better than simultaneous.",
        f"Sequential and simultaneous by number of steps: {words}. Sequential ahead seed by seed, beyond the 95 % "
        f"interval, at: {', '.join(map(str, better)) or 'none'}; behind at "
        f"{', '.join(str(t) for t, side in found.items() if side < 0) or 'none'}.",
        "holds" if found[1] > 0 else "does not hold" if found[1] < 0 else "open",
    )


def _accuracy_table(percent: _Percent, bp: list[float]) -> Table:
    rows: list[list[Any]] = [[name, *(interval_text(v) for v in by.values())] for name, by in percent.items()]
    rows.append([BP, interval_text(bp), *[None] * (len(percent["sequential"]) - 1)])
    steps = [f"{t} step{'s' * (t > 1)}" for t in percent["sequential"]]
    return Table("Test accuracy (%), mean over seeds ± half a 95 % interval", ["inference", *steps], rows)


def _accuracy_panel(percent: _Percent, bp: list[float]) -> Panel:
    series = [Series(name, list(by), np.array(list(by.values())).T.tolist()) for name, by in percent.items()]
    ends = [float(min(percent["sequential"])), float(max(percent["sequential"]))]
    series.append(Series(BP, ends, [[value, value] for value in bp]))
    return Panel("Test accuracy by number of inference steps", "inference steps", "test accuracy (%)", series)
