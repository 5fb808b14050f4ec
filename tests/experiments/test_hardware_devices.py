"""What is concluded of rules on imperfect arrays: from made-up numbers, and theory on the stored ones."""

from pathlib import Path

import numpy as np
import pytest

from vicinal.report import Study
from vicinal.reproduce import Found, experiments
from vicinal_experiments.hardware import devices, grids, periphery
from vicinal_experiments.hardware.networks import RULES

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "hardware"
DEVICES, PERIPHERY = devices.DEVICES, periphery.PERIPHERY
SPREAD = np.array([-0.002, -0.001, 0.0, 0.001, 0.002])  # over five seeds


def rows(accuracy):
    """Five stored members that end near an accuracy; None: they diverged."""
    if accuracy is None:
        return [{"numbers": {}, "seed": seed, "stopped": "diverged", "records": []} for seed in range(5)]
    return [
        {"numbers": {}, "seed": seed, "stopped": None, "records": [{"step": 1, "test_accuracy": accuracy + extra}]}
        for seed, extra in enumerate(SPREAD)
    ]


def found(experiment, points, change, **others):
    """Every rule at 90 % everywhere, but for `change`: accuracies by rule and point."""
    runs = {label: {point: rows(0.9) for point in (grids.BARE, *points)} for label in RULES}
    for (label, point), accuracy in change.items():
        runs[label][point] = rows(accuracy)
    return Found(experiment.sizes["full"], 5, {"runs": runs} | others)


def on_cells(change):
    return found(DEVICES, grids.grid_of(list(devices.FACTORS.values())), change)


def on_reads(change, **others):
    helped = {name: {point: rows(others.get(name, 0.9)) for point in POINTS} for name in periphery.HELP}
    return found(PERIPHERY, grids.grid_of(periphery.FACTORS), change, helped=helped)


NOISY = [periphery.NOISE["both"].point(noise) for noise in (0.06, 0.2, 0.5)]
POINTS = [grids.NOMINAL, *NOISY]


def test_a_point_is_what_differs_and_the_nominal_one_is_common_to_all_factors():
    grid = grids.grid_of(list(devices.FACTORS.values()))
    assert len(grid) == 1 + 3 + 2 + 4 + 2 + 2
    assert grid["nominal"] == {}
    assert grid["states 32"] == {"step": 1 / 16}
    assert (grid["cycle 60"], grid["stuck 5"]) == ({"cycle": 60.0}, {"stuck": 0.05})
    assert devices.STATES.point(1200.0) == devices.SPREAD.point(0.3) == "nominal"
    grid = grids.grid_of(periphery.FACTORS)
    assert len(grid) == 1 + 4 + 2 * 3 + 3 * 3
    assert grid["both bits 2"] == {"forward.adc": 2.0, "backward.adc": 2.0}
    assert grid["backward noise 0.2"] == {"backward.read_noise": 0.2}


@pytest.mark.parametrize(
    ("dfa_1", "dfa_5", "bp_5", "verdict"),
    [
        (0.88, 0.4, 0.88, "holds"),
        (0.88, 0.88, 0.88, "holds in part"),
        (0.4, 0.88, 0.4, "does not hold"),
        (0.88, None, 0.88, "holds"),
        (0.72, 0.72, 0.72, "open"),
    ],
)
def test_converging_is_judged_against_the_same_rule_without_noise(dfa_1, dfa_5, bp_5, verdict):
    change = {("DFA", "cycle 12"): dfa_1, ("DFA", "cycle 60"): dfa_5, ("BP", "cycle 60"): bp_5}
    assert devices._converges(on_cells(change)).verdict == verdict


@pytest.mark.parametrize(
    ("few", "fewer", "verdict"), [(0.897, 0.91, "holds"), (0.897, 0.89, "holds in part"), (0.89, 0.89, "does not hold")]
)
def test_half_a_point_is_within_and_one_is_not(few, fewer, verdict):
    change = {("IL", "states 128"): few, ("IL", "states 32"): fewer}
    assert devices._few_states(on_cells(change)).verdict == verdict


@pytest.mark.parametrize(("noisy", "verdict"), [(0.88, "holds"), (0.895, "does not hold"), (None, "holds")])
def test_more_than_a_point_worse_is_beyond_the_interval(noisy, verdict):
    change = {("IL", point): noisy for point in NOISY}
    assert periphery._noise_of_errors(on_reads(change)).verdict == verdict


