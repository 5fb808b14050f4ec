"""Learning curves at the paper's settings: batch size one, batch size 64, and an autoencoder."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from vicinal.report import Claim
from vicinal.reproduce import AHEAD, Experiment, Found, Run, compared, mean, mean_words, verdict
from vicinal.reproduce.tables import ACCURACY, LOSS, Runs
from vicinal_experiments.learning_curves import (
    PAIRED,
    CurvesSize,
    ahead_of_all,
    best_mean,
    curve_sections,
    curves,
    few_seeds,
    train_curves,
)
from vicinal_experiments.papers import IL_THEORY, JPEG, NO_TABLES
from vicinal_experiments.recipes import Recipe
from vicinal_experiments.tasks import autoencoder, classifier

_ONLINE: Mapping[str, Mapping[str, Recipe]] = {
    "mnist": {
        "BP-SGD": Recipe("bp-sgd", 0.015),
        "BP-Adam": Recipe("bp-adam", 1e-4),
        "IL-SGD": Recipe("il-sgd", 0.05),
        "IL-prox": Recipe("il-prox", 5.0, {"eps": 0.25}),
        "IL-prox fast": Recipe("il-prox-fast", 3.0, {"eps": 0.25}),
    },
    "fashion_mnist": {
        "BP-SGD": Recipe("bp-sgd", 0.01),
        "BP-Adam": Recipe("bp-adam", 5e-5),
        "IL-SGD": Recipe("il-sgd", 0.03),
        "IL-prox": Recipe("il-prox", 2.5, {"eps": 0.25}),
        "IL-prox fast": Recipe("il-prox-fast", 2.5, {"eps": 0.25}),
    },
}
_MINIBATCH = {
    "BP-SGD": Recipe("bp-sgd", 0.01),
    "BP-Adam": Recipe("bp-adam", 1e-5),
    "IL-SGD": Recipe("il-sgd", 0.01),
    "IL-prox": Recipe("il-prox", 100.0, {"eps": 5.0}),
    "IL-Adam": Recipe("il-adam", 5e-6, {"nudge": 0.35}),
    "IL-prox-Adam": Recipe("il-prox-adam", 3e-5, {"eps": 5.0}),
}
_AUTOENCODER = {
    "BP-SGD": Recipe("bp-sgd", 1e-4),
    "BP-Adam": Recipe("bp-adam", 5e-5),
    "IL-SGD": Recipe("il-sgd", 0.04, {"inference.step_size": 0.012, "inference.pull": 1.0}),
    "IL-prox": Recipe("il-prox", 10.0, {"eps": 20.0}),
    "IL-prox fast": Recipe("il-prox-fast", 10.0, {"eps": 20.0}),
}
_BACKPROPAGATION = ("BP-SGD", "BP-Adam")

Curves = Found[CurvesSize]


def _inference(runs: Runs) -> list[str]:
    return [label for label in runs if label.startswith("IL")]


def _won(runs: Runs, quantity: str, step: int | None = None) -> tuple[list[int], str]:
    """The comparison of each rule of inference learning with both of backpropagation, and the labels ahead of both."""
    labels = _inference(runs)
    signs = ahead_of_all(runs, labels, _BACKPROPAGATION, quantity, step)
    return signs, ", ".join(label for label, sign in zip(labels, signs, strict=True) if sign > 0) or "none"


# ----------------------------------------------------------------------------------------------- batch size one


def _measure_online(run: Run[CurvesSize]) -> dict[str, Any]:
    return train_curves(run, classifier, lambda data: _ONLINE.get(data, _ONLINE["mnist"]))


def _faster(place: int, found: Curves) -> Claim | None:
    """Compares accuracies early in training on the data set at this place; the verdict leaves the end out."""
    if place >= len(found.size.data):
        return None
    data, steps, runs = list(curves(found))[place]
    signs, words = [], []
    for mark in (round(share * steps) for share in _early(found)):
        won, labels = _won(runs, ACCURACY, mark)
        means = mean_words(runs, ACCURACY, mark)
        words.append(f"after {mark} updates {means} (ahead of both BP-SGD and BP-Adam: {labels})")
        signs += won
    return Claim(
        f"Inference learning is faster than backpropagation at batch size one (abstract), on {data}.",
        f"Test accuracy {'; '.join(words)}; after {steps} {mean_words(runs, ACCURACY, steps)}. {PAIRED}.",
        verdict(signs),
    )


def _early(found: Curves) -> tuple[float, float]:
    """Shares of all updates after which rules are compared: the first evaluation, and a tenth."""
    return (1 / found.size.evaluations, 0.1)


def _online_differences(found: Curves) -> list[str]:
    every = found.size.steps[0] // found.size.evaluations
    return [
        *(["Learning rates are those for MNIST."] if found.quick else []),
        *([f"The paper tests every 50 updates; here every {every}."] if every != 50 else []),
        "CIFAR-10 at batch size 1 is left out: its network is twenty times larger.",
        NO_TABLES,
    ]


ONLINE = Experiment(
    name="il-theory/online",
    title="Learning with one example at a time",
    topic="learning curves at batch size 1",
    paper=IL_THEORY,
    sizes={
        "quick": CurvesSize(data=("digits",), steps=(1_000,), batch_size=1, evaluations=20),
        "full": CurvesSize(data=("mnist", "fashion_mnist"), steps=(50_000, 50_000), batch_size=1, evaluations=50),
    },
    time={"full": "twenty minutes"},
    measure=_measure_online,
    summary=lambda found: (
        f"{found.size.steps[0]} updates of one example each, at the paper's learning rates. "
        + best_mean(found, ACCURACY)
    ),
    claims=[functools.partial(_faster, 0), functools.partial(_faster, 1)],
    sections=lambda found: curve_sections(found, [*_early(found), 0.5, 1]),
    differences=_online_differences,
)
"""Loss and accuracy of inference learning against backpropagation, one example at a time."""


# ------------------------------------------------------------------------------------------------ batches of 64


def _cifar_differences(found: Curves, of: str) -> list[str]:
    """How a run on CIFAR-10, or what stands in for it, differs from the paper's."""
    if found.quick:
        return ["Learning rates are those for CIFAR-10."]
    beginning = f"{found.size.steps[0]} of the paper's {of} updates, only the beginning of the curves."
    return [beginning, *few_seeds(found), JPEG]


