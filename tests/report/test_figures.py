"""Figures for papers show the same numbers as the page, and survive a round trip through files."""

import dataclasses
import math
import re

import matplotlib
import numpy as np
import pytest
from report_builders import make_comparison, make_energies, make_rule
from report_page_checks import Outline
from study_builders import make_accuracies, make_study

from vicinal.report import (
    Comparison,
    Curve,
    Node,
    Series,
    as_study,
    plot_panels,
    plot_section,
    render_study,
    save_figures,
)
from vicinal.report.class_tables import class_table, confusion_tables
from vicinal.report.figures import panel_group, study_styles
from vicinal.report.palette import DARK, GRID, color_ramp, line_styles

TWO = make_comparison()


def panels_of(comparison, heading):
    return next((s.panels for s in as_study(comparison).sections if s.heading == heading), [])


def drawn(comparison, heading, prefix="figure"):
    return panel_group(panels_of(comparison, heading), study_styles(as_study(comparison)), prefix=prefix)


def lines_of(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_learning_curves_show_the_means():
    figure = plot_section(TWO, "Learning curves")
    assert titles(figure) == ["Test accuracy (%)", "Test loss", "Training loss", "Test accuracy at the end (%)"]
    for rule, line in zip(TWO.rules, lines_of(figure.axes[0]), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * np.mean(rule.curve.test_accuracy, axis=0))
        np.testing.assert_array_equal(line.get_xdata(), rule.curve.steps)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [rule.label for rule in TWO.rules]


def test_what_else_was_measured_has_a_curve_too():
    rule = make_rule(1, seeds=2)
    curve = dataclasses.replace(rule.curve, more={"test_rmse": [[2.0 + 0 * s for s in rule.curve.steps]] * 2})
    comparison = make_comparison(dataclasses.replace(rule, curve=curve))
    figure = plot_section(comparison, "Learning curves")
    assert titles(figure)[-2] == "Test RMSE"
    assert set(lines_of(figure.axes[-2])[0].get_ydata()) == {2.0}
    assert len(figure.axes) == 5
    assert Comparison.from_json(comparison.to_json()) == comparison
    with pytest.raises(ValueError, match=r"Curve.test_rmse: seed 0 has 1 points, but there are 2 steps"):
        Curve([0, 1], [], [], more={"test_rmse": [[1.0]]})


def test_the_sum_of_energies_has_a_linear_axis():
    rule = make_rule(1, energies=make_energies(3))
    figure = plot_section(make_comparison(rule), "Energies")
    vertices, total = figure.axes
    assert (vertices.get_yscale(), total.get_yscale()) == ("log", "linear")
    expected = np.sum(list(rule.energies.values()), axis=0)
    (line,) = lines_of(total)
    np.testing.assert_allclose(line.get_ydata(), expected)
    panels = panels_of(make_comparison(make_rule(1, energies={"a": [3.0, 2.0, 1.0], "b": [1.0, 1.0, 1.0]})), "Energies")
    assert panels[1].note == "From 4 to 2; the last step makes 50 % of the fall."
    panels = panels_of(make_comparison(make_rule(1, energies={"a": [1.0, 2.0]})), "Energies")
    assert panels[1].note == "From 1 to 2: it does not fall."


def test_energies_follow_the_network():
    comparison = make_comparison(make_rule(0), make_rule(1, energies=make_energies(4)), make_rule(2))
    group = drawn(comparison, "Energies")
    assert len(group.panels) == 4  # a panel of the vertices and one of the sum for each rule that settles
    assert [entry.label for entry in group.key] == ["hidden1", "hidden2", "hidden3", "output", "sum over vertices"]


def test_angles_and_norms_stand_side_by_side():
    rule = make_rule(1, angles={"l": [5.0, 7.0, 9.0]}, norm_ratios={"l": [0.02, 0.04, 0.06]})
    figure = plot_section(make_comparison(rule), "Angles")
    assert titles(figure) == ["Angle to backpropagation's update (°)", "Norm over that of backpropagation's"]
    angles, norms = ([line for line in axes.lines if line.get_marker() == "o"] for axes in figure.axes)
    assert angles[0].get_xdata() == [pytest.approx(7.0)]
    assert norms[0].get_xdata() == [pytest.approx(0.04)]
    low, high = figure.axes[1].get_xlim()
    assert low < 0.02 < 1.0 < high  # one, where the update is as long as backpropagation's, is always there
    interval = next(line for line in figure.axes[0].lines if line.get_marker() == "None")
    half = 4.303 * 2 / math.sqrt(3)  # Student's t with 2 degrees of freedom; the deviation is 2
    np.testing.assert_allclose(interval.get_xdata(), [max(7 - half, 0), 7 + half], atol=1e-3)


def test_two_seeds_have_a_mark_and_no_bar():
    rule = make_rule(1, seeds=2, angles={"l": [5.0, 7.0]}, norm_ratios={"l": [0.0, math.nan]})
    figure = plot_section(make_comparison(rule), "Angles")
    assert titles(figure) == ["Angle to backpropagation's update (°)"]  # no ratio has a place on a logarithmic axis
    assert [line.get_marker() for line in figure.axes[0].lines if len(line.get_xdata()) == 1] == ["o"]
    assert [line.get_ydata() for line in figure.axes[0].lines if len(line.get_xdata()) == 2] == [[0, 1]]  # the level


def test_panels_of_a_study():
    study = make_study()
    figure = plot_panels(study.sections[0].panels)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 6]
    np.testing.assert_allclose(lines[2].get_ydata(), make_accuracies(2).mean(0))


