"""Where inference learning by events tends to, as thresholds and steps fall; and how many events it takes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal import events, nn
from vicinal.data import load
from vicinal.events import Graded, Ternary
from vicinal.graph import Graph, Values, capture
from vicinal.inference import Simultaneous
from vicinal.report import Claim, Panel, Section, Series, Table, interval_text, mean_interval
from vicinal.reproduce import Experiment, Found, Run, Size, supported
from vicinal.rules import EventInferenceLearning, InferenceLearning, Rule
from vicinal.train import keys_of
from vicinal_experiments.papers import IL_THEORY

_STEPS, _STEP_SIZE = 20, 0.1
_ERROR = 0.25  # threshold of errors, in thresholds of values
_LONG = 400  # steps after which activities have settled, as far as single precision shows
_DURATION = 20.0  # time constants of the membrane
_TOLERANCE = 0.15  # of a slope on logarithmic axes, as theory has it for a limit of first order

GRADED, TERNARY, SETTLED, FLOW = "graded", "ternary", "settled", "flow"
CURVES = {
    GRADED: "graded events: the update",
    TERNARY: "ternary events: the update",
    SETTLED: "graded events: settled values",
    FLOW: "ternary events: settled values, threshold = half a step",
}
"""What is measured, by its key in the numbers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsSize(Size):
    """The points at which distances are measured.

    Attributes:
        thresholds: Thresholds of values.
        time_steps: Time steps, in time constants of the membrane.
        steps: Numbers of inference steps for the counts.
        batch_size: Examples.
    """

    thresholds: tuple[float, ...] = (0.1, 0.05, 0.025, 0.0125, 0.00625)
    time_steps: tuple[float, ...] = (0.2, 0.1, 0.05, 0.025)
    steps: tuple[int, ...] = (20, 40, 80, 160)
    batch_size: int = 32


# ---------------------------------------------------------------------------------------------------- measurement


def by_events(code: type[events.Code], threshold: Any, steps: int = _STEPS, step_size: Any = _STEP_SIZE) -> Rule:
    """Inference learning by events of one kind, errors with a quarter of the threshold."""
    sent, error = code(threshold), code(_ERROR * threshold)
    return EventInferenceLearning(steps=steps, step_size=step_size, activity=sent, error=error)


def _network(seed: int, size: LimitsSize) -> tuple[Graph, PyTree, Array, Array]:
    """A trained-size network 64-32-16-10 with its first weights, and a batch of the digits."""
    data = load("digits").flattened()
    model = nn.MLP((64, 32, 16, 10), activation="tanh", vertex_at="pre", key=keys_of(seed)[0])
    rows = np.random.default_rng(seed).choice(len(data.x_train), size.batch_size, replace=False)
    x, y = jnp.asarray(data.x_train[rows]), jnp.asarray(data.y_train[rows])
    return capture(model, x[0]), model, x, y


@eqx.filter_jit
def _credit(rule: Rule, graph: Graph, model: PyTree, x: Array, y: Array) -> tuple[Values, PyTree, Array]:
    """Values, update and the number of events of each example."""
    _, gradient, _, info = rule.value_and_grad(graph, model, (), x, y)
    values = rule.credit(graph, model, (), x, y)[0].values
    if info.events is None:
        return values, gradient, jnp.zeros(())
    sent = jax.tree.leaves((info.events.values, info.events.errors))
    return values, gradient, jnp.sum(jnp.stack([jnp.mean(count.astype(float)) for count in sent]))


def _distance(found: PyTree, expected: PyTree, relative: bool = True) -> float:
    """The root mean square of a difference; or the norm of a difference over that of what is expected."""
    a, b = (jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)]) for tree in (found, expected))
    return float(jnp.linalg.norm(a - b) / (jnp.linalg.norm(b) if relative else math.sqrt(len(a))))


def _measure(run: Run[LimitsSize]) -> dict[str, Any]:
    size = run.size
    curves: dict[str, list[list[float]]] = {name: [] for name in CURVES}
    counts = []
    for seed in range(run.seeds):
        run.say(f"network {seed + 1} of {run.seeds}")
        at = _network(seed, size)
        _, update, _ = _credit(InferenceLearning(inference=Simultaneous(steps=_STEPS, step_size=_STEP_SIZE)), *at)
        settled, _, _ = _credit(InferenceLearning(inference=Simultaneous(steps=10 * _LONG, step_size=_STEP_SIZE)), *at)
        for name, code in ((GRADED, Graded), (TERNARY, Ternary)):
            found = [_credit(by_events(code, threshold), *at)[1] for threshold in size.thresholds]
            curves[name].append([_distance(gradient, update) for gradient in found])
        found = [_credit(by_events(Graded, threshold, _LONG), *at)[0] for threshold in size.thresholds]
        curves[SETTLED].append([_distance(values, settled, relative=False) for values in found])
        found = []
        for dt in size.time_steps:
            steps, step_size = round(_DURATION / dt), float(events.step_size(dt, 1.0))
            found.append(_credit(by_events(Ternary, dt / 2, steps, step_size), *at)[0])
        curves[FLOW].append([_distance(values, settled, relative=False) for values in found])
        counts.append([float(_credit(by_events(Graded, 0.05, steps), *at)[2]) for steps in size.steps])
    return {"curves": curves, "events": counts}


# ---------------------------------------------------------------------------------------------------------- judge


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of a line through points on logarithmic axes, by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _places(found: Found[LimitsSize], name: str) -> tuple[float, ...]:
    return found.size.time_steps if name == FLOW else found.size.thresholds


