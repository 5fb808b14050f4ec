"""Learning curves at the paper's settings, batches of 64: fully connected, convolutional, and an autoencoder."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal.analysis import mean_sizes, update
from vicinal.report import Claim, Section, Study, Table
from vicinal.reproduce import learning
from vicinal.reproduce.learning import ACCURACY, JPEG, LOSS, PAIRED, SAID, Done, compared, mean, means_text, stand_in
from vicinal.reproduce.runs import Measure, Scale, Variant, ahead, classification as mlp, task_of, verdict
from vicinal.settings import InferenceSettings
from vicinal.sweeping import interval_text
from vicinal.task import Task
from vicinal.train import Member, TrainingState

Runs = list[tuple[Task, Done]]

_BATCH = 64
_MLP = (
    Variant("BP-SGD", "bp-sgd", 0.01),
    Variant("BP-Adam", "bp-adam", 1.8e-5),
    Variant("BP-MQ", "bp-mq", 3e-5),
    Variant("SeqIL", "seqil", 0.75),
    Variant("SeqIL-MQ", "seqil-mq", 3e-5),
    Variant("SeqIL-Adam", "seqil-adam", 3e-5),
)
_SETTLE, _CAP = {"inference.step_size": 0.04}, {"cap": 0.999}
_CONVOLUTION = (
    Variant("BP-SGD", "bp-sgd", 0.014),
    Variant("BP-Adam", "bp-adam", 1.2e-4),
    Variant("SeqIL", "seqil", 0.5, _SETTLE),
    Variant("SeqIL-MQ", "seqil-mq", 2.2e-4, _SETTLE | _CAP),
    Variant("SeqIL-Adam", "seqil-adam", 7.5e-5, _SETTLE),
)
_SLOWER, _SIX = {"inference.step_size": 0.035}, InferenceSettings(steps=6)
_AUTOENCODER = (
    Variant("BP-SGD", "bp-sgd", 0.0013),
    Variant("BP-Adam", "bp-adam", 7e-4),
    Variant("SeqIL", "seqil", 0.1, _SLOWER, _SIX),
    Variant("SeqIL-MQ", "seqil-mq", 1.2e-5, _SLOWER, _SIX),
    Variant("SeqIL-Adam", "seqil-adam", 4e-5, _SLOWER, _SIX),
)
_ALIKE = 2
_UNKNOWN = "The paper's tables were not at hand. Two numbers of it are known, at second hand: "
_DECAY = "The published code lets backpropagation's learning rate fall as 1 / (1 + 3e-5 N); here it stays."
_SVHN = "SVHN is left out: no copy of it was at hand."


def classification(scale: Scale) -> Study:
    """Fully connected networks: SGD, Adam and matrix update equalisation, on BP and on sequential inference."""
    scale = scale.by_default(3)
    lengths = scale.pick({"mnist": 400}, {"mnist": 4_000, "fashion_mnist": 4_000, "cifar10": 1_500})

    def task(data: str) -> Task:
        return task_of(data, preset="cifar-mlp") if data == "cifar10" else mlp(scale, data)

    return _study(
        scale,
        "Fully connected networks",
        [(task(data), steps) for data, steps in lengths.items()],
        _MLP,
        [
            *stand_in(scale, "CIFAR-10", "learning rates are those for CIFAR-10"),
            *scale.pick(
                [],
                [
                    "MNIST and Fashion-MNIST (784-256-256-10) stand beside CIFAR-10, at its learning rates; the paper "
                    "has SVHN and CIFAR-10.",
                    "1500 iterations on CIFAR-10 (two epochs) of the paper's 86 000 (110 epochs), the curves' "
                    "beginning alone; 4000 on the others (four epochs).",
                    JPEG,
                ],
            ),
            "BP-MQ has no learning rate in the published code; here that of SeqIL-MQ.",
        ],
    )


def convolution(scale: Scale) -> Study:
    """Convolutional networks."""
    scale = scale.by_default(3)
    lengths = scale.pick({"digits": 300}, {"fashion_mnist": 1_500, "cifar10": 400})
    layers: dict[str, dict[str, Any]] = {
        "digits": {"kind": "convolutional", "channels": (8, 16), "kernel_size": 3, "stride": 2, "sizes": (10,)},
        "fashion_mnist": {"kind": "convolutional", "channels": (8, 16), "kernel_size": 5, "stride": 2, "sizes": (10,)},
        "cifar10": {"preset": "cifar-conv"},
    }
    return _study(
        scale,
        "Convolutional networks",
        [(task_of(data, **layers[data]), steps) for data, steps in lengths.items()],
        _CONVOLUTION,
        [
            *stand_in(scale, "CIFAR-10", "learning rates are those for CIFAR-10"),
            *scale.pick(
                [],
                [
                    "The network on Fashion-MNIST is small (8 and 16 channels, 5x5, stride 2); on CIFAR-10 it is the "
                    "paper's (64, 128 and 256 channels).",
                    "400 iterations on CIFAR-10 (half an epoch) of the paper's 35 000 (45 epochs), 1500 on "
                    "Fashion-MNIST (1.6 epochs), which stands beside it at its learning rates: the curves' beginning "
                    "alone.",
                    JPEG,
                ],
            ),
            "Tiny-ImageNet is left out: no copy of it was at hand.",
            "The published code updates the last layer of a convolutional network by the hard labels; here by the "
            "soft target, as in the fully connected ones.",
        ],
    )


def autoencoder(scale: Scale) -> Study:
    """An autoencoder with a bottleneck of 20: binary cross-entropy."""
    scale = scale.by_default(3)
    if scale.quick:
        task = task_of("digits", kind="autoencoder", sizes=(64, 48, 32, 20, 32, 48, 64))
    else:
        task = task_of("cifar10", preset="cifar-autoencoder-20")
    steps = scale.pick(400, 500)
    return _study(
        scale,
        "An autoencoder",
        [(task, steps)],
        _AUTOENCODER,
        [
            *stand_in(scale, "CIFAR-10", "learning rates are those for CIFAR-10"),
            *scale.pick(
                [],
                [
                    f"{steps} of the paper's 78 000 iterations (100 epochs), the curves' beginning alone; its loss is "
                    "a mean over pixels and its plots span 0.588 to 0.65, which is 1806 to 1997 in our sum.",
                    JPEG,
                ],
            ),
            "The published code squeezes images into [.005, .995], and its BP-Adam is plain gradient descent, by an "
            "oversight; here images lie in [0, 1] and BP-Adam is Adam.",
        ],
    )


def _study(
    scale: Scale,
    title: str,
    tasks: Sequence[tuple[Task, int]],
    variants: Sequence[Variant],
    differences: list[str],
) -> Study:
    runs, marks = [], {}
    for task, steps in tasks:
        every = steps // 10
        runs.append((task, learning.train_all(scale, task, variants, steps, _BATCH, every, _measure_sizes)))
        marks[task.data.name] = [every, 5 * every, steps]
    quantity = LOSS if tasks[0][0].settings.model.reconstructs else ACCURACY
    lengths = {task.data.name: steps for task, steps in tasks}
    return learning.study(
        f"{title}, batches of {_BATCH}: sequential inference and matrix update equalisation",
        f"{', '.join(map(str, lengths.values()))} updates of {_BATCH} examples each, at the paper's learning rates for "
        "CIFAR-10. ",
        {"batch_size": _BATCH, "steps": lengths, "seeds": scale.seeds},
        runs,
        marks,
        [_improves(runs, quantity), _rivals(runs, quantity), _equalises(runs)],
        [
            *differences,
            _UNKNOWN + "67.5 % with SeqIL-MQ and 50.7 % with SeqIL, of a convolutional network on CIFAR-10.",
            _SVHN,
            _DECAY,
        ],
        [_sizes_section(runs)],
    )


# ---------------------------------------------------------------------------------------------- sizes of updates


def _measure_sizes(task: Task, variant: Variant) -> Measure:
    """Adds to each record what the next update would add to a weight of each matrix, in the mean."""
    rule, optimizer = variant.make(task)
    x, y = jnp.asarray(task.data.x_train[:_BATCH]), jnp.asarray(task.data.y_train[:_BATCH])

    @eqx.filter_jit
    def sizes(model: PyTree, memory: PyTree, x: Array, y: Array) -> dict[str, Array]:
        return mean_sizes(update(rule, optimizer, task.graph, model, x, y, optimizer_state=memory))

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        found = sizes(state.model, state.optimizer_state, x, y)
        record["sizes"] = {name: float(size) for name, size in found.items()}

    return measure


def _sizes(member: Member) -> dict[str, float]:
    """The mean size of updates of each matrix, over the evaluations after the first: the scales have settled then."""
    records = [record["sizes"] for record in member.records[1:] or member.records]
    return {name: float(np.mean([sizes[name] for sizes in records])) for name in records[0]} if records else {}


def spread(member: Member) -> float:
    """The logarithm (base 10) of the largest over the smallest mean size of updates, of all matrices."""
    sizes = list(_sizes(member).values())
    if member.diverged or not sizes or min(sizes) <= 0:
        return np.nan
    return float(np.log10(max(sizes) / min(sizes)))


def _sizes_section(runs: Runs) -> Section:
    tables = []
    for task, done in runs:
        names = list(_sizes(next(iter(done.values())).members[0]))
        rows: list[list[Any]] = []
        for label, sweep in done.items():
            found = [_sizes(member) for member in sweep.members]
            rows.append([label, *(interval_text([sizes.get(name, np.nan) * 1e6 for sizes in found]) for name in names)])
        columns = ["rule", *(f"matrix {i + 1}" for i in range(len(names)))]
        tables.append(
            Table(f"{task.data.name}: mean size of a weight's change in one update, in millionths", columns, rows)
        )
    return Section(
        "Sizes of updates",
        "What the next update would change a weight by, in the mean over each matrix, for the first batch; from the "
        "input up, means over the evaluations but the first. With equalisation they come to be the learning rate, but "
        "for the floor of its step, which lifts those of large gradients, and its eps: a matrix whose gradients are "
        "smaller than that, 1e-6 in the mean, stays behind.",
        tables=tables,
    )


# -------------------------------------------------------------------------------------------------------- claims


def _over(runs: Runs, words: Callable[[Done], str]) -> str:
    return "; ".join(f"on {task.data.name} {words(done)}" for task, done in runs)


def _heading(quantity: str) -> str:
    return "Test accuracy" if quantity == ACCURACY else "Test loss (binary cross-entropy, summed over pixels)"


def _improves(runs: Runs, quantity: str) -> Claim:
    found = [compared(done, "SeqIL-MQ", "SeqIL", quantity) for _, done in runs]
    known = " (67.5 against 50.7 %, second hand)" if len(runs[0][0].data.shape) == 3 else ""
    return Claim(
        f"Matrix update equalisation improves sequential inference learning on plain gradient descent{known}.",
        f"{_heading(quantity)} at the end: {_over(runs, lambda done: means_text(done, quantity))}. {PAIRED}, "
        "SeqIL-MQ is "
        + ", ".join(f"{SAID[sign]} SeqIL on {task.data.name}" for sign, (task, _) in zip(found, runs, strict=True))
        + ".",
        verdict(found),
    )


def _rivals(runs: Runs, quantity: str) -> Claim:
    """Whether SeqIL-MQ is not behind BP-Adam and ahead of BP-SGD, where BP-Adam has learned anything."""
    parts, found = [], []
    for task, done in runs:
        signs = [compared(done, "SeqIL-MQ", other, quantity) for other in ("BP-SGD", "BP-Adam")]
        learned = quantity == LOSS or mean(done["BP-Adam"], ACCURACY) > 2 / (task.data.classes or 1)
        parts.append(
            f"on {task.data.name} SeqIL-MQ is {SAID[signs[0]]} BP-SGD and {SAID[signs[1]]} BP-Adam"
            + ("" if learned else ", which has hardly learned after so few updates")
        )
        found += signs if learned else [0]
    return Claim(
        "With sequential inference and matrix update equalisation, predictive coding rivals backpropagation with Adam.",
        f"{PAIRED}, at the end of training: {'; '.join(parts)}. The learning rates are those of long "
        "training, of all rules.",
        verdict(found),
    )


def _equalises(runs: Runs) -> Claim:
    """Whether equalisation brings the sizes of updates nearer to each other, and whether they are alike then."""
    found, words = [], []
    for task, done in runs:
        spreads = {name: [spread(member) for member in done[name].members] for name in done}
        found.append(ahead(spreads["SeqIL"], spreads["SeqIL-MQ"]))
        found.append(1 if np.max(spreads["SeqIL-MQ"]) < np.log10(_ALIKE) else -1)
        ratios = {name: 10 ** float(np.mean(values)) for name, values in spreads.items()}
        words.append(f"on {task.data.name} " + ", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items()))
    return Claim(
        "In predictive coding, updates are much smaller in some matrices than in others; equalisation makes them "
        "alike (update magnitudes).",
        f"The largest mean size of updates of a matrix over the smallest: {'; '.join(words)} (geometric means over "
        "seeds). Holds if it is less with SeqIL-MQ than with SeqIL, seed by seed, and less than "
        f"{_ALIKE} with SeqIL-MQ in every seed.",
        verdict(found),
    )
