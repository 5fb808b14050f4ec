"""What theory says of the numbers of each experiment: of those stored in docs/results, and of a quick run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hardware_checks import HARDWARE

from vicinal.data import load
from vicinal.report import Study
from vicinal.reproduce import Experiment, Found, experiments, reproduce
from vicinal_experiments.exact_gradients import missing

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
FAST = {"il-theory/stability"}
"""Their quick runs are part of every run of the tests; those of the others need `-m full`."""


def ends(runs, quantity):
    """A quantity at the end of each variant's first seed that did not diverge."""
    kept = {label: [member for member in members if not member.diverged] for label, members in runs.items()}
    return {label: members[0].records[-1][quantity] for label, members in kept.items() if members}


def paths(found):
    for label, members in found.runs("runs").items():
        for member in members:
            end, lengths = member.records[-1], [record["path_length"] for record in member.records]
            assert 0 < end["distance_moved"] <= end["path_length"], label
            assert lengths == sorted(lengths), label
    for stage, rules in found.numbers["changes"].items():
        # At equal small norms nothing lowers the loss more than the gradient.
        gradient = np.median(rules["BP-SGD"]["loss, scaled"])
        for label, changes in rules.items():
            assert np.median(changes["loss, scaled"]) <= 1.05 * gradient, (stage, label)


def nearness(found):
    for rate, row in found.numbers["along"].items():
        best = row["references"]["implicit SGD"]
        assert row["references"]["residual"] < 4e-3
        assert best < row["references"]["start"]
        assert best < row["references"]["backpropagation"]
        for name, values in row["along"].items():
            assert min(values["objective"]) > best, (rate, name)  # the optimum is the least
            # Theorem: with one example the normalised step reproduces the activities.
            assert max(values["distance"]) < 1e-3, (rate, name)
            if name.startswith("feedforward"):
                assert values["slope left"][-1] < values["slope left"][0]
        # Energies over the presynaptic norms are those of the proximal objective, but for the norms' own slope.
        soft, weighted = (row["along"][name] for name in ("feedforward, soft", "feedforward, soft, weighted"))
        assert weighted["to implicit SGD"][-1] < soft["to implicit SGD"][-1]
        assert weighted["objective"][-1] < soft["objective"][-1]
    for name, shares in found.numbers["shares"]["shares"].items():
        if name != "concatenated":  # small steps of the activities: each matrix learns along its gradient
            assert shares[0][0] > 0.9
            assert all(0 <= gradient + curvature <= 1 + 1e-6 for gradient, curvature in shares)


def spread(member):
    """The largest mean size of a matrix's updates over the smallest, the first evaluation left out."""
    means = np.mean([list(record["sizes"].values()) for record in member.records[1:]], axis=0)
    return means.max() / means.min()


def equalisation(found):
    """Plain descent scales an update by its gradient; equalisation divides that out, but for the floor of its step."""
    for data in found.size.data:
        runs = found.runs(data)
        for plain, equalised in zip(runs["SeqIL"], runs["SeqIL-MQ"], strict=True):
            assert spread(equalised) < spread(plain) / 5
            assert spread(equalised) < 2 or not found.quick
        for label, members in runs.items():
            assert all(falls(member) for member in members), label


def incremental(found):
    """With a small learning rate, eight updates per batch go further than one."""
    for data in found.size.data:
        for optimizer in ("SGD", "Adam"):
            within, after = (found.members(data, f"{rule}-{optimizer}")[0].records[-1] for rule in ("iPC", "IL"))
            assert within["path_length"] > 2 * after["path_length"]
            assert within["train_loss"] < after["train_loss"]
        assert max(m.records[-1]["test_accuracy"] for m in found.members(data, "iPC-Adam")) > 0.8


