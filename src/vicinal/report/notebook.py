"""Draw curves in a notebook: a self-contained HTML fragment with SVG, without scripts and style sheets."""

import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vicinal.report.drawing import draw_graph
from vicinal.report.figures import panel_group
from vicinal.report.palette import line_styles
from vicinal.report.records import COMMON, curve_panel, percent, quantities, series_of
from vicinal.report.study import Panel

__all__ = ["curves_html", "graph_html"]

_MOST = 12  # distinguishable lines
_PAPER = "font-size: 14px; padding: 0.6em; color-scheme: light; background: #ffffff; color: #22272d"  # not the theme's
_SHOWN = ("test_accuracy", "test_loss", "train_loss")


def curves_html(title: str, groups: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Draw the measurements along training, a small figure for each quantity.

    A line is the mean over the runs of a group, and the band spans them from lowest to highest.

    Args:
        title: A line of text to stand above.
        groups: Label -> the records of each run of the group. Of more than 12 groups the first 12 are drawn.

    Returns:
        A `<div>`.
    """
    shown = dict(list(groups.items())[:_MOST])
    names = quantities(records for runs in shown.values() for records in runs)
    names = [name for name in names if name in _SHOWN or name not in COMMON]
    panels = [panel for name in names if (panel := _panel(name, shown)) is not None]
    # Two fragments in one notebook must not share identifiers, and the same numbers give the same text.
    mark = hashlib.sha256(repr((title, shown)).encode()).hexdigest()[:10]
    drawn = panel_group(panels, line_styles(list(shown)), prefix=f"curves-{mark}")
    key = "".join(f"<span>{entry.swatch} {escape(entry.label)}</span>" for entry in drawn.key)
    figures = "".join(f'<div style="flex: 0 1 300px; min-width: 220px">{figure}</div>' for figure in drawn.panels)
    row = "display: flex; flex-wrap: wrap; gap: 0.5em 1.5em; margin: 0.5em 0"
    more = f"<p>The first {_MOST} of {len(groups)} combinations are drawn.</p>" if len(groups) > _MOST else ""
    return (
        f'<div style="{_PAPER}"><code style="white-space: pre-wrap">{escape(title)}</code>'
        f'{f"""<div style="{row}">{key}</div>""" if key else ""}<div style="{row}">{figures}</div>{more}</div>'
    )


def graph_html(graph: Any) -> str:
    """Draw a graph on a background that does not depend on the theme.

    Args:
        graph: A `vicinal.Graph`.

    Returns:
        A `<div>`.
    """
    return f'<div style="{_PAPER}">{draw_graph(graph)}</div>'


def _panel(name: str, groups: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Panel | None:
    return curve_panel(name, [series_of(label, runs, name, percent(name)) for label, runs in groups.items()])
