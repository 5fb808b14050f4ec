"""Learning from streams of slowly moving digits: what it saves to send only what changed from frame to frame."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from vicinal.data import Dataset
from vicinal.graph import Graph
from vicinal.report import Claim, Panel, Section, Series, Table, interval_text
from vicinal.reproduce import Experiment, Found, Run, Size, ahead, verdict
from vicinal.rules import EventBackprop, EventInferenceLearning, Rule
from vicinal.task import Task
from vicinal.train import keys_of
from vicinal_experiments.hardware.networks import held_out
from vicinal_experiments.papers import IL_THEORY
from vicinal_experiments.spiking.moving import Streams, streams
from vicinal_experiments.spiking.networks import DECIDED, each, network, points, rate_table, within
from vicinal_experiments.spiking.operations import KINDS, operations

_MARGIN = 0.005  # of the test accuracy
_FEW = 5  # steps in a frame
_RATES = (0.01, 0.03, 0.1, 0.3)  # units that carry on diverge at larger ones
CARRIED, CARRIED_FEW, AFRESH, QUANTISED = "carried", f"carried, {_FEW} steps", "afresh", "BP by events"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamsSize(Size):
    """Streams and training.

    Attributes:
        updates: Frames that are learned, one update each, and in the runs that choose learning rates.
        streams: The number of streams: the batch size.
        shown: Frames for which a digit is shown.
        counted: Digits of each stream on which operations are counted after training.
        tested: Test examples, each at a place of the paths.
    """

    updates: int
    streams: int = 32
    shown: int = 16
    counted: int = 3
    tested: int = 10_000


def rules(number: int) -> dict[str, Rule]:
    """Inference learning by events that carries on from frame to frame or begins afresh, and backpropagation."""
    carries: dict[str, Any] = {"carry": True, "streams": number}
    return {
        CARRIED: EventInferenceLearning(**carries),
        CARRIED_FEW: EventInferenceLearning(steps=_FEW, **carries),
        AFRESH: EventInferenceLearning(),
        QUANTISED: EventBackprop(),
    }


# ---------------------------------------------------------------------------------------------------- measurement


@eqx.filter_jit
def _learned(rule: Rule, graph: Graph, model: PyTree, shown: Streams, learning_rate: Array, updates: int) -> PyTree:
    """The model after an update on each frame, by gradient descent whose rate falls to 0."""
    optimizer = optax.sgd(optax.linear_schedule(learning_rate, 0.0, updates))
    arrays, rest = eqx.partition(model, eqx.is_array)

    def update(carry: Any, t: Array) -> tuple[Any, None]:
        arrays, memory, state = carry
        done = rule.step(graph, optimizer, eqx.combine(arrays, rest), memory, state, *shown.frame(t))
        return (eqx.filter(done[0], eqx.is_array), done[1], done[2]), None

    begin = (arrays, optimizer.init(graph.trainable(model)), rule.init(graph, model))
    (arrays, _, _), _ = jax.lax.scan(update, begin, jnp.arange(updates))
    return eqx.combine(arrays, rest)


def _trained(rule: Rule, task: Task, data: Dataset, rate: float, seed: int, size: StreamsSize) -> PyTree:
    turns = -(-size.updates // size.shown)
    shown = streams(data, "train", number=size.streams, turns=turns, shown=size.shown, seed=seed)
    return _learned(rule, task.graph, task.build(keys_of(seed)[0]), shown, jnp.asarray(rate), size.updates)


def _accuracy(task: Task, model: PyTree, data: Dataset, size: StreamsSize) -> float:
    """The accuracy on test examples, each at some place of the paths; that of chance if weights are not finite."""
    still = streams(data, "test", number=min(size.tested, len(data.x_test)), turns=1, shown=1, seed=1)
    x, y = still.frame(jnp.asarray(0))
    output, _ = task.graph.feedforward(model, x)
    return float(jnp.mean(jnp.argmax(output, axis=-1) == y)) if bool(jnp.all(jnp.isfinite(output))) else 0.1


def _counted(rule: Rule, task: Task, model: PyTree, size: StreamsSize) -> list[dict[str, float]]:
    """The operations of each frame of some test digits, with the weights held."""
    shown = streams(task.data, "test", number=size.streams, turns=size.counted, shown=size.shown, seed=2)
    state, before, found = rule.init(task.graph, model), None, []
    for t in range(shown.frames):
        x, y = shown.frame(jnp.asarray(t))
        found.append(operations(rule, task.graph, model, x, y, state, before))
        state = _next(rule, task.graph, model, state, x, y)
        before = x if getattr(rule, "carry", False) else None
    return found


@eqx.filter_jit
def _next(rule: Rule, graph: Graph, model: PyTree, state: PyTree, x: Array, y: Array) -> PyTree:
    return rule.credit(graph, model, state, x, y)[1]


def _measure(run: Run[StreamsSize]) -> dict[str, Any]:
    size, numbers, few = run.size, {}, range(min(2, run.seeds))
    for data in size.data:
        task = network(data)
        held, rates, found = held_out(task.data), {}, {}
        for label, rule in rules(size.streams).items():
            run.say(f"{label} on moving {data}")
            means = [
                np.mean([_accuracy(task, _trained(rule, task, held, rate, seed, size), held, size) for seed in few])
                for rate in _RATES
            ]
            chosen = _RATES[int(np.argmax(means))]
            rates[label] = {"rates": _RATES, "accuracy": list(map(float, means)), "chosen": chosen}
            models = [_trained(rule, task, task.data, chosen, seed, size) for seed in range(run.seeds)]
            found[label] = {
                "accuracy": [_accuracy(task, model, task.data, size) for model in models],
                "operations": [_counted(rule, task, model, size) for model in models],
            }
        numbers[data] = {"rates": rates, "found": found}
    return numbers


# ---------------------------------------------------------------------------------------------------------- judge


def _accuracies(found: Found[StreamsSize], data: str, label: str) -> list[float]:
    return found.numbers[data]["found"][label]["accuracy"]


def _by_frame(found: Found[StreamsSize], data: str, label: str, *kinds: str) -> np.ndarray:
    """The sum of some kinds of operations in each frame since a digit appeared, `[seeds, frames]`.

    The first digit is left out: units that carry on have sent nothing before it.
    """
    counts = [
        [sum(frame[kind] for kind in kinds) for frame in of_seed]
        for of_seed in found.numbers[data]["found"][label]["operations"]
    ]
    return np.mean(np.reshape(counts, (len(counts), found.size.counted, found.size.shown))[:, 1:], axis=1)


def _per_frame(found: Found[StreamsSize], data: str, label: str, *kinds: str) -> list[float]:
    return np.mean(_by_frame(found, data, label, *(kinds or KINDS)), axis=1).tolist()


def _labels(found: Found[StreamsSize]) -> Sequence[str]:
    return list(rules(found.size.streams))


def _summary(found: Found[StreamsSize]) -> str:
    def say(data: str) -> str:
        return ", ".join(
            f"{label} {100 * np.mean(_accuracies(found, data, label)):.1f} % with "
            f"{np.mean(_per_frame(found, data, label)):.0f} operations"
            for label in _labels(found)
        )

    return (
        f"Test accuracy after {found.size.updates} frames of {found.size.streams} streams, and synaptic operations of "
        f"a frame of one stream: {each(found.size.data, say)}."
    )


def _saves(found: Found[StreamsSize]) -> Claim:
    signs, words = [], []
    for data in found.size.data:
        ours, theirs = (_per_frame(found, data, label) for label in (CARRIED, AFRESH))
        signs.append(ahead(theirs, ours))
        words.append(f"on {data} {np.mean(ours):.0f} against {np.mean(theirs):.0f}")
    return Claim(
        "Ours: on a stream, units that carry on from frame to frame take fewer operations than if they begin afresh.",
        f"Operations of a frame, all kinds: {'; '.join(words)}.",
        verdict(signs),
    )


def _against_backpropagation(found: Found[StreamsSize]) -> Claim:
    signs, words = [], []
    for data in found.size.data:
        theirs = _per_frame(found, data, QUANTISED)
        for label in (CARRIED, CARRIED_FEW):
            ours = _per_frame(found, data, label)
            signs.append(ahead(theirs, ours))
            words.append(f"{data}, {label}: {np.mean(ours):.0f} against {np.mean(theirs):.0f}")
    return Claim(
        "Ours: on a stream, inference learning that carries on takes fewer operations than backpropagation by events.",
        f"Operations of a frame, all kinds: {'; '.join(words)}.",
        verdict(signs),
    )


def _as_accurate(found: Found[StreamsSize]) -> Claim:
    signs, words = [], []
    for data in found.size.data:
        for label in (CARRIED, CARRIED_FEW):
            ours, theirs = (_accuracies(found, data, name) for name in (label, AFRESH))
            signs.append(within(ours, theirs, _MARGIN))
            words.append(f"{data}, {label}: {points(ours, theirs)} ({DECIDED[signs[-1]]})")
    return Claim(
        f"Ours: carrying on costs at most {100 * _MARGIN:g} points of accuracy.",
        f"Points to beginning afresh, and whether within, by the 95 % interval: {'; '.join(words)}.",
        verdict(signs),
    )


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[StreamsSize]) -> list[Section]:
    sections = []
    for data in found.size.data:
        rates = rate_table(found.numbers[data]["rates"], "Held-out accuracy (%) by learning rate, and the chosen rate")
        frames = list(map(float, range(1, found.size.shown + 1)))
        lines = [Series(label, frames, _by_frame(found, data, label, *KINDS).tolist()) for label in _labels(found)]
        title = f"Operations of a frame, {data}"
        panel = Panel(title, "frame since the digit appeared", "synaptic operations", lines, log_y=True)
        sections.append(Section(f"On moving {data}", _NOTE, tables=[_table(found, data), rates], panels=[panel]))
    return sections


_NOTE = (
    "Operations of one stream in one frame on trained networks, as in `spiking/learning`. Sweep: what the first layer "
    "reads of a new frame, all pixels that are not 0 or those that changed, and the sweep of events."
)


def _table(found: Found[StreamsSize], data: str) -> Table:
    table: list[list[Any]] = [
        [
            label,
            interval_text(_accuracies(found, data, label), 100.0),
            *(interval_text(_per_frame(found, data, label, kind)) for kind in KINDS),
        ]
        for label in _labels(found)
    ]
    title = "Test accuracy (%) and synaptic operations of a frame (mean over seeds ± half a 95 % interval)"
    return Table(title, ["rule", "accuracy", *KINDS], table)


def _differences(found: Found[StreamsSize]) -> list[str]:
    return [
        "The paper has no spiking network and no streams.",
        f"Digits move by at most {'a pixel' if found.quick else 'three pixels'} from their place, on a path of their "
        f"own, and change every {found.size.shown} frames; labels are shown with every frame.",
        "Gradient descent, one update a frame, whose rate falls to 0; a first rate for each rule, of four, chosen on "
        "held-out training examples by two seeds.",
        "Backpropagation by events begins afresh with each frame; one that sends only changes was not tried.",
    ]


STREAMS = Experiment(
    name="spiking/streams",
    title="Inference learning by events on streams",
    topic="accuracy and operations on slowly moving digits, carried from frame to frame or afresh",
    paper=IL_THEORY,
    sizes={
        "quick": StreamsSize(data=("digits",), updates=160, tested=300),
        "full": StreamsSize(data=("mnist",), updates=2500),
    },
    time={"full": "thirty minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_saves, _against_backpropagation, _as_accurate],
    sections=_sections,
    differences=_differences,
)
"""What it saves on streams to send only what changed."""
