"""What is learned with feedback from noise: Yin-Yang, MNIST and an autoencoder of arXiv 2212.10249."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
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
from vicinal.recipes import with_route
from vicinal.report import Claim, Section, Study, Table
from vicinal.reproduce.learning import SAID, compared, mean, means_text
from vicinal.reproduce.runs import Scale
from vicinal.reproduce.side_by_side import accuracy_table, on_first_device, panel
from vicinal.rules import Backprop, PhaselessAlignment, Rule, TimeConstants
from vicinal.sweeping import interval_text, last, plain
from vicinal.train import Sweep, TrainingState, keys_of, sweep

_BP, _FA, _PAL = "BP", "FA", "PAL"
_ACTIVATION = "tanh"
_PROBE = 128
_TIMES = TimeConstants(low_pass=200.0)
_QUICK_TIMES = TimeConstants(dt=0.5, presentation=5.0, low_pass=25.0)

Done = dict[str, Sweep]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A task of this paper.

    Attributes:
        data: What is learned.
        sizes: Of the network.
        loss: Of one example.
        learning_rate: Of plain gradient descent, for all.
        steps: Updates.
        batch_size: Examples in each.
        readout: Whether a linear classifier of the middle layer is what counts.
    """

    data: Dataset
    sizes: tuple[int, ...]
    loss: Loss
    learning_rate: float
    steps: int
    batch_size: int
    readout: bool = False


def yinyang(scale: Scale) -> Study:
    """The Yin-Yang data set: without good feedback the hidden layer does not learn."""
    scale = scale.by_default(5)
    train, width, steps = scale.pick((1_000, 40, 600), (5_000, 120, 10_000))
    data = yin_yang(train, scale.pick(300, 1_000))
    setting = Setting(data, (4, width, 30, 3), softmax_cross_entropy, 0.5, steps, 50)
    return _study(scale, setting, "Phaseless alignment on Yin-Yang", [])


def mnist(scale: Scale) -> Study:
    """MNIST with fully connected layers."""
    scale = scale.by_default(3)
    name, sizes, steps = scale.pick(("digits", (64, 40, 20, 10), 300), ("mnist", (784, 100, 50, 10), 6_000))
    setting = Setting(load(name).flattened(), sizes, softmax_cross_entropy, 0.2, steps, 50)
    stand_in = ["The digits and a smaller network stand in for MNIST."] if scale.quick else []
    return _study(scale, setting, f"Phaseless alignment on {name}", stand_in)


def autoencoder(scale: Scale) -> Study:
    """An autoencoder with a code of two units, which a linear classifier reads."""
    scale = scale.by_default(3)
    name, sizes, steps = scale.pick(("digits", (64, 30, 2, 30, 64), 600), ("mnist", (784, 200, 2, 200, 784), 10_000))
    data = load(name).flattened()
    setting = Setting(data, sizes, squared_error, scale.pick(0.05, 0.02), steps, 32, readout=True)
    stand_in = ["The digits and a smaller network stand in for MNIST."] if scale.quick else []
    return _study(
        scale,
        setting,
        f"Phaseless alignment in an autoencoder of {name}",
        [
            *stand_in,
            "One learning rate; the published numbers are the best of 16.",
            f"Units are {_ACTIVATION}, and the classifier is least squares.",
        ],
    )