def sequential_inference(found):
    for by in found.numbers["errors"].values():
        sequential, simultaneous = (np.array(by[name]) for name in ("sequential", "simultaneous"))
        assert np.all(sequential[:, 0] == 0)  # models, time, layers: inference begins at the feedforward values
        assert np.all(sequential[:, 1:] > 0)  # one sweep reaches every layer
        depth = simultaneous.shape[-1]
        for below in range(depth):  # layers below the top one
            layer = simultaneous[:, :, depth - 1 - below]
            assert np.all(layer[:, : below + 1] == 0)
            assert np.all(layer[:, below + 1 :] > 0)
        # After one sweep the error falls by the squared step size from layer to layer, to leading order.
        assert np.all(sequential[:, 1, :-1] < 1e-2 * sequential[:, 1, 1:])
    sizes = {label: np.array(seeds) for label, seeds in found.numbers["sizes"].items()}  # seeds, matrices
    spreads = {label: np.max(seeds.max(1) / seeds.min(1)) for label, seeds in sizes.items()}
    assert spreads["SeqIL-MQ"] < spreads["SeqIL-SGD"] / 10
    # What equalisation adds to the gradient's size keeps small gradients small.
    assert spreads["SeqIL-MQ, r = rho = 0"] < spreads["SeqIL-MQ"]
    # One simultaneous step leaves the lower matrices as they were; one sweep does not.
    one = {name: ends(found.runs("accuracy", name), "test_accuracy")["1"] for name in ("sequential", "simultaneous")}
    assert one["sequential"] > one["simultaneous"] + 0.1


def objective(found):
    for rate, row in found.numbers["rates"].items():
        assert row["residual"] < 0.01
        for name, values in row["along"].items():
            assert values[-1] < values[0] < row["no update"], (rate, name)
            assert min(values) > row["implicit SGD"], (rate, name)  # the optimum is the least


def step_time(found):
    ratios, memory = found.numbers["ratios"], found.numbers["memory"]
    assert set(ratios["BP-SGD"]) == {1.0}
    assert all(seconds > 0 for row in found.numbers["seconds"].values() for seconds in row)
    # Fifteen steps of simultaneous inference have five times the products of three sweeps.
    assert np.median(ratios["simultaneous IL-SGD"]) > np.median(ratios["SeqIL-SGD"])
    assert memory["SeqIL-MQ"] == 3  # one number for each matrix
    assert memory["SeqIL-SGD"] == 0


def constrained(found):
    accuracy = ends(found.runs("runs"), "test_accuracy")
    if found.size.inference_steps > 10 or not found.quick:  # with fewer steps, ratios as errors learn more slowly
        assert min(accuracy.values()) > 0.3
    # Sigmoid rates are positive already: the constraint only acts where inference would take them below 0.
    assert accuracy["sigmoid, positive"] == pytest.approx(accuracy["PC, sigmoid"], abs=0.02)
    assert accuracy["random feedback"] < accuracy["PC, sigmoid"]


def relaxed(found):
    runs = {label: members for label, members in found.runs("runs").items() if label != "BP"}
    angle = ends(runs, "angle")
    # With transposed weights, derivatives and fixed predictions the errors relax to backpropagation's.
    assert angle["predictive coding"] < 0.5
    if found.size.sizes == (64, 48, 32, 10):  # connections only decide how far inference has to go
        assert max(angle["fixed connections"], angle["learned connections"]) < 0.5
    assert angle["no derivatives"] > 1
    assert angle["learned weights"] < 45 < angle["random weights"]


def direct_feedback(found):
    for name in ("convolutional", "recurrent"):
        accuracy = ends(found.runs("runs", name), "test_accuracy")
        assert max(accuracy, key=lambda label: accuracy[label]) == "BP"
        assert min(accuracy.values()) > 0.2


def feedback_paths(found):
    runs = found.runs("runs")
    for label, (member, *_) in runs.items():
        assert member.records[-1]["test_loss"] < member.records[0]["test_loss"], label
    fed = {label: members for label, members in runs.items() if not label.startswith("BP")}
    upper = ends(fed, "angle layers[1].weight")
    assert upper["weight mirror"] < 30 < upper["FA"]
    assert upper["Kolen-Pollack, decay"] <= upper["Kolen-Pollack"] + 0.1
    # The signs are right, and the magnitudes of uniform weights make 30 degrees.
    assert runs["sign-symmetric"][0].records[0]["angle layers[1].weight"] < 45


def wide_networks(found):
    for by_width in found.numbers["runs"].values():
        cosines = [[runs[0]["cosine"] for runs in row] for row in by_width.values()]
        assert cosines == [sorted(row) for row in cosines]  # a longer decay aligns more
        for narrow, wide in itertools.pairwise(cosines):
            assert all(b < a for a, b in zip(narrow[1:], wide[1:], strict=True))
        assert max(runs[0]["loss"] for row in by_width.values() for runs in row) < 1e-2


def falls(member, quantity="test_loss"):
    return member.records[-1][quantity] < member.records[0][quantity]


def stability(found):
    """A proximal step is bounded however large its learning rate; a gradient step is not."""
    proximal, gradient = (
        {member.numbers["learning_rate"]: member for member in found.members(label) if member.seed == 0}
        for label in ("IL-prox", "BP-SGD")
    )
    assert not any(member.diverged for member in proximal.values())
    norms = {rate: member.records[-1]["update_norm"] for rate, member in proximal.items()}
    assert norms[100.0] < 1.5 * norms[10.0]
    assert gradient[100.0].diverged or gradient[100.0].records[-1]["update_norm"] > 100 * norms[100.0]


def online(found):
    for data in found.size.data:
        members = found.members(data, "IL-prox")
        assert all(falls(member) and member.records[-1]["test_accuracy"] > 0.7 for member in members)


def minibatch(found):
    for label, members in found.runs(*found.size.data).items():
        assert all(falls(member) for member in members), label


def reconstruction(found):
    """Every rule does better than an output that knows nothing, of one half for each pixel."""
    (data,) = found.size.data
    knows_nothing = {"digits": 64, "cifar10": 3072}[data] * np.log(2)
    for label, members in found.runs(data).items():
        assert all(falls(m) and m.records[-1]["test_loss"] < knows_nothing for m in members), label


def robustness(found):
    fastest = {"rate": max(found.size.feedback_rates), "deviation": 0.0}
    grid = {(rate, deviation) for rate in found.size.feedback_rates for deviation in found.size.noise}
    for name in found.size.networks:
        for members in found.runs("runs", name).values():
            assert {(m.numbers["rate"], m.numbers["deviation"]) for m in members} == grid
        # Symmetric alignment contracts to the forward weights by 1 - 2 * decay * rate in every update.
        fast = [m for m in found.members("runs", name, "symmetric alignment") if m.numbers == fastest]
        assert fast[0].records[-1]["angle"] < 2


def exact(found):
    for model, gaps in found.numbers["gaps"].items():
        assert max(gaps["Z-IL"], gaps["fixed prediction"]) < 1e-4, model
        assert gaps["jax.grad, summed in another order"] < 1e-5, model
        assert gaps["strict IL"] > 1e-2, model
    for order, by_size in found.numbers["convergence"].items():
        for step_size, along in by_size.items():
            for steps, distances in zip(found.numbers["steps"], along, strict=True):
                assert distances[0] == pytest.approx((1 - float(step_size)) ** steps, abs=1e-5)
                for k, distance in enumerate(distances, 1):
                    assert distance == pytest.approx(missing(float(step_size), steps, k, order), abs=1e-5)
    for name in found.numbers["curves"]:
        runs = found.runs("curves", name)
        accuracies = {label: [record["test_accuracy"] for record in runs[label][0].records] for label in runs}
        assert accuracies["BP"][-1] > 0.5
        for label in ("Z-IL", "fixed prediction"):
            assert accuracies[label] == pytest.approx(accuracies["BP"], abs=0.01)
        assert accuracies["strict IL"] != pytest.approx(accuracies["BP"], abs=0.01)


