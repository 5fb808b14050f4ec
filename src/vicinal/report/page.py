"""One self-contained HTML page about a comparison: no network, no script, nothing beside it."""

import os
from typing import Any

from markupsafe import Markup

from vicinal._records import stop_words
from vicinal.files import write_atomically
from vicinal.report.cells import WHOLE, Column, angle_cells, main_columns, more_cells, row_cells, seeds_text
from vicinal.report.classes import class_rows, confusions
from vicinal.report.drawing import draw_graph
from vicinal.report.figures import angles, energies, learning_curves
from vicinal.report.frame import as_markup, fill_template
from vicinal.report.interval import FEWEST
from vicinal.report.palette import rule_styles
from vicinal.report.results import CONCATENATED, Comparison
from vicinal.report.strip import accuracy_strips
from vicinal.report.summary import summary
from vicinal.report.svg import swatch

__all__ = ["render_page", "write_page"]


def render_page(comparison: Comparison) -> str:
    """Write a comparison as one HTML page.

    The same comparison gives the same text, byte for byte, as long as matplotlib stays the same.

    Args:
        comparison: The results.

    Returns:
        A whole HTML document.
    """
    columns = main_columns(comparison)
    return fill_template(
        "comparison.html.jinja",
        document=comparison,
        kind=seeds_text(comparison),
        summary=summary(comparison),
        seeds=seeds_text(comparison),
        columns=columns,
        intervals=any(rule.seeds >= FEWEST for rule in comparison.rules),
        pairs=any(rule.seeds == 2 for rule in comparison.rules),
        sized=any(rule.norm_ratios for rule in comparison.rules),
        whole=WHOLE if any(CONCATENATED in rule.angles and len(rule.angles) > 1 for rule in comparison.rules) else "",
        rows=_rows(comparison, columns),
        more=more_cells(comparison),
        angle_rows=angle_cells(comparison),
        learning=as_markup(learning_curves(comparison)),
        angles=as_markup(angles(comparison)),
        energies=as_markup(energies(comparison)),
        classes=class_rows(comparison),
        confusions=confusions(comparison),
        graph=Markup(draw_graph(comparison.graph)) if comparison.graph else "",
    )


def write_page(path: str | os.PathLike[str], comparison: Comparison) -> None:
    """Write a comparison as one HTML file, whole or not at all.

    Args:
        path: Where to write; its folder must exist.
        comparison: The results.

    Raises:
        OSError: If the file cannot be written; what stood there before is intact.
    """
    write_atomically(path, render_page(comparison).encode())


def _rows(comparison: Comparison, columns: list[Column]) -> list[dict[str, Any]]:
    """Collect what the table shows of each rule."""
    styles, strips = rule_styles(comparison), accuracy_strips(comparison)
    return [
        {
            "rule": rule,
            "swatch": Markup(swatch(styles[rule.name])),
            "strip": Markup(strip),
            "cells": row_cells(rule, columns),
            "stopped": "Stopped" + stop_words(rule.stopped).removeprefix("stopped") if rule.stopped else "",
        }
        for rule, strip in zip(comparison.rules, strips, strict=True)
    ]
