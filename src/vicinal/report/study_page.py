"""One self-contained HTML page about a study, in the same dress as the page about a comparison."""

import math
import os
import re
from typing import Any

from vicinal.files import write_atomically
from vicinal.report.frame import as_markup, fill_template
from vicinal.report.palette import LineStyle
from vicinal.report.study import Section, Study
from vicinal.report.study_cells import table_texts
from vicinal.report.study_figures import panel_group, share_keys, study_styles

__all__ = ["render_study", "write_study"]


def render_study(study: Study) -> str:
    """Write a study as one HTML page.

    The same study gives the same text, byte for byte, as long as matplotlib stays the same.

    Args:
        study: The study.

    Returns:
        A whole HTML document.
    """
    styles = study_styles(study)
    return fill_template(
        "study.html.jinja",
        document=study,
        kind="study",
        summary=study.summary,
        sections=[_section(index, section, styles) for index, section in enumerate(study.sections, 1)],
    )


def write_study(path: str | os.PathLike[str], study: Study) -> None:
    """Write a study as one HTML file, whole or not at all.

    Args:
        path: Where to write; its folder must exist.
        study: The study.

    Raises:
        OSError: If the file cannot be written; what stood there before is intact.
    """
    write_atomically(path, render_study(study).encode())


def _section(index: int, section: Section, styles: dict[str, LineStyle]) -> dict[str, Any]:
    """Collect what the page shows of a section."""
    groups = []
    for place, panels in enumerate(share_keys(section.panels), 1):
        drawn = as_markup(panel_group(panels, styles, prefix=f"figure-{index}-{place}"))
        # The titles and notes of the figures stand in the page, where they can wrap.
        groups.append({"key": drawn["key"], "figures": list(zip(panels, drawn["panels"], strict=True))})
    lines = [(panel, line) for panel in section.panels for line in panel.series]
    values = [(panel, value) for panel, line in lines for row in line.y for value in row]
    return {
        "heading": section.heading,
        "paragraphs": [text.strip() for text in re.split(r"\n\s*\n", section.text) if text.strip()],
        "groups": groups,
        "repeated": any(len(line.y) > 1 for _, line in lines),
        "lost": any(math.isnan(value) for _, value in values),
        "hidden": any(panel.log_y and value <= 0 for panel, value in values),
        "tables": [table_texts(table) for table in section.tables],
    }
