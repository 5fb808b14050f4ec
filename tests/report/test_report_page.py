"""The page: complete, self-contained, well formed, escaped, deterministic; and it fits a phone."""

import html
import math
import re
import statistics

import matplotlib
import pytest
from report_builders import make_comparison, make_energies, make_rule
from report_page_checks import BROWSER, NASTY, Outline, check_page, widths_of

from vicinal.report import Curve, angles, energies, learning_curves, mean_interval, render_page, write_page
from vicinal.report.palette import DARK, GRID


def cases():
    """Build comparisons at the edges of what a report has to show."""
    flat = Curve([0], [[0.5]], [[0.0]])
    return {
        "two": make_comparison(),
        "six": make_comparison(*[make_rule(i, seeds=5, layers=5, diverged=i == 3) for i in range(6)]),
        "one rule, one seed": make_comparison(make_rule(1, seeds=1, layers=2)),
        "all lost": make_comparison(make_rule(1, seeds=1, diverged=True), make_rule(2, seeds=1, diverged=True)),
        "no energies, no angles": make_comparison(make_rule(0, angles={}), settings={}, environment={}, when=""),
        "one point": make_comparison(make_rule(1, seeds=1, curve=flat, energies={"output": [0.0]})),
        "nothing": make_comparison(
            make_rule(0, seeds=1, test_accuracy=[math.nan], test_loss=[math.inf], curve=Curve([], [], []), angles={})
        ),
        "nasty names": make_comparison(
            make_rule(
                1, label=NASTY, paper=NASTY, stopped=NASTY, angles={NASTY: [1, 2, 3]}, energies={NASTY: [1.0, 0.5]}
            ),
            title=NASTY,
            command=NASTY,
            settings={NASTY: NASTY},
            environment={NASTY: [NASTY]},
            data_credit=NASTY,
            when=NASTY,
        ),
        "long names": make_comparison(
            make_rule(0, label="w" * 90, name="n" * 60, paper="p" * 90),
            make_rule(1, angles={"encoder/" + "block" * 20: [1, 2, 3]}, energies={"v" * 80: [1.0, 0.5]}),
            title="t" * 120,
            command="c" * 300,
        ),
    }


CASES = cases()


@pytest.fixture(scope="module")
def pages():
    return {name: render_page(comparison) for name, comparison in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_page_is_well_formed_and_self_contained(pages, name):
    check_page(pages[name])


def numbers_of(rule):
    """Write, independently of the library, every number the table has to show for a rule."""
    accuracy, accuracy_half = mean_interval([100 * value for value in rule.test_accuracy])
    yield f"{accuracy:.1f} ± {accuracy_half:.1f} %"
    loss, loss_half = mean_interval(rule.test_loss)
    assert 0.01 <= loss < 0.1
    yield f"{loss:.4f} ± {loss_half:.4f}"
    for values in rule.angles.values():
        mean, half_width = mean_interval(values)
        yield f"{mean:.1f} ± {half_width:.1f}"
    milliseconds = rule.milliseconds_per_step
    yield f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.2f}"
    yield f"{statistics.median(step for step in rule.steps_to_90 if step is not None):g}"


@pytest.mark.parametrize("name", ["two", "six"])
def test_page_holds_every_number_of_the_table(pages, name):
    text = Outline(pages[name]).text
    for rule in CASES[name].rules:
        for number in numbers_of(rule):
            assert any(piece.strip() in (number, number + "°") for piece in text), number


def test_page_holds_settings_environment_and_credit(pages):
    text = " ".join(Outline(pages["two"]).text)
    comparison = CASES["two"]
    for expected in (comparison.command, comparison.data_credit, comparison.when, "64, 64, 64, 10", "0.10.2"):
        assert expected in text
    assert "il.inference steps" in text
    assert "4 of 5 seeds" in " ".join(Outline(pages["six"]).text)


def test_names_are_escaped(pages):
    page = pages["nasty names"]
    assert "<script" not in page
    assert "<b>" not in page
    assert Outline(page).text.count(NASTY) >= 8
    assert html.escape(NASTY) in page or html.escape(NASTY).replace("&#x27;", "&#39;") in page


def test_output_is_deterministic_and_leaves_matplotlib_alone(pages):
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": False, "svg.hashsalt": None}):
        assert render_page(make_comparison()) == pages["two"]
    assert dict(matplotlib.rcParams) == before


def test_figures_may_stand_twice_in_a_page():
    comparison = make_comparison()
    groups = [draw(comparison, prefix=prefix) for prefix in ("a", "b") for draw in (learning_curves, angles, energies)]
    outline = Outline("".join(panel for group in groups for panel in group.panels))
    assert len(set(outline.identifiers)) == len(outline.identifiers)


def test_rules_differ_in_colour_and_in_dashes():
    comparison = make_comparison(*[make_rule(index) for index in range(6)])
    swatches = [entry.swatch for entry in learning_curves(comparison).key]
    colours = {re.search(r"stroke: (#\w{6})", swatch)[1] for swatch in swatches}
    dashes = {re.sub(r'.*?(stroke-dasharray="[^"]*"|$).*', r"\1", swatch) for swatch in swatches}
    assert len(colours) == len(dashes) == 6


def test_a_rule_may_bring_its_colour():
    group = learning_curves(make_comparison(make_rule(0, color="#800080")))
    assert "light-dark(#800080, #b366b3)" in group.panels[0]  # 128 + 0.4 * 127 = 179, 0.4 * 255 = 102


def luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_stand_out_on_their_cards():
    for light, dark in DARK.items():
        if light != GRID:
            assert 1.05 / (luminance(light) + 0.05) >= 3
            assert (luminance(dark) + 0.05) / (luminance("#1b1f23") + 0.05) >= 3


def test_energies_follow_the_network():
    group = energies(make_comparison(make_rule(0), make_rule(1, energies=make_energies(4)), make_rule(2)))
    assert len(group.panels) == 4  # a panel of the vertices and one of the sum for each rule that settles
    labels = [entry.label for entry in group.key]
    assert labels == ["hidden1", "hidden2", "hidden3", "output", "sum over vertices"]


def test_write_page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_page(path, CASES["two"])
    assert path.read_bytes().decode() == render_page(CASES["two"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH to lay out the page with")
def test_no_sideways_scrolling_on_a_phone(pages, tmp_path):
    assert [pair for pair in widths_of(pages.values(), tmp_path) if pair[0] > pair[1]] == []
