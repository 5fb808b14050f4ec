"""Save the figures of a comparison or a study as PDF, SVG or PNG files."""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vicinal.files import write_atomically
from vicinal.report.comparison import Comparison
from vicinal.report.comparison_study import as_study
from vicinal.report.drawing import draw_graph
from vicinal.report.figures import plot_panels, share_keys
from vicinal.report.study import Section, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "save_figures"]

FORMATS = ("pdf", "svg", "png")
"""The formats of saved figures."""
_DOTS = 200  # per inch, of a PNG
_SETTINGS = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "vicinal"}  # text of a PDF stays text


def save_figures(
    results: Comparison | Study, folder: str | os.PathLike[str], formats: Sequence[str] = ("pdf",)
) -> list[Path]:
    """Write the figures of a comparison or a study into a folder.

    Args:
        results: What `vicinal.compare.compare` returns, or `Comparison.from_json` or `Study.from_json` reads.
        folder: Where to; made if missing.
        formats: Any of `"pdf"`, `"svg"` and `"png"`.

    Returns:
        The files: one for each group of figures in a section, named after its heading (`learning-curves`, `angles` and
        `energies` of a comparison), and with `"svg"` the drawing of a section's graph (`graph`).

    Raises:
        ValueError: If a format is another.
        OSError: If a file cannot be written.

    Example:
        >>> import tempfile
        >>> from vicinal.report import Comparison, Curve, RuleResult
        >>> curve = Curve(steps=[0, 10], test_accuracy=[[0.1, 0.9]], test_loss=[[2.3, 0.3]])
        >>> rule = RuleResult("bp", "backpropagation", "", [0.9], [0.3], {}, 0.5, [10], curve)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save_figures(Comparison("Digits", "", {}, {}, [rule], "", ""), folder)]
        ['learning-curves.pdf']
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"expected figures as {', '.join(FORMATS)}, got {unknown[0]!r}")
    folder = Path(folder)
    if formats:
        folder.mkdir(parents=True, exist_ok=True)
    study, written = as_study(results), []
    for name, figure in _figures(study.sections).items() if formats else ():
        for kind in dict.fromkeys(formats):
            written.append(folder / f"{name}.{kind}")
            write_atomically(written[-1], _encoded(figure, kind))
    for section in study.sections if "svg" in formats else ():
        if section.graph:
            written.append(folder / f"{_file_name(section)}.svg")
            write_atomically(written[-1], draw_graph(section.graph).encode())
    return written


def _figures(sections: Sequence[Section]) -> "dict[str, Figure]":
    figures: dict[str, Figure] = {}
    for section in sections:
        name = _file_name(section)
        for panels in share_keys(section.panels):
            if panels:
                place = sum(other == name or other.startswith(f"{name}-") for other in figures)
                figures[f"{name}-{place + 1}" if place else name] = plot_panels(panels)
    return figures


def _file_name(section: Section) -> str:
    return re.sub(r"[^0-9a-z]+", "-", section.heading.lower()).strip("-") or "figures"


def _encoded(figure: "Figure", kind: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    dates = {"pdf": "CreationDate", "svg": "Date"}  # the same results give the same bytes
    metadata = {dates[kind]: None} if kind in dates else None
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=_DOTS if kind == "png" else "figure")
    return buffer.getvalue()
