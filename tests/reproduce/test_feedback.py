"""Feedback alignment and its relatives, in their quick form."""

import numpy as np
import pytest

from vicinal.reproduce import feedback_convergence, feedback_paths
from vicinal.reproduce.runs import Scale

QUICK = Scale(quick=True, asked=1, progress=False)
pytestmark = pytest.mark.slow


def last(member, quantity):
    return member["records"][-1][quantity]


def test_feedback_of_each_kind():
    runs = {label: members[0] for label, members in feedback_paths.mnist(QUICK).numbers["runs"].items()}
    for label, member in runs.items():
        assert last(member, "test_loss") < member["records"][0]["test_loss"], label
    upper = {label: last(member, "angle layers[1].weight") for label, member in runs.items() if label != "BP"}
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
