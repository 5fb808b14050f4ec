"""Write a study or a comparison as one self-contained HTML page: no network, no script, no other file."""

import functools
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vicinal.files import write_atomically
from vicinal.report.comparison import Comparison
from vicinal.report.comparison_study import as_study
from vicinal.report.drawing import draw_graph
from vicinal.report.figures import panel_group, share_keys, study_styles
from vicinal.report.formatting import flat_items, unbroken
from vicinal.report.palette import LineStyle
from vicinal.report.study import Section, Study
from vicinal.report.svg import swatch
from vicinal.report.table_text import table_texts

__all__ = ["render_study", "write_study"]


def render_study(results: Study | Comparison) -> str:
    """Write a study or a comparison as one HTML page.

    The same results give the same text, byte for byte, as long as matplotlib stays the same.

    Args:
        results: The study, or the comparison.

    Returns:
        A whole HTML document.
    """
    study = as_study(results)
    styles = study_styles(study)
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            study=study,
            sections=[_section(index, section, styles) for index, section in enumerate(study.sections, 1)],
            swatches={label: Markup(swatch(style)) for label, style in styles.items() if label},
            settings=flat_items(study.settings),
            environment=flat_items(study.environment),
        )
    )


def write_study(path: str | os.PathLike[str], results: Study | Comparison) -> None:
    """Write a study or a comparison as one HTML file, whole or not at all.

    Args:
        path: Where to write; its folder must exist.
        results: The study, or the comparison.

    Raises:
        OSError: If the file cannot be written; an existing file stays intact.
    """
    write_atomically(path, render_study(results).encode())


def _section(index: int, section: Section, styles: Mapping[str, LineStyle]) -> dict[str, Any]:
    """Collect what the page shows of a section."""
    groups = []
    for place, panels in enumerate(share_keys(section.panels), 1):
        drawn = panel_group(panels, styles, prefix=f"figure-{index}-{place}")
        # The titles and notes of the figures stand in the page, where they can wrap.
        figures = zip(panels, map(Markup, drawn.panels), strict=True)  # our own SVG, in which names are escaped
        groups.append({"key": [entry.label for entry in drawn.key], "figures": list(figures)})
    lines = [(panel, line) for panel in section.panels if not panel.places and not panel.rows for line in panel.series]
    values = [(panel, value) for panel, line in lines for row in line.y for value in row]
    return {
        "heading": section.heading,
        "paragraphs": [text.strip() for text in re.split(r"\n\s*\n", section.text) if text.strip()],
        "groups": groups,
        "marks": any(panel.places for panel in section.panels),
        "repeated": any(len(line.y) > 1 for _, line in lines),
        "lost": any(math.isnan(value) for _, value in values),
        "hidden": any(panel.log_y and value <= 0 for panel, value in values),
        "tables": [table_texts(table) for table in section.tables],
        "graph": Markup(draw_graph(section.graph)) if section.graph else "",
    }


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vicinal.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment
