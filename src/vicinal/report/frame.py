"""What every page has: a head, a style, the command and settings that make it again, no script and no network."""

import functools
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vicinal.report.groups import FigureGroup
from vicinal.report.results import Comparison
from vicinal.report.study import Study
from vicinal.report.words import flat_items, unbroken

__all__ = ["as_markup", "fill_template"]


def fill_template(name: str, *, document: Comparison | Study, kind: str, summary: str, **values: Any) -> str:
    """Write a page.

    Args:
        name: The template, which extends `frame.html.jinja`.
        document: What the page is about.
        kind: A word or two to stand above its title.
        summary: The paragraph at its head.
        values: What else the template needs.

    Returns:
        A whole HTML document.
    """
    return (
        _environment()
        .get_template(name)
        .render(
            document=document,
            kind=kind,
            summary=summary,
            settings=flat_items(document.settings),
            environment=flat_items(document.environment),
            **values,
        )
    )


def as_markup(group: FigureGroup) -> dict[str, Any]:
    """Mark figures as safe for a page: they are our own SVG, in which names are escaped already.

    Args:
        group: The figures.

    Returns:
        Its panels and its key, ready for a template.
    """
    return {
        "panels": [Markup(panel) for panel in group.panels],
        "key": [{"label": entry.label, "swatch": Markup(entry.swatch)} for entry in group.key],
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
