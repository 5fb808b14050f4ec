"""Figures for papers show the same numbers as the page, and survive a round trip through files."""

import dataclasses
import math

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
    energies,
    learning_curves,
    plot_angles,
    plot_energies,
    plot_learning_curves,
    plot_panels,
    render_page,
    save_figures,
)
from vicinal.report.classes import class_rows, confusions
from vicinal.report.words import MISSING

TWO = make_comparison()


def lines_of(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 2]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_learning_curves_show_the_means():
    figure = plot_learning_curves(TWO)
    assert titles(figure) == ["Test accuracy (%)", "Test loss", "Training loss"]
    for rule, line in zip(TWO.rules, lines_of(figure.axes[0]), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * np.mean(rule.curve.test_accuracy, axis=0))
        np.testing.assert_array_equal(line.get_xdata(), rule.curve.steps)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [rule.label for rule in TWO.rules]


def test_what_else_was_measured_has_a_curve_too():
    rule = make_rule(1, seeds=2)
    curve = dataclasses.replace(rule.curve, more={"test_rmse": [[2.0 + 0 * s for s in rule.curve.steps]] * 2})
    comparison = make_comparison(dataclasses.replace(rule, curve=curve))
    figure = plot_learning_curves(comparison)
    assert titles(figure)[-1] == "Test RMSE"
    assert set(lines_of(figure.axes[-1])[0].get_ydata()) == {2.0}
    assert len(learning_curves(comparison).panels) == 4
    assert Comparison.from_json(comparison.to_json()) == comparison
    with pytest.raises(ValueError, match=r"Curve.test_rmse: seed 0 has 1 points, but there are 2 steps"):
        Curve([0, 1], [], [], more={"test_rmse": [[1.0]]})


def test_the_sum_of_energies_has_a_linear_axis():
    rule = make_rule(1, energies=make_energies(3))
    figure = plot_energies(make_comparison(rule))
    vertices, total = figure.axes
    assert (vertices.get_yscale(), total.get_yscale()) == ("log", "linear")
    expected = np.sum(list(rule.energies.values()), axis=0)
    (line,) = lines_of(total)
    np.testing.assert_allclose(line.get_ydata(), expected)
    group = energies(make_comparison(make_rule(1, energies={"a": [3.0, 2.0, 1.0], "b": [1.0, 1.0, 1.0]})))
    assert "from 4 to 2; the last step makes 50 % of the fall" in group.panels[1]
    group = energies(make_comparison(make_rule(1, energies={"a": [1.0, 2.0]})))
    assert "it does not fall" in group.panels[1]


def test_angles_and_norms_stand_side_by_side():
    rule = make_rule(1, angles={"l": [5.0, 7.0, 9.0]}, norm_ratios={"l": [0.02, 0.04, 0.06]})
    figure = plot_angles(make_comparison(rule))
    assert titles(figure) == ["Angle to backpropagation", "Norm over backpropagation's"]
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
    figure = plot_angles(make_comparison(rule))
    assert titles(figure) == ["Angle to backpropagation"]  # no ratio has a place on a logarithmic axis
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o"]


def test_panels_of_a_study():
    study = make_study()
    figure = plot_panels(study.sections[0].panels)
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 6]
    np.testing.assert_allclose(lines[2].get_ydata(), make_accuracies(2).mean(0))


def test_nothing_to_draw_is_said():
    for plot in (plot_angles, plot_energies):
        with pytest.raises(ValueError, match="expected something to draw"):
            plot(make_comparison(make_rule(0, angles={})))
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
    assert [(row.name, row.examples, row.cells) for row in class_rows(comparison)] == [
        ("cat", "4", ["75.0", MISSING]),
        ("dog", "2", ["0.0", MISSING]),
        ("bird", "0", [MISSING, MISSING]),
    ]
    (table,) = confusions(comparison)
    assert table.rows[:2] == [["75", "25", "·"], ["50", "·", "50"]]
    assert Comparison.from_json(comparison.to_json()) == comparison
    found = Outline(render_page(comparison))
    assert {"classes", "network"} <= set(found.identifiers)
    assert "dog" in [piece.strip() for piece in found.text]
    unnamed = make_comparison(make_rule(0, confusion=COUNTS))
    assert [row.name for row in class_rows(unnamed)] == ["0", "1", "2"]


def test_without_classes_or_a_graph_the_page_has_no_such_sections():
    assert class_rows(TWO) == confusions(TWO) == []
    assert not {"classes", "network"} & set(Outline(render_page(TWO)).identifiers)


def test_counts_have_to_be_square_and_named():
    with pytest.raises(ValueError, match=r"confusion: expected 2 entries in every row, one count per class"):
        make_rule(0, confusion=[[1], [1, 2]])
    with pytest.raises(ValueError, match="expected counts of 2 classes, as many as there are names, got 3"):
        make_comparison(make_rule(0, confusion=COUNTS), class_names=["cat", "dog"])
