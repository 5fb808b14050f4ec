"""Feedback that aligns with weights which are held: figure 3 of arXiv 2212.10249."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal import nn
from vicinal.analysis import learned_feedback_angles, phaseless_update_angles
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
_PUBLISHED = {
    "lin": {
        "weight": (21.1, 10.4, 11.4),
        "transported": (19.9, 8.0, 5.6),
        "update": (28.8, 19.2, 16.5, 7.7),
    },
    "nonlin": {"weight": (58.2, 57.5, 58.6), "transported": (52.8, 44.2, 31.3)},
}
"""At the end of the published runs, in degrees, read from the arrays of the paper's repository."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """Weights that feedback has to align with.

    Attributes:
        name: In tables.
        bound: Weights are uniform between minus this and this.
        feedback_rate: Learning rate of the feedback, per ms.
        apical_rate: Of the circuit's interneurons' weights, per ms.
    """

    name: str
    bound: float
    feedback_rate: float
    apical_rate: float


CONDITIONS = (Condition("lin", 1.0, 50.0, 5.0), Condition("nonlin", 5.0, 20.0, 0.5))
"""Units in their linear range, and saturated ones."""

Learner = PhaselessAlignment | Microcircuit


def teacher(scale: Scale) -> Study:
    """Feedback of a 5-20-10-20-5 network beside its weights, which are held, along time."""

    def rule(condition: Condition, speed: float, batch: int) -> Learner:
        rate = speed * condition.feedback_rate
        return PhaselessAlignment(
            times=_TIMES, sigma=0.05, feedback_rate=rate, decay=1e-5, batch_size=batch, loss=squared_error
        )

    return _study(
        scale,
        "Feedback that learns from noise",
        rule,
        20.0,
        [1.0] * 4,
        [
            "The published arrays are of the microcircuit; these are neurons of one voltage with an error beside it "
            "(`pal/microcircuit` has the circuit).",
        ],
    )


def microcircuit(scale: Scale) -> Study:
    """The same in the cortical microcircuit, with its interneurons learning too."""

    def rule(condition: Condition, speed: float, batch: int) -> Learner:
        return Microcircuit(
            times=_TIMES,
            sigma=0.05,
            feedback_rate=speed * condition.feedback_rate,
            apical_rate=scale.pick(4.0, 1.0) * condition.apical_rate,
            interneuron_rate=condition.apical_rate,
            decay=1e-5,
            batch_size=batch,
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
            "Units of the output are linear; the published ones are logistic.",
            "The rate of the interneurons' own weights is that published for the weights from them.",
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
    presentations, speed, batch = scale.pick((150, quick_speed, 50), (6_000, 1.0, 1))
    conditions = CONDITIONS[: scale.pick(1, 2)]
    found, seconds = {}, {}
    for condition in conditions:
        scale.say(f"{title}, {condition.name}, {presentations} presentations, {scale.seeds} seeds")
        begun = time.perf_counter()
        found[condition.name] = _run(make(condition, speed, batch), condition, factors, presentations, scale.seeds)
        seconds[condition.name] = time.perf_counter() - begun
    simulated = presentations * _TIMES.presentation * scale.seeds
    pace = {name: simulated / taken for name, taken in seconds.items()}
    return Study(
        title=title,
        summary="Angle of feedback to the weights at the end: "
        + "; ".join(f"{name} {_mean_text(runs, 'weight')}" for name, runs in found.items())
        + ". Simulated time per second of computing, all seeds together and compilation included: "
        + ", ".join(f"{name} {value:.0f} ms" for name, value in pace.items())
        + ".",
        command="",
        settings={"sizes": list(_SIZES), "presentations": presentations, "times": dataclasses.asdict(_TIMES)},
        environment={},
        claims=_claims(found),
        differences=[
            *differences,
            f"{presentations} presentations of 1 ms; how many the published runs have was not at hand."
            + (f" Feedback learns {speed:g} times as fast, from {batch} copies of the network." if scale.quick else ""),
            "Weights are held and inputs uniform in [0, 1]. While feedback learns the output is its own target; "
            "updates are measured with noise off and targets of a second network, of weights drawn alike.",
            "First feedback is normal, of deviation 1 over the root of a layer's inputs.",
            *(["Weights of the linear range alone."] if scale.quick else []),
        ],
        sections=[_section(name, runs) for name, runs in found.items()],
        numbers={"angles": {n: {k: v.tolist() for k, v in runs.items()} for n, runs in found.items()}, "ms/s": pace},
    )


def _run(
    rule: Learner, condition: Condition, factors: list[float], presentations: int, seeds: int
) -> dict[str, Float[np.ndarray, "..."]]:
    """Times `[marks + 1]`, and angles `[seeds, marks + 1, layers]` by what they are of."""
    model, _ = _networks(condition, factors, keys_of(0)[0])
    graph, each = capture(model, jnp.zeros(_SIZES[0])), presentations // _MARKS

    @eqx.filter_jit
    def along(key: PRNGKeyArray) -> dict[str, Array]:
        weights, inputs, start, probed = jax.random.split(key, 4)
        student, shown = _networks(condition, factors, weights)
        probe = jax.random.uniform(probed, (_PROBE, _SIZES[0]))

        def present(state: PyTree, key: PRNGKeyArray) -> tuple[PyTree, None]:
            x = jax.random.uniform(key, (rule.batch_size or 1, _SIZES[0]))
            return rule.value_and_grad(graph, student, state, x, jax.vmap(student)(x))[2], None

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
    likeness = learned_feedback_angles(graph, model, state.feedback, x)
    updates = phaseless_update_angles(rule, graph, model, state, x, y)
    return {
        "weight": jnp.stack([likeness[node].weight for node in _NODES]),
        "transported": jnp.stack([likeness[node].transported for node in _NODES]),
        "update": jnp.stack([updates[f"layers[{i}].weight"] for i in range(len(model.layers))]),
    }


# ------------------------------------------------------------------------------------------------ tables and claims

_OF = {
    "weight": "feedback to the transposed weight",
    "transported": "feedback to what noise carries, phi' W^T phi'",
    "update": "update to backpropagation's",
}
_LAYERS = {"weight": ("2", "3", "4"), "transported": ("2", "3", "4"), "update": ("1", "2", "3", "4")}


def _mean_text(runs: dict[str, np.ndarray], of: str) -> str:
    return ", ".join(f"{angle:.1f}°" for angle in runs[of][:, -1].mean(0))


def _section(name: str, runs: dict[str, np.ndarray]) -> Section:
    rows: list[list[Any]] = []
    for of, words in _OF.items():
        published = _PUBLISHED.get(name, {}).get(of)
        for i, layer in enumerate(_LAYERS[of]):
            first, end = (interval_text([float(v) for v in runs[of][:, at, i]]) for at in (0, -1))
            rows.append([f"{words}, layer {layer}", first, end, None if published is None else published[i]])
    panels = [
        Panel(
            f"{name}: {words}",
            "time (ms)",
            "angle (°)",
            [
                Series(f"layer {layer}", runs["time"].tolist(), runs[of][:, :, i].tolist())
                for i, layer in enumerate(_LAYERS[of])
            ],
        )
        for of, words in _OF.items()
    ]
    heading = "Angles (°): mean over seeds ± half a 95 % interval"
    return Section(name, "", tables=[Table(heading, ["of", "first", "end", "published"], rows)], panels=panels)


def _claims(found: dict[str, dict[str, np.ndarray]]) -> list[Claim]:
    linear = found["lin"]
    ends, starts = linear["weight"][:, -1].mean(0), linear["weight"][:, 0].mean(0)
    turned = [bool(end < 30) for end in ends]
    updates, before = linear["update"][:, -1].mean(0)[:-1], linear["update"][:, 0].mean(0)[:-1]
    better = [bool(end < 45 and end < first) for end, first in zip(updates, before, strict=True)]
    claims = [
        Claim(
            "Feedback comes to lie along the transposed weights where units are in their linear range.",
            f"From {', '.join(f'{a:.0f}°' for a in starts)} to {', '.join(f'{a:.1f}°' for a in ends)}; published "
            + ", ".join(f"{a:.1f}°" for a in _PUBLISHED["lin"]["weight"])
            + ". Below 30° counts as along.",
            "holds" if all(turned) else "holds in part" if any(turned) else "does not hold",
        ),
        Claim(
            "So do the updates of the lower layers, along backpropagation's.",
            f"From {', '.join(f'{a:.0f}°' for a in before)} to {', '.join(f'{a:.1f}°' for a in updates)}; published "
            + ", ".join(f"{a:.1f}°" for a in _PUBLISHED["lin"]["update"][:-1])
            + ". Below 45° and below where it began counts.",
            "holds" if all(better) else "holds in part" if any(better) else "does not hold",
        ),
    ]
    if "nonlin" in found:
        to = {of: found["nonlin"][of][:, -1].mean(0) for of in ("weight", "transported")}
        nearer = [bool(a < b) for a, b in zip(to["transported"], to["weight"], strict=True)]
        claims.append(
            Claim(
                "Where units are saturated feedback lies along what noise carries, phi' W^T phi', and less along W^T.",
                f"To the transposed weights {_mean_text(found['nonlin'], 'weight')}, to what noise carries "
                f"{_mean_text(found['nonlin'], 'transported')}; published "
                + ", ".join(f"{a:.1f}°" for a in _PUBLISHED["nonlin"]["weight"])
                + " and "
                + ", ".join(f"{a:.1f}°" for a in _PUBLISHED["nonlin"]["transported"])
                + ".",
                "holds" if all(nearer) else "holds in part" if any(nearer) else "does not hold",
            )
        )
    return claims
