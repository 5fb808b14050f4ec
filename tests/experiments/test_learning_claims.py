"""Claims about inference learning, judged from made-up or altered numbers whose right verdict is known."""

import json
from pathlib import Path

import pytest

from vicinal.reproduce import Found, experiment

SEEDS = 3
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def member(seed, rate, steps, quality):
    """A run whose accuracy is `quality` from the first evaluation on, and whose loss falls with it."""
    noise = 0.001 * seed
    records = [
        {"step": step, "test_accuracy": quality + noise, "test_loss": 3000 * (1 - quality - noise)} for step in steps
    ]
    return {"numbers": {"learning_rate": rate}, "seed": seed, "stopped": None, "records": records}


def runs(qualities, steps, rates=(0.1,)):
    return {
        label: [member(seed, rate, steps, quality) for rate in rates for seed in range(SEEDS)]
        for label, quality in qualities.items()
    }


def verdicts(name, numbers, seeds=SEEDS):
    chosen = experiment(name)
    found = Found(chosen.sizes["full"], seeds, numbers)
    return [made.verdict for claim in chosen.claims if (made := claim(found)) is not None]


ONLINE = ("BP-SGD", "BP-Adam", "IL-SGD", "IL-prox", "IL-prox fast")


@pytest.mark.parametrize(
    ("inference", "expected"),
    [((0.9, 0.9, 0.9), "holds"), ((0.9, 0.5, 0.5), "holds in part"), ((0.5, 0.5, 0.5), "does not hold")],
)
def test_faster_at_batch_size_one(inference, expected):
    """The verdict is on early accuracies: ahead of both rules of backpropagation, by how many rules."""
    numbers = runs(dict(zip(ONLINE, (0.7, 0.8, *inference), strict=True)), (1_000, 5_000, 50_000))
    assert verdicts("il-theory/online", {"mnist": numbers, "fashion_mnist": numbers}) == [expected] * 2


def test_a_loss_is_better_if_smaller():
    numbers = runs(dict(zip(ONLINE, (0.7, 0.8, 0.9, 0.9, 0.9), strict=True)), (500, 5_000))
    assert verdicts("il-theory/autoencoder", {"cifar10": numbers}) == ["holds"]


def test_two_seeds_decide_nothing():
    numbers = {
        label: members[:2]
        for label, members in runs(dict.fromkeys(ONLINE[:2], 0.7) | dict.fromkeys(ONLINE[2:], 0.9), (5_000,)).items()
    }
    assert verdicts("il-theory/autoencoder", {"cifar10": numbers}, seeds=2) == ["open"]


@pytest.mark.parametrize(("ours", "expected"), [(0.45, "holds"), (0.4, "open"), (0.35, "does not hold")])
def test_competitive_with_adam(ours, expected):
    """The better of the two rules with Adam counts, if BP-Adam has doubled its first accuracy."""
    labels = ("BP-SGD", "BP-Adam", "IL-SGD", "IL-prox", "IL-Adam", "IL-prox-Adam")
    numbers = runs(dict.fromkeys(labels, 0.4) | {"IL-Adam": 0.3, "IL-prox-Adam": ours}, (100, 1_500))
    assert verdicts("il-theory/minibatch", {"cifar10": numbers}) == ["open"]
    for row in numbers["BP-Adam"]:
        row["records"][0]["test_accuracy"] = 0.1
    assert verdicts("il-theory/minibatch", {"cifar10": numbers}) == [expected]


def incremental(ipc, il, bp):
    """Each rule with its own quality at each of two learning rates."""
    size = experiment("ipc/classification").sizes["full"]
    qualities = {"BP": bp, "IL": il, "iPC": ipc}
    numbers = {
        f"{rule}-{optimizer}": [
            member(seed, rate, (size.every, size.steps // 2, size.steps), quality)
            for rate, quality in zip((0.01, 0.1), qualities[rule], strict=True)
            for seed in range(SEEDS)
        ]
        for rule in qualities
        for optimizer in ("SGD", "Adam")
    }
    return verdicts("ipc/classification", {"mnist": numbers, "fashion_mnist": numbers})


def test_incremental_predictive_coding():
    """Robust if more rates are near the best; quick and good at the best rate, against IL and against BP."""
    assert incremental(ipc=(0.9, 0.91), il=(0.2, 0.88), bp=(0.2, 0.8)) == ["holds"] * 3
    assert incremental(ipc=(0.9, 0.9), il=(0.9, 0.95), bp=(0.9, 0.99)) == ["does not hold"] * 3
    assert incremental(ipc=(0.8, 0.9), il=(0.8, 0.9), bp=(0.8, 0.9)) == ["open"] * 3


def stored(name):
    return json.loads((RESULTS / f"{name}.json").read_text())["numbers"]


def test_errors_that_arrive_late():
    """A sequential sweep reaches all layers at once: an error that misses the first step contradicts that."""
    numbers = stored("mq/inference")
    assert verdicts("mq/inference", numbers)[3] == "holds"
    for model in numbers["errors"]["at the start"]["sequential"]:
        model[1][0] = 0.0
    assert verdicts("mq/inference", numbers)[3] == "does not hold"


def test_spreads_of_updates():
    """Equal if the largest mean size is less than three times the smallest."""
    numbers = stored("mq/inference")
    for sizes, expected in (([1.0, 2.0], "holds"), ([1.0, 4.0], "holds in part"), ([1.0, 1e9], "does not hold")):
        numbers["sizes"]["SeqIL-MQ"] = [sizes] * SEEDS
        assert verdicts("mq/inference", numbers)[4] == expected


def test_inference_that_raises_the_objective():
    numbers = stored("mq/proximal")
    for row in numbers["rates"].values():
        row["along"] = {name: values[::-1] for name, values in row["along"].items()}
    assert verdicts("mq/proximal", numbers) == ["does not hold", "does not hold"]


def test_steps_that_take_long():
    numbers = stored("mq/time")
    numbers["seconds"]["SeqIL-SGD"] = [10 * seconds for seconds in numbers["seconds"]["SeqIL-SGD"]]
    numbers["ratios"]["SeqIL-SGD"] = [10 * ratio for ratio in numbers["ratios"]["SeqIL-SGD"]]
    assert verdicts("mq/time", numbers)[:2] == ["does not hold", "does not hold"]


def test_angles_to_implicit_sgd():
    """Nearer than backpropagation in every matrix and at every rate after the paper's steps, or in none at all."""
    numbers = stored("il-theory/proximal")
    for angle, expected in ((0.0, ["holds", "holds"]), (90.0, ["does not hold", "does not hold"])):
        for row in numbers["along"].values():
            along = row["along"]["feedforward, soft"]
            along["to implicit SGD"] = [angle] * len(along["to implicit SGD"])
            along["layers"] = [[angle] * 3] * len(along["layers"])
        assert verdicts("il-theory/proximal", numbers) == expected


def test_paths_that_change_places():
    """If BP-SGD's numbers and those of inference learning change places, so do the verdicts."""
    numbers = stored("il-theory/paths")
    for rules in numbers["changes"].values():
        rules["IL-SGD"], rules["IL-prox"], rules["BP-SGD"] = rules["BP-SGD"], rules["BP-SGD"], rules["IL-SGD"]
    assert verdicts("il-theory/paths", numbers)[1:] == ["holds", "does not hold"]
