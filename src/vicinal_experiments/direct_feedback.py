"""Direct feedback alignment of convolutional and recurrent networks: Han, Park, Ryu and Yoo 2020, arXiv 2006.12830."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import optax

from vicinal.report import Claim, Section
from vicinal.reproduce import (
    Experiment,
    Found,
    Run,
    Size,
    accuracy_gap,
    accuracy_panel,
    accuracy_table,
    compared,
    mean_words,
    points_words,
    supported,
    verdict,
)
from vicinal.rules import Backprop, DirectFeedback, Rule
from vicinal.rules.projectors import Broadcast, DilatedConvolution, Sparse
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import rule_variant

_BP, _DFA, _SPARSE, _HYBRID = "BP", "DFA", "DFA, sparse", "hybrid"
_DILATED, _GROUPED, _DENSE_MODULES = "modules, dilated", "modules, dilated and grouped", "modules, dense"
_BROADCAST, _SEPARATE, _SEPARATE_SPARSE = "DFA, broadcast", "DFA, one for each step", "DFA, sparse, one for each step"
_NEAR = 0.01  # of the test accuracy: what counts as the level of backpropagation


@dataclasses.dataclass(frozen=True, kw_only=True)
class DirectSize(Size):
    """A convolutional and a recurrent network, and their training by Adam.

    Attributes:
        channels: Channels of each convolution.
        stride: Stride of the convolutions.
        units: Units of the layer above the convolutions, and of the recurrent layer.
        updates: Number of weight updates.
        evaluations: Number of evaluations along training.
        learning_rate: Learning rate of Adam, with which rules whose errors differ in size take steps of one size.
        hybrid: The weight of the projected errors beside those that come back.
        batch_size: Examples in an update.
    """

    channels: tuple[int, ...]
    stride: int
    units: int
    updates: int
    evaluations: int
    learning_rate: float
    hybrid: float = 0.5
    batch_size: int = 64


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[DirectSize]) -> dict[str, Any]:
    size, (data,) = run.size, run.size.data
    shape: dict[str, Any] = {"channels": size.channels, "stride": size.stride}
    images = task_of(data, kind="convolutional", sizes=(size.units, 10), **shape)
    sequences = task_of(data, kind="recurrent", sizes=(size.units,), activation="tanh")
    chosen = {
        "convolutional": (images, _rules_for_images(images.graph.vertices, size.hybrid)),
        "recurrent": (sequences, _rules_for_sequences(size.hybrid)),
    }
    how = {"steps": size.updates, "batch_size": size.batch_size, "evaluate_every": size.updates // size.evaluations}
    numbers = {}
    for name, (task, rules) in chosen.items():
        variants = [
            rule_variant(label, rule, size.learning_rate, optimizer=optax.adam) for label, rule in rules.items()
        ]
        numbers[name] = run.train_all(variants, task, part=name, **how)
    return {"runs": numbers}


def _rules_for_images(vertices: Sequence[str], hybrid: float) -> dict[str, Rule]:
    *maps, _ = vertices
    modules = [maps, [vertices[-1]]]
    below = maps[:-1]
    dilated, grouped = DilatedConvolution(5, dilation=3), DilatedConvolution(5, dilation=3, groups=4)
    return {
        _BP: Backprop(),
        _DFA: DirectFeedback(),
        _BROADCAST: DirectFeedback({name: Broadcast() for name in maps}),
        _SPARSE: DirectFeedback(Sparse(density=0.2)),
        _DENSE_MODULES: DirectFeedback(modules=modules),
        _DILATED: DirectFeedback(dict.fromkeys(below, dilated), modules=modules),
        _GROUPED: DirectFeedback(dict.fromkeys(below, grouped), modules=modules),
        _HYBRID: DirectFeedback(hybrid=hybrid),
    }


def _rules_for_sequences(hybrid: float) -> dict[str, Rule]:
    return {
        _BP: Backprop(),
        _DFA: DirectFeedback(),
        _SEPARATE: DirectFeedback(shared=False),
        _SPARSE: DirectFeedback(Sparse(density=0.2)),
        _SEPARATE_SPARSE: DirectFeedback(Sparse(density=0.2), shared=False),
        _HYBRID: DirectFeedback(hybrid=hybrid),
    }


# ---------------------------------------------------------------------------------------------------------- judge


def _summary(found: Found[DirectSize]) -> str:
    words = {name: mean_words(found.runs("runs", name), "test_accuracy") for name in found.numbers["runs"]}
    return " ".join(f"{name}: {accuracies}." for name, accuracies in words.items())


def _gaps(found: Found[DirectSize], label: str, other: str) -> dict[str, float]:
    """The mean test accuracy of one rule less that of another, by network."""
    return {name: accuracy_gap(found.runs("runs", name), label, other) for name in found.numbers["runs"]}


def _hybrid(found: Found[DirectSize]) -> Claim:
    gaps = _gaps(found, _BP, _HYBRID)
    return Claim(
        "Mixed with backpropagation, direct feedback trains convolutional and recurrent networks to its level (arXiv "
        "2006.12830).",
        f"Points of test accuracy behind backpropagation, half of every error projected: {points_words(gaps)}. At most "
        f"{100 * _NEAR:g} counts as its level.",
        supported([gap <= _NEAR for gap in gaps.values()]),
    )


def _modules(found: Found[DirectSize]) -> Claim:
    runs, labels = found.runs("runs", "convolutional"), (_DILATED, _GROUPED)
    gaps = {label: accuracy_gap(runs, label, _DFA) for label in labels}
    return Claim(
        "In modules, with dilated and grouped convolutions for projections, direct feedback trains convolutional "
        "networks better than with one error for all layers.",
        f"Points of test accuracy ahead of plain direct feedback, paired by seed: {points_words(gaps)}.",
        verdict([compared(runs, label, _DFA, "test_accuracy") for label in labels]),
    )


def _sparse(found: Found[DirectSize]) -> Claim:
    gaps = _gaps(found, _DFA, _SPARSE)
    return Claim(
        "Backward weights may be sparse.",
        f"Points of test accuracy that four fifths fewer weights cost: {points_words(gaps)}. At most {100 * _NEAR:g} "
        "counts as none.",
        supported([gap <= _NEAR for gap in gaps.values()]),
    )


def _differences(found: Found[DirectSize]) -> list[str]:
    return [
        "In the spirit of the paper: we could not read its text, so modules, projections and the mixture are our "
        "reading of its abstract, and its data sets and accuracies are not here.",
        f"Small networks, {found.size.updates} updates of Adam, one learning rate for all.",
        "Gaps are between means over seeds, compared with a fixed margin, unless they are said to be paired.",
        "The recurrent network reads an image row by row, and says the class after the last.",
    ]


_TEXTS = {
    "convolutional": "A module is all convolutions, or the layers above them; the error at its output comes by "
    "backpropagation, and goes to every vertex inside through the projection named.",
    "recurrent": "The hidden layer of every step receives the output's error, through one matrix for all steps, or one "
    "for each.",
}


def _sections(found: Found[DirectSize]) -> list[Section]:
    return [
        Section(
            name.capitalize(),
            text,
            tables=[accuracy_table(name.capitalize(), found.runs("runs", name))],
            panels=[accuracy_panel(found.runs("runs", name))],
        )
        for name, text in _TEXTS.items()
    ]


DIRECT_FEEDBACK = Experiment(
    name="dfa/cnn-rnn",
    title="Direct feedback in convolutional and recurrent networks",
    topic="direct feedback in convolutional and recurrent networks: sparse, in modules, mixed",
    paper="Han, Park, Ryu and Yoo 2020, arXiv 2006.12830",
    sizes={
        "quick": DirectSize(
            data=("digits",), channels=(8, 8), stride=1, units=32, updates=200, evaluations=2, learning_rate=3e-3
        ),
        "full": DirectSize(
            data=("mnist",), channels=(16, 32), stride=2, units=128, updates=2_000, evaluations=5, learning_rate=1e-3
        ),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_hybrid, _modules, _sparse],
    sections=_sections,
    differences=_differences,
    seeds=3,
)
"""Plain, sparse, modular and hybrid direct feedback, in a convolutional and a recurrent network."""
