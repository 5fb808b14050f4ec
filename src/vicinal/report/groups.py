"""Figures that belong together, as SVG, and the key that says which line is which."""

import dataclasses

__all__ = ["FigureGroup", "KeyEntry"]


@dataclasses.dataclass(frozen=True)
class KeyEntry:
    """One line of a key.

    Args:
        label: What the line stands for.
        swatch: A small `<svg>` sample of the line.
    """

    label: str
    swatch: str


@dataclasses.dataclass(frozen=True)
class FigureGroup:
    """Panels that belong together and share a key.

    Args:
        panels: One `<svg>` element each; empty if there is nothing to draw.
        key: Which line is which. It is not drawn inside the panels, so that long names can wrap.
    """

    panels: tuple[str, ...]
    key: tuple[KeyEntry, ...]
