"""The Yin-Yang data set, made from its definition: three classes of points in the unit square."""

import math

import numpy as np
from jaxtyping import Float, Int

from vicinal._numbers import check_counts
from vicinal.data.dataset import Dataset

YIN, YANG, DOT = 0, 1, 2
"""The classes."""

_BIG, _SMALL = 0.5, 0.1
_CREDIT = (
    "Yin-Yang: L. Kriener, J. Göltz and M. A. Petrovici, The Yin-Yang dataset, Neuro-Inspired Computational Elements "
    "Conference 2022, arXiv:2102.08211"
)


def yin_yang_class(
    x: Float[np.ndarray, " points"], y: Float[np.ndarray, " points"], radius: float = _BIG, dot: float = _SMALL
) -> Int[np.ndarray, " points"]:
    """The class of points in the symbol.

    The symbol is the disc of `radius` around `(radius, radius)`, with a dot around the middle of each horizontal
    radius: the left one at `x = radius / 2`, the right one at `3/2 radius`. Both dots are one class. Elsewhere a point
    belongs to yin if it is above the S that two half circles of radius `radius / 2` make: in the left disc, or in the
    upper half and not in the right disc.

    Args:
        x: Coordinates to the right.
        y: Coordinates upwards.
        radius: Of the symbol.
        dot: Of the dots.

    Returns:
        `YIN` (0), `YANG` (1) or `DOT` (2); -1 outside.

    Raises:
        ValueError: If a radius is out of its range.

    Example:
        >>> import numpy as np
        >>> yin_yang_class(np.array([0.5, 0.5, 0.25, 0.0]), np.array([0.9, 0.1, 0.5, 0.0])).tolist()
        [0, 1, 2, -1]
    """
    _check_radii(radius, dot)
    right, left = np.hypot(x - 1.5 * radius, y - radius), np.hypot(x - 0.5 * radius, y - radius)
    in_dot = (right <= dot) | (left <= dot)
    is_yin = (left <= 0.5 * radius) | ((y > radius) & (right > 0.5 * radius))
    found = np.where(in_dot, DOT, np.where(is_yin, YIN, YANG))
    return np.where(np.hypot(x - radius, y - radius) <= radius, found, -1)


def yin_yang(
    train: int = 5000, test: int = 1000, *, seed: int = 0, radius: float = _BIG, dot: float = _SMALL
) -> Dataset:
    """The Yin-Yang data set: classify points of the unit square by parts of the symbol.

    An input is `(x, y, 1 - x, 1 - y)`, so that a network without biases can learn it too. A class is drawn
    first, all equally likely, then points until one lies in it: so the dots, a few per cent of the area, are a third
    of the examples. As published, a linear classifier reaches about 64 %, a small network 98 %.

    Args:
        train: Training examples.
        test: Test examples.
        seed: The same seed gives the same points.
        radius: Of the symbol, whose middle is at `(radius, radius)`.
        dot: Of the dots, below half the radius.

    Returns:
        The data set, float32 inputs `[n, 4]` and three classes (yin, yang, dot).

    Raises:
        ValueError: If a count is below 1, or a radius is out of its range.

    Example:
        >>> yin_yang(seed=1)
        Dataset('yin-yang': 5000 training and 1000 test examples of shape (4,), 3 classes)

    References:
        Kriener, Göltz and Petrovici, The Yin-Yang dataset, NICE 2022, arXiv 2102.08211.
    """
    check_counts(train=train, test=test)
    _check_radii(radius, dot)
    generator = np.random.default_rng(seed)
    splits = [_drawn(count, generator, radius, dot) for count in (train, test)]
    (x_train, y_train), (x_test, y_test) = splits
    return Dataset(
        "yin-yang", x_train, y_train, x_test, y_test, classes=3, credit=_CREDIT, class_names=("yin", "yang", "dot")
    )


def _check_radii(radius: float, dot: float) -> None:
    if not 0 < radius < math.inf or not 0 < dot < 0.5 * radius:
        raise ValueError(f"expected 0 < dot < radius / 2, got a dot of {dot!r} and a radius of {radius!r}")


def _drawn(
    count: int, generator: np.random.Generator, radius: float, dot: float
) -> tuple[Float[np.ndarray, "count 4"], Int[np.ndarray, " count"]]:
    """Classes, and for each a point that lies in it."""
    classes = generator.integers(3, size=count).astype(np.int32)
    points = np.empty((count, 2))
    missing = np.arange(count)
    while len(missing):
        proposed = generator.uniform(0.0, 2 * radius, (len(missing), 2))
        accepted = yin_yang_class(proposed[:, 0], proposed[:, 1], radius, dot) == classes[missing]
        points[missing[accepted]] = proposed[accepted]
        missing = missing[~accepted]
    return np.concatenate([points, 1 - points], axis=1).astype(np.float32), classes
