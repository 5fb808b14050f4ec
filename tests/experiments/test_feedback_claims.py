"""What the experiments on feedback conclude, from numbers made up so that the right verdict is known."""

from typing import Any

import numpy as np
import pytest

from vicinal.reproduce import Experiment, Found, rows
from vicinal.train import Member
from vicinal_experiments import constrained, direct_feedback, feedback_convergence, feedback_paths, relaxed, routes

NAN = float("nan")


def found(experiment: Experiment, **accuracies: Any) -> Found:
    """What the full size of an experiment would have found, had its seeds ended at these accuracies."""
    runs = {label: [row(seed, value) for seed, value in enumerate(values)] for label, values in accuracies.items()}
    return Found(experiment.sizes["full"], 3, {"runs": runs})


def row(seed: int, accuracy: float) -> dict[str, Any]:
    """A stored member; one without a number had diverged."""
    if np.isnan(accuracy):
        return {"numbers": {}, "seed": seed, "stopped": "it diverged", "records": []}
    return {"numbers": {}, "seed": seed, "stopped": None, "records": [{"step": 1, "test_accuracy": accuracy}]}


def test_constrained_networks_are_compared_with_the_best_of_the_free_ones():
    level = dict.fromkeys(["BP", *constrained.CONSTRAINTS], (0.96, 0.961, 0.962))

    def verdict(**others):
        return constrained._as_well(found(constrained.MNIST, **(level | others))).verdict

    assert verdict() == "holds"
    assert verdict(BP=(0.99, 0.991, 0.99)) == "does not hold"
    assert verdict(divisive=(0.9, 0.9, 0.9)) == "holds in part"
    for label in ("BP", "PC, sigmoid", "PC, tanh"):
        assert verdict(**{label: (NAN, 0.96, 0.96)}) == "open"


@pytest.mark.parametrize(
    ("cut", "moved", "verdict"),
    [(0.90, 0.965, "holds"), (0.90, 0.92, "holds in part"), (0.968, 0.90, "does not hold"), (NAN, 0.97, "open")],
)
def test_a_shift_has_to_spare_what_cutting_costs(cut, moved, verdict):
    ends = {"PC, tanh": (0.97, 0.97), "tanh, positive": (cut, cut), constrained._SHIFTED: (moved, moved)}
    assert constrained._shift_helps(found(constrained.MNIST, **ends)).verdict == verdict


def test_mirrors_have_to_be_ahead_of_feedback_alignment():
    paths = feedback_paths
    good, poor = (0.949, 0.95, 0.951), (0.90, 0.901, 0.902)

    def verdict(alignment, learned):
        ends = dict.fromkeys((paths._BP, paths._BP_SLOW), (0.95, 0.951, 0.952))
        ends |= dict.fromkeys((paths._SIGN, paths._KP_DECAY), good)
        ends |= dict.fromkeys((paths._FA, paths._FA_SLOW), alignment) | dict.fromkeys((paths._KP, paths._WM), learned)
        return paths._accurate(found(paths.FEEDBACK_PATHS, **ends)).verdict

    assert verdict(poor, good) == "holds"
    assert verdict(good, good) == "holds in part"
    assert verdict(good, poor) == "does not hold"


def test_an_error_that_never_turned_is_not_said_to_have():
    def verdict(*ends: float) -> str:
        members = [Member({}, 0, [{"step": 1, "angle of the error": end}], 1, None, None) for end in ends]
        numbers = {"runs": {feedback_paths._FA: rows(members)}, "first_error_angle": [88.0, 92.0]}
        size = feedback_paths.FEEDBACK_PATHS.sizes["full"]
        return feedback_paths._error_turns(Found(size, 2, numbers)).verdict

    assert verdict(30.0, 35.0) == "holds"
    assert verdict(30.0, 93.0) == "does not hold"


@pytest.mark.parametrize(("losses", "verdict"), [((1e-9,), "holds"), ((1e-9, None), "does not hold")])
def test_one_loss_that_is_no_number_is_not_fitted(losses, verdict):
    numbers = {"runs": {"linear": {"100": [[{"loss": loss} for loss in losses]]}}}
    wide = feedback_convergence
    assert wide._fits(Found(wide.CONVERGENCE.sizes["full"], 2, numbers)).verdict == verdict


def test_modules_have_to_be_ahead_beyond_chance():
    ahead, level = (0.93, 0.931, 0.932), (0.9001, 0.9008, 0.9022)
    for dilated, grouped, verdict in ((ahead, ahead, "holds"), (ahead, level, "holds in part"), (level, level, "open")):
        ends = {direct_feedback._DFA: (0.90, 0.901, 0.902)}
        ends |= {direct_feedback._DILATED: dilated, direct_feedback._GROUPED: grouped}
        runs = found(direct_feedback.DIRECT_FEEDBACK, **ends).numbers["runs"]
        both = Found(direct_feedback.DIRECT_FEEDBACK.sizes["full"], 3, {"runs": {"convolutional": runs}})
        assert direct_feedback._modules(both).verdict == verdict


def test_projections_called_dilated_are():
    rules = direct_feedback._rules_for_images(("a", "b", "c"), 0.5)
    for label in (direct_feedback._DILATED, direct_feedback._GROUPED):
        assert [part.dilation > 1 for part in rules[label].projector.values()] == [True]


@pytest.mark.parametrize(("all_three", "verdict"), [((0.95, 0.95), "holds"), ((0.95, NAN), "does not hold")])
def test_what_diverged_has_not_learned(all_three, verdict):
    ends = {relaxed._PC: (0.96, 0.96), relaxed._ALL: all_three}
    assert relaxed._together_learn(found(relaxed.RELAXED_PC, **ends)).verdict == verdict


def swept(*accuracies: float) -> Any:
    """Members at two rates without noise, then at the same two with it, as they are stored."""
    numbers = [{"rate": rate, "deviation": deviation} for deviation in (0.0, 0.01) for rate in (1.0, 100.0)]
    return [row(0, value) | {"numbers": each} for each, value in zip(numbers, accuracies, strict=True)]


def test_the_claims_on_two_routes():
    bp = {name: [row(0, 0.95)] for name in ("shallow", "deep")}
    level, poor, narrow = swept(0.95, 0.95, 0.95, 0.95), swept(0.6, 0.6, 0.6, 0.6), swept(0.95, 0.5, 0.95, 0.5)

    def ends(mirror: Any, others: Any) -> Any:
        return dict.fromkeys(routes.ROUTES, others) | {routes._WM: mirror}

    def verdict(claim: Any, shallow: Any, deep: Any | None = None) -> str:
        numbers = {"backpropagation": bp, "runs": {"shallow": shallow, "deep": deep or shallow}}
        return claim(Found(routes.ROBUSTNESS.sizes["quick"], 1, numbers)).verdict

    assert verdict(routes._robust, ends(level, level)) == "does not hold"
    assert verdict(routes._robust, ends(poor, poor)) == "open"
    assert verdict(routes._robust, ends(narrow, level)) == "holds"
    assert verdict(routes._noisy, ends(level, level)) == "holds"
    assert verdict(routes._noisy, ends(poor, poor)) == "does not hold"
    assert verdict(routes._transfers, ends(level, level)) == "does not hold"
    assert verdict(routes._transfers, ends(narrow, level), ends(swept(0.5, 0.95, 0.5, 0.95), level)) == "holds"
    assert verdict(routes._deep, ends(level, level)) == "holds in part"