def test_the_most_accurate_rule_has_to_be_ahead_of_each_other_everywhere():
    points = list(grids.grid_of(list(devices.FACTORS.values())))
    ahead = {("BP", point): 0.92 for point in points}
    assert devices._most_accurate(on_cells(ahead)).verdict == "holds"
    assert devices._most_accurate(on_cells(ahead | {("KP", "stuck 5"): 0.93})).verdict == "holds in part"
    assert devices._most_accurate(on_cells({("KP", "stuck 5"): 0.93})).verdict == "does not hold"
    assert devices._most_accurate(on_cells({})).verdict == "open"


def test_a_lead_grows_only_beyond_that_without_imperfections():
    worst = [factor.point(devices._WORST[factor]) for factor in devices.FACTORS.values()]
    small, large = ({("DFA", point): accuracy for point in worst} for accuracy in (0.88, 0.80))
    start = {("DFA", grids.BARE): 0.86}
    assert devices._notably(on_cells(start | large)).verdict == "holds"
    assert devices._notably(on_cells(start | small)).verdict == "does not hold"
    mixed = small | {("DFA", worst[0]): 0.80}
    assert devices._notably(on_cells(start | mixed)).verdict == "holds in part"


@pytest.mark.parametrize(
    ("two", "three", "verdict"),
    [(0.2, 0.88, "holds"), (0.88, 0.88, "holds in part"), (0.88, 0.2, "does not hold"), (None, 0.88, "holds")],
)
def test_bits_are_enough_if_a_rule_still_learns(two, three, verdict):
    change = {("DFA", "both bits 2"): two, ("DFA", "both bits 3"): three}
    assert periphery._three_bits(on_reads(change)).verdict == verdict


def test_there_is_something_to_win_back_only_where_noise_costs_something():
    behind = {("IL", point): 0.80 for point in NOISY}
    assert periphery._averaging(on_reads(behind, **{"IL, averaged": 0.87})).verdict == "holds"
    assert periphery._averaging(on_reads(behind, **{"IL, averaged": 0.83})).verdict == "does not hold"
    assert periphery._averaging(on_reads({}, **{"IL, averaged": 0.95})).verdict == "open"


# ------------------------------------------------------------------------------------------------- stored numbers


def stored(name):
    study = Study.from_json((RESULTS / f"{name}.json").read_text())
    return Found(experiments()[f"hardware/{name}"].sizes["full"], study.settings["seeds"], study.numbers)


def test_pulses_are_as_many_as_the_steps_are_fine():
    on, points = stored("devices"), ["states 128", "states 2000"]
    alike = [label for label in on.size.rules if abs(np.diff([grids.percent(on, label, p) for p in points])[0]) < 1]
    assert len(alike) >= 5
    for label in alike:
        coarse, fine = (np.mean(devices._pulses(on, label, point)) for point in points)
        # As many as the change over the step, but for 31 of a cell in an update at most. Other rules learn otherwise.
        assert 0.5 < fine / coarse / (2000 / 128) < 1.3, label


def test_a_rule_without_reads_back_does_not_see_their_converters():
    on = stored("periphery")
    for kind, values in (("bits", (3, 4, 6)), ("noise", (0.06, 0.2, 0.5))):
        for value in values:
            back, both, forward = (
                grids.accuracies(on, "DFA", f"{side} {kind} {value:g}") for side in ("backward", "both", "forward")
            )
            assert back == grids.accuracies(on, "DFA", "nominal")
            assert both == forward
            assert forward != back


@pytest.mark.parametrize("name", ["devices", "periphery"])
def test_rates_are_those_with_the_best_held_out_accuracy(name):
    on = stored(name)
    ranges = [of for label in on.numbers.get("ranges", {}).values() for of in label.values()]
    for of in ranges:
        assert of["accuracy"][of["tried"].index(of["chosen"])] == max(of["accuracy"])
    for of in [*on.numbers["rates"].values(), *on.numbers.get("bare_rates", {}).values()]:
        assert of["accuracy"][of["rates"].index(of["chosen"])] == max(of["accuracy"])
    assert min(grids.percent(on, label, "nominal") for label in on.size.rules) > 70
