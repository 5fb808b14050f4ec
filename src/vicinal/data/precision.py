"""Checks that the numbers of a data set stay distinguishable in float32, in which everything is computed."""

import numpy as np
from jaxtyping import Shaped

STEPS = 64  # of float32: a column that spans fewer is checked


def check_apart(values: Shaped[np.ndarray, "n ..."], origin: str) -> None:
    """Checks that float32 distinguishes close numbers far from 0, such as seconds since 1970.

    The steps of float32 at `m` are about `m * 2**-23` wide. A column of largest magnitude `m` is looked at if its range
    is below `STEPS` of them; it is refused if there are then fewer different numbers than before.

    Args:
        values: Numbers `[n, ...]` of any type; each position along the other axes is a column.
        origin: How error messages call the array.

    Raises:
        ValueError: Numbers of a column collapse.

    Example:
        >>> check_apart(np.array([0.0, 59.0]) + 1000, "seconds")
        >>> check_apart(np.array([0.0, 9.0]) + 1.7e9, "seconds")
        Traceback (most recent call last):
            ...
        ValueError: seconds: expected numbers that float32 distinguishes, got 2 from 1700000000 to 1700000009, ...
    """
    if values.dtype.kind not in "iuf" or values.size == 0 or np.can_cast(values.dtype, np.float32):
        return
    columns = values.reshape(len(values), -1)
    low, high = (np.asarray(f(columns, axis=0), np.float64) for f in (np.min, np.max))
    largest = np.maximum(np.abs(low), np.abs(high))
    with np.errstate(invalid="ignore", over="ignore"):  # a column that is not finite is none of this
        spread = high - low
    for column in np.flatnonzero((spread < STEPS * 2.0**-23 * largest) & (spread > 1e-15 * largest)):
        before, after = (len(np.unique(columns[:, column].astype(kind))) for kind in (values.dtype, np.float32))
        if after < before:
            where = "" if columns.shape[1] == 1 else f" in column {column}"
            raise ValueError(
                f"{origin}: expected numbers that float32 distinguishes, got {before} from {low[column]:.17g} to "
                f"{high[column]:.17g}{where}, of which it keeps {after}; subtract an offset, such as the smallest."
            )
