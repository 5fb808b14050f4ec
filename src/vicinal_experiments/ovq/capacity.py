"""What an untrained OVQ layer recalls: the number of facts against the number of centroids, and length alone."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vicinal.attention import gated_delta_rule, linear_attention, mesa_attention, ovq_attention
from vicinal.report import Claim, Panel, Section, Series, Table
from vicinal.reproduce import Experiment, Found, Run, Size, supported
from vicinal.sweeping import interval_text
from vicinal_experiments.papers import OVQ

_FEATURES, _CLASSES, _TEMPERATURE, _CHUNK = 64, 64, 60.0, 128
_NOISE = 0.05  # standard deviation of each component of a repeated key, before it is taken to norm 1
_SPEC = {
    ("distinct", 2048): {"OVQ 512": 0.25, "OVQ 2048": 0.51, "linear": 0.20, "delta": 0.06},
    ("distinct", 8192): {"OVQ 512": 0.12, "OVQ 2048": 0.22, "linear": 0.08, "delta": 0.03, "ridge": 0.08},
    ("distinct", 32768): {"OVQ 512": 0.06, "OVQ 2048": 0.12, "linear": 0.03},
    ("repeated", 32768): {"OVQ 512": 0.56, "OVQ 2048": 1.00, "OVQ 1024": 0.96, "linear": 0.32},
}
"""Recall measured apart from this library, from the same equations, by (kind of keys, length)."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Facts that are read once, one a token, and asked for by their keys.

    Attributes:
        keys: Of each token, norm 1, `[time, features]`.
        values: The class of each token, `[time]`.
        asked: Keys that are asked for, `[questions, features]`.
        answers: Their classes, `[questions]`.
    """

    keys: Float[np.ndarray, "time features"]
    values: Int[np.ndarray, " time"]
    asked: Float[np.ndarray, "questions features"]
    answers: Int[np.ndarray, " questions"]


def distinct(time: int, questions: int, seed: int) -> Facts:
    """As many facts as tokens: random keys, each read once."""
    rng = np.random.default_rng(seed)
    keys, values = _unit(rng.normal(size=(time, _FEATURES))), rng.integers(0, _CLASSES, time)
    chosen = rng.choice(time, questions, replace=False)
    return Facts(keys, values, keys[chosen], values[chosen])


def repeated(facts: int, time: int, questions: int, seed: int) -> Facts:
    """A fixed number of facts, whose keys come again and again with a little noise."""
    rng = np.random.default_rng(seed)
    prototypes, classes = _unit(rng.normal(size=(facts, _FEATURES))), rng.integers(0, _CLASSES, facts)
    read = np.concatenate([rng.permutation(facts) for _ in range(-(-time // facts))])[:time]
    keys = _unit(prototypes[read] + _NOISE * rng.normal(size=(time, _FEATURES)))
    chosen = rng.choice(facts, min(questions, facts), replace=False)
    return Facts(keys, classes[read], prototypes[chosen], classes[chosen])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


# ------------------------------------------------------------------------------------------------ memories

Memory = Callable[..., tuple[Array, Any]]
"""`memory(q, k, v, initial_state=None) -> (outputs, state)` on `[1, time, 1, features]`."""


def ovq(num_centroids: int, join: str = "all", growth: str = "plateau") -> Memory:
    """OVQ-attention with so many centroids."""

    def memory(q: Array, k: Array, v: Array, initial_state: Any = None) -> tuple[Array, Any]:
        return ovq_attention(
            q,
            k,
            v,
            beta=_TEMPERATURE,
            chunk_size=_CHUNK,
            num_centroids=num_centroids,
            join=join,
            growth=growth,
            initial_state=initial_state,
            key=jax.random.key(0) if join == "random" else None,
        )

    return memory


def linear(q: Array, k: Array, v: Array, initial_state: Any = None) -> tuple[Array, Any]:
    """Linear attention: the sum of outer products of keys and values."""
    return linear_attention(q, k, v, initial_state=initial_state)


def delta(q: Array, k: Array, v: Array, initial_state: Any = None) -> tuple[Array, Any]:
    """The delta rule: what a key recalls is replaced by its value, nothing is forgotten otherwise."""
    whole = jnp.ones(k.shape[:3], k.dtype)
    return gated_delta_rule(q, k, v, jnp.zeros_like(whole), whole, initial_state=initial_state)


def ridge(q: Array, k: Array, v: Array, initial_state: Any = None) -> tuple[Array, Any]:
    """Ridge regression of values on keys, which the Mesa layer computes."""
    whole = jnp.ones(k.shape[:3], k.dtype)
    return mesa_attention(
        q, k, v, jnp.zeros_like(whole), whole, ridge=0.25, iterations=_FEATURES, initial_state=initial_state
    )


def recall(memory: Memory, facts: Facts) -> float:
    """The share of questions whose class the memory recalls as the most likely, after reading all facts.

    A question is a token without key or value, so that it leaves no trace before a chunk is full: all that fit into
    one are asked of the same state.
    """
    keys = jnp.asarray(facts.keys, jnp.float32)[None, :, None]
    values = jax.nn.one_hot(jnp.asarray(facts.values), _CLASSES)[None, :, None]
    asked = jnp.asarray(facts.asked, jnp.float32)
    groups = [asked[i : i + _CHUNK - 1] for i in range(0, len(asked), _CHUNK - 1)]
    read, ask = _reading(memory), _asking(memory)
    state = read(keys, values)
    found = np.concatenate([np.asarray(ask(group, state)) for group in groups])
    return float(np.mean(found == facts.answers))


@functools.cache
def _reading(memory: Memory) -> Callable[[Array, Array], Any]:
    return jax.jit(lambda keys, values: memory(keys, keys, values)[1])


@functools.cache
def _asking(memory: Memory) -> Callable[[Array, Any], Int[Array, " questions"]]:
    @jax.jit
    def ask(asked: Array, state: Any) -> Array:
        q = asked[None, :, None]
        nothing = jnp.zeros((1, len(asked), 1, _CLASSES), asked.dtype)
        outputs, _ = memory(q, jnp.zeros_like(q), nothing, initial_state=state)
        return jnp.argmax(outputs[0, :, 0], axis=-1)

    return ask


# ---------------------------------------------------------------------------------------------------- measurement

Recalled = dict[str, dict[str, list[float]]]
"""Recall of each seed, by memory and length (as text, for JSON)."""
_BASELINES: dict[str, Memory] = {"linear": linear, "delta": delta, "ridge": ridge}
_INITIALISATIONS: dict[str, dict[str, str]] = {
    "spread, join all": {},
    "spread, join old": {"join": "old"},
    "random": {"join": "random"},
    "min growth": {"growth": "min"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CapacitySize(Size):
    """How many facts, tokens and centroids.

    Attributes:
        lengths: Tokens that are read.
        centroids: Numbers of centroids, the middle one of which is initialised in several ways.
        facts_fixed: Facts where their number does not grow with the length.
        questions: Facts that are asked for.
    """

    lengths: tuple[int, ...]
    centroids: tuple[int, ...]
    facts_fixed: int
    questions: int = 508


def _measure(run: Run[CapacitySize]) -> dict[str, Any]:
    size = run.size
    memories = {f"OVQ {n}": ovq(n) for n in size.centroids} | _BASELINES
    middle, long = size.centroids[1], size.lengths[-1]
    ways = {label: ovq(middle, **options) for label, options in _INITIALISATIONS.items()}
    draw: dict[str, Callable[[int, int], Facts]] = {
        "distinct": lambda time, seed: distinct(time, size.questions, seed),
        "repeated": lambda time, seed: repeated(size.facts_fixed, time, size.questions, seed),
    }
    found: dict[str, Any] = {kind: _recalled(run, memories, kind, size.lengths, draw[kind]) for kind in draw}
    return found | {"ways": {kind: _recalled(run, ways, kind, [long], draw[kind]) for kind in draw}}


def _recalled(
    run: Run, memories: Mapping[str, Memory], kind: str, lengths: Sequence[int], draw: Callable[[int, int], Facts]
) -> Recalled:
    found: Recalled = {}
    for label, memory in memories.items():
        run.say(f"{label}, {kind} keys, {run.seeds} seeds")
        found[label] = {str(time): [recall(memory, draw(time, seed)) for seed in range(run.seeds)] for time in lengths}
    return found


# ---------------------------------------------------------------------------------------------------------- judge


def _sections(found: Found[CapacitySize]) -> list[Section]:
    lengths, fixed = found.size.lengths, found.size.facts_fixed
    texts = {
        "distinct": ("As many facts as tokens", "Every token is another fact. Chance is 1/64."),
        "repeated": (f"{fixed} facts at any length", "The same facts come again and again, with noise in their keys."),
    }
    return [
        *(
            Section(
                heading,
                text,
                tables=[_recall_table(kind, found.numbers[kind], lengths)],
                panels=[_recall_panel(heading, found.numbers[kind], lengths)],
            )
            for kind, (heading, text) in texts.items()
        ),
        Section(
            "How centroids are initialised",
            f"{found.size.centroids[1]} centroids, {lengths[-1]} tokens.",
            tables=[_ways_table(found.numbers["ways"])],
        ),
    ]


def _recall_table(kind: str, found: Recalled, lengths: Sequence[int]) -> Table:
    rows: list[list[Any]] = []
    for label, by_time in found.items():
        row: list[Any] = [label]
        for time in lengths:
            apart = _SPEC.get((kind, time), {}).get(label)
            measured = interval_text(by_time[str(time)])
            row.append(measured if apart is None else f"{measured} ({apart:.2f})")
        rows.append(row)
    title = "Share recalled, by length (mean over seeds ± half a 95 % interval; in brackets as measured apart)"
    return Table(title, ["memory", *map(str, lengths)], rows)


def _recall_panel(title: str, found: Recalled, lengths: Sequence[int]) -> Panel:
    series = []
    for label, by_time in found.items():
        repetitions = np.array([by_time[str(time)] for time in lengths]).T.tolist()
        series.append(Series(label, [float(time) for time in lengths], repetitions))
    return Panel(title, "tokens", "share recalled", series, log_x=True)


def _ways_table(ablated: dict[str, Recalled]) -> Table:
    labels = list(ablated["distinct"])
    rows: list[list[Any]] = [
        [label, *(interval_text(next(iter(ablated[kind][label].values()))) for kind in ablated)] for label in labels
    ]
    return Table("Share recalled", ["how", "distinct facts", "repeated facts"], rows)


def _mean(found: Recalled, label: str, time: int) -> float:
    return float(np.mean(found[label][str(time)]))


def _summary(found: Found[CapacitySize]) -> str:
    long = found.size.lengths[-1]
    words = {
        kind: ", ".join(f"{label} {_mean(found.numbers[kind], label, long):.2f}" for label in found.numbers[kind])
        for kind in ("distinct", "repeated")
    }
    return (
        f"At {long} tokens, all facts different: {words['distinct']}. {found.size.facts_fixed} facts again and again: "
        f"{words['repeated']}."
    )


def _spread(found: Found[CapacitySize]) -> Claim:
    gains = {}
    for kind, ways in found.numbers["ways"].items():
        spread, random = (float(np.mean(list(ways[label].values()))) for label in ("spread, join all", "random"))
        gains[kind] = spread - random
    return Claim(
        "Centroids that begin where the dictionary is poorest recall more than random ones.",
        "Gain in the share recalled: " + ", ".join(f"{kind} facts {gain:+.3f}" for kind, gain in gains.items()) + ".",
        supported([gain > 0.01 for gain in gains.values()]),
    )


def _at_any_length(found: Found[CapacitySize]) -> Claim:
    lengths, fixed = found.size.lengths, found.size.facts_fixed
    enough = [f"OVQ {n}" for n in found.size.centroids if n >= 2 * fixed]
    kept = {label: [_mean(found.numbers["repeated"], label, time) for time in lengths] for label in enough}
    return Claim(
        "Facts that are few against the centroids are recalled at any length (arXiv 2602.03922: recall to 64 000 "
        "tokens).",
        f"{fixed} facts, at {', '.join(map(str, lengths))} tokens: "
        + "; ".join(f"{label} " + ", ".join(f"{value:.2f}" for value in row) for label, row in kept.items())
        + ". Above .95 counts as recalled.",
        supported([min(row) > 0.95 for row in kept.values()]),
    )


def _runs_out(found: Found[CapacitySize]) -> Claim:
    sizes, lengths, recalled = found.size.centroids, found.size.lengths, found.numbers["distinct"]
    label, long = f"OVQ {sizes[-1]}", lengths[-1]
    others = {other: _mean(recalled, other, long) for other in _BASELINES}
    rows = np.array([[_mean(recalled, f"OVQ {n}", time) for time in lengths] for n in sizes])
    falls, rises = np.all(np.diff(rows, axis=1) < 0), np.all(np.diff(rows, axis=0) > 0)
    above_chance = rows.min() > 1.5 / _CLASSES
    return Claim(
        "Facts that are many against the centroids are not: recall falls as their ratio does.",
        f"{long} facts: {label} {_mean(recalled, label, long):.2f}, centroids over facts {sizes[-1] / long:.2f}; "
        + ", ".join(f"{other} {value:.2f}" for other, value in others.items())
        + ".",
        "holds" if falls and rises and above_chance else "does not hold",
    )


def _differences(found: Found[CapacitySize]) -> list[str]:
    return [
        "No experiment of the paper: nothing is trained. It shows what its claim of recall up to 64 000 tokens can "
        "mean, which depends on the number of different facts against the number of centroids.",
        "The questions are the exact keys; those of the repeated facts are free of noise.",
    ]


CAPACITY = Experiment(
    name="ovq/capacity",
    title="What an untrained OVQ layer recalls",
    topic="what an untrained OVQ layer recalls, by facts and by length",
    paper=OVQ,
    sizes={
        "quick": CapacitySize(lengths=(1024, 2048), centroids=(128, 512), facts_fixed=256),
        "full": CapacitySize(lengths=(2048, 8192, 32_768), centroids=(512, 1024, 2048), facts_fixed=1024),
    },
    time={"full": "three minutes"},
    measure=_measure,
    summary=_summary,
    claims=[_spread, _at_any_length, _runs_out],
    sections=_sections,
    differences=_differences,
    seeds=3,
)
"""Recall without training, along two axes: how many facts, and how long."""
