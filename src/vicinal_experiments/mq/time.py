"""What a training step costs: sequential inference of three sweeps, simultaneous of fifteen steps, backpropagation."""

import dataclasses
import statistics
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from vicinal.optim import mq
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size
from vicinal.rules import Backprop, Rule
from vicinal.task import Task
from vicinal.train import fit, keys_of
from vicinal_experiments.mq.layers import settling
from vicinal_experiments.papers import MQ
from vicinal_experiments.tasks import classifier

FLOOR, SEQUENTIAL, SIMULTANEOUS = "BP-SGD", 3, 15
BATCH, RATE = 64, 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSize(Size):
    """Rounds, in each of which every rule takes its turn.

    Attributes:
        steps: Updates in a turn.
        rounds: How many.
    """

    steps: int
    rounds: int


Rounds = dict[str, list[float]]
"""Of each rule a number for each round."""


def _made() -> dict[str, tuple[Rule, optax.GradientTransformation]]:
    sequential, simultaneous = settling("sequential", SEQUENTIAL), settling("simultaneous", SIMULTANEOUS)
    return {
        FLOOR: (Backprop(), optax.sgd(RATE)),
        "BP-Adam": (Backprop(), optax.adam(RATE)),
        "SeqIL-SGD": (sequential, optax.sgd(RATE)),
        "SeqIL-MQ": (sequential, mq(RATE)),
        "SeqIL-Adam": (sequential, optax.adam(RATE)),
        "simultaneous IL-SGD": (simultaneous, optax.sgd(RATE)),
        "simultaneous IL-Adam": (simultaneous, optax.adam(RATE)),
    }


def _measure(run: Run[TimeSize]) -> dict[str, Any]:
    """Time of one update of each rule, in turns; the number of seeds does not matter."""
    size, task, made = run.size, classifier(run.size.data[0]), _made()
    times: Rounds = {label: [] for label in made}
    for turn in range(size.rounds):
        run.say(f"round {turn + 1} of {size.rounds}: {size.steps} updates of each rule")
        for label, (rule, optimizer) in made.items():
            times[label].append(_seconds(task, rule, optimizer, size.steps))
    memory = {label: _memory(task, optimizer) for label, (_, optimizer) in made.items()}
    ratios = {label: [a / b for a, b in zip(row, times[FLOOR], strict=True)] for label, row in times.items()}
    return {"seconds": times, "ratios": ratios, "memory": memory}


def _seconds(task: Task, rule: Rule, optimizer: optax.GradientTransformation, steps: int) -> float:
    model_key, train_key = keys_of(0)
    run = fit(
        rule,
        task.build(model_key),
        optimizer,
        (task.data.x_train, task.data.y_train),
        key=train_key,
        steps=steps,
        batch_size=BATCH,
        evaluate_every=steps,
        graph=task.graph,
        progress=False,
    )
    return run.seconds_per_step


def _memory(task: Task, optimizer: optax.GradientTransformation) -> int:
    """How many floating-point numbers the optimiser keeps."""
    state = optimizer.init(eqx.filter(task.build(keys_of(0)[0]), eqx.is_inexact_array))
    return sum(leaf.size for leaf in jax.tree.leaves(state) if eqx.is_inexact_array(leaf))


# ---------------------------------------------------------------------------------------------------------- judge


def _summary(found: Found[TimeSize]) -> str:
    median = {label: statistics.median(row) for label, row in found.numbers["ratios"].items()}
    return (
        f"Batches of {BATCH}; medians over {found.size.rounds} rounds. A step of sequential inference learning with "
        f"three sweeps takes {median['SeqIL-SGD']:.2f} times that of backpropagation (both by gradient descent), "
        f"simultaneous inference with fifteen steps {median['simultaneous IL-SGD']:.2f} times. MQ takes "
        f"{median['SeqIL-MQ']:.2f}, Adam {median['SeqIL-Adam']:.2f} (backpropagation with Adam "
        f"{median['BP-Adam']:.2f})."
    )


def _against_simultaneous(found: Found[TimeSize]) -> Claim:
    times = found.numbers["seconds"]
    pairs = {
        step: np.divide(times[f"SeqIL-{step}"], times[f"simultaneous IL-{step}"]).tolist() for step in ("SGD", "Adam")
    }
    words = ", ".join(f"{statistics.median(row):.2f} with {step}" for step, row in pairs.items())
    quicker = [ratio < 1 for row in pairs.values() for ratio in row]
    return Claim(
        "Sequential inference with three sweeps takes less time than simultaneous inference with fifteen steps (timing "
        "figure, second-hand).",
        f"Ratio of the times, medians over rounds: {words}; below 1 in {sum(quicker)} of {len(quicker)} rounds.",
        "holds" if all(quicker) else "holds in part" if np.mean(quicker) > 0.5 else "does not hold",
    )


