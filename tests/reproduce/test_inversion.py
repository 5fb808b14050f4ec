"""Dynamic inversion, in its quick form."""

import numpy as np
import pytest

from vicinal.reproduce import inversion
from vicinal.reproduce.runs import Scale

QUICK = Scale(quick=True, asked=1, progress=False)
pytestmark = pytest.mark.slow


def last(member, quantity):
    return member["records"][-1][quantity]


def test_regression():
    runs = inversion.regression(QUICK).numbers["runs"]
    for heading, found in runs.items():
        ends = {label: records[0][-1] for label, records in found.items()}
        for label, record in ends.items():
            assert record["error"] < 0.9 * found[label][0][0]["error"], (heading, label)
        for label in ("DI", "DI, first transpose"):
            assert all(record["amplification"] < 1.02 for record in found[label][0])  # repaired before it is used
        assert ends["NDI"]["closed_form"] < 1e-3  # it is its own
        assert ("SDI" in found) == (heading == "Non-linear, 30-20-10-10")  # one hidden layer is one loop anyway
        for label in set(found) & {"DI", "DI, first transpose", "SDI", "NDI", "PBP"}:
            for record in found[label][0]:
                assert 0 <= record["update"] < 90, (heading, label)
                assert label == "PBP" or record["least"] < record["abscissa"]
    linear = {label: records[0] for label, records in runs["Linear, 30-20-10"].items()}
    # From weights near zero, -W^T starts as the transpose it is named for; the weights then leave it.
    assert linear["DI, first transpose"][0]["feedback"] < 0.1
    assert linear["DI"][0]["feedback"] > 30
    # Near zero weights its loop decays by its leak and does not turn.
    np.testing.assert_allclose(linear["DI, first transpose"][0]["imaginary"], 0, rtol=0, atol=1e-6)
    np.testing.assert_allclose(linear["DI, first transpose"][0]["abscissa"], -0.01, rtol=0, atol=0.01)
    np.testing.assert_allclose(linear["DI, first transpose"][0]["least"], -1.0, rtol=0, atol=0.01)
    # The loops come to rest where the closed form says, for two hundred steps and a margin.
    assert linear["DI"][-1]["closed_form"] < 10
    # Backpropagation waits for the upper weights to grow; what inverts them does not.
    assert linear["DI"][3]["error"] < linear["BP"][3]["error"]


def test_classification_of_one_example_at_a_time():
    study = inversion.mnist(QUICK)
    assert study.settings["seeds"] == QUICK.seeds
    runs = {label: members[0] for label, members in study.numbers["runs"].items()}
    for label, member in runs.items():
        assert last(member, "test_accuracy") > 0.4, label
    # The loops' tolerance is all that is between them and the closed form.
    assert abs(last(runs["DI"], "test_accuracy") - last(runs["NDI"], "test_accuracy")) < 0.05
    assert last(runs["DI"], "closed_form") < 1
    assert last(runs["NDI"], "test_accuracy") > last(runs["FA"], "test_accuracy")


def test_a_deep_autoencoder():
    study = inversion.autoencoder(QUICK)
    assert study.settings["seeds"] == QUICK.seeds
    runs = {label: members[0] for label, members in study.numbers["runs"].items()}
    assert set(runs) == {f"orthogonal: {label}" for label in ("BP", "FA", "NDI", "PBP")}
    for label, member in runs.items():
        assert member["stopped"] is None
        assert last(member, "test_loss") < member["records"][0]["test_loss"], label
