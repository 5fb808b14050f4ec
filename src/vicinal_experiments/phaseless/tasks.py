"""What is learned with feedback from noise: Yin-Yang, MNIST and an autoencoder of arXiv 2212.10249."""

import dataclasses
import functools
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal import nn
from vicinal.activations import activation_function
from vicinal.analysis import learned_feedback_angles, phaseless_update_angles
from vicinal.data import Dataset, load, yin_yang
from vicinal.feedback import random
from vicinal.graph import Graph, capture
from vicinal.losses import Loss, softmax_cross_entropy, squared_error
from vicinal.report import Claim, Section, Table
from vicinal.reproduce import (
    AHEAD,
    Experiment,
    Found,
    Measure,
    Problem,
    Run,
    Size,
    accuracy_table,
    compared,
    curve_panel,
    end_table,
    first_and_last_table,
    mean,
    mean_words,
    value,
)
from vicinal.rules import Backprop, PhaselessAlignment, Rule, TimeConstants
from vicinal.sweeping import interval_text
from vicinal.train import TrainingState, keys_of
from vicinal_experiments.papers import PAL
from vicinal_experiments.variants import build_with_route, first_examples, on_first_device, rule_variant

_BP, _FA, _PAL = "BP", "FA", "PAL"
_ACTIVATION = "tanh"
_PROBE = 128
_TIMES = TimeConstants(low_pass=200.0)
_QUICK_TIMES = TimeConstants(dt=0.5, presentation=5.0, low_pass=25.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSize(Size):
    """A task of this paper, learned by plain gradient descent.

    Attributes:
        sizes: Units of each layer.
        learning_rate: Learning rate of all rules.
        steps: Number of weight updates.
        evaluations: Number of evaluations along training.
        batch_size: Examples in an update.
        times: Time constants of the simulated network, in ms.
        readout: Whether to learn the identity, and count what a linear classifier of the middle layer finds.
        yin_yang: Examples of training and of the test of the Yin-Yang task, where no data set is named.
    """

    sizes: tuple[int, ...]
    learning_rate: float
    steps: int
    evaluations: int = 10
    batch_size: int = 50
    times: TimeConstants = _TIMES
    readout: bool = False
    yin_yang: tuple[int, int] | None = None

    @property
    def loss(self) -> Loss:
        """Of one example."""
        return squared_error if self.readout else softmax_cross_entropy

    @property
    def quantity(self) -> str:
        """What counts."""
        return "readout_accuracy" if self.readout else "test_accuracy"


# ---------------------------------------------------------------------------------------------------- measurement


def _measure(run: Run[TaskSize]) -> dict[str, Any]:
    size = run.size
    data = _data(size)
    build = functools.partial(_model, size)
    problem = Problem(data.as_autoencoding() if size.readout else data, build)
    phaseless, variants = _phaseless(size), []
    for label in (_BP, _FA, _PAL):
        rule: Rule = phaseless if label == _PAL else Backprop(loss=size.loss)
        routed = build_with_route(build, random()) if label == _FA else build
        measure = _measure_of(size, data, Problem(data, routed).graph, phaseless if label == _PAL else None)
        variants.append(rule_variant(label, rule, size.learning_rate, build=routed, measure=measure))
    how = {"steps": size.steps, "batch_size": size.batch_size, "evaluate_every": size.steps // size.evaluations}
    return {"runs": run.train_all(variants, problem, **how), "cost": _cost(size, data, phaseless)}


def _data(size: TaskSize) -> Dataset:
    return load(size.data[0]).flattened() if size.yin_yang is None else yin_yang(*size.yin_yang)


def _phaseless(size: TaskSize) -> PhaselessAlignment:
    return PhaselessAlignment(times=size.times, loss=size.loss)


def _model(size: TaskSize, key: PRNGKeyArray) -> nn.MLP:
    return nn.MLP(size.sizes, _ACTIVATION, vertex_at="pre", key=key)


def _measure_of(size: TaskSize, data: Dataset, graph: Graph, rule: PhaselessAlignment | None) -> Measure:
    x, y = first_examples(data, _PROBE)
    targets = x if size.readout else y

    @eqx.filter_jit
    def angles(rule: PhaselessAlignment, model: PyTree, state: PyTree) -> dict[str, Array]:
        likeness = learned_feedback_angles(graph, model, state.feedback, x)
        update = phaseless_update_angles(rule, graph, model, state, x, targets)
        found = {f"angle {node}": like.weight for node, like in likeness.items()}
        return found | {"angle top feedback": likeness["output"].weight, "angle update": update["concatenated"]}

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        model = on_first_device(state.model)
        if size.readout:
            record["readout_accuracy"] = _readout(graph, model, data)
        if rule is not None:
            found = angles(rule, model, on_first_device(state.rule_state))
            record |= {name: float(value) for name, value in found.items()}

    return measure


def _readout(graph: Graph, model: PyTree, data: Dataset) -> float:
    """The test accuracy of a linear classifier (least squares) of what the middle layer's units fire."""
    code = graph.vertices[len(graph.vertices) // 2]

    def features(x: Any) -> Array:
        rates = activation_function(_ACTIVATION)(graph.feedforward(model, jnp.asarray(x))[1][code])
        return jnp.concatenate([rates, jnp.ones_like(rates[:, :1])], axis=1)

    shown = slice(5_000)
    wanted = jax.nn.one_hot(jnp.asarray(data.y_train[shown]), data.classes or 1)
    weights = jnp.linalg.lstsq(features(data.x_train[shown]), wanted)[0]
    guessed = jnp.argmax(features(data.x_test[shown]) @ weights, axis=1)
    return float(jnp.mean(guessed == jnp.asarray(data.y_test[shown])))


def _cost(size: TaskSize, data: Dataset, phaseless: PhaselessAlignment) -> dict[str, Any]:
    """Seconds of an update of backpropagation and of this rule, and steps of its time in one."""
    model = _model(size, keys_of(0)[0])
    x, y = first_examples(data, size.batch_size)
    y, graph, optimizer = (x if size.readout else y), capture(model, x[0]), optax.sgd(0.0)
    taken = {}
    for label, rule in ((_BP, Backprop(loss=size.loss)), (_PAL, phaseless)):
        state = rule.init(graph, model, key=keys_of(0)[1])
        memory = optimizer.init(graph.trainable(model))

        @eqx.filter_jit
        def update(model: PyTree, memory: PyTree, state: PyTree, rule: Rule = rule) -> tuple[PyTree, PyTree, PyTree]:
            return rule.step(graph, optimizer, model, memory, state, x, y)[:3]

        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            jax.block_until_ready(jax.tree.leaves(eqx.filter(update(model, memory, state), eqx.is_array)))
            seconds.append(time.perf_counter() - start)
        taken[label] = min(seconds[1:])
    return {"seconds": taken, "steps": phaseless.times.steps}


# ---------------------------------------------------------------------------------------------------------- judge

_WORDS = {"readout_accuracy": "Accuracy of a linear read-out", "test_accuracy": "Test accuracy"}
_READOUT_PUBLISHED = {_BP: "39.7 ± 5.1", _PAL: "35.3 ± 3.8", _FA: "21.2 ± 3.4"}


def _summary(found: Found[TaskSize]) -> str:
    size, runs = found.size, found.runs("runs")
    seconds, steps = found.numbers["cost"]["seconds"], found.numbers["cost"]["steps"]
    ratio = seconds[_PAL] / seconds[_BP]
    return (
        f"{_WORDS[size.quantity]} after {size.steps} updates: {mean_words(runs, size.quantity)}. "
        f"An update of {steps} steps takes {1e3 * seconds[_PAL]:.1f} ms, {ratio:.0f} times backpropagation's "
        f"({ratio / steps:.1f} times a step): {size.times.presentation / seconds[_PAL]:.0f} ms of simulated time in a "
        f"second, of {size.batch_size} networks each."
    )


def _better(found: Found[TaskSize]) -> Claim:
    runs, quantity = found.runs("runs"), found.size.quantity
    ahead, behind = compared(runs, _PAL, _FA, quantity), compared(runs, _PAL, _BP, quantity)
    gap = {label: 100 * (mean(runs[_PAL], quantity) - mean(runs[label], quantity)) for label in (_FA, _BP)}
    close = 5 if found.size.readout else 2
    near = gap[_BP] > -close
    return Claim(
        "What is learned with feedback from noise comes close to backpropagation, and is better than with random "
        "feedback.",
        f"{_WORDS[quantity]} of {_PAL} less that of {_FA}: {gap[_FA]:+.1f} points ({AHEAD[ahead]} it, seed by seed); "
        f"less that of {_BP}: {gap[_BP]:+.1f} points ({AHEAD[behind]} it). At most {close} points below {_BP} counts "
        "as close; with 2 seeds or fewer nothing is beyond chance.",
        "holds" if near and ahead > 0 else "holds in part" if near or ahead > 0 else "does not hold",
    )


def _aligned(found: Found[TaskSize]) -> Claim:
    members = found.members("runs", _PAL)
    first = [member.records[0]["angle top feedback"] for member in members]
    end, update = ([value(member, name) for member in members] for name in ("angle top feedback", "angle update"))
    return Claim(
        "Feedback aligns while weights learn.",
        f"The top layer's feedback: {max(first):.0f}° to the transposed weight at the first mark, by which all has "
        f"learned for a while, and {max(end):.0f}° at the end (the largest of the seeds). The update: "
        f"{max(update):.0f}° to backpropagation's. Below 45° counts as aligned.",
        "holds" if max(end) < 45 else "does not hold",
    )


def _differences(found: Found[TaskSize]) -> list[str]:
    of_readout = [
        "One learning rate; the published numbers are the best of 16.",
        f"Units are {_ACTIVATION}, and the classifier is least squares.",
    ]
    return [
        *(of_readout if found.size.readout else []),
        "Networks, learning rates and numbers of updates are ours: we could not read the published settings in full. "
        "Plain gradient descent, and first weights uniform, for all three.",
        f"Weights learn through a low-pass of {found.size.times.low_pass:g} ms; the published code has 1e4 steps (1000 "
        "ms).",
        "The decay of feedback is such that its fixed point has the size of the transposed weights.",
    ]


def _sections(found: Found[TaskSize]) -> list[Section]:
    size, runs = found.size, found.runs("runs")
    words, phaseless = _WORDS[size.quantity], {_PAL: runs[_PAL]}
    return [
        Section(
            size.data[0] if size.data else "yin-yang",
            "Angles are between feedback and the transposed weight of its layer, and between the update that the "
            "feedback gives on one batch, noise off, and backpropagation's.",
            tables=[_readout_table(found) if size.readout else accuracy_table(_title(size), runs), _angle_table(found)],
            panels=[
                curve_panel(words, runs, size.quantity, f"{words.lower()} (%)", 100.0),
                *(
                    curve_panel(f"Angle of the {of}", phaseless, f"angle {of}", "angle (°)")
                    for of in ("top feedback", "update")
                ),
            ],
        )
    ]


def _title(size: TaskSize) -> str:
    return f"Phaseless alignment on {size.data[0] if size.data else 'Yin-Yang'}"


def _readout_table(found: Found[TaskSize]) -> Table:
    runs = found.runs("runs")
    heading = (
        "A linear read-out of the code (%), and the test loss, at the end (mean over seeds ± half a 95 % interval)"
    )
    losses = end_table(heading, runs, {"test_loss": "loss"})
    table: list[list[Any]] = []
    for (label, members), (_, loss) in zip(runs.items(), losses.rows, strict=True):
        accuracy = interval_text([value(member, "readout_accuracy") for member in members], 100.0)
        table.append([label, accuracy, loss, _READOUT_PUBLISHED[label]])
    return Table(heading, ["rule", "accuracy", "loss", "published accuracy, best of 16 rates"], table)


def _angle_table(found: Found[TaskSize]) -> Table:
    members = found.members("runs", _PAL)
    names = [name for name in members[0].records[-1] if name.startswith("angle") and name != "angle top feedback"]
    heading = f"Angles (°) under {_PAL}, sigma {float(_phaseless(found.size).sigma):g}"
    table = [
        [name.removeprefix("angle "), *first_and_last_table(heading, {_PAL: members}, name).rows[0][1:]]
        for name in names
    ]
    return Table(heading, ["of", "first mark", "end"], table)


def _experiment(
    name: str, title: str, topic: str, time: str, seeds: int, quick: TaskSize, full: TaskSize
) -> Experiment:
    return Experiment(
        name=f"pal/{name}",
        title=title,
        topic=topic,
        paper=PAL,
        sizes={"quick": quick, "full": full},
        time={"full": time},
        measure=_measure,
        summary=_summary,
        claims=[_better, _aligned],
        sections=_sections,
        differences=_differences,
        seeds=seeds,
        credit=yin_yang(8, 8).credit if quick.yin_yang else "",
    )


_quick = functools.partial(TaskSize, times=_QUICK_TIMES, evaluations=3)

YIN_YANG = _experiment(
    "yinyang",
    "Phaseless alignment on Yin-Yang",
    "the Yin-Yang data set by phaseless alignment learning",
    "ten minutes",
    5,
    _quick(sizes=(4, 40, 30, 3), learning_rate=0.5, steps=600, yin_yang=(1_000, 300)),
    TaskSize(sizes=(4, 120, 30, 3), learning_rate=0.5, steps=10_000, yin_yang=(5_000, 1_000)),
)
"""The Yin-Yang data set: without good feedback the hidden layer does not learn."""

MNIST = _experiment(
    "mnist",
    "Phaseless alignment",
    "MNIST by phaseless alignment learning",
    "ten minutes",
    3,
    _quick(data=("digits",), sizes=(64, 40, 20, 10), learning_rate=0.2, steps=300),
    TaskSize(data=("mnist",), sizes=(784, 100, 50, 10), learning_rate=0.2, steps=6_000),
)
"""MNIST with fully connected layers."""

AUTOENCODER = _experiment(
    "autoencoder",
    "Phaseless alignment in an autoencoder",
    "an autoencoder with two units: what a linear read-out finds in them",
    "an hour",
    3,
    _quick(data=("digits",), sizes=(64, 30, 2, 30, 64), learning_rate=0.05, steps=600, batch_size=32, readout=True),
    TaskSize(
        data=("mnist",), sizes=(784, 200, 2, 200, 784), learning_rate=0.02, steps=10_000, batch_size=32, readout=True
    ),
)
"""An autoencoder with a code of two units, which a linear classifier reads."""