def _study(scale: Scale, setting: Setting, title: str, differences: list[str]) -> Study:
    times = scale.pick(_QUICK_TIMES, _TIMES)
    rule = PhaselessAlignment(times=times, loss=setting.loss)
    done = {label: _train(scale, setting, label, rule) for label in (_BP, _FA, _PAL)}
    quantity = "readout_accuracy" if setting.readout else "test_accuracy"
    cost = _cost(setting, rule)
    tables = [_readout_table(done) if setting.readout else accuracy_table(title, done), _angle_table(done, rule)]
    name = setting.data.name
    return Study(
        title=title,
        summary=f"{_WORDS[quantity]} after {setting.steps} updates: {means_text(done, quantity)}. {cost['words']}",
        command="",
        settings={
            "seeds": scale.seeds,
            "data": name,
            "sizes": list(setting.sizes),
            "learning_rate": setting.learning_rate,
            "batch_size": setting.batch_size,
            "steps": setting.steps,
            "times": dataclasses.asdict(times),
        },
        environment={},
        claims=[_better(done, quantity, setting), _aligned(done)],
        differences=[
            *differences,
            "Networks, learning rates and numbers of updates are ours: the published settings were not at hand in "
            "full. Plain gradient descent, and first weights uniform, for all three.",
            f"Weights learn through a low-pass of {times.low_pass:g} ms; the published code has 1e4 steps (1000 ms).",
            "The decay of feedback is such that its fixed point has the size of the transposed weights.",
        ],
        sections=[
            Section(
                name,
                "Angles are between feedback and the transposed weight of its layer, and between the update that the "
                "feedback gives on one batch, noise off, and backpropagation's.",
                tables=tables,
                panels=[
                    panel(_WORDS[quantity], done, quantity, f"{_WORDS[quantity].lower()} (%)", 100.0),
                    *(
                        panel(f"Angle of the {of}", {_PAL: done[_PAL]}, f"angle {of}", "angle (°)")
                        for of in ("top feedback", "update")
                    ),
                ],
            )
        ],
        numbers={"runs": {label: plain(found.members) for label, found in done.items()}, "cost": cost},
        data_credit=setting.data.credit,
    )


_WORDS = {"readout_accuracy": "Accuracy of a linear read-out", "test_accuracy": "Test accuracy"}


# ------------------------------------------------------------------------------------------------------------- runs


def _model(setting: Setting, key: PRNGKeyArray) -> nn.MLP:
    return nn.MLP(setting.sizes, _ACTIVATION, vertex_at="pre", key=key)


def _fed(setting: Setting, key: PRNGKeyArray) -> PyTree:
    return with_route(_model(setting, key), random(), key=key)


def _train(scale: Scale, setting: Setting, label: str, phaseless: PhaselessAlignment) -> Sweep:
    rule: Rule = phaseless if label == _PAL else Backprop(loss=setting.loss)
    build = functools.partial(_fed if label == _FA else _model, setting)
    data = setting.data.as_autoencoding() if setting.readout else setting.data
    graph = capture(build(keys_of(0)[0]), jnp.asarray(data.x_train[0]))
    scale.say(f"{label} on {setting.data.name}, {setting.steps} updates, {scale.seeds} seeds")
    run = f"phaseless-{setting.data.name}-{'x'.join(map(str, setting.sizes))}-{label}-{setting.steps}-{scale.seeds}"
    folder = None if scale.folder is None else scale.folder / "runs" / run.lower()
    return sweep(
        lambda learning_rate: (rule, optax.sgd(learning_rate)),
        build,
        data,
        {"learning_rate": [setting.learning_rate]},
        seeds=scale.seeds,
        steps=setting.steps,
        batch_size=setting.batch_size,
        evaluate_every=setting.steps // scale.pick(3, 10),
        graph=graph,
        group_size=1,
        folder=folder,
        resume=folder is not None,
        progress=scale.progress,
        on_record=_measure(setting, graph, phaseless if label == _PAL else None),
    )


def _measure(
    setting: Setting, graph: Graph, rule: PhaselessAlignment | None
) -> Callable[[dict[str, Any], TrainingState], None]:
    x, y = jnp.asarray(setting.data.x_train[:_PROBE]), jnp.asarray(setting.data.y_train[:_PROBE])
    targets = x if setting.readout else y

    @eqx.filter_jit
    def angles(rule: PhaselessAlignment, model: PyTree, state: PyTree) -> dict[str, Array]:
        likeness = learned_feedback_angles(graph, model, state.feedback, x)
        update = phaseless_update_angles(rule, graph, model, state, x, targets)
        found = {f"angle {node}": like.weight for node, like in likeness.items()}
        return found | {"angle top feedback": likeness["output"].weight, "angle update": update["concatenated"]}

    def measure(record: dict[str, Any], state: TrainingState) -> None:
        model = on_first_device(state.model)
        if setting.readout:
            record["readout_accuracy"] = _readout(graph, model, setting.data)
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


