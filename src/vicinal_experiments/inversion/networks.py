"""MNIST by dynamic inversion: a classifier, one example at a time; and a deep autoencoder."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.analysis import InversionAngles, inversion_angles
from vicinal.feedback import optimizers, random
from vicinal.losses import squared_error
from vicinal.report import Claim, Section, Table
from vicinal.reproduce import (
    AHEAD,
    Experiment,
    Found,
    Measure,
    Run,
    Size,
    Variant,
    accuracy_gap,
    accuracy_panel,
    accuracy_table,
    compared,
    curve_panel,
    end_table,
    first_and_last_table,
    mean_words,
    verdict,
)
from vicinal.rules import Backprop, DynamicInversion, Rule
from vicinal.rules.inversion import ClosedForm, Dynamic, PseudoInverse, Stabilise
from vicinal.task import Task
from vicinal.train import Member, TrainingState
from vicinal_experiments.papers import DI
from vicinal_experiments.tasks import task_of
from vicinal_experiments.variants import build_with_route, first_examples, on_first_device, rule_variant

_PROBE, _DECAY, _LEAK, _CLIP = 32, 1e-6, 0.01, 10.0
_BP, _FA, _DI, _NDI, _NDI_0, _PBP = "BP", "FA", "DI", "NDI", "NDI, no leak", "PBP"
_INITIALISERS = {"normal": jax.nn.initializers.lecun_normal(), "orthogonal": jax.nn.initializers.orthogonal()}
_NO_NUMBERS = "We could not read the paper's numbers: its claims are judged by their words."

Runs = dict[str, list[Member]]


# -------------------------------------------------------------------------------------------------------- classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierSize(Size):
    """A network with one hidden layer, its training, and the steps of the loops in each update."""

    sizes: tuple[int, ...]
    updates: int
    rate: float
    loop_steps: int
    evaluations: int = 5
    batch_size: int = 1


def _measure_classifier(run: Run[ClassifierSize]) -> dict[str, Any]:
    size = run.size
    task = task_of(size.data[0], kind="mlp", sizes=size.sizes, activation="tanh")
    how = {"steps": size.updates, "batch_size": size.batch_size, "evaluate_every": size.updates // size.evaluations}
    build = build_with_route(task.build, random())
    variants = [
        rule_variant(_BP, Backprop(), size.rate, optimizer=_decaying),
        rule_variant(_FA, Backprop(), size.rate, build=build, optimizer=lambda rate: optimizers(_decaying(rate))),
        *(_inverting(task, label, rule, size.rate) for label, rule in _inversions(size.loop_steps).items()),
    ]
    return {"runs": run.train_all(variants, task, **how)}


def _inversions(loop_steps: int) -> dict[str, DynamicInversion]:
    return {
        _DI: DynamicInversion(
            inversion=Dynamic(steps=loop_steps), stability=Stabilise(repair=True), leak=_LEAK, clip=_CLIP
        ),
        _NDI: DynamicInversion(inversion=ClosedForm(), leak=_LEAK, clip=_CLIP),
        _NDI_0: DynamicInversion(inversion=ClosedForm(), leak=0.0, clip=_CLIP),
        _PBP: DynamicInversion(inversion=PseudoInverse(), clip=_CLIP),
    }


def _decaying(rate: Any) -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(_DECAY), optax.sgd(rate))


def _inverting(task: Task, label: str, rule: DynamicInversion, rate: float) -> Variant:
    measure = _angles(task, rule) if rule.inversion.has_feedback else None
    return rule_variant(label, rule, rate, optimizer=_decaying, measure=measure)


def _angles(task: Task, rule: DynamicInversion) -> Measure:
    x, y = first_examples(task.data, _PROBE)

    @eqx.filter_jit
    def found(model: PyTree, state: PyTree) -> InversionAngles:
        return inversion_angles(rule, task.graph, model, state, x, y)

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        angles = found(on_first_device(state.model), on_first_device(state.rule_state))
        for name in _ANGLES:
            record[name] = float(np.mean(list(getattr(angles, name).values())))

    return measure


_ANGLES = {"feedback": "feedback to minus the transpose", "closed_form": "error to NDI", "pseudo": "error to PBP"}


def _summary_of_classifier(found: Found[ClassifierSize]) -> str:
    return f"Test accuracy after {found.size.updates} examples: {mean_words(found.runs('runs'), 'test_accuracy')}."


def _as_good(found: Found[ClassifierSize]) -> Claim:
    runs = found.runs("runs")
    near = [accuracy_gap(runs, _BP, label) <= 0.01 for label in (_NDI, _PBP)]
    ahead = compared(runs, _NDI, _FA, "test_accuracy")
    return Claim(
        "Inversion classifies as well as backpropagation, and no worse than feedback alignment.",
        f"Test accuracy at the end: {mean_words(runs, 'test_accuracy')}. As well: at most 1 point below. Seed by seed, "
        f"beyond the 95 % interval, {_NDI} is {AHEAD[ahead]} {_FA}.",
        "holds" if all(near) and ahead >= 0 else "holds in part" if any(near) else "does not hold",
    )


def _differences_of_classifier(found: Found[ClassifierSize]) -> list[str]:
    updates = found.size.updates
    epochs = "" if found.quick else f" ({updates / 60_000:.1g} epochs)"
    return [
        *(["Ten times the rate."] if found.quick else []),
        f"{updates} examples{epochs} of 15 epochs.",
        _NO_NUMBERS,
        "The published code takes the closed form here (NDI); the loops themselves (DI) stand beside it.",
        f"Feedback of DI and NDI is minus the transpose of the first weights, that of DI repaired; errors are clipped "
        f"at norm {_CLIP:g}. Feedback alignment's is as wide as first weights are.",
    ]


def _sections_of_classifier(found: Found[ClassifierSize]) -> list[Section]:
    runs = found.runs("runs")
    looped = {label: members for label, members in runs.items() if label in (_DI, _NDI, _NDI_0)}
    heading = "Angles (°) at the end (mean over seeds ± half a 95 % interval)"
    return [
        Section(
            found.size.data[0],
            f"Weight decay {_DECAY:g}. Angles are means over {_PROBE} training examples.",
            tables=[accuracy_table("Dynamic inversion", runs), end_table(heading, looped, _ANGLES)],
            panels=[
                accuracy_panel(runs),
                curve_panel("Feedback from minus the transpose", looped, "feedback", "angle (°)"),
                curve_panel("Errors from pseudo-backpropagation", looped, "pseudo", "angle (°)"),
            ],
        )
    ]


MNIST = Experiment(
    name="di/mnist",
    title="Dynamic inversion",
    topic="MNIST one example at a time, by dynamic inversion and its references",
    paper=DI,
    sizes={
        "quick": ClassifierSize(data=("digits",), sizes=(64, 50, 10), updates=1_000, rate=0.01, loop_steps=200),
        "full": ClassifierSize(data=("mnist",), sizes=(784, 1000, 10), updates=20_000, rate=1e-3, loop_steps=500),
    },
    time={"full": "three minutes"},
    measure=_measure_classifier,
    summary=_summary_of_classifier,
    claims=[_as_good],
    sections=_sections_of_classifier,
    differences=_differences_of_classifier,
    seeds=2,
)
"""Accuracy of a network with one hidden layer that learns from one example at a time."""


# ------------------------------------------------------------------------------------------------------- autoencoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderSize(Size):
    """A deep autoencoder, the distributions of its first weights, and its training."""

    sizes: tuple[int, ...]
    updates: int
    rate: float
    first_weights: tuple[str, ...]
    evaluations: int = 5
    batch_size: int = 100


def _measure_autoencoder(run: Run[AutoencoderSize]) -> dict[str, Any]:
    size = run.size
    task = task_of(size.data[0], kind="autoencoder", sizes=size.sizes, activation="tanh")
    how = {"steps": size.updates, "batch_size": size.batch_size, "evaluate_every": size.updates // size.evaluations}
    numbers = {}
    for name in size.first_weights:
        runs = run.train_all(_reconstructing(task, name, size.rate), task, part=name, **how)
        numbers |= {f"{name}: {label}": members for label, members in runs.items()}
    return {"runs": numbers}


def _reconstructing(task: Task, first_weights: str, rate: float) -> list[Variant]:
    build = functools.partial(_network, task, _INITIALISERS[first_weights])
    squared: dict[str, Any] = {"loss": squared_error, "clip": _CLIP}
    rules: dict[str, Rule] = {
        _BP: Backprop(loss=squared_error),
        _NDI: DynamicInversion(inversion=ClosedForm(), leak=_LEAK, **squared),
        _PBP: DynamicInversion(inversion=PseudoInverse(), **squared),
    }
    first, *others = (rule_variant(label, rule, rate, build=build) for label, rule in rules.items())
    fed = rule_variant(
        _FA,
        Backprop(loss=squared_error),
        rate,
        build=build_with_route(build, random()),
        optimizer=lambda rate: optimizers(_decaying(rate)),
    )
    return [first, fed, *others]


def _network(task: Task, initialise: Any, key: PRNGKeyArray) -> PyTree:
    """The task's network, its weight matrices drawn by an initialiser of JAX, its biases zero."""
    arrays, static = eqx.partition(task.build(key), eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    drawn = [
        initialise(jax.random.fold_in(key, i), leaf.shape[::-1], leaf.dtype).T if leaf.ndim == 2 else 0 * leaf
        for i, leaf in enumerate(leaves)
    ]
    return eqx.combine(jax.tree.unflatten(structure, drawn), static)


def _by_first_weights(found: Found[AutoencoderSize]) -> dict[str, Runs]:
    runs = found.runs("runs")
    return {
        name: {label.removeprefix(f"{name}: "): runs[label] for label in runs if label.startswith(f"{name}: ")}
        for name in found.size.first_weights
    }


def _losses(found: Found[AutoencoderSize]) -> str:
    by_first = _by_first_weights(found)
    return "; ".join(f"{name} weights: {mean_words(runs, 'test_loss')}" for name, runs in by_first.items())


def _summary_of_autoencoder(found: Found[AutoencoderSize]) -> str:
    return f"Test loss after {found.size.updates} updates: {_losses(found)}."


def _reconstructs(found: Found[AutoencoderSize]) -> Claim:
    comparisons = [
        compared(runs, label, other, "test_loss")
        for runs in _by_first_weights(found).values()
        for label in (_NDI, _PBP)
        for other in (_BP, _FA)
    ]
    return Claim(
        "In a deep autoencoder, where errors fade on their way down, inversion learns faster than backpropagation and "
        "feedback alignment.",
        f"Test loss at the end: {_losses(found)}. Seed by seed, beyond the 95 % interval, NDI and PBP are ahead of BP "
        f"and FA in {sum(sign > 0 for sign in comparisons)} of {len(comparisons)} comparisons, behind in "
        f"{sum(sign < 0 for sign in comparisons)}.",
        verdict(comparisons),
    )


def _differences_of_autoencoder(found: Found[AutoencoderSize]) -> list[str]:
    size = found.size
    epochs = "" if found.quick else f" ({size.updates / 600:.1g} epochs)"
    return [
        *(["A larger rate, and orthogonal first weights alone."] if found.quick else []),
        f"{size.updates} updates{epochs} of 20 epochs, at a rate of {size.rate:g} of the batch's mean; the published "
        "1e-6 is of its sum (1e-4).",
        _NO_NUMBERS,
        "Hidden units are tanh, the output is linear, biases begin at 0: we could not read the text on these.",
        f"NDI leaks by {_LEAK:g}, with minus the transpose of the first weights; errors of NDI and PBP are clipped at "
        f"norm {_CLIP:g}.",
    ]


def _sections_of_autoencoder(found: Found[AutoencoderSize]) -> list[Section]:
    return [
        Section(
            f"{name.capitalize()} first weights",
            "The loss is half the squared distance, summed over pixels.",
            tables=[_loss_table(runs)],
            panels=[curve_panel("Test loss", runs, "test_loss", "loss")],
        )
        for name, runs in _by_first_weights(found).items()
    ]


def _loss_table(runs: Runs) -> Table:
    heading = "Test loss (mean over seeds ± half a 95 % interval)"
    table = first_and_last_table(heading, runs, "test_loss")
    lines = [[*row, sum(m.diverged for m in runs[str(row[0])])] for row in table.rows]
    return Table(heading, [*table.columns, "diverged"], lines)


AUTOENCODER = Experiment(
    name="di/autoencoder",
    title="A deep autoencoder by inversion",
    topic="a deep autoencoder by the closed form of dynamic inversion",
    paper=DI,
    sizes={
        "quick": AutoencoderSize(
            data=("digits",),
            sizes=(64, 32, 16, 8, 16, 32, 64),
            updates=200,
            rate=0.01,
            first_weights=("orthogonal",),
        ),
        "full": AutoencoderSize(
            data=("mnist",),
            sizes=(784, 500, 250, 30, 250, 500, 784),
            updates=300,
            rate=3e-3,
            first_weights=("normal", "orthogonal"),
        ),
    },
    time={"full": "three minutes"},
    measure=_measure_autoencoder,
    summary=_summary_of_autoencoder,
    claims=[_reconstructs],
    sections=_sections_of_autoencoder,
    differences=_differences_of_autoencoder,
    seeds=2,
)
"""The loss of a deep autoencoder, from normal and from orthogonal first weights."""