def slopes(found: Found[LimitsSize], name: str) -> list[float]:
    """The slope of a distance in threshold or time step, for each network."""
    return [slope(_places(found, name), distances) for distances in found.numbers["curves"][name]]


def _first_order(found: Found[LimitsSize], name: str) -> bool:
    """Whether the mean slope is that of a limit of first order."""
    return abs(float(np.mean(slopes(found, name))) - 1) < _TOLERANCE


def _ends(found: Found[LimitsSize], name: str) -> tuple[float, float]:
    """The mean distance at the first and at the last place."""
    distances = np.mean(found.numbers["curves"][name], axis=0)
    return float(distances[0]), float(distances[-1])


def _summary(found: Found[LimitsSize]) -> str:
    first, last = _ends(found, GRADED)
    return (
        f"On a network 64-32-16-10 of tanh units, the update by graded events is {first:.2g} of its length away from "
        f"inference learning's at a threshold of {found.size.thresholds[0]:g} and {last:.2g} at "
        f"{found.size.thresholds[-1]:g}."
    )


def _limit(found: Found[LimitsSize]) -> Claim:
    words = ", ".join(f"{CURVES[name]} {_slope_text(found, name)}" for name in (GRADED, SETTLED))
    return Claim(
        "Ours: as thresholds fall, learning by graded events becomes inference learning, in first order of them.",
        f"Slopes on logarithmic axes: {words}; 1 is first order. Held to within {_TOLERANCE:g}.",
        supported([_first_order(found, name) for name in (GRADED, SETTLED)]),
    )


def _ternary(found: Found[LimitsSize]) -> Claim:
    first, last = _ends(found, TERNARY)
    return Claim(
        "Ours: with ternary events it does not as thresholds fall at fixed steps, but it does if they fall with the "
        "step.",
        f"At fixed steps the distance of the update goes from {first:.2g} to {last:.2g} of its length; with thresholds "
        f"of half a step the distance of settled values falls with a slope of {_slope_text(found, FLOW)}.",
        supported([last > 0.5, _first_order(found, FLOW)]),
    )


def _bounded(found: Found[LimitsSize]) -> Claim:
    by_steps = np.mean(found.numbers["events"], axis=0)
    more, fewer = (by_steps[found.size.steps.index(steps)] for steps in (80, 20))
    words = ", ".join(f"{steps}: {count:.1f}" for steps, count in zip(found.size.steps, by_steps, strict=True))
    return Claim(
        "Ours: events stop growing with the number of steps: fewer than twice as many in 80 steps as in 20.",
        f"Events per example with a threshold of 0.05, by steps: {words}.",
        supported([bool(more < 2 * fewer)]),
    )


def _slope_text(found: Found[LimitsSize], name: str) -> str:
    mean, half = mean_interval(slopes(found, name))
    return f"{mean:.2f}" + ("" if half is None else f" ± {half:.2f}")


def _sections(found: Found[LimitsSize]) -> list[Section]:
    curves = found.numbers["curves"]
    by_threshold = [Series(CURVES[name], list(found.size.thresholds), curves[name]) for name in (GRADED, TERNARY)]
    settled = [Series(CURVES[SETTLED], list(found.size.thresholds), curves[SETTLED])]
    flow = [Series(CURVES[FLOW], list(found.size.time_steps), curves[FLOW])]
    update = Panel(
        "Distance of the update from inference learning's",
        "threshold of values",
        "relative distance",
        by_threshold,
        log_x=True,
        log_y=True,
        note=f"{_STEPS} steps of {_STEP_SIZE:g}; errors have a quarter of the threshold.",
    )
    values = [
        Panel(title, label, "root mean square", series, log_x=True, log_y=True)
        for title, label, series in (
            ("Distance of settled values from equilibrium, graded events", "threshold of values", settled),
            ("Distance of settled values from equilibrium, ternary events", "time step (time constants)", flow),
        )
    ]
    counts = [Series("events", list(map(float, found.size.steps)), found.numbers["events"])]
    return [
        Section("Limits", "", tables=[_slope_table(found)], panels=[update, *values]),
        Section(
            "Events on steps",
            "Events of values and errors while activities settle, for each example, with a threshold of 0.05.",
            panels=[Panel("Events", "inference steps", "events per example", counts, log_x=True)],
        ),
    ]


def _slope_table(found: Found[LimitsSize]) -> Table:
    rows: list[list[Any]] = [
        [CURVES[name], "time step" if name == FLOW else "threshold", interval_text(slopes(found, name))]
        for name in CURVES
    ]
    return Table("Slopes on logarithmic axes (mean over networks ± half a 95 % interval)", ["", "in", "slope"], rows)


def _differences(found: Found[LimitsSize]) -> list[str]:
    return [
        "The paper ends with the wish that something akin to inference learning be found in spiking networks, and has "
        "none: code, thresholds and limits are ours.",
        "Networks with their initial weights; single precision.",
    ]


LIMITS = Experiment(
    name="spiking/limits",
    title="Where inference learning by events tends to",
    topic="distance to inference learning on thresholds and steps, graded and ternary events",
    paper=IL_THEORY,
    sizes={"quick": LimitsSize(data=("digits",), batch_size=8), "full": LimitsSize(data=("digits",))},
    time={"full": "three minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_limit, _ternary, _bounded],
    sections=_sections,
    differences=_differences,
)
"""Where learning by events tends to as thresholds and steps fall; and events on the number of steps."""
