"""What the experiments on feedback conclude, from numbers made up so that the right verdict is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vicinal.reproduce import constrained, direct, feedback_convergence, feedback_paths, relaxed, routes
from vicinal.reproduce.learning import size_text
from vicinal.train import Member

NAN = float("nan")


def sweep(*accuracies: float) -> Any:
    """Members with such accuracies at the end; one without a number had diverged."""
    return SimpleNamespace(
        members=[
            Member({}, seed, [], 0, "it diverged", None)
            if np.isnan(value)
            else Member({}, seed, [{"step": 1, "test_accuracy": value}], 1, None, None)
            for seed, value in enumerate(accuracies)
        ]
    )


def test_constrained_networks_are_held_against_the_best_of_the_free_ones():
    done = {label: sweep(0.96, 0.961, 0.962) for label in ["BP", *constrained.CONSTRAINTS]}
    assert constrained._as_well(done).verdict == "holds"
    assert constrained._as_well(done | {"BP": sweep(0.99, 0.991, 0.99)}).verdict == "does not hold"
    assert constrained._as_well(done | {"divisive": sweep(0.9, 0.9, 0.9)}).verdict == "holds in part"
    for label in ("BP", "PC, sigmoid", "PC, tanh"):
        assert constrained._as_well(done | {label: sweep(NAN, 0.96, 0.96)}).verdict == "open"


@pytest.mark.parametrize(
    ("cut", "moved", "verdict"),
    [(0.90, 0.965, "holds"), (0.90, 0.92, "holds in part"), (0.968, 0.90, "does not hold"), (NAN, 0.97, "open")],
)
def test_a_shift_has_to_spare_what_cutting_costs(cut, moved, verdict):
    done = {"PC, tanh": sweep(0.97, 0.97), "tanh, positive": sweep(cut, cut), constrained._SHIFTED: sweep(moved, moved)}
    assert constrained._shift_helps(done).verdict == verdict


def test_mirrors_have_to_be_ahead_of_feedback_alignment():
    paths = feedback_paths
    bp = {paths._BP: sweep(0.95, 0.951, 0.952), paths._BP_SLOW: sweep(0.95, 0.951, 0.952)}
    good, poor = sweep(0.949, 0.95, 0.951), sweep(0.90, 0.901, 0.902)
    others = dict.fromkeys((paths._SIGN, paths._KP_DECAY), good)
    as_published = {paths._FA: poor, paths._FA_SLOW: poor, paths._KP: good, paths._WM: good}
    assert paths._accurate(bp | others | as_published).verdict == "holds"
    no_better = {paths._FA: good, paths._FA_SLOW: good, paths._KP: good, paths._WM: good}
    assert paths._accurate(bp | others | no_better).verdict == "holds in part"
    behind = {paths._FA: good, paths._FA_SLOW: good, paths._KP: poor, paths._WM: poor}
    assert paths._accurate(bp | others | behind).verdict == "does not hold"


def test_an_error_that_never_turned_is_not_said_to_have():
    def done(*angles: float) -> Any:
        members = [Member({}, 0, [{"angle of the error": a}], 1, None, None) for a in angles]
        return {feedback_paths._FA: SimpleNamespace(members=members)}

    assert feedback_paths._unaligned(done(30.0, 35.0), [88.0, 92.0]).verdict == "holds"
    assert feedback_paths._unaligned(done(30.0, 93.0), [88.0, 92.0]).verdict == "does not hold"


def test_one_loss_that_is_no_number_is_not_fitted():
    runs = {"linear": {100: [[{"loss": 1e-9}, {"loss": NAN}]]}}
    assert feedback_convergence._fits(runs).verdict == "does not hold"
    assert feedback_convergence._fits({"linear": {100: [[{"loss": 1e-9}]]}}).verdict == "holds"


def test_modules_have_to_be_ahead_beyond_chance():
    done = {direct._DFA: sweep(0.90, 0.901, 0.902)}
    ahead, level = sweep(0.93, 0.931, 0.932), sweep(0.9001, 0.9008, 0.9022)
    for dilated, grouped, verdict in ((ahead, ahead, "holds"), (ahead, level, "holds in part"), (level, level, "open")):
        assert direct._modules(done | {direct._DILATED: dilated, direct._GROUPED: grouped}).verdict == verdict


def test_projections_called_dilated_are():
    rules = direct._for_maps(SimpleNamespace(graph=SimpleNamespace(vertices=("a", "b", "c"))))
    for label in (direct._DILATED, direct._GROUPED):
        assert [part.dilation > 1 for part in rules[label].projector.values()] == [True]


@pytest.mark.parametrize(("all_three", "verdict"), [((0.95, 0.95), "holds"), ((0.95, NAN), "does not hold")])
def test_what_diverged_has_not_learned(all_three, verdict):
    done = {relaxed._PC: sweep(0.96, 0.96), "all three": sweep(*all_three)}
    assert relaxed._together(done).verdict == verdict


def swept(*accuracies: float) -> Any:
    """Members at two rates without noise, then at the same two with it."""
    numbers = [{"rate": rate, "deviation": deviation} for deviation in (0.0, 0.01) for rate in (1.0, 100.0)]
    return SimpleNamespace(
        members=[
            Member(each, 0, [{"test_accuracy": value}], 1, None, None)
            for each, value in zip(numbers, accuracies, strict=True)
        ]
    )


def test_the_claims_on_two_routes():
    bp = {
        name: SimpleNamespace(members=[Member({}, 0, [{"test_accuracy": 0.95}], 1, None, None)])
        for name in ("shallow", "deep")
    }
    level, poor, narrow = swept(0.95, 0.95, 0.95, 0.95), swept(0.6, 0.6, 0.6, 0.6), swept(0.95, 0.5, 0.95, 0.5)

    def runs(mirror: Any, others: Any) -> Any:
        each = dict.fromkeys(routes.ROUTES, others) | {routes._WM: mirror}
        return {"shallow": each, "deep": each}

    assert routes._robust(bp, runs(level, level)).verdict == "does not hold"
    assert routes._robust(bp, runs(poor, poor)).verdict == "open"
    assert routes._robust(bp, runs(narrow, level)).verdict == "holds"
    assert routes._noisy(bp, runs(level, level)).verdict == "holds"
    assert routes._noisy(bp, runs(poor, poor)).verdict == "does not hold"
    assert routes._transfers(runs(level, level)).verdict == "does not hold"
    apart = {"shallow": runs(narrow, level)["shallow"], "deep": runs(swept(0.5, 0.95, 0.5, 0.95), level)["deep"]}
    assert routes._transfers(apart).verdict == "holds"
    assert routes._deep(bp, runs(level, level)).verdict == "holds in part"


def test_a_mean_that_is_no_number_is_said_in_words():
    assert size_text(0.3824, "readout_accuracy") == "38.2 %"
    assert size_text(16.14, "test_loss") == "16.14"
    assert size_text(float("nan"), "test_loss") == "diverged"
