"""Phaseless alignment learning, in its quick form."""

import numpy as np
import pytest

from vicinal.data import load
from vicinal.report import Study
from vicinal.reproduce import phaseless
from vicinal.reproduce.runs import Scale

QUICK = Scale(quick=True, asked=1, progress=False)
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["teacher", "microcircuit"])
def test_feedback_turns_to_weights_that_are_held(name):
    study = getattr(phaseless, name)(QUICK)
    angles = {of: np.array(found) for of, found in study.numbers["angles"]["lin"].items()}
    first, end = (angles["weight"][0, at] for at in (0, -1))
    assert np.all(first > 70)  # 100 entries or more at random: 90 degrees, give or take 6
    assert np.all(end < 55)
    if name == "teacher":
        assert np.all(angles["transported"][0, -1] < 30)
        assert angles["update"][0, -1, -1] < 1e-2  # nothing is fed back to the top layer
        assert np.all(angles["update"][0, -1, :3] < 45)
    assert Study.from_json(study.to_json()) == study


@pytest.mark.parametrize("name", ["yinyang", "mnist", "autoencoder"])
def test_tasks(name):
    study = getattr(phaseless, name)(QUICK)
    last = {label: members[0]["records"][-1] for label, members in study.numbers["runs"].items()}
    first = {label: members[0]["records"][0] for label, members in study.numbers["runs"].items()}
    if name == "autoencoder":
        images = load("digits").flattened().x_test
        nothing = 0.5 * np.sum(np.var(images, axis=0))  # the loss of their mean, which needs no code
        for label in ("BP", "PAL"):
            assert last[label]["test_loss"] < 0.85 * nothing, label
    else:
        for label in ("BP", "FA", "PAL"):
            assert last[label]["test_loss"] < first[label]["test_loss"], label
    assert last["PAL"]["angle output"] < 45
    assert last["PAL"]["angle update"] < 60
    if name != "autoencoder":
        assert last["PAL"]["test_accuracy"] > last["FA"]["test_accuracy"] - 0.02
    assert study.numbers["cost"]["seconds"]["PAL"] > study.numbers["cost"]["seconds"]["BP"]
