"""Show a comparison of learning rules: tables for the terminal, figures, one self-contained HTML page."""

from vicinal.report.figures import FigureGroup, KeyEntry, angles, energies, learning_curves
from vicinal.report.interval import mean_interval
from vicinal.report.page import render_page, write_page
from vicinal.report.results import CONCATENATED, Comparison, Curve, RuleResult
from vicinal.report.summary import summary
from vicinal.report.tables import angle_table, comparison_table, print_tables

__all__ = [
    "CONCATENATED",
    "Comparison",
    "Curve",
    "FigureGroup",
    "KeyEntry",
    "RuleResult",
    "angle_table",
    "angles",
    "comparison_table",
    "energies",
    "learning_curves",
    "mean_interval",
    "print_tables",
    "render_page",
    "summary",
    "write_page",
]