def activation_relaxation(found):
    for along in found.numbers["settling"].values():
        assert along["400"] < 0.1
        assert along["400"] <= along["100"]
    for name, top in (("dense", "layers[3].weight"), ("convolutional", "layers[1].weight")):
        first, simplified = (
            found.members("runs", name, label)[0].records for label in ("AR", "AR, learned feedback, no derivatives")
        )
        assert max(record[f"angle {top}"] for record in first) < 1e-2
        assert simplified[0][f"angle {top}"] < 1e-2  # the output's own error does not go back through feedback
        assert simplified[0]["angle concatenated"] > 1
    # Learned feedback keeps its difference from the weight; where it does not learn, the weight alone moves.
    drift = found.numbers["drift"]["dense"]
    assert max(drift["AR, learned feedback"], drift["AR, learned feedback, no derivatives"]) < 1e-4
    assert drift["AR, random feedback"] > 1e-2
    learned = found.members("runs", "dense", "AR, learned feedback")[0].records
    assert learned[-1]["feedback layers[3].weight"] < learned[0]["feedback layers[3].weight"]


def held_weights(found):
    angles = {of: np.array(values, float) for of, values in found.numbers["angles"]["lin"].items()}
    first, end = (angles["weight"][0, at] for at in (0, -1))
    assert np.all(first > 70)  # 100 entries or more at random: 90 degrees, give or take 6
    assert np.all(end < 30)
    assert np.all(angles["transported"][0, -1] < 25)
    assert np.all(angles["update"][0, -1, :3] < 50)
    if "standing" in angles:
        assert angles["standing"][0, -1, 0] > angles["update"][0, -1, 0]
    else:
        assert angles["update"][0, -1, -1] < 1e-2  # nothing is fed back to the top layer


def phaseless_tasks(found):
    runs = found.runs("runs")
    if not found.size.readout:
        assert all(falls(runs[label][0]) for label in ("BP", "FA", "PAL"))
        accuracy = ends(runs, "test_accuracy")
        assert accuracy["PAL"] > accuracy["FA"] - 0.02
    elif found.quick:
        images = load("digits").flattened().x_test
        nothing = 0.5 * np.sum(np.var(images, axis=0))  # the loss of their mean, which needs no code
        losses = ends(runs, "test_loss")
        assert max(losses["BP"], losses["PAL"]) < 0.85 * nothing
    last = runs["PAL"][0].records[-1]
    assert last["angle output"] < 45
    assert last["angle update"] < 60
    seconds = found.numbers["cost"]["seconds"]
    assert seconds["PAL"] > seconds["BP"]


def regression(found):
    runs = found.numbers["runs"]
    for heading, by_rule in runs.items():
        for label, (records, *_) in by_rule.items():
            assert records[-1]["error"] < 0.9 * records[0]["error"], (heading, label)
        assert by_rule["NDI"][0][-1]["closed_form"] < 1e-3  # it is its own
        assert ("SDI" in by_rule) == (heading == "Non-linear, 30-20-10-10")  # one hidden layer is one loop anyway
        for label in set(by_rule) & {"DI", "DI, first transpose", "SDI", "NDI", "PBP"}:
            for record in by_rule[label][0]:
                assert 0 <= record["update"] < 90, (heading, label)
                assert label == "PBP" or record["least"] < record["abscissa"]
        for label in ("DI", "DI, first transpose"):
            assert all(record["amplification"] < 1.02 for record in by_rule[label][0])  # repaired before its use
    linear = {label: records[0] for label, records in runs["Linear, 30-20-10"].items()}
    # From weights near zero, -W^T starts as the transpose it is named for; the weights then leave it.
    assert linear["DI, first transpose"][0]["feedback"] < 0.1
    assert linear["DI"][0]["feedback"] > 30
    # Near zero weights its loop decays by its leak and does not turn.
    assert linear["DI, first transpose"][0]["imaginary"] == pytest.approx(0, abs=1e-6)
    assert linear["DI, first transpose"][0]["abscissa"] == pytest.approx(-0.01, abs=0.01)
    assert linear["DI, first transpose"][0]["least"] == pytest.approx(-1.0, abs=0.01)
    # The loops come to rest where the closed form says.
    assert linear["DI"][-1]["closed_form"] < 10
    if found.quick:  # backpropagation waits for the upper weights to grow; what inverts them does not
        assert linear["DI"][3]["error"] < linear["BP"][3]["error"]


def classifier(found):
    runs = found.runs("runs")
    accuracy = ends(runs, "test_accuracy")
    assert min(accuracy.values()) > 0.4
    # The loops' tolerance is all that is between them and the closed form.
    assert accuracy["DI"] == pytest.approx(accuracy["NDI"], abs=0.05)
    assert runs["DI"][0].records[-1]["closed_form"] < 1
    assert accuracy["NDI"] > accuracy["FA"]


def deep_autoencoder(found):
    labels = {f"{name}: {label}" for name in found.size.first_weights for label in ("BP", "FA", "NDI", "PBP")}
    runs = found.runs("runs")
    assert set(runs) == labels
    for label, (member, *_) in runs.items():
        assert member.diverged == (not found.quick and label == "orthogonal: PBP")
        assert member.diverged or falls(member), label


CHECKS = {
    "di/regression": regression,
    "di/mnist": classifier,
    "di/autoencoder": deep_autoencoder,
    "pal/teacher": held_weights,
    "pal/microcircuit": held_weights,
    "pal/yinyang": phaseless_tasks,
    "pal/mnist": phaseless_tasks,
    "pal/autoencoder": phaseless_tasks,
    "ar/mnist": activation_relaxation,
    "il-theory/paths": paths,
    "il-theory/proximal": nearness,
    "mq/classification": equalisation,
    "mq/convolution": equalisation,
    "mq/autoencoder": reconstruction,
    "mq/inference": sequential_inference,
    "mq/proximal": objective,
    "mq/time": step_time,
    "ipc/classification": incremental,
    "il-theory/stability": stability,
    "il-theory/online": online,
    "il-theory/minibatch": minibatch,
    "il-theory/autoencoder": reconstruction,
    "routes/robustness": robustness,
    "exact/backprop": exact,
    "fa/mnist": feedback_paths,
    "fa/convergence": wide_networks,
    "constrained-pc/mnist": constrained,
    "constrained-pc/fashion": constrained,
    "relaxed-pc/mnist": relaxed,
    "dfa/cnn-rnn": direct_feedback,
} | HARDWARE


def found_in(name, size, study):
    chosen = experiments()[name]
    return Found(chosen.sizes[size], study.settings["seeds"], study.numbers, quick=size == "quick")


@pytest.mark.parametrize("name", [name for name in CHECKS if (RESULTS / f"{name}.json").exists()])
def test_stored_numbers_agree_with_theory(name):
    CHECKS[name](found_in(name, "full", Study.from_json((RESULTS / f"{name}.json").read_text())))


def quick_runs():
    """All experiments but those of OVQ-attention, whose runs are in a file of their own."""
    names = [name for name, chosen in experiments().items() if isinstance(chosen, Experiment) and name[:4] != "ovq/"]
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.full) for name in names]


@pytest.mark.parametrize("name", quick_runs())
def test_a_quick_run_is_judged_and_agrees_with_theory(name, tmp_path):
    study = reproduce(name, tmp_path, quick=True, seeds=1, progress=False)
    assert (study.settings["seeds"], study.settings["size"]) == (1, "quick")
    assert Study.from_json((tmp_path / "results.json").read_text()) == study
    assert json.loads((tmp_path / "config.json").read_text())["experiment"] == name
    assert all(section.tables or section.panels for section in study.sections)
    assert all(
        np.all([len(row) == len(table.columns) for row in table.rows]) for s in study.sections for table in s.tables
    )
    if name in CHECKS:
        CHECKS[name](found_in(name, "quick", study))
