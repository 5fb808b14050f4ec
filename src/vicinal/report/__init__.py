"""Show results: a comparison of learning rules or a study as tables in the terminal, figures and one HTML page."""

from vicinal.report.array_counts import ARRAY_COUNTS, array_panels, array_section, array_table
from vicinal.report.comparison import CONCATENATED, Comparison, Curve, RuleResult
from vicinal.report.comparison_study import as_study
from vicinal.report.drawing import draw_graph
from vicinal.report.figures import plot_panels, plot_section
from vicinal.report.interval import interval_text, interval_words, mean_interval
from vicinal.report.markdown import study_markdown
from vicinal.report.outline import Node, outline
from vicinal.report.page import render_study, write_study
from vicinal.report.presentation import Presentation, SentBy, UnitCourse, presentation_panels
from vicinal.report.results_pages import results_pages, write_results_pages
from vicinal.report.saving import save_figures
from vicinal.report.study import VERDICTS, Claim, Panel, Section, Series, Study, Table
from vicinal.report.summary import summary
from vicinal.report.terminal import print_study

__all__ = [
    "ARRAY_COUNTS",
    "CONCATENATED",
    "VERDICTS",
    "Claim",
    "Comparison",
    "Curve",
    "Node",
    "Panel",
    "Presentation",
    "RuleResult",
    "Section",
    "SentBy",
    "Series",
    "Study",
    "Table",
    "UnitCourse",
    "array_panels",
    "array_section",
    "array_table",
    "as_study",
    "draw_graph",
    "interval_text",
    "interval_words",
    "mean_interval",
    "outline",
    "plot_panels",
    "plot_section",
    "presentation_panels",
    "print_study",
    "render_study",
    "results_pages",
    "save_figures",
    "study_markdown",
    "summary",
    "write_results_pages",
    "write_study",
]
