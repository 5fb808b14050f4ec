"""The stored results: they clean what they are given, survive JSON, and refuse what cannot be right."""

import dataclasses
import json
import math

import numpy as np
import pytest
import scipy.stats
from report_builders import make_comparison, make_rule

from vicinal.report import Comparison, Curve, as_study, interval_words, mean_interval, render_study


def test_round_trip_with_values_that_are_not_finite():
    comparison = make_comparison(
        make_rule(0, milliseconds_per_step=math.inf),
        make_rule(1, diverged=True, test_loss=[0.1, math.inf, math.nan]),
    )
    text = comparison.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = Comparison.from_json(text)
    assert again == comparison
    assert again.to_json() == text
    stored = json.loads(text)["rules"][1]
    assert stored["test_loss"] == [0.1, None, None]
    assert stored["steps_to_90"][-1] is None
    assert math.isnan(again.rules[1].test_loss[1])
    assert again.rules[0].milliseconds_per_step is None


def test_numpy_becomes_plain_python():
    settings = {"rate": np.float32(0.5), "sizes": np.array([4, 2]), "bad": math.nan, "nested": {"n": np.int64(3)}}
    comparison = make_comparison(make_rule(0), settings=settings)
    assert comparison.settings == {"rate": 0.5, "sizes": [4, 2], "bad": None, "nested": {"n": 3}}
    assert type(comparison.rules[0].test_accuracy[0]) is float
    assert type(comparison.rules[0].curve.steps[0]) is int


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_rule().label = "other"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_accuracy": []}, "no seeds"),
        ({"test_accuracy": [96.0, 97.0, 98.0]}, "fractions between 0 and 1"),
        ({"test_loss": [0.1]}, "test_accuracy has 3 seeds, test_loss has 1"),
        ({"norm_ratios": {"layers.0": [1.0, 2.0]}}, r"norm_ratios\['layers.0'\] has 2"),
        ({"angles": {"layers.0": [1.0, 2.0]}}, r"angles\['layers.0'\] has 2"),
        ({"color": "red; background: url(x)"}, "color must look like"),
        ({"paper_link": "javascript:alert(1)"}, "must start with https://"),
    ],
)
def test_impossible_rules_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_rule(**changes)


def test_curve_rows_must_match_the_steps():
    with pytest.raises(ValueError, match="seed 0 has 1 points, but there are 2 steps"):
        Curve(steps=[0, 1], test_accuracy=[[0.5]], test_loss=[])


def test_a_comparison_needs_rules_with_names_of_their_own():
    with pytest.raises(ValueError, match="at least one rule"):
        make_comparison(rules=[])
    with pytest.raises(ValueError, match="must differ"):
        make_comparison(make_rule(), make_rule())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": "vicinal-comparison-1", "rules": [{"name": "x"}]}']
)
def test_text_that_is_no_comparison_is_refused(text):
    with pytest.raises(ValueError, match="stored comparison"):
        Comparison.from_json(text)


def test_interval_agrees_with_a_table_of_quantiles():
    # Student's t at 97.5 % with 2 degrees of freedom is 4.303; the standard deviation of 1, 2, 3 is 1.
    mean, half_width = mean_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half_width == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)


@pytest.mark.parametrize("count", [3, 10, 40])
def test_interval_agrees_with_scipy(count):
    values = np.random.default_rng(count).normal(3.0, 2.0, count)
    low, high = scipy.stats.t.interval(0.95, count - 1, np.mean(values), scipy.stats.sem(values))
    mean, half_width = mean_interval(values)
    np.testing.assert_allclose([mean - half_width, mean + half_width], [low, high], rtol=1e-10)


def test_interval_without_enough_values():
    assert mean_interval([0.25]) == (0.25, None)
    assert mean_interval([0.25, math.nan, math.inf]) == (0.25, None)
    mean, half_width = mean_interval([])
    assert math.isnan(mean)
    assert half_width is None
    assert mean_interval([0.5, 0.5, 0.5]) == (0.5, 0.0)


def test_two_seeds_have_no_interval():
    assert mean_interval([0.25, 0.75]) == (0.5, None)
    assert mean_interval([0.25, math.nan, 0.75]) == (0.5, None)
    assert interval_words([0.25, math.nan, 0.75], "{:.2f}".format, "{:.1f}".format) == "0.25 and 0.75"
    assert interval_words([1.0, 2.0, 3.0], "{:.1f}".format, "{:.2f}".format) == "2.0 ± 2.48"  # 4.303 / sqrt(3)
    assert interval_words([math.nan], "{:.1f}".format, "{:.1f}".format) == ""


def test_results_stored_by_earlier_versions_still_load():
    comparison = make_comparison(make_rule(0), make_rule(1))
    stored = json.loads(comparison.to_json())
    for rule in stored["rules"]:
        del rule["norm_ratios"], rule["confusion"], rule["more"], rule["curve"]["more"]
    del stored["graph"], stored["class_names"]
    again = Comparison.from_json(json.dumps(stored))
    assert again.rules[1].angles == comparison.rules[1].angles
    assert again.rules[1].norm_ratios == {}
    assert "× 0." not in render_study(again)
    assert "× 0." in render_study(comparison)


def test_what_is_no_result_is_refused():
    for show in (as_study, render_study):
        with pytest.raises(TypeError, match="expected a Study or a Comparison, got dict"):
            show({"rules": []})
