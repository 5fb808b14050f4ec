"""The style of every figure, independent of the user's settings of matplotlib."""

import contextlib
from collections.abc import Iterator

from vicinal.report.palette import GRID, INK, MUTED

__all__ = ["LINE_WIDTH", "RIGHT", "house_style"]

LINE_WIDTH = 1.8
RIGHT = 14.0
"""Room at the right of the axes, in units."""

# One unit is one CSS pixel when the figure is 300 pixels wide: a little less than a phone has.
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vicinal",
    "text.parse_math": False,
    "font.size": 11.0,
    "text.color": INK,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.titlecolor": INK,
    "axes.labelsize": 11.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.major.pad": 6.0,
    "ytick.major.pad": 6.0,
    "lines.linewidth": LINE_WIDTH,
    "lines.markersize": 5.0,
    "figure.dpi": 72.0,
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Draw in the style of the report, and restore the caller's settings."""
    import matplotlib  # slow to import, and only needed when a report is drawn

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # so that a matplotlibrc file does not change a report
        matplotlib.rcParams.update(_SETTINGS)
        yield
