"""What each part of an OVQ layer is good for: trained models of MQAR with one part changed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vicinal.attention import LanguageModel, OVQAttention, with_schedule
from vicinal.data.sequences import Sequences, mqar
from vicinal.report import Claim, Section, Table
from vicinal.reproduce import Experiment, Found, Run, Size, ahead, supported, verdict
from vicinal.sweeping import interval_text
from vicinal_experiments.ovq.training import DIFFERENCES, Shape, Training, accuracy, ovq, train
from vicinal_experiments.papers import OVQ

_DEFAULT = "as it is"
_CHANGES: dict[str, dict[str, Any]] = {
    _DEFAULT: {},
    "join old": {"join": "old"},
    "random centroids": {"join": "random"},
    "min growth": {"growth": "min"},
    "linear growth": {"growth": "linear"},
    "constant rate .1": {"learning_rate": 0.1, "memory": "autodiff"},
    "no count": {"bias": "none"},
    "GMR bias": {"bias": "gmr"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblationSize(Size):
    """One model for each change, trained on MQAR, and tested as it is and with other numbers of centroids.

    Attributes:
        shape: Of the model.
        changes: Labels of the changes to train.
        num_centroids: Of the layer as it is trained.
        factors: Numbers of centroids after training, over those in training.
        steps: Updates.
        time: Steps of an example of training.
        pairs: Pairs of a key and a value in it.
        tests: Steps and pairs of each test.
        examples: For training.
        tested: Examples of each test.
    """

    shape: Shape
    changes: tuple[str, ...]
    factors: tuple[float, ...]
    steps: int
    tests: tuple[tuple[int, int], ...]
    examples: int
    tested: int
    num_centroids: int = 16
    time: int = 64
    pairs: int = 6


def _measure(run: Run[AblationSize]) -> dict[str, Any]:
    """Accuracy of each seed, by change and test; and by number of centroids and test."""
    size = run.size
    how = Training(size.steps, batch_size=32, learning_rate=5e-3)
    tests = {f"{steps} steps, {pairs} pairs": (steps, pairs) for steps, pairs in size.tests}
    changes: dict[str, dict[str, list[float]]] = {label: {name: [] for name in tests} for label in size.changes}
    centroids: dict[str, dict[str, list[float]]] = {}
    for label in size.changes:
        options = _CHANGES[label]
        planned = {"max_length": size.time} if options.get("growth") == "linear" else {}
        for seed in range(run.seeds):
            data = mqar(size.examples, size.time, size.pairs, vocabulary=size.shape.vocabulary, seed=seed)
            model = size.shape.build(ovq(size.num_centroids), key=jax.random.key(seed), **options, **planned)
            model = train(run, label, model, data, how, seed)
            for name, (steps, pairs) in tests.items():
                test = _test(size, steps, pairs)
                asked = _with_schedule(model, max_length=steps) if planned else model
                changes[label][name].append(accuracy(asked, test))
                if label == _DEFAULT:
                    for factor in size.factors:
                        count = max(2, round(factor * size.num_centroids))
                        row = centroids.setdefault(str(count), {}).setdefault(name, [])
                        row.append(accuracy(_with_schedule(model, num_centroids=count), test))
    return {"changes": changes, "centroids": centroids}


def _test(size: AblationSize, steps: int, pairs: int) -> Sequences:
    return mqar(size.tested, steps, pairs, vocabulary=size.shape.vocabulary, seed=10_000 + steps + pairs)


def _with_schedule(model: LanguageModel, **changes: int) -> LanguageModel:
    """The model with another schedule in its OVQ layers."""

    def changed(node: Any) -> Any:
        return with_schedule(node, **changes) if isinstance(node, OVQAttention) else node

    return jax.tree.map(changed, model, is_leaf=lambda node: isinstance(node, OVQAttention))


# ------------------------------------------------------------------------------------------------ judge

_WORSE = {
    "Centroids that begin where the dictionary is poorest recall more than random ones": "random centroids",
    "Growth that plateaus does better than linear growth": "linear growth",
    "A rate of one over the count does better than a constant one": "constant rate .1",
}
"""The paper's claims that a change makes its layer worse, and the change."""


def _table(what: str, found: dict[str, dict[str, list[float]]]) -> Table:
    tests = list(next(iter(found.values())))
    rows: list[list[Any]] = [
        [label, *(interval_text(row[test], 100.0) for test in tests)] for label, row in found.items()
    ]
    return Table("Accuracy (%) (mean over seeds ± half a 95 % interval)", [what, *tests], rows)


def _means(row: dict[str, list[float]]) -> dict[str, float]:
    return {test: float(np.mean(values)) for test, values in row.items()}


def _sections(found: Found[AblationSize]) -> list[Section]:
    return [
        Section("One part changed", tables=[_table("layer", found.numbers["changes"])]),
        Section(
            "Other numbers of centroids, after training",
            f"Trained with {found.size.num_centroids}; no weight depends on their number.",
            tables=[_table("centroids", found.numbers["centroids"])],
        ),
    ]


def _summary(found: Found[AblationSize]) -> str:
    changes = found.numbers["changes"]
    test = list(changes[_DEFAULT])[-1]
    return f"{test}: " + ", ".join(f"{label} {100 * _means(row)[test]:.0f} %" for label, row in changes.items()) + "."


def _worse(claim: str, label: str) -> Callable[[Found[AblationSize]], Claim]:
    """The claim that the layer does better than with this change."""

    def judge(found: Found[AblationSize]) -> Claim:
        ours, theirs = found.numbers["changes"][_DEFAULT], found.numbers["changes"][label]
        gains = {test: float(np.mean(ours[test]) - np.mean(theirs[test])) for test in ours}
        points = ", ".join(f"{100 * gain:+.1f} at {test}" for test, gain in gains.items())
        learned = max(_means(ours).values()) >= 0.5
        return Claim(
            f"{claim} (arXiv 2602.03922).",
            f"Points ahead, paired by seed: {points}.",
            verdict([ahead(ours[test], theirs[test]) for test in ours]) if learned else "open",
        )

    return judge


def _more_centroids(found: Found[AblationSize]) -> Claim:
    by_count, count = found.numbers["centroids"], found.size.num_centroids
    first, *_, last = next(iter(by_count.values()))
    learned = _means(by_count[str(count)])[first]
    means = {int(n): _means(row)[last] for n, row in by_count.items()}
    grows = means[max(means)] > means[count] + 0.01 and means[count] > means[min(means)]
    return Claim(
        "The number of centroids can be changed after training: more of them recall more (arXiv 2602.03922, figure 4).",
        f"Trained with {count}, at {last}: "
        + ", ".join(f"{n} {100 * v:.0f} %" for n, v in sorted(means.items()))
        + f". Left open if the model has not learned the task (it has {100 * learned:.0f} % at {first}) or has no room "
        "to gain.",
        "open" if learned < 0.5 or means[count] > 0.99 else supported([grows]),
    )


def _differences(found: Found[AblationSize]) -> list[str]:
    return [*DIFFERENCES, "On MQAR; the paper's ablations are on its own recall tasks and language."]


_SHAPE = Shape(80, window=8, chunk_size=8)

ABLATIONS = Experiment(
    name="ovq/ablations",
    title="What the parts of OVQ-attention are good for",
    topic="growth, initialisation, rate and bias of the centroids; their number at test time",
    paper=OVQ,
    sizes={
        "quick": AblationSize(
            shape=dataclasses.replace(_SHAPE, features=16),
            changes=(_DEFAULT, *_WORSE.values()),
            factors=(0.5, 1, 2),
            steps=8,
            tests=((64, 6), (96, 8)),
            examples=256,
            tested=8,
        ),
        "full": AblationSize(
            shape=_SHAPE,
            changes=tuple(_CHANGES),
            factors=(0.25, 0.5, 1, 2, 4),
            steps=600,
            tests=((64, 6), (256, 6), (256, 16)),
            examples=8192,
            tested=64,
        ),
    },
    time={"full": "ten minutes"},
    measure=_measure,
    summary=_summary,
    claims=[*(_worse(claim, label) for claim, label in _WORSE.items()), _more_centroids],
    sections=_sections,
    differences=_differences,
    seeds=3,
)
"""Growth, initialisation, rate and bias of the centroids; and their number changed after training."""
