"""Means over seeds with their confidence intervals, as numbers and as text."""

import math
from collections.abc import Callable, Sequence

from vicinal.report.formatting import significant

__all__ = ["FEWEST", "interval_text", "interval_words", "mean_interval"]

FEWEST = 3
"""Seeds below which no interval is given: that of two is 12.7 standard errors wide on each side, and says nothing."""


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    r"""Mean over seeds and half the width of its 95 % confidence interval.

    With $n$ finite values of mean $\bar v$ and sample standard deviation $s$, the interval is
    $\bar v \pm t_{n-1,\,0.975}\, s / \sqrt n$ (Student's t). Two values give none: show both of them.

    Args:
        values: One number per seed. Values that are not finite are left out; say so beside the result.

    Returns:
        The mean (nan without a finite value) and the half width in the unit of the values (None if fewer than
        three are finite).

    Example:
        >>> mean, half_width = mean_interval([0.95, 0.96, 0.97])
        >>> print(f"{mean:.3f} ± {half_width:.3f}")
        0.960 ± 0.025
        >>> mean_interval([0.5, 1.0])
        (0.75, None)
    """
    # scipy.special rather than scipy.stats: the same quantile at a fifth of the import time.
    from scipy.special import stdtrit

    finite = [float(value) for value in values if math.isfinite(value)]
    count = len(finite)
    if count == 0:
        return math.nan, None
    mean = math.fsum(finite) / count
    if count < FEWEST:
        return mean, None
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in finite) / (count - 1))
    return mean, float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)


def interval_words(values: Sequence[float], write: Callable[[float], str], margin: Callable[[float], str]) -> str:
    """Write a mean over seeds with its margin; of two seeds both values, of one its value.

    Args:
        values: One number per seed; those that are not finite are left out.
        write: Writes a value or the mean.
        margin: Writes half the width of the interval.

    Returns:
        The text; empty without a finite value.

    Example:
        >>> for values in ([0.95, 0.96, 0.97], [0.95, 0.97], [0.95]):
        ...     print(interval_words(values, "{:.2f}".format, "{:.3f}".format))
        0.96 ± 0.025
        0.95 and 0.97
        0.95
    """
    mean, half = mean_interval(values)
    if half is not None:
        return f"{write(mean)} ± {margin(half)}"
    return " and ".join(write(value) for value in values if math.isfinite(value))


def interval_text(values: Sequence[float], unit: float = 1.0) -> str | None:
    """Write a mean over seeds with half its 95 % interval, to the same decimals.

    Below three seeds there is no interval: of two seeds both values are shown. If some values are not finite, the text
    says how many are.

    Args:
        values: One number per seed.
        unit: What to multiply each value by, such as 100 for percent.

    Returns:
        The text; None without a finite value.

    Example:
        >>> interval_text([0.951, 0.962, 0.957], 100)
        '95.7 ± 1.4'
        >>> interval_text([0.951, float("nan"), 0.957], 100)
        '95.1 and 95.7 (2 of 3)'
    """
    scaled = [unit * value for value in values]
    mean, half = mean_interval(scaled)
    if math.isnan(mean):
        return None
    finite = sum(map(math.isfinite, scaled))
    part = f" ({finite} of {len(values)})" if finite < len(values) else ""
    size = half if half else abs(mean)
    if size == 0 or not 1e-4 <= max(abs(mean), size) < 1e5:
        return interval_words(scaled, "{:.3g}".format, "{:.2g}".format) + part
    if finite == 2:
        return interval_words(scaled, significant, str) + part
    decimals = min(max(0, (1 if half else 2) - math.floor(math.log10(size))), 6)
    return interval_words(scaled, f"{{:.{decimals}f}}".format, f"{{:.{decimals}f}}".format) + part
