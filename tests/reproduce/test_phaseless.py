"""Phaseless alignment learning, in its quick form."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.data import load
from vicinal.graph import capture
from vicinal.losses import squared_error
from vicinal.report import Study
from vicinal.reproduce import phaseless
from vicinal.reproduce.phaseless import alignment, tasks
from vicinal.reproduce.runs import Scale
from vicinal.rules import Microcircuit, PhaselessAlignment
from vicinal.train import Member

SLOW = pytest.mark.slow
QUICK = Scale(quick=True, asked=1, progress=False)


@SLOW
@pytest.mark.parametrize("name", ["teacher", "microcircuit"])
def test_feedback_turns_to_weights_that_are_held(name):
    study = getattr(phaseless, name)(QUICK)
    angles = {of: np.array(found) for of, found in study.numbers["angles"]["lin"].items()}
    first, end = (angles["weight"][0, at] for at in (0, -1))
    assert np.all(first > 70)  # 100 entries or more at random: 90 degrees, give or take 6
    assert np.all(end < 30)
    assert np.all(angles["transported"][0, -1] < 25)
    assert np.all(angles["update"][0, -1, :3] < 50)
    if name == "teacher":
        assert angles["update"][0, -1, -1] < 1e-2  # nothing is fed back to the top layer
    else:
        assert angles["standing"][0, -1, 0] > angles["update"][0, -1, 0]
    assert [panel.title for panel in study.sections[-1].panels] == ["Voltages of one unit of hidden1"]
    assert study.settings["seeds"] == 1
    assert Study.from_json(study.to_json()) == study


@SLOW
@pytest.mark.parametrize("name", ["yinyang", "mnist", "autoencoder"])
def test_tasks(name):
    study = getattr(phaseless, name)(QUICK)
    assert study.settings["seeds"] == 1
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


def runs_ending_at(**angles):
    """Three seeds that begin at 90 degrees, by what the angles are of."""
    ends = {of: np.broadcast_to(np.asarray(end, float), (3, len(end))) for of, end in angles.items()}
    return {of: np.stack([np.full(end.shape, 90.0), end], axis=1) for of, end in ends.items()}


def test_claims_are_of_the_seeds_that_stayed_finite():
    good = runs_ending_at(weight=(20, 10, 10), transported=(10, 5, 5), update=(30, 20, 10, 0))
    assert [claim.verdict for claim in alignment._claims({"lin": good, "nonlin": good})] == ["holds"] * 3
    part, none = ({of: found.copy() for of, found in good.items()} for _ in range(2))
    part["weight"][1, -1, 2] = np.nan
    for found in none.values():
        found[:, -1] = np.nan
    for runs, verdict, lost in ((part, "holds in part", "1 of 3"), (none, "does not hold", "3 of 3")):
        for claim in alignment._claims({"lin": runs, "nonlin": runs}):
            assert claim.verdict == verdict
            assert f"{lost} seeds diverged" in claim.measured
            assert "nan" not in claim.measured
    assert "to 20.0°, 10.0°, 10.0°;" in alignment._claims({"lin": part})[0].measured


@pytest.mark.parametrize("kind", [PhaselessAlignment, Microcircuit])
def test_voltages_show_a_new_input_at_once_and_the_membrane_on_its_way(kind):
    rule = kind(times=alignment._TIMES, loss=squared_error)
    shown = {
        series.label: np.array(series.y[0])
        for series in alignment._voltages(rule, alignment.CONDITIONS[0], [1.0] * 4).series
    }
    assert list(shown) == ["membrane", "prospective", *(["apical, without noise"] if kind is Microcircuit else [])]
    assert all(voltage.shape == (200,) for voltage in shown.values())
    steps = {label: np.abs(np.diff(voltage)) for label, voltage in shown.items()}
    # A membrane of 10 ms (5.3 ms in the circuit) gets a five hundredth of the way or less in a step of .01 ms.
    assert np.max(steps["membrane"]) < np.max(np.abs(shown["prospective"])) / 250
    assert steps["prospective"][99] > 5 * np.median(steps["prospective"])


def test_the_claim_of_alignment_is_of_what_was_measured():
    marks = ({"angle top feedback": 62.0, "angle update": 70.0}, {"angle top feedback": 31.0, "angle update": 40.0})
    claim = tasks._aligned({"PAL": SimpleNamespace(members=[Member({}, 0, list(marks), 1, None, None)])})
    assert claim.verdict == "holds"
    assert set(re.findall(r"(\d+)°", claim.measured)) == {"62", "31", "40", "45"}


def test_the_readout_sees_what_units_fire(monkeypatch):
    data = load("digits").flattened()
    setting = tasks.Setting(data, (64, 8, 2, 8, 64), squared_error, 0.1, 1, 32, readout=True)
    model = tasks._model(setting, jax.random.key(0))
    graph = capture(model, jnp.asarray(data.x_train[0]))
    shares = np.bincount(data.y_test) / len(data.y_test)
    assert tasks._readout(graph, model, data) > 1.3 * shares.max()
    monkeypatch.setattr(tasks, "_ACTIVATION", jnp.zeros_like)  # units that fire nothing: one class is guessed for all
    assert np.min(np.abs(shares - tasks._readout(graph, model, data))) < 1e-6