def _against_backpropagation(found: Found[TimeSize]) -> Claim:
    ratios = found.numbers["ratios"]
    median = {name: statistics.median(row) for name, row in ratios.items()}
    low, high = min(ratios["SeqIL-SGD"]), max(ratios["SeqIL-SGD"])
    sgd, adam = median["SeqIL-SGD"], median["SeqIL-Adam"] / median["BP-Adam"]
    return Claim(
        "With so few sweeps inference learning takes a small multiple of backpropagation's time (we could not "
        "read the paper's numbers; below 3 counts as small).",
        f"With gradient descent {sgd:.2f} times as long ({low:.2f} to {high:.2f} over rounds), both with Adam "
        f"{adam:.2f} times. In products of matrices, three sweeps need 4 forward, 3 transposed and one for the "
        "weights, backpropagation one of each.",
        "holds" if max(sgd, adam) < 3 else "does not hold",
    )


def _mq_is_light(found: Found[TimeSize]) -> Claim:
    ratios, memory = found.numbers["ratios"], found.numbers["memory"]
    mq_, adam = ratios["SeqIL-MQ"], ratios["SeqIL-Adam"]
    quicker = sum(a < b for a, b in zip(mq_, adam, strict=True))
    light = memory["SeqIL-MQ"] < memory["SeqIL-Adam"] / 1000
    return Claim(
        "MQ costs less than Adam: it keeps one number for each matrix where Adam keeps two for each weight.",
        f"MQ keeps {memory['SeqIL-MQ']} numbers, Adam {memory['SeqIL-Adam']}. A step with MQ takes "
        f"{statistics.median(mq_):.2f} times backpropagation's, with Adam {statistics.median(adam):.2f}; quicker in "
        f"{quicker} of {len(mq_)} rounds.",
        "holds" if light and quicker == len(mq_) else "holds in part" if light else "does not hold",
    )


def _table(found: Found[TimeSize]) -> Table:
    times, ratios, memory = (found.numbers[name] for name in ("seconds", "ratios", "memory"))
    rows: list[list[Any]] = [
        [
            name,
            f"{1e6 * statistics.median(row):.0f}",
            f"{1e6 * min(row):.0f} to {1e6 * max(row):.0f}",
            f"{statistics.median(ratios[name]):.2f}",
            memory[name],
        ]
        for name, row in times.items()
    ]
    return Table("Time of an update", ["rule", "median (µs)", "range (µs)", f"of {FLOOR}", "numbers kept"], rows)


def _panel(found: Found[TimeSize]) -> Panel:
    times = found.numbers["seconds"]
    turns = [float(turn) for turn in range(1, len(times[FLOOR]) + 1)]
    series = [Series(name, turns, [[1e6 * value for value in row]]) for name, row in times.items()]
    return Panel("Time of an update by round", "round", "microseconds", series, log_y=True)


def _sections(found: Found[TimeSize]) -> list[Section]:
    words = (
        "Median over rounds, in one process, the rules taking turns; the ratio to backpropagation by gradient descent "
        "is taken within a round. Numbers kept: floating-point numbers in the optimiser's state."
    )
    return [Section("Time", words, tables=[_table(found)], panels=[_panel(found)])]


def _differences(found: Found[TimeSize]) -> list[str]:
    return [
        "The published timing scripts of the MLP and the autoencoder are mislabelled: what they call IL-MQ runs Adam, "
        "and what they call IL-Adam updates no weights. So the paper's times of these two are not compared.",
        "The paper times PyTorch; here a whole training step is one compiled program, which shares products between "
        "inference and the weight update.",
        "784-256-256-10 on MNIST, not the paper's 3072-1024-1024-1024-10: with fewer layers fifteen simultaneous steps "
        "are more than errors need to arrive.",
    ]


TIME = Experiment(
    name="mq/time",
    title="Time of a training step",
    topic="what a training step costs against backpropagation",
    paper=MQ,
    sizes={
        "quick": TimeSize(data=("digits",), steps=300, rounds=3),
        "full": TimeSize(data=("mnist",), steps=600, rounds=9),
    },
    time={"full": "two minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_against_simultaneous, _against_backpropagation, _mq_is_light],
    sections=_sections,
    differences=_differences,
    seeds=1,
)
"""The time of one update of each rule, in turns."""
