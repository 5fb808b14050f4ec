"""The figures of a comparison or a study as files: PDF, SVG or PNG, by matplotlib."""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vicinal.files import write_atomically
from vicinal.report.drawing import draw_graph
from vicinal.report.figures import plot_angles, plot_energies, plot_learning_curves
from vicinal.report.results import Comparison
from vicinal.report.study import Study
from vicinal.report.study_figures import plot_panels, share_keys

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "save_figures"]

FORMATS = ("pdf", "svg", "png")
"""What figures can be saved as."""
_DOTS = 200  # per inch, of a PNG
_SETTINGS = {"pdf.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "vicinal"}  # text of a PDF stays text


def save_figures(
    results: Comparison | Study, folder: str | os.PathLike[str], formats: Sequence[str] = ("pdf",)
) -> list[Path]:
    """Write the figures of a comparison or a study into a folder.

    Args:
        results: What was found: what `vicinal.compare.compare` returns, or `Comparison.from_json` reads.
        folder: Where to; made if missing.
        formats: Any of `"pdf"`, `"svg"` and `"png"`.

    Returns:
        The files: `learning-curves`, `angles`, `energies` of a comparison, as far as it has them, and with `"svg"` the
        drawing of its `graph`; one for each group of figures in a section of a study, named after its heading.

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
    found = _of_comparison(results) if isinstance(results, Comparison) else _of_study(results)
    written = []
    for name, figure in found.items() if formats else ():
        for kind in dict.fromkeys(formats):
            written.append(folder / f"{name}.{kind}")
            write_atomically(written[-1], _encoded(figure, kind))
    if "svg" in formats and isinstance(results, Comparison) and results.graph:
        written.append(folder / "graph.svg")
        write_atomically(written[-1], draw_graph(results.graph).encode())
    return written


def _of_comparison(comparison: Comparison) -> "dict[str, Figure]":
    figures = {}
    for name, plot in (("learning-curves", plot_learning_curves), ("angles", plot_angles), ("energies", plot_energies)):
        try:
            figures[name] = plot(comparison)
        except ValueError:  # there is nothing of the kind to draw
            continue
    return figures


def _of_study(study: Study) -> "dict[str, Figure]":
    figures: dict[str, Figure] = {}
    for section in study.sections:
        name = re.sub(r"[^0-9a-z]+", "-", section.heading.lower()).strip("-") or "figures"
        for panels in share_keys(section.panels):
            if panels:
                place = sum(other == name or other.startswith(f"{name}-") for other in figures)
                figures[f"{name}-{place + 1}" if place else name] = plot_panels(panels)
    return figures


def _encoded(figure: "Figure", kind: str) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    dates = {"pdf": "CreationDate", "svg": "Date"}  # the same results give the same bytes
    metadata = {dates[kind]: None} if kind in dates else None
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=_DOTS if kind == "png" else "figure")
    return buffer.getvalue()
