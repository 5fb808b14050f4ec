"""The figures of a study show what they should: places, scales, bands, crosses, marks and looks."""

import html
import re

import numpy as np
import pytest
from study_builders import RATES, RULES, accuracy_panel, make_accuracies, make_norms, make_study, norm_panel

from vicinal.report import Panel, Section, Series
from vicinal.report.figures import panel_group, study_styles
from vicinal.report.palette import line_styles


def drawn(panel, styles=None):
    styles = styles or line_styles([series.label for series in panel.series])
    return panel_group([panel], styles).panels[0]


def lines_of(svg, color):
    """Return the corners of each line of a colour, in the order in which they are drawn."""
    paths = re.findall(rf'<path d="(M [^"]*?) ?"[^>]*style="fill: none;[^"]* stroke: {color};', svg)
    return [np.array(re.findall(r"([-\d.]+) ([-\d.]+)", path), float) for path in paths]


def ticks_of(svg):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def fractions(values):
    values = np.asarray(values, float)
    return (values - values[0]) / (values[-1] - values[0])


def test_a_sweep_over_powers_of_ten_is_spaced_evenly():
    panel = norm_panel(RULES[:1])
    svg = drawn(panel)
    corners = lines_of(svg, "#0072b2")[0]
    np.testing.assert_allclose(fractions(corners[:, 0]), fractions(np.log(RATES)), atol=1e-4)
    np.testing.assert_allclose(fractions(corners[:, 1]), fractions(np.log(make_norms(0).mean(0))), atol=1e-4)
    assert {"0.01", "0.1", "1", "2.5", "10", "100"} <= set(ticks_of(svg))


def test_a_linear_sweep_keeps_its_order():
    corners = lines_of(drawn(Panel("", "x", "y", [Series("bp", [1, 3, 2], [[1, 2, 5], [1, 4, 7]])])), "#0072b2")[0]
    np.testing.assert_allclose((corners[2] - corners[0]) / (corners[1] - corners[0]), [0.5, 2.5], atol=1e-4)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([2, 4, 8, 16, 32, 64], {"2", "4", "8", "16", "32", "64"}),
        ([10.0**k for k in range(-6, 3)], {"10⁻⁶", "10⁻⁴", "0.01", "1", "100"}),
        (np.linspace(1, 50, 20), {"1", "2", "5", "10", "20", "50"}),
    ],
)
def test_ticks_of_a_logarithmic_sweep(points, expected):
    panel = Panel("", "x", "y", [Series("bp", points, [np.full(len(points), 0.3)])], log_x=True)
    assert expected <= set(ticks_of(drawn(panel)))


def crosses(rows):
    """Count the marks that lost values add to a figure."""
    marks = [drawn(Panel("", "x", "y", [Series("bp", [1, 2, 3], y)])).count("<use") for y in (rows, [[1, 2, 3]])]
    return marks[0] - marks[1]


def test_lost_repetitions_are_marked():
    assert crosses([[1, 2, 3], [1, 2, None]]) == 1
    assert crosses([[1, 2, None], [1, None, None]]) == 2
    assert crosses([[1, 2, 3], [1, None, None]]) == 1  # where it was lost, and not at every later point
    assert crosses([[1, None, 3], [1, 2, None]]) == 2  # one repetition at each point


def test_points_without_a_neighbour_are_marked():
    alone = lines_of(drawn(Panel("", "x", "y", [Series("bp", [3], [[1], [2]])])), "#0072b2")
    assert any(np.ptp(path[:, 0]) == 0 < np.ptp(path[:, 1]) for path in alone)  # the bar from lowest to highest
    assert crosses([[None, 2, None]]) == 3  # a mark, and two crosses


def test_a_band_reaches_below_a_logarithmic_scale():
    svg = drawn(Panel("", "x", "y", [Series("bp", [1, 2, 3], [[1, 0, 5], [2, 20, 5], [1, 10, 5]])], log_y=True))
    fills = re.findall(r'<path d="(M [^"]*)"[^>]*fill: #0072b2', svg)
    bottom = max(float(y) for y in re.findall(r"[ML] [-\d.]+ ([-\d.]+)", fills[0]))
    assert bottom > 200  # the axes end at 180 units from the top


def test_a_label_keeps_its_look_through_a_study():
    study = make_study(sections=[Section("Own", panels=[accuracy_panel(RULES[:2]), norm_panel(RULES[1:])])])
    styles = study_styles(study)
    assert list(styles) == list(RULES)
    assert {name: styles[name].color for name in RULES[:2]} == {RULES[0]: "#0072b2", RULES[1]: "#d55e00"}
    both = [drawn(panel, styles) for panel in study.sections[0].panels]
    assert [bool(lines_of(svg, "#0072b2")) for svg in both] == [True, False]
    assert all(lines_of(svg, "#d55e00") for svg in both)
    dashes = [re.findall(r"stroke-dasharray: ([^;]*);[^\"]* stroke: #d55e00;", svg)[0] for svg in both]
    assert dashes[0] == dashes[1]


def test_36_lines_look_different():
    styles = line_styles([str(index) for index in range(36)])
    assert len({(style.color, style.dashes) for style in styles.values()}) == 36


def test_description_says_where_lines_begin_and_end():
    svg = drawn(accuracy_panel(RULES[:2]))
    description = html.unescape(re.search(r"<desc[^>]*>([^<]*)</desc>", svg)[1])
    accuracies = make_accuracies(0)
    first, last = accuracies[:, 0].mean(), accuracies[:3, 3].mean()
    assert "test accuracy against learning rate, mean over repetitions" in description
    assert f"backpropagation from {first:.3g} (at 0.01) to {last:.3g} (at 2.5), 12 of 30 values lost;" in description
    assert html.unescape(re.search(r"<title[^>]*>([^<]*)</title>", svg)[1]) == "Final accuracy against learning rate"