def _cost(setting: Setting, phaseless: PhaselessAlignment) -> dict[str, Any]:
    """Seconds of an update of backpropagation and of this rule, and of a step of its time."""
    model = _model(setting, keys_of(0)[0])
    x, y = (jnp.asarray(part[: setting.batch_size]) for part in (setting.data.x_train, setting.data.y_train))
    y, graph, optimizer = (x if setting.readout else y), capture(model, x[0]), optax.sgd(0.0)
    taken = {}
    for label, rule in ((_BP, Backprop(loss=setting.loss)), (_PAL, phaseless)):
        state = rule.init(graph, model, key=keys_of(0)[1])
        memory = optimizer.init(graph.trainable(model))

        @eqx.filter_jit
        def update(model: PyTree, memory: PyTree, state: PyTree, rule: Rule = rule) -> tuple[PyTree, PyTree, PyTree]:
            return rule.step(graph, optimizer, model, memory, state, x, y)[:3]

        seconds = []
        for _ in range(4):
            begun = time.perf_counter()
            jax.block_until_ready(jax.tree.leaves(eqx.filter(update(model, memory, state), eqx.is_array)))
            seconds.append(time.perf_counter() - begun)
        taken[label] = min(seconds[1:])
    times, ratio = phaseless.times, taken[_PAL] / taken[_BP]
    words = (
        f"An update of {times.steps} steps takes {1e3 * taken[_PAL]:.1f} ms, {ratio:.0f} times backpropagation's "
        f"({ratio / times.steps:.1f} times a step): {times.presentation / taken[_PAL]:.0f} ms of simulated time in a "
        f"second, of {setting.batch_size} networks each."
    )
    return {"words": words, "seconds": taken, "steps": times.steps}


# ------------------------------------------------------------------------------------------------ tables and claims


def _readout_table(done: Done) -> Table:
    published = {_BP: "39.7 ± 5.1", _PAL: "35.3 ± 3.8", _FA: "21.2 ± 3.4"}
    rows: list[list[Any]] = [
        [
            label,
            interval_text([last(member, "readout_accuracy") for member in found.members], 100.0),
            interval_text([last(member, "test_loss") for member in found.members]),
            published[label],
        ]
        for label, found in done.items()
    ]
    heading = (
        "A linear read-out of the code (%), and the test loss, at the end (mean over seeds ± half a 95 % interval)"
    )
    return Table(heading, ["rule", "accuracy", "loss", "published accuracy, best of 16 rates"], rows)


def _angle_table(done: Done, rule: PhaselessAlignment) -> Table:
    members = done[_PAL].members
    named: Sequence[str] = [n for n in (members[0].records[-1] if members[0].records else {}) if n.startswith("angle")]
    rows: list[list[Any]] = [
        [name.removeprefix("angle "), *(interval_text([at(m, name) for m in members]) for at in (_first, last))]
        for name in named
        if name != "angle top feedback"
    ]
    return Table(f"Angles (°) under {_PAL}, sigma {float(rule.sigma):g}", ["of", "first mark", "end"], rows)


def _first(member: Any, name: str) -> float:
    return member.records[0][name]


def _better(done: Done, quantity: str, setting: Setting) -> Claim:
    ahead, behind = compared(done, _PAL, _FA, quantity), compared(done, _PAL, _BP, quantity)
    gap = {label: 100 * (mean(done[_PAL], quantity) - mean(done[label], quantity)) for label in (_FA, _BP)}
    close = 5 if setting.readout else 2
    near = gap[_BP] > -close
    return Claim(
        "What is learned with feedback from noise comes close to backpropagation, and is better than with random "
        "feedback.",
        f"{_WORDS[quantity]} of {_PAL} less that of {_FA}: {gap[_FA]:+.1f} points ({SAID[ahead]} it, seed by seed); "
        f"less that of {_BP}: {gap[_BP]:+.1f} points ({SAID[behind]} it). At most {close} points below {_BP} counts "
        "as close; with 2 seeds or fewer nothing is beyond chance.",
        "holds" if near and ahead > 0 else "holds in part" if near or ahead > 0 else "does not hold",
    )


def _aligned(done: Done) -> Claim:
    members = done[_PAL].members
    first, end = ([at(m, "angle top feedback") for m in members] for at in (_first, last))
    update = [last(m, "angle update") for m in members]
    below = max(end) < 45
    return Claim(
        "Feedback aligns while weights learn.",
        f"The top layer's feedback: {max(first):.0f}° to the transposed weight at the first mark, by which all has "
        f"learned for a while, and {max(end):.0f}° at the end (the largest of the seeds). The update: "
        f"{max(update):.0f}° to backpropagation's. Below 45° counts as aligned.",
        "holds" if below else "does not hold",
    )