def _competitive(found: Curves) -> Claim:
    """Compares the better of the two rules with Adam to BP-Adam, if that has learned anything."""
    ((_, _, runs),) = curves(found)
    signs = {label: compared(runs, label, "BP-Adam", ACCURACY) for label in ("IL-Adam", "IL-prox-Adam")}
    first = np.mean([m.records[0][ACCURACY] if m.records else np.nan for m in runs["BP-Adam"]])
    learned = mean(runs["BP-Adam"], ACCURACY) > 2 * first
    best = max(signs.values()) if learned else 0
    return Claim(
        "With larger batches and Adam, inference learning is competitive with backpropagation (abstract).",
        f"Test accuracy at the end: {mean_words(runs, ACCURACY)}. {PAIRED}, "
        + " and ".join(f"{label} is {AHEAD[sign]} BP-Adam" for label, sign in signs.items())
        + ("." if learned else "; BP-Adam itself has hardly learned after so few updates."),
        "does not hold" if best < 0 else "holds" if best > 0 else "open",
    )


MINIBATCH = Experiment(
    name="il-theory/minibatch",
    title="Learning with batches of 64",
    topic="learning curves at batch size 64",
    paper=IL_THEORY,
    sizes={
        "quick": CurvesSize(data=("digits",), steps=(300,), batch_size=64, evaluations=15),
        "full": CurvesSize(data=("cifar10",), steps=(1_500,), batch_size=64, evaluations=15),
    },
    time={"full": "an hour"},
    measure=lambda run: train_curves(run, classifier, lambda data: _MINIBATCH),
    summary=lambda found: (
        f"{found.size.steps[0]} updates of 64 examples each, at the paper's learning rates for CIFAR-10. "
        + best_mean(found, ACCURACY)
    ),
    claims=[_competitive],
    sections=lambda found: curve_sections(found, [1 / 15, 1 / 3, 1]),
    differences=lambda found: [
        *_cifar_differences(found, "77 000"),
        "The learning rate of IL-prox-Adam is the default of its published code.",
        NO_TABLES,
    ],
)
"""The rules with and without Adam, on batches of 64."""


# -------------------------------------------------------------------------------------------------- autoencoder


def _reconstructs(found: Curves) -> Claim:
    ((_, _, runs),) = curves(found)
    signs, won = _won(runs, LOSS)
    return Claim(
        "Inference learning is ahead of backpropagation at batch size one (abstract: quicker), on an autoencoder.",
        f"Test loss (binary cross-entropy, summed over pixels) at the end: {mean_words(runs, LOSS)}. {PAIRED}, "
        f"ahead of both BP-SGD and BP-Adam: {won}.",
        verdict(signs),
    )


AUTOENCODER = Experiment(
    name="il-theory/autoencoder",
    title="An autoencoder with one image at a time",
    topic="reconstruction at batch size 1",
    paper=IL_THEORY,
    sizes={
        "quick": CurvesSize(data=("digits",), steps=(1_000,), batch_size=1),
        "full": CurvesSize(data=("cifar10",), steps=(5_000,), batch_size=1),
    },
    time={"full": "an hour"},
    measure=lambda run: train_curves(run, functools.partial(autoencoder, bottleneck=100), lambda data: _AUTOENCODER),
    summary=lambda found: (
        f"{found.size.steps[0]} updates of one image each, at the paper's learning rates. " + best_mean(found, LOSS)
    ),
    claims=[_reconstructs],
    sections=lambda found: curve_sections(found, [0.1, 0.5, 1], accuracy=False),
    differences=lambda found: [*_cifar_differences(found, "50 000"), NO_TABLES],
)
"""One image at a time, reconstructed through a bottleneck: binary cross-entropy."""
