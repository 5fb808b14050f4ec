"""Draw with matplotlib into SVG for an HTML page.

Text stays text. A colour becomes `light-dark(...)`, so a figure follows the page's colour scheme. Identifiers
get a prefix of their own, nothing global leaks out of the figure, and the same numbers give the same bytes.
"""

import io
import re
from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING

from vicinal.report.figure_style import LINE_WIDTH, RIGHT, house_style
from vicinal.report.palette import DARK, LineStyle, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FONT", "draw", "shorten", "swatch"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def draw(
    paint: "Callable[[Axes], None]",
    *,
    identifier: str,
    title: str,
    description: str,
    height: float = 222.0,
    width: float = 300.0,
    left: float = 46.0,
    bottom: float = 42.0,
    top: float = 30.0,
    dark: Mapping[str, str] | None = None,
) -> str:
    """Draw one pair of axes and return it as inline SVG.

    Args:
        paint: Draws on the axes it is given.
        identifier: Unique within the page; letters, digits and hyphens.
        title: Accessible title.
        description: Accessible description, for readers who cannot see the figure.
        height: Height in units; a unit is a CSS pixel when the figure is shown `width` pixels wide.
        width: Width in units.
        left: Room in units for the labels at the left of the axes.
        bottom: Room in units for the labels below the axes.
        top: Room in units for the title above the axes.
        dark: Colours (`"#rrggbb"`) on a light page -> on a dark page, beyond those of the palette.

    Returns:
        An `<svg>` element.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed when a report is drawn

    buffer = io.BytesIO()
    with house_style():
        figure = Figure(figsize=(width / 72, height / 72))
        figure.patch.set_visible(False)
        box = (left / width, bottom / height, 1 - (left + RIGHT) / width, 1 - (top + bottom) / height)
        axes = figure.add_axes(box)
        axes.patch.set_visible(False)
        paint(axes)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue().decode(), identifier, title, description, DARK | dict(dark or {}))


def _inline(text: str, identifier: str, title: str, description: str, dark: Mapping[str, str]) -> str:
    """Turn matplotlib's SVG document into an element for a page."""
    view_box = re.search(r'viewBox="([^"]*)"', text)
    if view_box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox; please report this with its version.")
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', "".join(re.findall(r"<[^>]*>", body))))
    body = re.sub(r"<[^>]*>", lambda match: _rewrite(match[0], used, identifier, dark), body)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><").strip()
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box[1]}" role="img" '
        f'aria-labelledby="{identifier}-title {identifier}-description" '
        'style="stroke-linejoin: round; stroke-linecap: butt">'
        f'<title id="{identifier}-title">{escape(title)}</title>'
        f'<desc id="{identifier}-description">{escape(description)}</desc>{body}</svg>'
    )


def _rewrite(tag: str, used: set[str], prefix: str, dark: Mapping[str, str]) -> str:
    """Rewrite one tag: prefix the identifiers that something refers to, drop the others, and restyle."""
    tag = tag.replace("xlink:href", "href")
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", tag)
    tag = re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", tag)
    return re.sub(r'style="([^"]*)"', lambda match: f'style="{_restyle(match[1], dark)}"', tag)


def _restyle(style: str, dark: Mapping[str, str]) -> str:
    """Let colours follow the colour scheme, and use the reader's own font."""
    style = re.sub(r"font: (?:\S+ )*?([\d.]+px) [^;]*", rf"font-size: \1; font-family: {FONT}", style)
    style = re.sub(r"font-family: [^;]*", f"font-family: {FONT}", style)
    return re.sub(
        r"\b(fill|stroke): (#[0-9a-f]{6})",
        lambda match: themed(match[1], match[2], dark.get(match[2], match[2])),
        style,
    )


def swatch(style: LineStyle, *, solid: bool = False) -> str:
    """Draw the sample of a line that goes into a key.

    Args:
        style: The look of the line.
        solid: Whether to leave the dashes out.

    Returns:
        A small `<svg>` element, hidden from screen readers: the label beside it says the same.
    """
    dashes = "" if solid else " ".join(f"{LINE_WIDTH * length:g}" for length in style.dashes)
    pattern = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" class="swatch" viewBox="0 0 34 10" width="34" height="10" '
        f'aria-hidden="true"><path d="M1 5H33" stroke-width="{LINE_WIDTH + 0.4:g}"{pattern} '
        f'style="fill: none; {themed("stroke", style.color, style.dark)}"/></svg>'
    )


def shorten(text: str, length: int) -> str:
    """Cut a long name for a figure, where it cannot wrap.

    Args:
        text: The name.
        length: Most characters to keep.

    Returns:
        The name, or its beginning and an ellipsis.

    Example:
        >>> shorten("hidden1", 12), shorten("encoder.block.attention", 12)
        ('hidden1', 'encoder.blo…')
    """
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
