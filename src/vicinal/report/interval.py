"""How sure a mean over seeds is, and how that is written."""

import math
from collections.abc import Callable, Sequence

__all__ = ["FEWEST", "interval_words", "mean_interval"]

FEWEST = 3
"""Seeds below which no interval is given: that of two is 12.7 standard errors wide on each side, and says nothing."""


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    r"""Mean over seeds and half the width of its 95 % confidence interval.

    With $n$ finite values of mean $\bar v$ and sample standard deviation $s$, the interval is
    $\bar v \pm t_{n-1,\,0.975}\, s / \sqrt n$ (Student's t). Two values give none: show both of them.

    Args:
        values: One number per seed. Values that are not finite are left out; say so where you show the
            result.

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
    """Write a mean over seeds with its margin; of two seeds both values, and of one its own.

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
