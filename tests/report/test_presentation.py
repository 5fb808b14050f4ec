"""Events of one example: as plain data, and as figures."""

import json

import numpy as np
import pytest
from report_builders import make_rule

from vicinal.report import Comparison, Presentation, SentBy, UnitCourse, as_study, plot_panels, render_study

VALUES = SentBy("hidden1", "values", 3, 40, [1, 2, 2], [0, 0, 2], [1, -1, 1])
ERRORS = [SentBy("hidden2", "errors", 2, 2, [1], [1], [-1]), SentBy("output", "errors", 2, 2, [4], [0], [1])]
COURSE = UnitCourse("hidden1[7]", [0.0, 0.3, 0.5], [0.0, 0.25, 0.5])
FOUND = Presentation(3, [VALUES, *ERRORS], [COURSE])


def comparison(*presentations):
    rules = [make_rule(index, presentation=one) for index, one in enumerate(presentations)]
    return Comparison("Digits", "vicinal train", {}, {}, rules, "", "")


def sections(*presentations):
    return {section.heading: section for section in as_study(comparison(*presentations)).sections}


def test_it_survives_storage():
    results = comparison(FOUND, None)
    assert Comparison.from_json(results.to_json()) == results
    old = json.loads(results.to_json())
    for rule in old["rules"]:
        del rule["presentation"]  # stored before there was one
    assert Comparison.from_json(json.dumps(old)).rules[0].presentation is None


def test_every_event_is_a_stroke_in_the_row_of_its_unit():
    values, errors = sections(FOUND)["Events"].panels
    assert {series.label: (series.x, series.y) for series in values.series} == {
        "up": ([1.0, 2.0], [[0.0, 2.0]]),
        "down": ([2.0], [[0.0]]),
    }
    up, down = errors.series  # two rows lie between the units of two nodes
    assert (up.x, up.y, down.x, down.y) == ([4.0], [[4.0]], [1.0], [[1.0]])
    assert errors.rows == {"hidden2": 0.5, "output": 4.5}
    assert "3 of the 40 units of hidden1" in values.note
    (_, right), (low, high) = errors.extent
    assert right > 4.0  # errors have a turn after the last step
    assert low < 0
    assert high > 5
    axes = plot_panels([values]).axes[0]
    drawn = [line.get_xydata() for line in axes.lines]
    np.testing.assert_allclose(drawn[0][[0, 1, 3, 4]], [[1, -0.4], [1, 0.4], [2, 1.6], [2, 2.4]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hidden1"]


def test_what_was_sent_is_a_staircase():
    (panel,) = sections(FOUND)["What units hold and send"].panels
    sent, holds = panel.series
    assert holds.x == [0, 1, 2]
    assert (sent.x, sent.y) == ([0, 1, 1, 2, 2], [[0, 0, 0.25, 0.25, 0.5]])


def test_rules_without_events_have_no_section():
    assert not {"Events", "What units hold and send"} & set(sections(None, None))


def test_several_rules_are_named_in_titles():
    panels = sections(FOUND, FOUND)["Events"].panels
    assert [panel.title.split(":")[0] for panel in panels] == ["backpropagation"] * 2 + ["inference learning"] * 2


def test_the_page_shows_it_even_without_events():
    silent = Presentation(3, [SentBy("hidden1", "values", 3, 3, [], [], [])], [])
    for one in (FOUND, silent):
        page = render_study(comparison(one))
        assert ">Events<" in page
        assert "events of values" in page


def test_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="Events of 'hidden1': expected 2 entries in every row, one entry per event"):
        SentBy("hidden1", "values", 3, 3, [1, 2], [0], [1, 1])
    with pytest.raises(ValueError, match=r"Unit 'hidden1\[7\]': expected 3 entries"):
        UnitCourse("hidden1[7]", [0.0, 1.0, 2.0], [0.0])
