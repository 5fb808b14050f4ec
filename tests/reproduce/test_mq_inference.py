"""Sequential inference and MQ: each experiment runs in its quick form, and what theory says of its numbers holds."""

import numpy as np
import pytest

from vicinal.report import Study
from vicinal.reproduce.mq.inference import inference
from vicinal.reproduce.mq.layers import PURE
from vicinal.reproduce.mq.proximal import proximal
from vicinal.reproduce.mq.time import FLOOR, timing
from vicinal.reproduce.runs import Scale

pytestmark = pytest.mark.slow


def run(experiment):
    study = experiment(Scale(quick=True, asked=1, progress=False))
    assert Study.from_json(study.to_json()) == study
    assert study.claims
    assert study.differences
    assert all(section.tables or section.panels for section in study.sections)
    return study


@pytest.mark.xdist_group("mq-inference")
def test_inference():
    numbers = run(inference).numbers
    for by in numbers["errors"].values():
        sequential, simultaneous = (
            np.array(by[name]) for name in ("sequential", "simultaneous")
        )  # models, time, layers
        assert np.all(sequential[:, 0] == 0)  # inference begins at the feedforward values
        assert np.all(sequential[:, 1:] > 0)  # one sweep reaches every layer
        depth = simultaneous.shape[-1]
        for below in range(depth):  # layers below the top one
            layer = simultaneous[:, :, depth - 1 - below]
            assert np.all(layer[:, : below + 1] == 0)
            assert np.all(layer[:, below + 1 :] > 0)
        # After one sweep the error falls by the squared step size from layer to layer, to leading order.
        assert np.all(sequential[:, 1, :-1] < 1e-2 * sequential[:, 1, 1:])
    sizes = {name: np.array(rows) for name, rows in numbers["sizes"].items()}  # seeds, matrices
    spread = {name: np.max(rows.max(1) / rows.min(1)) for name, rows in sizes.items()}
    assert spread["SeqIL-MQ"] < spread["SeqIL-SGD"] / 10
    assert spread[PURE] < spread["SeqIL-MQ"]  # what it adds to the gradient's size keeps small gradients small
    accuracy = {
        name: {t: members[0]["records"][-1]["test_accuracy"] for t, members in numbers["accuracy"][name].items()}
        for name in ("sequential", "simultaneous")
    }
    # One simultaneous step leaves the lower matrices as they were; one sweep does not.
    assert accuracy["sequential"]["1"] > accuracy["simultaneous"]["1"] + 0.1


@pytest.mark.xdist_group("mq-proximal")
def test_proximal():
    for rate, row in run(proximal).numbers["rates"].items():
        assert row["residual"] < 0.01
        for name, values in row["along"].items():
            assert values[-1] < values[0] < row["no update"], (rate, name)
            assert min(values) > row["implicit SGD"], (rate, name)  # the optimum is the least


@pytest.mark.xdist_group("mq-time")
def test_timing():
    numbers = run(timing).numbers
    assert set(numbers["ratios"][FLOOR]) == {1.0}
    assert all(seconds > 0 for row in numbers["seconds"].values() for seconds in row)
    # Fifteen steps of simultaneous inference have five times the products of three sweeps.
    assert np.median(numbers["ratios"]["simultaneous IL-SGD"]) > np.median(numbers["ratios"]["SeqIL-SGD"])
    assert numbers["memory"]["SeqIL-MQ"] == 3  # one number for each matrix
    assert numbers["memory"]["SeqIL-SGD"] == 0
