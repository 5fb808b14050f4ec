"""Phaseless alignment learning: its judges on made-up numbers, and what its measurements see."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vicinal.graph import capture
from vicinal.losses import squared_error
from vicinal.report.storage import plain
from vicinal.reproduce import Found
from vicinal.rules import Microcircuit, PhaselessAlignment
from vicinal_experiments import phaseless
from vicinal_experiments.phaseless import alignment, alignment_runs, tasks


def runs_ending_at(**angles):
    """Three seeds that begin at 90 degrees, by what the angles are of."""
    ends = {of: np.broadcast_to(np.asarray(end, float), (3, len(end))) for of, end in angles.items()}
    return {of: np.stack([np.full(end.shape, 90.0), end], axis=1) for of, end in ends.items()}


def judged(angles):
    """The claims on stored angles of the two conditions, or of one."""
    numbers = {"angles": {name: {of: found.tolist() for of, found in runs.items()} for name, runs in angles.items()}}
    found = Found(phaseless.TEACHER.sizes["full"], 3, plain(numbers))
    return [claim(found) for claim in phaseless.TEACHER.claims]


def test_claims_are_of_the_seeds_that_stayed_finite():
    good = runs_ending_at(weight=(20, 10, 10), transported=(10, 5, 5), update=(30, 20, 10, 0))
    assert [claim.verdict for claim in judged({"lin": good, "nonlin": good})] == ["holds"] * 3
    part, none = ({of: found.copy() for of, found in good.items()} for _ in range(2))
    part["weight"][1, -1, 2] = np.nan
    for found in none.values():
        found[:, -1] = np.nan
    for runs, verdict, lost in ((part, "holds in part", "1 of 3"), (none, "does not hold", "3 of 3")):
        for claim in judged({"lin": runs, "nonlin": runs}):
            assert claim.verdict == verdict
            assert f"{lost} seeds diverged" in claim.measured
            assert "nan" not in claim.measured
    feedback, _, saturated = judged({"lin": part})
    assert "to 20.0°, 10.0°, 10.0°;" in feedback.measured
    assert saturated is None


@pytest.mark.parametrize("kind", [PhaselessAlignment, Microcircuit])
def test_voltages_show_a_new_input_at_once_and_the_membrane_on_its_way(kind):
    rule = kind(times=alignment._TIMES, loss=squared_error)
    voltages = alignment_runs.voltages(rule, alignment_runs.CONDITIONS[0], [1.0] * 4)
    shown = {of: np.array(voltage) for of, voltage in voltages["of"].items()}
    assert voltages["layer"] == "hidden1"
    assert list(shown) == ["membrane", "prospective", *(["apical, without noise"] if kind is Microcircuit else [])]
    assert all(voltage.shape == (200,) for voltage in shown.values())
    steps = {label: np.abs(np.diff(voltage)) for label, voltage in shown.items()}
    # A membrane of 10 ms (5.3 ms in the circuit) gets a five hundredth of the way or less in a step of .01 ms.
    assert np.max(steps["membrane"]) < np.max(np.abs(shown["prospective"])) / 250
    assert steps["prospective"][99] > 5 * np.median(steps["prospective"])


def test_the_claim_of_alignment_is_of_what_was_measured():
    marks = [{"step": 1, "angle top feedback": 62.0, "angle update": 70.0}]
    marks.append({"step": 2, "angle top feedback": 31.0, "angle update": 40.0})
    members = [{"numbers": {}, "seed": 0, "stopped": None, "records": marks}]
    claim = tasks._aligned(Found(phaseless.MNIST.sizes["full"], 1, {"runs": {"PAL": members}}))
    assert claim.verdict == "holds"
    assert set(re.findall(r"(\d+)°", claim.measured)) == {"62", "31", "40", "45"}


def test_the_readout_sees_what_units_fire(monkeypatch):
    size = phaseless.AUTOENCODER.sizes["quick"]
    data = tasks._data(size)
    model = tasks._model(dataclasses.replace(size, sizes=(64, 8, 2, 8, 64)), jax.random.key(0))
    graph = capture(model, jnp.asarray(data.x_train[0]))
    shares = np.bincount(data.y_test) / len(data.y_test)
    assert tasks._readout(graph, model, data) > 1.3 * shares.max()
    monkeypatch.setattr(tasks, "_ACTIVATION", jnp.zeros_like)  # units that fire nothing: one class is guessed for all
    assert np.min(np.abs(shares - tasks._readout(graph, model, data))) < 1e-6
