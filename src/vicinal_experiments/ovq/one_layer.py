"""One OVQ layer alone on continuous MQAR: how much it recalls, against how many centroids it has."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np

from vicinal.attention import LanguageModel, OVQAttention, Schedule
from vicinal.data.sequences import continuous_mqar
from vicinal.report import Claim, Section, Table
from vicinal.reproduce import Run, supported
from vicinal.sweeping import interval_text
from vicinal_experiments.ovq.training import Training, accuracy, train

_KEY_FEATURES, _VALUES, _FEATURES = 32, 16, 64
_CHUNK = 8


@dataclasses.dataclass(frozen=True)
class Recalled:
    """What a layer recalled.

    Attributes:
        growth: Of its dictionary.
        num_centroids: The most centroids.
        pairs: That it read, in one round.
        accuracy: Of each seed.
    """

    growth: str
    num_centroids: int
    pairs: int
    accuracy: list[float]

    @property
    def centroids(self) -> int:
        """How many there are once the pairs were read."""
        schedule = Schedule(self.growth, num_centroids=self.num_centroids, chunk_size=_CHUNK)
        return schedule.size(self.pairs // _CHUNK)

    @property
    def expected(self) -> float:
        """The accuracy of a memory that keeps one pair for each centroid, and guesses the others."""
        share = min(1.0, self.centroids / self.pairs)
        return share + (1 - share) / _VALUES


@dataclasses.dataclass(frozen=True)
class OneLayerSize:
    """Layers to train: one for each growth, number of centroids and number of pairs.

    Attributes:
        growths: Of the dictionary.
        centroids: The most centroids.
        pairs: That are read.
        steps: Updates.
        examples: For training.
    """

    growths: tuple[str, ...]
    centroids: tuple[int, ...]
    pairs: tuple[int, ...]
    steps: int
    examples: int


def measure_one_layer(run: Run, size: OneLayerSize) -> list[Recalled]:
    """Trains a layer for each growth, number of centroids and number of pairs, with every seed."""
    found = []
    for growth, count, pairs in itertools.product(size.growths, size.centroids, size.pairs):
        row = [_accuracy(run, size, growth, count, pairs, seed) for seed in range(run.seeds)]
        found.append(Recalled(growth, count, pairs, row))
    return found


def _accuracy(run: Run, size: OneLayerSize, growth: str, count: int, pairs: int, seed: int) -> float:
    how, label = Training(size.steps, learning_rate=1e-2), f"one OVQ layer, {growth}, {count} centroids, {pairs} pairs"
    each = {"rounds": 1, "key_features": _KEY_FEATURES, "values": _VALUES}
    data = continuous_mqar(size.examples, pairs, seed=seed, **each)
    test = continuous_mqar(16, pairs, seed=1000 + seed, **each)
    mixer = functools.partial(OVQAttention, _FEATURES, 1, chunk_size=_CHUNK, num_centroids=count, growth=growth)
    inputs, key = _KEY_FEATURES + _VALUES, jax.random.key(seed)
    model = LanguageModel(_VALUES, _FEATURES, [mixer], hidden_features=0, in_features=inputs, key=key)
    return accuracy(train(run, label, model, data, how, seed), test)


def one_layer_section(found: list[Recalled]) -> Section:
    """What was recalled beside what the number of centroids allows."""
    rows: list[list[Any]] = [
        [
            each.growth,
            each.num_centroids,
            each.pairs,
            each.centroids,
            interval_text(each.accuracy, 100.0),
            f"{100 * each.expected:.0f}",
        ]
        for each in found
    ]
    columns = ["growth", "most centroids", "pairs", "centroids after them", "accuracy (%)", "one pair a centroid (%)"]
    return Section(
        "One OVQ layer alone",
        "Keys are vectors, with the value in the same step; each is asked for once, in other examples. The last column "
        f"is a memory of one pair for each centroid, that guesses one of {_VALUES} values for the other pairs.",
        tables=[Table("Accuracy, and the centroids there are", columns, rows)],
    )


def one_layer_claim(found: list[Recalled]) -> Claim:
    """Whether recall follows the number of centroids."""
    off = [float(np.mean(each.accuracy)) - each.expected for each in found]
    whole = [each for each in found if each.centroids >= each.pairs]
    held = [abs(difference) < 0.1 for difference in off]
    kept = ", ".join(f"{100 * np.mean(each.accuracy):.0f} %" for each in whole) or "none such was run"
    return Claim(
        "A trained layer recalls one pair for each centroid that it has, whatever its growth, and all of them if there "
        "is a centroid for each (our question; random keys are the hardest there are).",
        f"With a centroid for every pair: {kept}. From what one pair a centroid would give the accuracy is off by "
        + ", ".join(f"{100 * difference:+.0f}" for difference in off)
        + " points, in the order of the table. Within 10 counts.",
        supported(held),
    )
