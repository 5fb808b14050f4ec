"""Show a comparison of learning rules, or a study: tables for the terminal, figures, one self-contained HTML page."""

from vicinal.report.drawing import draw_graph
from vicinal.report.figures import (
    angles,
    energies,
    learning_curves,
    plot_angles,
    plot_energies,
    plot_learning_curves,
)
from vicinal.report.groups import FigureGroup, KeyEntry
from vicinal.report.interval import interval_words, mean_interval
from vicinal.report.outline import Node, outline
from vicinal.report.page import render_page, write_page
from vicinal.report.results import CONCATENATED, Comparison, Curve, RuleResult
from vicinal.report.saving import save_figures
from vicinal.report.study import VERDICTS, Claim, Panel, Section, Series, Study, Table
from vicinal.report.study_figures import plot_panels
from vicinal.report.study_page import render_study, write_study
from vicinal.report.study_tables import print_study
from vicinal.report.summary import summary
from vicinal.report.tables import angle_table, comparison_table, print_tables

__all__ = [
    "CONCATENATED",
    "VERDICTS",
    "Claim",
    "Comparison",
    "Curve",
    "FigureGroup",
    "KeyEntry",
    "Node",
    "Panel",
    "RuleResult",
    "Section",
    "Series",
    "Study",
    "Table",
    "angle_table",
    "angles",
    "comparison_table",
    "draw_graph",
    "energies",
    "interval_words",
    "learning_curves",
    "mean_interval",
    "outline",
    "plot_angles",
    "plot_energies",
    "plot_learning_curves",
    "plot_panels",
    "print_study",
    "print_tables",
    "render_page",
    "render_study",
    "save_figures",
    "summary",
    "write_page",
    "write_study",
]
