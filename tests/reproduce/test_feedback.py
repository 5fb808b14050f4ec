"""Feedback alignment and its relatives, in their quick form."""

import numpy as np
import pytest

from vicinal.reproduce import constrained, direct, feedback_convergence, feedback_paths, relaxed, routes
from vicinal.reproduce.runs import Scale

QUICK = Scale(quick=True, asked=1, progress=False)
pytestmark = pytest.mark.slow


def last(member, quantity):
    return member["records"][-1][quantity]


def test_feedback_of_each_kind():
    runs = {label: members[0] for label, members in feedback_paths.mnist(QUICK).numbers["runs"].items()}
    for label, member in runs.items():
        assert last(member, "test_loss") < member["records"][0]["test_loss"], label
    upper = {
        label: last(member, "angle layers[1].weight") for label, member in runs.items() if not label.startswith("BP")
    }
    assert upper["weight mirror"] < 30 < upper["FA"]
    assert upper["Kolen-Pollack, decay"] <= upper["Kolen-Pollack"] + 0.1
    # The signs are right, and the magnitudes of uniform weights make 30 degrees.
    assert runs["sign-symmetric"]["records"][0]["angle layers[1].weight"] < 45


def test_alignment_of_wide_networks():
    study = feedback_convergence.convergence(QUICK)
    for rows in study.numbers["runs"].values():
        narrow, wide = ([runs[0]["cosine"] for runs in rows[width]] for width in ("100", "400"))
        assert narrow == sorted(narrow)
        assert wide == sorted(wide)
        assert all(a < b for a, b in zip(wide[1:], narrow[1:], strict=True))
        assert np.max([runs[0]["loss"] for row in rows.values() for runs in row]) < 1e-2


def test_constrained_predictive_coding():
    study = constrained.mnist(QUICK)
    runs = {label: members[0] for label, members in study.numbers["runs"].items()}
    for label, member in runs.items():
        assert last(member, "test_accuracy") > 0.3, label
    # Sigmoid rates are positive as they are: the constraint changes nothing but what inference would take below 0.
    accuracy = {label: last(member, "test_accuracy") for label, member in runs.items()}
    assert abs(accuracy["sigmoid, positive"] - accuracy["PC, sigmoid"]) < 0.02
    assert accuracy["random feedback"] < accuracy["PC, sigmoid"]


def test_relaxed_predictive_coding():
    runs = {label: members[0] for label, members in relaxed.mnist(QUICK).numbers["runs"].items()}
    angles = {label: last(member, "angle") for label, member in runs.items() if label != "BP"}
    # With transposed weights, derivatives and fixed predictions the errors relax to backpropagation's, whatever the
    # connections: those only decide how far inference has to go.
    for label in ("predictive coding", "fixed connections", "learned connections"):
        assert angles[label] < 0.5, label
    assert angles["no derivatives"] > 1
    assert angles["learned weights"] < 45 < angles["random weights"]


def test_routes():
    study = routes.robustness(QUICK)
    for runs in study.numbers["runs"].values():
        for members in runs.values():
            assert {(m["numbers"]["rate"], m["numbers"]["deviation"]) for m in members} == {
                (rate, deviation) for rate in (1.0, 100.0) for deviation in (0.0, 1e-2)
            }
        # Symmetric alignment contracts to the forward weights by (1 - 2 * decay * rate) in every update, T-j5.
        fast = [m for m in runs["symmetric alignment"] if m["numbers"] == {"rate": 100.0, "deviation": 0.0}]
        assert last(fast[0], "angle") < 2


def test_direct_feedback_in_other_networks():
    runs = direct.networks(QUICK).numbers["runs"]
    assert set(runs) == {"convolutional", "recurrent"}
    for found in runs.values():
        accuracy = {label: last(members[0], "test_accuracy") for label, members in found.items()}
        assert max(accuracy, key=lambda label: accuracy[label]) == "BP"
        assert all(value > 0.2 for value in accuracy.values())
