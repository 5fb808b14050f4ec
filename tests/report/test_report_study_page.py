"""The page of a study: complete, self-contained, escaped, deterministic; and its figures show what they should."""

import html
import math
import re

import matplotlib
import numpy as np
import pytest
from report_page_checks import BROWSER, NASTY, Outline, check_page, widths_of
from study_builders import RATES, RULES, accuracy_panel, make_accuracies, make_norms, make_study, norm_panel

from vicinal.report import VERDICTS, Claim, Panel, Section, Series, Study, Table, render_study, write_study
from vicinal.report.palette import line_styles
from vicinal.report.study_figures import draw_panel, study_styles
from vicinal.report.words import MISSING


def panels_at_the_edges():
    """Build figures with little or nothing to show, or too much."""
    lost = [[None, None], [math.nan, math.inf]]
    return [
        Panel("", "x", "y", []),
        Panel("No points", "x", "y", [Series("bp", [], [])], log_x=True, log_y=True),
        Panel("No repetitions", "x", "y", [Series("bp", [1, 2], [])], log_x=True),
        Panel("All lost", "x", "y", [Series("bp", [1, 2], lost), Series("il", [1, 2], lost)], log_y=True),
        Panel("One point", "x", "y", [Series("bp", [3], [[1.0], [2.0]]), Series("il", [3], [[0.0]])], log_x=True),
        Panel("No place", "x", "y", [Series("bp", [None, 1, 2], [[1, 2, 3]])]),
        Panel("Not positive", "x", "y", [Series("bp", [-1, 0, 1], [[-5, 0, 5], [-3, 1, 50]])], log_y=True),
        Panel("Narrow", "x", "y", [Series("bp", [3 + i / 10 for i in range(9)], [range(9)])], log_x=True),
        Panel("Wide", "x", "y", [Series("bp", [10.0**i for i in range(-8, 9)], [range(17)])], log_x=True, log_y=True),
        Panel("Many", "x", "y", [Series(f"rule {i}", [1, 2], [[i, i]]) for i in range(40)]),
    ]


CASES = {
    "two sections": make_study(),
    "nothing": Study("Title", "Summary.", "", {}, {}, []),
    "edges": make_study(sections=[Section("Edges", panels=panels_at_the_edges())], claims=[], differences=[]),
    "own keys": make_study(sections=[Section("Own", panels=[accuracy_panel(RULES[:2]), norm_panel(RULES[1:])])]),
    "nasty": Study(
        NASTY,
        NASTY,
        NASTY,
        {NASTY: NASTY},
        {NASTY: [NASTY]},
        [
            Section(
                NASTY,
                NASTY,
                [Table(NASTY, [NASTY, NASTY], [[NASTY, NASTY]])],
                [Panel(NASTY, NASTY, NASTY, [Series(NASTY, [1, 2], [[1, 2]])], note=NASTY)],
            )
        ],
        [Claim(NASTY, NASTY, "open")],
        [NASTY],
        {NASTY: NASTY},
        NASTY,
        NASTY,
    ),
    "long": make_study(
        title="t" * 120,
        sections=[
            Section(
                "h" * 90,
                "w" * 300,
                [Table("t" * 90, ["n" * 60, "c" * 60], [["r" * 90, "5" * 90]])],
                [Panel("p" * 90, "x" * 90, "y" * 90, [Series("s" * 90, [1], [[1]])], note="n" * 90)],
            )
        ],
        claims=[Claim("c" * 300, "m" * 300, "does not hold")],
        differences=["d" * 300],
    ),
}


@pytest.fixture(scope="module")
def pages():
    return {name: render_study(study) for name, study in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_page_is_well_formed_and_self_contained(pages, name):
    check_page(pages[name])


def test_page_holds_every_number_claim_and_difference(pages):
    pieces = [piece.strip() for piece in Outline(pages["two sections"]).text]
    for index in range(4):
        for column in make_accuracies(index).T:
            finite = column[np.isfinite(column)]
            assert (f"{finite.mean():.4f}" if finite.size else MISSING) in pieces
    for expected in (
        "0.01",
        "4",
        "0.912 ± 0.013",
        "1.500e-07",
        "12.35",
        "diverged on every seed in the first ten steps",
    ):
        assert expected in pieces
    assert set(VERDICTS) <= set(pieces)
    study, text = CASES["two sections"], " ".join(" ".join(pieces).split())
    for claim in study.claims:
        assert claim.paper in text
        assert claim.measured in text
    for expected in (study.summary, study.command, study.data_credit, study.when, *study.differences, "64, 64, 10"):
        assert expected in text
    assert "Every rule was trained for 1000 steps." in pieces
    assert study.sections[1].panels[0].note in text


def test_sections_that_are_empty_are_left_out(pages):
    outline = Outline(pages["nothing"])
    assert set(outline.identifiers) == {"reproduce"}
    assert "claims" in Outline(pages["two sections"]).identifiers


def test_names_are_escaped(pages):
    page = pages["nasty"]
    assert "<script" not in page
    assert "<b>" not in page
    assert [piece.strip() for piece in Outline(page).text].count(NASTY) >= 15
    assert html.escape(NASTY) in page or html.escape(NASTY).replace("&#x27;", "&#39;") in page


def test_output_is_deterministic_and_leaves_matplotlib_alone(pages):
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": False, "svg.hashsalt": None}):
        assert render_study(make_study()) == pages["two sections"]
    assert dict(matplotlib.rcParams) == before
    assert render_study(Study.from_json(make_study().to_json())) == pages["two sections"]


def test_write_study(tmp_path):
    path = tmp_path / "study.html"
    write_study(path, CASES["nothing"])
    assert path.read_bytes().decode() == render_study(CASES["nothing"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH to lay out the page with")
def test_no_sideways_scrolling_on_a_phone(pages, tmp_path):
    assert [pair for pair in widths_of(pages.values(), tmp_path) if pair[0] > pair[1]] == []


def drawn(panel, styles=None):
    styles = styles or line_styles([series.label for series in panel.series])
    return draw_panel(panel, styles, identifier="f")


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
    study = CASES["own keys"]
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


def test_figures_that_show_the_same_lines_share_a_key(pages):
    assert pages["two sections"].count('<ul class="key">') == 2
    assert pages["own keys"].count('<ul class="key">') == 2
    assert pages["two sections"].count("<figure>") == 3


def test_description_says_where_lines_begin_and_end():
    svg = drawn(accuracy_panel(RULES[:2]))
    description = html.unescape(re.search(r"<desc[^>]*>([^<]*)</desc>", svg)[1])
    accuracies = make_accuracies(0)
    first, last = accuracies[:, 0].mean(), accuracies[:3, 3].mean()
    assert "test accuracy against learning rate, mean over repetitions" in description
    assert f"backpropagation from {first:.3g} (at 0.01) to {last:.3g} (at 2.5), 12 of 30 values lost;" in description
    assert html.unescape(re.search(r"<title[^>]*>([^<]*)</title>", svg)[1]) == "Final accuracy against learning rate"
