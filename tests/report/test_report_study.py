"""A stored study cleans what it is given, survives JSON, refuses what cannot be right, and can be printed."""

import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from study_builders import RATES, make_accuracies, make_study

from vicinal.report import VERDICTS, Claim, Panel, Section, Series, Study, Table, print_study
from vicinal.report.formatting import MISSING


def printed(study, width=80):
    buffer = io.StringIO()
    print_study(study, Console(file=buffer, width=width))
    return buffer.getvalue()


def with_table(*rows, columns=("rule", "a", "b")):
    return make_study(sections=[Section("Numbers", tables=[Table("Table", columns, rows)])], claims=[], differences=[])


def test_round_trip_with_values_that_are_not_finite():
    study = make_study(numbers={"raw": np.array([1.0, math.nan, math.inf]), "nested": [{"n": np.int64(3)}]})
    text = study.to_json()
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = Study.from_json(text)
    assert again == study
    assert again.to_json() == text
    assert stored["format"] == "vicinal-study-1"
    assert stored["numbers"] == {"raw": [1.0, None, None], "nested": [{"n": 3}]}
    line = stored["sections"][0]["panels"][0]["series"][0]
    assert line["y"][0][4:] == [None, None]
    assert math.isnan(again.sections[0].panels[0].series[0].y[0][5])
    assert stored["sections"][0]["tables"][1]["rows"][2][4] is None


def test_a_study_of_nothing_survives_json():
    study = Study("Title", "Summary.", "", {}, {}, [])
    assert Study.from_json(study.to_json()) == study


def test_numpy_becomes_plain_python():
    line = Series("bp", np.float32([0.5, 2]), np.array([[1, 2], [3, math.inf]]))
    assert (line.x, line.y[0]) == ([0.5, 2.0], [1.0, 2.0])
    assert math.isnan(line.y[1][1])
    assert type(line.x[0]) is type(line.y[0][0]) is float
    table = Table("t", np.array(["a", "b"]), [[np.float64(0.5), np.int32(3)], [math.nan, np.str_("x")]])
    assert table.rows == [[0.5, 3], [None, "x"]]
    assert [type(cell) for cell in table.rows[0]] == [float, int]
    assert type(table.columns[0]) is str


def test_studies_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_study().title = "other"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Series("bp", [1, 2, 3], [[1, 2, 3], [1, 2]]),
            r"Series 'bp': y: expected 3 entries in every row, one value per x, got 2 in row 1\.",
        ),
        (lambda: Series("bp", [1, 2], [0.5, 0.6]), "expected y to hold one list per repetition, got 0.5"),
        (
            lambda: Table("Best", ["rule", "loss"], [["bp", 1.0], ["il"]]),
            r"Table 'Best': rows: expected 2 entries in every row, one cell per column, got 1 in row 1\.",
        ),
        (lambda: Table("Best", [], []), "expected at least one column, got none"),
        (lambda: Table("Best", "rule", []), "expected a list of texts, got one text 'rule'"),
        (lambda: Table("Best", ["rule"], [[[1, 2]]]), r"expected a text, a number or None in a cell, got \[1, 2\]"),
        (
            lambda: Claim("It is fast.", "It is not.", "false"),
            "expected one of 'holds', .*'open' as verdict, got 'false'",
        ),
        (
            lambda: Panel("Sweep", "x", "y", [Series("bp", [0, 1], [[1, 2]])], log_x=True),
            "Panel 'Sweep': expected x above 0 on a logarithmic axis, got 0 in series 'bp'",
        ),
        (
            lambda: Panel("Sweep", "x", "y", [Series("bp", [1], [[1]]), Series("bp", [2], [[1]])]),
            "expected labels that differ, got bp, bp",
        ),
        (lambda: make_study(differences="One sentence."), "Study.differences: expected a list of texts, got one text"),
    ],
)
def test_impossible_studies_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": "vicinal-comparison-1"}',
        '{"format": "vicinal-study-1"}',
        '{"format": "vicinal-study-1", "sections": [{"title": "x"}], "claims": []}',
        '{"format": "vicinal-study-1", "sections": [], "claims": []}',
        '{"format": "vicinal-study-1", "sections": 3, "claims": []}',
    ],
)
def test_text_that_is_no_study_is_refused(text):
    with pytest.raises(ValueError, match="stored study"):
        Study.from_json(text)


def test_every_verdict_is_allowed():
    assert [Claim("", "", verdict).verdict for verdict in VERDICTS] == list(VERDICTS)


def test_print_fits_80_columns_and_breaks_no_number():
    study = make_study()
    text = printed(study)
    assert max(map(len, text.splitlines())) <= 80
    for index in range(4):
        for column in make_accuracies(index).T:
            finite = column[np.isfinite(column)]
            assert finite.size == 0 or f"{finite.mean():.4f}" in text
    for expected in ("0.912 ± 0.013", "0.954 ± 0.004", "1.500e-07", "12.35", "94.8 ± 0.5 %", *VERDICTS):
        assert expected in text
    words = " ".join(text.split())
    for expected in (study.title, study.summary, *study.differences, "diverged on every seed"):
        assert expected in words


def test_floats_that_name_rows_are_short():
    text = printed(with_table(*[[rate, rate, None] for rate in RATES]))
    cells = [line.split() for line in text.splitlines() if line.endswith(MISSING)]
    assert [row[0] for row in cells] == ["0.01", "0.1", "1", "2.5", "10", "100"]
    assert [row[1] for row in cells] == ["0.01000", "0.1000", "1.000", "2.500", "10.00", "100.0"]


def test_a_wide_table_is_printed_in_parts():
    columns = ["rule", *[f"learning rate {index}" for index in range(20)]]
    rows = [[f"a rule with a long name, number {row}", *[row + index / 1000 for index in range(20)]] for row in (1, 2)]
    text = printed(with_table(*rows, columns=columns))
    assert max(map(len, text.splitlines())) <= 80
    words = text.split()
    for row in (1, 2):
        for index in range(20):
            assert words.count(f"{row + index / 1000:.3f}") == 1
    assert words.count("rule") > 1


def test_markup_and_long_words_are_printed_as_they_are():
    text = printed(with_table(["[bold]x[/bold]", "§" * 90, ""], ["y", 12345678, -0.5]))
    assert max(map(len, text.splitlines())) <= 80
    assert "[bold]x[/bold]" in text
    assert sum(line.count("§") for line in text.splitlines()) == 90
    assert "12345678" in text
    assert "-0.5000" in text


@pytest.mark.parametrize("rows", [[], [["bp", None, None]]])
def test_tables_without_values_can_be_printed(rows):
    assert "rule" in printed(with_table(*rows))


def test_a_study_of_nothing_can_be_printed():
    assert printed(Study("Title", "Summary.", "", {}, {}, [])) == "Title\nSummary.\n"
