"""The look of a line in a figure: a colour for light and dark pages, a dash pattern and a marker.

The six colours stay apart under the common forms of colour blindness, and reach a contrast of 3 to 1 on the
page's background in both modes. The dash pattern tells lines apart in black-and-white print.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["DARK", "GRID", "INK", "MUTED", "LineStyle", "check_color", "color_ramp", "line_styles", "themed"]

INK = "#22272d"
MUTED = "#5b646e"
GRID = "#e3e1da"

_LIGHT = ("#0072b2", "#d55e00", "#00936b", "#c2619c", "#3a3f46", "#6e5a00")
_DARK = ("#4fb0ea", "#ff8a3d", "#2cc598", "#f0a3d0", "#f1f3f5", "#f0dc82")

DARK = {INK: "#e8e6e1", MUTED: "#a3acb5", GRID: "#343a41", **dict(zip(_LIGHT, _DARK, strict=True))}
"""Colour on a light page -> its counterpart on a dark page."""

_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5.0, 2.0),
    (1.2, 1.4),
    (6.0, 1.6, 1.2, 1.6),
    (2.6, 1.3),
    (6.0, 1.4, 1.2, 1.4, 1.2, 1.4),
)
_MARKERS = ("o", "s", "^", "D", "v", "P")


@dataclasses.dataclass(frozen=True)
class LineStyle:
    """The look of one line.

    Args:
        color: `"#rrggbb"` on a light page.
        dark: `"#rrggbb"` on a dark page.
        dashes: Lengths of strokes and gaps in units of the line width; empty for a solid line.
        marker: A matplotlib marker.
    """

    color: str
    dark: str
    dashes: tuple[float, ...]
    marker: str


def themed(name: str, light: str, dark: str) -> str:
    """Write a CSS property of a colour that follows the page's colour scheme.

    Args:
        name: The property, such as `"stroke"`.
        light: The colour on a light page.
        dark: The colour on a dark page.

    Returns:
        The declarations; an older browser, which does not know `light-dark()`, keeps the first.

    Example:
        >>> themed("fill", "#ffffff", "#000000")
        'fill: #ffffff; fill: light-dark(#ffffff, #000000)'
    """
    return f"{name}: {light}; {name}: light-dark({light}, {dark})"


def line_styles(labels: Sequence[str], colors: Mapping[str, str | None] | None = None) -> dict[str, LineStyle]:
    """Give each label its look; after six labels the colours return with other dashes, up to 36 looks.

    Args:
        labels: What the lines stand for, each once.
        colors: Label -> a colour of its own, or None.

    Returns:
        Label -> look.
    """
    return {label: _style(index, (colors or {}).get(label)) for index, label in enumerate(labels)}


def color_ramp(count: int) -> list[str]:
    """Colours from dark blue to light red, for things in an order.

    Example:
        >>> color_ramp(3)
        ['#2a0593', '#86347a', '#e16462']
    """
    shares = [index / max(count - 1, 1) for index in range(count)]
    ends = (42, 5, 147), (225, 100, 98)
    return [_hex((1 - share) * low + share * high for low, high in zip(*ends, strict=True)) for share in shares]


def check_color(name: str, color: str | None) -> None:
    """Refuse a colour that is not written as `#rrggbb`.

    Args:
        name: What has the colour, for the error message.
        color: The colour, or None.

    Raises:
        ValueError: If it is written otherwise.
    """
    if color is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", color):
        raise ValueError(f"{name}: color must look like '#0072b2', got {color!r}.")


def _style(index: int, color: str | None = None) -> LineStyle:
    color = (color or _LIGHT[index % len(_LIGHT)]).lower()
    shift = (index + index // len(_LIGHT)) % len(_DASHES)
    return LineStyle(color, _dark(color), _DASHES[shift], _MARKERS[shift])


def _dark(color: str) -> str:
    """Return the counterpart of a colour on a dark page: from the table, or mixed with white."""
    if color in DARK:
        return DARK[color]
    channels = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return _hex(channel + 0.4 * (255 - channel) for channel in channels)


def _hex(channels: Iterable[float]) -> str:
    return "#" + "".join(f"{round(channel):02x}" for channel in channels)
