"""Feedback that aligns with weights which are held: figure 3 of arXiv 2212.10249."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from vicinal import nn
from vicinal.analysis import learned_feedback_angles, phaseless_update_angles, voltage_traces
from vicinal.graph import Graph, capture
from vicinal.losses import squared_error
from vicinal.report import Claim, Panel, Section, Series, Study, Table
from vicinal.reproduce.runs import Scale
from vicinal.rules import Conductances, Microcircuit, PhaselessAlignment, TimeConstants
from vicinal.sweeping import interval_text
from vicinal.train import keys_of

_SIZES = (5, 20, 10, 20, 5)
_NODES = ("hidden2", "hidden3", "output")
_MARKS = 10
_PROBE = 64
_TIMES = TimeConstants(dt=0.01, xi=0.1, high_pass=0.1, presentation=1.0, low_pass=100.0)
_PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "lin": {
        "weight": (21.1, 10.4, 11.4),
        "transported": (19.9, 8.0, 5.6),
        "update": (28.8, 19.2, 16.5, 7.7),
    },
    "nonlin": {"weight": (58.2, 57.5, 58.6), "transported": (52.8, 44.2, 31.3)},
}
"""At the end of the published runs, in degrees, read from the arrays of the paper's repository."""

Angles = dict[str, Float[np.ndarray, "..."]]
"""By what they are of, `[seeds, marks + 1, layers]`, and the times."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """Weights that feedback has to align with, with the published rates.

    Attributes:
        name: In tables.
        bound: Weights are uniform between minus this and this.
        feedback_rate: Learning rate of the feedback, per ms.
        apical_rate: Of the circuit's weights from interneurons, per ms.
        presentations: How many inputs are shown.
    """

    name: str
    bound: float
    feedback_rate: float
    apical_rate: float
    presentations: int


CONDITIONS = (Condition("lin", 1.0, 50.0, 5.0, 10_000), Condition("nonlin", 5.0, 20.0, 0.5, 50_000))
"""Units in their linear range, and saturated ones."""

Learner = PhaselessAlignment | Microcircuit


def teacher(scale: Scale) -> Study:
    """Feedback of a 5-20-10-20-5 network beside its weights, which are held, along time."""

    def rule(condition: Condition, speed: float, batch: int) -> Learner:
        return PhaselessAlignment(
            times=_TIMES,
            sigma=0.05,
            feedback_rate=speed * condition.feedback_rate,
            decay=1e-5,
            batch_size=batch,
            output_activation="sigmoid",
            loss=squared_error,
        )

    return _study(
        scale,
        "Feedback that learns from noise",
        rule,
        20.0,
        [1.0] * 4,
        [
            "The published arrays are of the microcircuit; these are neurons of one voltage with an error beside it "
            "(`pal/microcircuit` has the circuit). The error of the output is of its potentials.",
        ],
    )


def microcircuit(scale: Scale) -> Study:
    """The same in the cortical microcircuit, whose weights from interneurons learn too."""

    def rule(condition: Condition, speed: float, batch: int) -> Learner:
        return Microcircuit(
            times=_TIMES,
            sigma=0.05,
            feedback_rate=speed * condition.feedback_rate,
            apical_rate=scale.pick(4.0, 1.0) * condition.apical_rate,
            interneuron_rate=0.0,
            decay=1e-5,
            batch_size=batch,
            output_activation="sigmoid",
            loss=squared_error,
        )

    shares = Conductances()
    hidden = shares.basal / (shares.leak + shares.basal + shares.apical)
    return _study(
        scale,
        "The cortical microcircuit: feedback that learns from noise",
        rule,
        30.0,
        [hidden] * 3 + [shares.basal / (shares.leak + shares.basal)],
        [
            "Weights hold the attenuation from dendrite to soma, by which those drawn are multiplied.",
            "As in the published code updates are measured after weights from interneurons are set to minus the "
            "feedback. As they stand those weights still follow noise from the layers above, and what is left of it "
            "in the dendrites outweighs the errors of the lower layers: rows of their own have that.",
            *(["Weights from interneurons learn 4 times as fast."] if scale.quick else []),
        ],
    )


def _study(
    scale: Scale,
    title: str,
    make: Callable[[Condition, float, int], Learner],
    quick_speed: float,
    factors: list[float],
    differences: list[str],
) -> Study:
    scale = scale.by_default(10)
    speed, batch = scale.pick((quick_speed, 50), (1.0, 1))
    conditions = [
        dataclasses.replace(condition, presentations=scale.pick(150, condition.presentations))
        for condition in CONDITIONS[: scale.pick(1, 2)]
    ]
    found, pace = {}, {}
    for condition in conditions:
        scale.say(f"{title}, {condition.name}, {condition.presentations} presentations, {scale.seeds} seeds")
        begun = time.perf_counter()
        found[condition.name] = _run(make(condition, speed, batch), condition, factors, scale.seeds)
        simulated = condition.presentations * _TIMES.presentation * scale.seeds
        pace[condition.name] = simulated / (time.perf_counter() - begun)
    return Study(
        title=title,
        summary="Angle of feedback to the weights at the end: "
        + "; ".join(f"{name} {_text(_means(runs, 'weight'))}" for name, runs in found.items())
        + ". Simulated time per second of computing, all seeds together and compilation included: "
        + ", ".join(f"{name} {value:.0f} ms" for name, value in pace.items())
        + ".",
        command="",
        settings={
            "seeds": scale.seeds,
            "sizes": list(_SIZES),
            "conditions": [dataclasses.asdict(condition) for condition in conditions],
            "times": dataclasses.asdict(_TIMES),
        },
        environment={},
        claims=_claims(found),
        differences=[
            *differences,
            *(
                [
                    f"{conditions[0].presentations} presentations of 1 ms instead of {CONDITIONS[0].presentations:,}. "
                    f"Feedback learns {speed:g} times as fast, from {batch} copies of the network.",
                    "Weights of the linear range alone.",
                ]
                if scale.quick
                else []
            ),
            "Weights are held and inputs uniform in [0, 1], new ones in each presentation (published: 100 in turn). "
            "There is no target while feedback learns. Updates are of one example each, noise off and with targets of "
            f"a second network, of weights drawn alike; angles are means over {_PROBE} examples.",
            "First feedback is normal, of deviation 1 over the root of a layer's inputs.",
        ],
        sections=[
            *(_section(name, runs) for name, runs in found.items()),
            Section(
                "Voltages",
                "Two inputs are shown to a network at rest. Rates are those of prospective voltages: they follow "
                "a new input at once, while the membrane is on its way.",
                panels=[_voltages(make(conditions[0], speed, batch), conditions[0], factors)],
            ),
        ],
        numbers={"angles": {n: {k: v.tolist() for k, v in runs.items()} for n, runs in found.items()}, "ms/s": pace},
    )


def _run(rule: Learner, condition: Condition, factors: list[float], seeds: int) -> Angles:
    """Times `[marks + 1]`, and angles `[seeds, marks + 1, layers]` by what they are of."""
    model, _ = _networks(condition, factors, keys_of(0)[0])
    graph, each = capture(model, jnp.zeros(_SIZES[0])), condition.presentations // _MARKS
    untaught = dataclasses.replace(rule, loss=_no_target)

    @eqx.filter_jit
    def along(key: PRNGKeyArray) -> dict[str, Array]:
        weights, inputs, start, probed = jax.random.split(key, 4)
        student, shown = _networks(condition, factors, weights)
        probe = jax.random.uniform(probed, (_PROBE, _SIZES[0]))

        def present(state: PyTree, key: PRNGKeyArray) -> tuple[PyTree, None]:
            x = jax.random.uniform(key, (rule.batch_size or 1, _SIZES[0]))
            return untaught.value_and_grad(graph, student, state, x, jnp.zeros((len(x), _SIZES[-1])))[2], None

        def mark(state: PyTree, key: PRNGKeyArray) -> tuple[PyTree, dict[str, Array]]:
            state, _ = jax.lax.scan(present, state, jax.random.split(key, each))
            return state, measured(state)

        def measured(state: PyTree) -> dict[str, Array]:
            return _angles(rule, graph, student, state, probe, jax.vmap(shown)(probe))

        begun = rule.init(graph, student, key=start)
        _, seen = jax.lax.scan(mark, begun, jax.random.split(inputs, _MARKS))
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), measured(begun), seen)

    runs = [along(keys_of(seed)[0]) for seed in range(seeds)]
    found = {name: np.stack([np.asarray(run[name]) for run in runs]) for name in runs[0]}
    return found | {"time": np.arange(_MARKS + 1) * each * rule.times.presentation}


def _voltages(rule: Learner, condition: Condition, factors: list[float]) -> Panel:
    """What one unit of the lowest layer holds while two inputs are shown, with first feedback and with targets."""
    weights, inputs, start = jax.random.split(keys_of(0)[0], 3)
    student, shown = _networks(condition, factors, weights)
    x, graph = jax.random.uniform(inputs, (2, _SIZES[0])), capture(student, jnp.zeros(_SIZES[0]))
    state = rule.init(graph, student, key=start)
    traces, layer = voltage_traces(rule, graph, student, state, x, jax.vmap(shown)(x)), graph.vertices[0]
    held = {"membrane": traces.voltages, "prospective": traces.prospective}
    held |= {"apical, without noise": traces.apical} if traces.apical else {}
    series = [Series(of, traces.time.tolist(), [voltage[layer][:, 0].tolist()]) for of, voltage in held.items()]
    return Panel(f"Voltages of one unit of {layer}", "time (ms)", "voltage", series)


def _no_target(output: Array, target: Array) -> Array:
    """A loss without an error: what an output without a target sees."""
    return jnp.dot(jnp.zeros_like(output), output - target)


def _networks(condition: Condition, factors: list[float], key: PRNGKeyArray) -> tuple[nn.MLP, nn.MLP]:
    """The network, and the teacher that its targets are from."""

    def drawn(key: PRNGKeyArray) -> nn.MLP:
        model = nn.MLP(_SIZES, "sigmoid", vertex_at="pre", use_bias=False, key=key)
        keys = jax.random.split(key, len(model.layers))
        weights = [
            factor * jax.random.uniform(k, layer.weight.shape, minval=-condition.bound, maxval=condition.bound)
            for k, layer, factor in zip(keys, model.layers, factors, strict=True)
        ]
        return eqx.tree_at(lambda m: [layer.weight for layer in m.layers], model, weights)

    first, second = jax.random.split(key)
    return drawn(first), drawn(second)


def _angles(rule: Learner, graph: Graph, model: PyTree, state: PyTree, x: Array, y: Array) -> dict[str, Array]:
    likeness = learned_feedback_angles(graph, model, state.feedback, x, output_activation=rule.output_activation)

    def turned(state: PyTree) -> Array:
        def one(x: Array, y: Array) -> Array:
            found = phaseless_update_angles(rule, graph, model, state, x[None], y[None])
            return jnp.stack([found[f"layers[{i}].weight"] for i in range(len(model.layers))])

        return jnp.mean(jax.vmap(one)(x, y), axis=0)

    found = {
        "weight": jnp.stack([likeness[node].weight for node in _NODES]),
        "transported": jnp.stack([likeness[node].transported for node in _NODES]),
    }
    if not isinstance(rule, Microcircuit):
        return found | {"update": turned(state)}
    return found | {"update": turned(rule.self_predicting(graph, model, state)), "standing": turned(state)}


# ------------------------------------------------------------------------------------------------ tables and claims

_OF = {
    "weight": "feedback to the transposed weight",
    "transported": "feedback to what noise carries, phi' W^T phi'",
    "update": "update to backpropagation's",
    "standing": "update to backpropagation's, weights from interneurons as they stand",
}
_LAYERS = {"weight": ("2", "3", "4"), "transported": ("2", "3", "4")}
_ALL_LAYERS = ("1", "2", "3", "4")


def _section(name: str, runs: Angles) -> Section:
    rows: list[list[Any]] = []
    panels = []
    for of in (of for of in _OF if of in runs):
        published, layers = _PUBLISHED[name].get(of), _LAYERS.get(of, _ALL_LAYERS)
        for i, layer in enumerate(layers):
            first, end = (interval_text([float(v) for v in runs[of][:, at, i]]) for at in (0, -1))
            rows.append([f"{_OF[of]}, layer {layer}", first, end, None if published is None else published[i]])
        series = [
            Series(f"layer {layer}", runs["time"].tolist(), runs[of][:, :, i].tolist())
            for i, layer in enumerate(layers)
        ]
        panels.append(Panel(f"{name}: {_OF[of]}", "time (ms)", "angle (°)", series))
    heading = "Angles (°): mean over seeds ± half a 95 % interval"
    return Section(name, "", tables=[Table(heading, ["of", "first", "end", "published"], rows)], panels=panels)


def _finite(runs: Angles) -> Bool[np.ndarray, " seeds"]:
    """Which seeds did not diverge."""
    return np.all([np.all(np.isfinite(runs[of][:, -1]), axis=-1) for of in _OF if of in runs], axis=0)


def _means(runs: Angles, of: str, mark: int = -1) -> list[float]:
    """For each layer, over the seeds that did not diverge; empty if all did."""
    kept = runs[of][_finite(runs), mark]
    return kept.mean(0).tolist() if len(kept) else []


def _text(angles: Sequence[float]) -> str:
    return ", ".join(f"{angle:.1f}°" for angle in angles) or "no seed that stayed finite"


def _claim(words: str, measured: str, good: list[bool], runs: Angles) -> Claim:
    """A claim about layers; it does not hold in full where a seed diverged."""
    lost, seeds = int(np.sum(~_finite(runs))), len(_finite(runs))
    said = f" {lost} of {seeds} seeds diverged; means are of the others." if lost else ""
    verdict = "holds" if all(good) and not lost else "holds in part" if any(good) else "does not hold"
    return Claim(words, measured + said, verdict)


def _claims(found: dict[str, Angles]) -> list[Claim]:
    linear, published = found["lin"], _PUBLISHED["lin"]
    ends, starts = _means(linear, "weight"), _means(linear, "weight", 0)
    updates, before = _means(linear, "update")[:-1], _means(linear, "update", 0)[:-1]
    standing = (
        f" With weights from interneurons as they stand: {_text(_means(linear, 'standing')[:-1])}."
        if "standing" in linear
        else ""
    )
    claims = [
        _claim(
            "Feedback comes to lie along the transposed weights where units are in their linear range.",
            f"From {_text(starts)} to {_text(ends)}; published {_text(published['weight'])}. Below 30° counts.",
            [end < 30 for end in ends],
            linear,
        ),
        _claim(
            "So do the updates of the lower layers, along backpropagation's.",
            f"From {_text(before)} to {_text(updates)}; published {_text(published['update'][:-1])}. Below 45° and "
            f"below where it began counts.{standing}",
            [end < 45 and end < first for end, first in zip(updates, before, strict=True)],
            linear,
        ),
    ]
    if "nonlin" in found:
        weight, transported = (_means(found["nonlin"], of) for of in ("weight", "transported"))
        published = _PUBLISHED["nonlin"]
        claims.append(
            _claim(
                "Where units are saturated feedback lies along what noise carries, phi' W^T phi', and less along W^T.",
                f"To the transposed weights {_text(weight)}, to what noise carries {_text(transported)}; published "
                f"{_text(published['weight'])} and {_text(published['transported'])}.",
                [a < b for a, b in zip(transported, weight, strict=True)],
                found["nonlin"],
            )
        )
    return claims
