"""Feedback that aligns with weights which are held: figure 3 of arXiv 2212.10249."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from vicinal.losses import squared_error
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size
from vicinal.rules import Conductances, Microcircuit, PhaselessAlignment, TimeConstants
from vicinal.sweeping import interval_text
from vicinal_experiments.papers import PAL
from vicinal_experiments.phaseless.alignment_runs import CONDITIONS, PROBE, Angles, Condition, Learner, train, voltages

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentSize(Size):
    """What is held while feedback learns, and how fast it learns.

    Attributes:
        conditions: Weights, and how long feedback learns beside them.
        feedback_speed: Learning rate of the feedback over the published one.
        apical_speed: Learning rate of the circuit's weights from interneurons over the published one.
        batch_size: Copies of the network that feedback learns from.
    """

    conditions: tuple[Condition, ...] = CONDITIONS
    feedback_speed: float = 1.0
    apical_speed: float = 1.0
    batch_size: int = 1


# ---------------------------------------------------------------------------------------------------- measurement

Make = Callable[[AlignmentSize, Condition], Learner]


def _neurons(size: AlignmentSize, condition: Condition) -> PhaselessAlignment:
    return PhaselessAlignment(feedback_rate=size.feedback_speed * condition.feedback_rate, **_settings(size))


def _circuit(size: AlignmentSize, condition: Condition) -> Microcircuit:
    return Microcircuit(
        feedback_rate=size.feedback_speed * condition.feedback_rate,
        apical_rate=size.apical_speed * condition.apical_rate,
        interneuron_rate=0.0,
        **_settings(size),
    )


def _settings(size: AlignmentSize) -> dict[str, Any]:
    return {
        "times": _TIMES,
        "sigma": 0.05,
        "decay": 1e-5,
        "batch_size": size.batch_size,
        "output_activation": "sigmoid",
        "loss": squared_error,
    }


def _attenuations() -> list[float]:
    """From dendrite to soma, of each layer of the circuit."""
    shares = Conductances()
    hidden = shares.basal / (shares.leak + shares.basal + shares.apical)
    return [hidden] * 3 + [shares.basal / (shares.leak + shares.basal)]


def _measure(run: Run[AlignmentSize], make: Make, factors: list[float]) -> dict[str, Any]:
    size = run.size
    found, pace = {}, {}
    for condition in size.conditions:
        run.say(f"{condition.name}, {condition.presentations} presentations, {run.seeds} seeds")
        start = time.perf_counter()
        angles = train(make(size, condition), condition, factors, run.seeds)
        found[condition.name] = {of: values.tolist() for of, values in angles.items()}
        simulated = condition.presentations * _TIMES.presentation * run.seeds
        pace[condition.name] = simulated / (time.perf_counter() - start)
    first = size.conditions[0]
    return {"angles": found, "ms/s": pace, "voltages": voltages(make(size, first), first, factors)}


# ---------------------------------------------------------------------------------------------------------- judge

_OF = {
    "weight": "feedback to the transposed weight",
    "transported": "feedback to what noise carries, phi' W^T phi'",
    "update": "update to backpropagation's",
    "standing": "update to backpropagation's, weights from interneurons as they stand",
}
_LAYERS = {"weight": ("2", "3", "4"), "transported": ("2", "3", "4")}
_ALL_LAYERS = ("1", "2", "3", "4")


def _angles_in(found: Found[AlignmentSize]) -> dict[str, Angles]:
    """The stored angles as arrays; NaN where there is no number."""
    stored = found.numbers["angles"]
    return {name: {of: np.asarray(row, float) for of, row in rows.items()} for name, rows in stored.items()}


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


def _summary(found: Found[AlignmentSize]) -> str:
    return (
        "Angle of feedback to the weights at the end: "
        + "; ".join(f"{name} {_text(_means(runs, 'weight'))}" for name, runs in _angles_in(found).items())
        + ". Simulated time per second of computing, all seeds together and compilation included: "
        + ", ".join(f"{name} {value:.0f} ms" for name, value in found.numbers["ms/s"].items())
        + "."
    )


def _feedback_aligns(found: Found[AlignmentSize]) -> Claim:
    runs = _angles_in(found)["lin"]
    ends, starts = _means(runs, "weight"), _means(runs, "weight", 0)
    return _claim(
        "Feedback comes to lie along the transposed weights where units are in their linear range.",
        f"From {_text(starts)} to {_text(ends)}; published {_text(_PUBLISHED['lin']['weight'])}. Below 30° counts.",
        [end < 30 for end in ends],
        runs,
    )


def _updates_align(found: Found[AlignmentSize]) -> Claim:
    runs = _angles_in(found)["lin"]
    updates, before = _means(runs, "update")[:-1], _means(runs, "update", 0)[:-1]
    standing = ""
    if "standing" in runs:
        standing = f" With weights from interneurons as they stand: {_text(_means(runs, 'standing')[:-1])}."
    return _claim(
        "So do the updates of the lower layers, along backpropagation's.",
        f"From {_text(before)} to {_text(updates)}; published {_text(_PUBLISHED['lin']['update'][:-1])}. Below 45° and "
        f"below where it began counts.{standing}",
        [end < 45 and end < first for end, first in zip(updates, before, strict=True)],
        runs,
    )


def _saturated(found: Found[AlignmentSize]) -> Claim | None:
    runs = _angles_in(found).get("nonlin")
    if runs is None:
        return None
    weight, transported, published = _means(runs, "weight"), _means(runs, "transported"), _PUBLISHED["nonlin"]
    return _claim(
        "Where units are saturated feedback lies along what noise carries, phi' W^T phi', and less along W^T.",
        f"To the transposed weights {_text(weight)}, to what noise carries {_text(transported)}; published "
        f"{_text(published['weight'])} and {_text(published['transported'])}.",
        [a < b for a, b in zip(transported, weight, strict=True)],
        runs,
    )


def _differences(found: Found[AlignmentSize]) -> list[str]:
    size = found.size
    shorter = [
        f"{size.conditions[0].presentations} presentations of 1 ms instead of {CONDITIONS[0].presentations:,}. "
        f"Feedback learns {size.feedback_speed:g} times as fast, from {size.batch_size} copies of the network.",
        "Weights of the linear range alone.",
    ]
    return [
        *(shorter if found.quick else []),
        "Weights are held and inputs uniform in [0, 1], new ones in each presentation (published: 100 in turn). There "
        "is no target while feedback learns. Updates are of one example each, noise off and with targets of a second "
        f"network, of weights drawn alike; angles are means over {PROBE} examples.",
        "First feedback is normal, of deviation 1 over the root of a layer's inputs.",
    ]


def _differences_of_neurons(found: Found[AlignmentSize]) -> list[str]:
    return [
        "The published arrays are of the microcircuit; these are neurons of one voltage with an error beside it "
        "(`pal/microcircuit` has the circuit). The error of the output is of its potentials.",
        *_differences(found),
    ]


def _differences_of_circuit(found: Found[AlignmentSize]) -> list[str]:
    speed = found.size.apical_speed
    return [
        "Weights hold the attenuation from dendrite to soma, by which those drawn are multiplied.",
        "As in the published code updates are measured after weights from interneurons are set to minus the feedback. "
        "As they stand those weights still follow noise from the layers above, and what is left of it in the dendrites "
        "outweighs the errors of the lower layers: rows of their own have that.",
        *([f"Weights from interneurons learn {speed:g} times as fast."] if speed != 1 else []),
        *_differences(found),
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[AlignmentSize]) -> list[Section]:
    sections = [_section(name, runs) for name, runs in _angles_in(found).items()]
    if "voltages" in found.numbers:  # which the first stored runs do not have
        sections.append(_voltage_section(found.numbers["voltages"]))
    return sections


def _section(name: str, runs: Angles) -> Section:
    lines: list[list[Any]] = []
    panels = []
    for of in (of for of in _OF if of in runs):
        published, layers = _PUBLISHED[name].get(of), _LAYERS.get(of, _ALL_LAYERS)
        for i, layer in enumerate(layers):
            first, end = (interval_text([float(v) for v in runs[of][:, at, i]]) for at in (0, -1))
            lines.append([f"{_OF[of]}, layer {layer}", first, end, None if published is None else published[i]])
        series = [
            Series(f"layer {layer}", runs["time"].tolist(), runs[of][:, :, i].tolist())
            for i, layer in enumerate(layers)
        ]
        panels.append(Panel(f"{name}: {_OF[of]}", "time (ms)", "angle (°)", series))
    heading = "Angles (°): mean over seeds ± half a 95 % interval"
    return Section(name, "", tables=[Table(heading, ["of", "first", "end", "published"], lines)], panels=panels)


def _voltage_section(voltages: dict[str, Any]) -> Section:
    series = [Series(of, voltages["time"], [voltage]) for of, voltage in voltages["of"].items()]
    return Section(
        "Voltages",
        "Two inputs are shown to a network at rest. Rates are those of prospective voltages: they follow "
        "a new input at once, while the membrane is on its way.",
        panels=[Panel(f"Voltages of one unit of {voltages['layer']}", "time (ms)", "voltage", series)],
    )


def _experiment(
    name: str,
    title: str,
    topic: str,
    make: Make,
    factors: list[float],
    quick: AlignmentSize,
    differences: Callable[[Found[AlignmentSize]], list[str]],
) -> Experiment:
    return Experiment(
        name=f"pal/{name}",
        title=title,
        topic=topic,
        paper=PAL,
        sizes={"quick": quick, "full": AlignmentSize()},
        time={"full": "ten minutes"},
        measure=lambda run: _measure(run, make, factors),
        summary=_summary,
        claims=[_feedback_aligns, _updates_align, _saturated],
        sections=_sections,
        differences=differences,
        seeds=10,
    )


_QUICK = AlignmentSize(
    conditions=(dataclasses.replace(CONDITIONS[0], presentations=150),), feedback_speed=20.0, batch_size=50
)

TEACHER = _experiment(
    "teacher",
    "Feedback that learns from noise",
    "feedback learned from noise beside held weights: angles along time",
    _neurons,
    [1.0] * 4,
    _QUICK,
    _differences_of_neurons,
)
"""Feedback of a 5-20-10-20-5 network beside its weights, which are held, along time."""

MICROCIRCUIT = _experiment(
    "microcircuit",
    "The cortical microcircuit: feedback that learns from noise",
    "the same in a cortical microcircuit, all plasticities on",
    _circuit,
    _attenuations(),
    dataclasses.replace(_QUICK, feedback_speed=30.0, apical_speed=4.0),
    _differences_of_circuit,
)
"""The same in the cortical microcircuit, whose weights from interneurons learn too."""
