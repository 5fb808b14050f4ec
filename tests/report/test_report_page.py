"""The page: complete, self-contained, well formed, escaped, deterministic; and it fits a phone."""

import html
import math
import statistics

import matplotlib
import numpy as np
import pytest
from report_builders import make_comparison, make_rule
from report_page_checks import BROWSER, NASTY, Outline, check_page, widths_of
from study_builders import RULES, accuracy_panel, make_accuracies, make_study, norm_panel

from vicinal.report import (
    VERDICTS,
    Claim,
    Curve,
    Panel,
    Section,
    Series,
    Study,
    Table,
    as_study,
    mean_interval,
    render_study,
    write_study,
)
from vicinal.report.formatting import MISSING


def comparisons():
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


COMPARISONS = comparisons()
STUDIES = {
    "two sections": make_study(),
    "empty": Study("Title", "Summary.", "", {}, {}, []),
    "edges": make_study(sections=[Section("Edges", panels=panels_at_the_edges())], claims=[], differences=[]),
    "own keys": make_study(sections=[Section("Own", panels=[accuracy_panel(RULES[:2]), norm_panel(RULES[1:])])]),
    "nasty study": Study(
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


CASES = {**COMPARISONS, **STUDIES}


@pytest.fixture(scope="module")
def pages():
    return {name: render_study(results) for name, results in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_page_is_well_formed_and_self_contained(pages, name):
    check_page(pages[name])


def written(values):
    """Write a mean with an interval of two significant digits, and of none or no spread the mean with three."""
    mean, half_width = mean_interval(values)
    if mean == half_width == 0:
        return "0 ± 0"
    digits = 1 - math.floor(math.log10(half_width)) if half_width else 2 - math.floor(math.log10(mean))
    return f"{mean:.{max(digits, 0)}f} ± {half_width:.{max(digits, 0)}f}"


def numbers_of(rule):
    """Write, independently of the library, every number the table has to show for a rule."""
    yield written([100 * value for value in rule.test_accuracy])
    yield written(rule.test_loss)
    yield from map(written, rule.angles.values())
    milliseconds = rule.milliseconds_per_step
    yield f"{milliseconds:.3f}" if milliseconds < 1 else f"{milliseconds:.2f}"
    yield f"{statistics.median(step for step in rule.steps_to_90 if step is not None):g}"


@pytest.mark.parametrize("name", ["two", "six"])
def test_page_holds_every_number_of_the_table(pages, name):
    text = [piece.strip() for piece in Outline(pages[name]).text]
    for rule in COMPARISONS[name].rules:
        for number in numbers_of(rule):
            assert number in text, number


def test_page_holds_settings_environment_and_credit(pages):
    text = " ".join(Outline(pages["two"]).text)
    comparison = COMPARISONS["two"]
    for expected in (comparison.command, comparison.data_credit, comparison.when, "64, 64, 64, 10", "0.10.2"):
        assert expected in text
    assert "il.inference steps" in text
    assert "(4 of 5)" in " ".join(Outline(pages["six"]).text)


def test_page_of_a_study_holds_every_number_claim_and_difference(pages):
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
    study, text = STUDIES["two sections"], " ".join(" ".join(pieces).split())
    for claim in study.claims:
        assert claim.paper in text
        assert claim.measured in text
    for expected in (study.summary, study.command, study.data_credit, study.when, *study.differences, "64, 64, 10"):
        assert expected in text
    assert "Every rule was trained for 1000 steps." in pieces
    assert study.sections[1].panels[0].note in text


def test_sections_that_are_empty_are_left_out(pages):
    outline = Outline(pages["empty"])
    assert set(outline.identifiers) == {"reproduce"}
    assert "claims" in Outline(pages["two sections"]).identifiers


@pytest.mark.parametrize(("name", "count"), [("nasty names", 8), ("nasty study", 15)])
def test_names_are_escaped(pages, name, count):
    page = pages[name]
    assert "<script" not in page
    assert "<b>" not in page
    assert [piece.strip() for piece in Outline(page).text].count(NASTY) >= count
    assert html.escape(NASTY) in page or html.escape(NASTY).replace("&#x27;", "&#39;") in page


def test_output_is_deterministic_and_leaves_matplotlib_alone(pages):
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30.0, "axes.grid": False, "svg.hashsalt": None}):
        assert render_study(make_comparison()) == pages["two"]
        assert render_study(make_study()) == pages["two sections"]
    assert dict(matplotlib.rcParams) == before
    assert render_study(Study.from_json(make_study().to_json())) == pages["two sections"]


@pytest.mark.parametrize("name", ["six", "nasty names", "all lost"])
def test_a_comparison_survives_as_a_study(pages, name):
    study = as_study(COMPARISONS[name])
    again = Study.from_json(study.to_json())
    assert again == study
    assert render_study(again) == pages[name]
    assert as_study(study) is study


def test_figures_that_show_the_same_lines_share_a_key(pages):
    assert pages["two sections"].count('<ul class="key">') == 2
    assert pages["own keys"].count('<ul class="key">') == 2
    assert pages["two sections"].count("<figure>") == 3


def test_papers_are_linked(pages):
    assert 'href="https://example.org/paper-1"' in pages["two"]


def test_write_study(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_study(path, COMPARISONS["two"])
    assert path.read_bytes().decode() == render_study(COMPARISONS["two"])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the PATH to lay out the page with")
def test_no_sideways_scrolling_on_a_phone(pages, tmp_path):
    assert [pair for pair in widths_of(pages.values(), tmp_path) if pair[0] > pair[1]] == []