def test_nothing_to_draw_is_said():
    comparison = make_comparison(make_rule(0, angles={}))
    for heading in ("Angles", "Energies"):
        with pytest.raises(ValueError, match=f"one of 'Learning curves', got '{heading}'"):
            plot_section(comparison, heading)
    with pytest.raises(ValueError, match="expected something to draw"):
        plot_panels([])


def test_figures_are_saved_the_same_each_time(tmp_path):
    comparison = dataclasses.replace(TWO, graph=[Node("output", "10", ["input"])])
    before = dict(matplotlib.rcParams)
    written = [save_figures(comparison, tmp_path / name, ("svg", "pdf", "png")) for name in "ab"]
    assert dict(matplotlib.rcParams) == before
    names = [path.name for path in written[0]]
    kinds = ("svg", "pdf", "png")
    assert names == [f"{n}.{k}" for n in ("learning-curves", "angles", "energies") for k in kinds] + ["graph.svg"]
    starts = {".svg": (b"<?xml", b"<svg"), ".pdf": (b"%PDF",), ".png": (b"\x89PNG",)}
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()
        assert first.read_bytes().startswith(starts[first.suffix])


def test_figures_of_a_study_are_named_after_its_sections(tmp_path):
    names = [path.name for path in save_figures(make_study(), tmp_path, ["pdf"])]
    assert names == ["accuracy.pdf", "update-norms.pdf"]
    assert save_figures(make_study(), tmp_path / "none", []) == []
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="expected figures as pdf, svg, png, got 'gif'"):
        save_figures(make_study(), tmp_path, ["gif"])


# Of four cats three are right, of two dogs none, and there is no bird: half the seeds took the dogs for cats.
COUNTS = [[3.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_classes_have_their_names_and_shares():
    comparison = make_comparison(
        make_rule(0, confusion=COUNTS), make_rule(1), class_names=["cat", "dog", "bird"], graph=[Node("output", "3")]
    )
    table = class_table(comparison)
    assert table.columns == ["class", "examples", *[rule.label for rule in comparison.rules]]
    assert table.rows == [["cat", "4", "75.0", None], ["dog", "2", "0.0", None], ["bird", "0", None, None]]
    (table,) = confusion_tables(comparison)
    assert table.rows == [["cat", "75", "25", "·"], ["dog", "50", "·", "50"], ["bird", "·", "·", "·"]]
    assert table.folded
    assert Comparison.from_json(comparison.to_json()) == comparison
    found = [piece.strip() for piece in Outline(render_study(comparison)).text]
    assert {"Class by class", "Graph", "dog"} <= set(found)
    unnamed = make_comparison(make_rule(0, confusion=COUNTS))
    assert [row[0] for row in class_table(unnamed).rows] == ["0", "1", "2"]


def test_without_classes_or_a_graph_the_page_has_no_such_sections():
    assert class_table(TWO) is None
    assert confusion_tables(TWO) == []
    headings = {section.heading for section in as_study(TWO).sections}
    assert headings == {"Results", "Learning curves", "Angles", "Energies", "The rules", "How to read this"}


def test_counts_have_to_be_square_and_named():
    with pytest.raises(ValueError, match=r"confusion: expected 2 entries in every row, one count per class"):
        make_rule(0, confusion=[[1], [1, 2]])
    with pytest.raises(ValueError, match="expected counts of 2 classes, as many as there are names, got 3"):
        make_comparison(make_rule(0, confusion=COUNTS), class_names=["cat", "dog"])


def test_figures_may_stand_twice_in_a_page():
    headings = ("Learning curves", "Angles", "Energies")
    groups = [drawn(TWO, heading, f"{prefix}{i}") for prefix in "ab" for i, heading in enumerate(headings)]
    outline = Outline("".join(panel for group in groups for panel in group.panels))
    assert len(set(outline.identifiers)) == len(outline.identifiers)


def test_rules_differ_in_colour_and_in_dashes():
    comparison = make_comparison(*[make_rule(index) for index in range(6)])
    swatches = [entry.swatch for entry in drawn(comparison, "Learning curves").key]
    colours = {re.search(r"stroke: (#\w{6})", swatch)[1] for swatch in swatches}
    dashes = {re.sub(r'.*?(stroke-dasharray="[^"]*"|$).*', r"\1", swatch) for swatch in swatches}
    assert len(colours) == len(dashes) == 6


def test_a_rule_may_bring_its_colour():
    group = drawn(make_comparison(make_rule(0, color="#800080")), "Learning curves")
    assert "light-dark(#800080, #b366b3)" in group.panels[0]  # 128 + 0.4 * 127 = 179, 0.4 * 255 = 102
    with pytest.raises(ValueError, match=r"Series 'bp': color must look like '#0072b2', got 'red'"):
        Series("bp", [1], [[1]], "red")


def test_rules_of_one_label_go_by_their_names_too():
    rules = [make_rule(0, name=name, label="backpropagation") for name in ("bp", "bp-sgd")]
    panel = panels_of(make_comparison(*rules), "Learning curves")[0]
    assert [series.label for series in panel.series] == ["backpropagation (bp)", "backpropagation (bp-sgd)"]


def luminance(colour):
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_stand_out_on_their_cards():
    looks = line_styles(list("abcdefgh"), dict(zip("abcdefgh", color_ramp(8), strict=True)))
    ramp = {style.color: style.dark for style in looks.values()}
    for light, dark in (DARK | ramp).items():
        if light != GRID:
            assert 1.05 / (luminance(light) + 0.05) >= 3
            assert (luminance(dark) + 0.05) / (luminance("#1b1f23") + 0.05) >= 3
