"""One self-contained HTML page about a comparison: no network, no script, nothing beside it."""

import functools
import os
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vicinal.files import write_atomically
from vicinal.report.cells import COLUMNS, angle_cells, row_cells, seeds_text
from vicinal.report.figures import FigureGroup, angles, energies, learning_curves
from vicinal.report.palette import rule_styles
from vicinal.report.results import Comparison
from vicinal.report.strip import accuracy_strips
from vicinal.report.summary import summary
from vicinal.report.svg import swatch
from vicinal.report.words import flat_items, unbroken

__all__ = ["render_page", "write_page"]


def render_page(comparison: Comparison) -> str:
    """Write a comparison as one HTML page.

    The same comparison gives the same text, byte for byte, as long as matplotlib stays the same.

    Args:
        comparison: The results.

    Returns:
        A whole HTML document.
    """
    template = _environment().get_template("comparison.html.jinja")
    return template.render(
        comparison=comparison,
        summary=unbroken(summary(comparison)),
        seeds=seeds_text(comparison),
        columns=COLUMNS,
        rows=_rows(comparison),
        angle_rows=angle_cells(comparison),
        learning=_markup(learning_curves(comparison)),
        angles=_markup(angles(comparison)),
        energies=_markup(energies(comparison)),
        settings=flat_items(comparison.settings),
        environment=flat_items(comparison.environment),
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


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("vicinal.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Collect what the table shows of each rule."""
    styles, strips = rule_styles(comparison), accuracy_strips(comparison)
    return [
        {
            "rule": rule,
            "swatch": Markup(swatch(styles[rule.name])),
            "strip": Markup(strip),
            "cells": row_cells(rule),
        }
        for rule, strip in zip(comparison.rules, strips, strict=True)
    ]


def _markup(group: FigureGroup) -> dict[str, Any]:
    """Mark the figures as safe: they are our own SVG, in which names are escaped already."""
    return {
        "panels": [Markup(panel) for panel in group.panels],
        "key": [{"label": entry.label, "swatch": Markup(entry.swatch)} for entry in group.key],
    }
