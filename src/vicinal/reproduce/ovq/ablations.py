"""What each part of an OVQ layer is good for: trained models of MQAR with one part changed."""

from typing import Any

import jax
import numpy as np

from vicinal.attention import LanguageModel, OVQAttention, with_schedule
from vicinal.data.sequences import Sequences, mqar
from vicinal.report import Claim, Section, Study, Table
from vicinal.reproduce.ovq.recall import DIFFERENCES
from vicinal.reproduce.ovq.training import Shape, Training, accuracy, ovq, train
from vicinal.reproduce.runs import Scale, ahead, verdict
from vicinal.sweeping import interval_text

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


def ablations(scale: Scale) -> Study:
    """Growth, beginning, rate and bias of the centroids; and their number changed after training."""
    scale = scale.by_default(3)
    count = 16
    shape = Shape(80, features=scale.pick(16, 64), window=8, chunk_size=8)
    how = Training(scale.pick(8, 600), batch_size=32, learning_rate=5e-3)
    time, facts = 64, 6
    sizes = scale.pick(((64, 6), (96, 8)), ((64, 6), (256, 6), (256, 16)))
    tests = {f"{steps} steps, {pairs} pairs": (steps, pairs) for steps, pairs in sizes}
    found: dict[str, dict[str, list[float]]] = {}
    changed: dict[str, dict[str, list[float]]] = {}
    factors = scale.pick((0.5, 1, 2), (0.25, 0.5, 1, 2, 4))
    claimed = {label: _CHANGES[label] for label in (_DEFAULT, *(label for _, label in _CLAIMS))}
    for label, options in scale.pick(claimed, _CHANGES).items():
        found[label] = {name: [] for name in tests}
        for seed in range(scale.seeds):
            more = {"max_length": time} if options.get("growth") == "linear" else {}
            data = mqar(scale.pick(256, 8192), time, facts, vocabulary=shape.vocabulary, seed=seed)
            model = shape.build(ovq(count), key=jax.random.key(seed), **options, **more)
            model = train(scale, label, model, data, how, seed)
            for name, (steps, pairs) in tests.items():
                test = _test(shape, steps, pairs, scale)
                asked = _with_schedule(model, max_length=steps) if more else model
                found[label][name].append(accuracy(asked, test))
                if label == _DEFAULT:
                    for factor in factors:
                        n = max(2, round(factor * count))
                        row = changed.setdefault(str(n), {}).setdefault(name, [])
                        row.append(accuracy(_with_schedule(model, num_centroids=n), test))
    return Study(
        title="What the parts of OVQ-attention are good for",
        summary=_summary(found),
        command="",
        settings={"seeds": scale.seeds, "centroids": count, "steps": how.steps, "time": time, "pairs": facts},
        environment={},
        claims=[*(_claim(found, *each) for each in _CLAIMS), _more_centroids(changed, count)],
        differences=[*DIFFERENCES, "On MQAR; the paper's ablations are on its own recall tasks and language."],
        sections=[
            Section("One part changed", "", tables=[_table("layer", found)]),
            Section(
                "Other numbers of centroids, after training",
                f"Trained with {count}; no weight depends on their number.",
                tables=[_table("centroids", changed)],
            ),
        ],
        numbers={"changes": found, "centroids": changed},
        data_credit="",
    )


def _test(shape: Shape, steps: int, pairs: int, scale: Scale) -> Sequences:
    return mqar(scale.pick(8, 64), steps, pairs, vocabulary=shape.vocabulary, seed=10_000 + steps + pairs)


def _with_schedule(model: LanguageModel, **changes: int) -> LanguageModel:
    """The model with another schedule in its OVQ layers."""

    def changed(node: Any) -> Any:
        return with_schedule(node, **changes) if isinstance(node, OVQAttention) else node

    return jax.tree.map(changed, model, is_leaf=lambda node: isinstance(node, OVQAttention))


# ------------------------------------------------------------------------------------------------ tables and claims

_CLAIMS = [
    ("Centroids that begin where the dictionary is poorest recall more than random ones.", "random centroids"),
    ("Growth that plateaus does better than linear growth.", "linear growth"),
    ("A rate of one over the count does better than a constant one.", "constant rate .1"),
]
"""The paper's ablations: in its own layer, each of these makes things worse."""


def _table(what: str, found: dict[str, dict[str, list[float]]]) -> Table:
    tests = list(next(iter(found.values())))
    rows: list[list[Any]] = [
        [label, *(interval_text(row[test], 100.0) for test in tests)] for label, row in found.items()
    ]
    return Table("Accuracy (%) (mean over seeds ± half a 95 % interval)", [what, *tests], rows)


def _means(row: dict[str, list[float]]) -> dict[str, float]:
    return {test: float(np.mean(values)) for test, values in row.items()}


def _summary(found: dict[str, dict[str, list[float]]]) -> str:
    test = list(found[_DEFAULT])[-1]
    return f"{test}: " + ", ".join(f"{label} {100 * _means(row)[test]:.0f} %" for label, row in found.items()) + "."


def _claim(found: dict[str, dict[str, list[float]]], claim: str, label: str) -> Claim:
    ours, theirs = found[_DEFAULT], found[label]
    gains = {test: float(np.mean(ours[test]) - np.mean(theirs[test])) for test in ours}
    return Claim(
        f"{claim[:-1]} (arXiv 2602.03922).",
        "Points ahead, paired by seed: "
        + ", ".join(f"{100 * gain:+.1f} at {test}" for test, gain in gains.items())
        + ".",
        "open" if max(_means(ours).values()) < 0.5 else verdict([ahead(ours[test], theirs[test]) for test in ours]),
    )


def _more_centroids(changed: dict[str, dict[str, list[float]]], count: int) -> Claim:
    first, *_, last = next(iter(changed.values()))
    learned = _means(changed[str(count)])[first]
    means = {int(n): _means(row)[last] for n, row in changed.items()}
    return Claim(
        "The number of centroids can be changed after training: more of them recall more (arXiv 2602.03922, figure 4).",
        f"Trained with {count}, at {last}: "
        + ", ".join(f"{n} {100 * v:.0f} %" for n, v in sorted(means.items()))
        + f". Left open if the model has not learned the task (it has {100 * learned:.0f} % at {first}) or has no room "
        "to gain.",
        "open"
        if learned < 0.5 or means[count] > 0.99
        else "holds"
        if means[max(means)] > means[count] + 0.01 and means[count] > means[min(means)]
        else "does not hold",
    )
