"""Reading a data set from an npz file, and checking everything that a file from elsewhere can get wrong."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, Shaped

from vicinal.data.dataset import Dataset
from vicinal.data.errors import DataError

KEYS = ("x_train", "y_train", "x_test", "y_test")


def read_arrays(path: Path, keys: Sequence[str] = KEYS) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Read named arrays from an npz file. Nothing in the file is ever unpickled.

    Args:
        path: The file.
        keys: The arrays it must hold; others are left unread.

    Returns:
        The arrays as they are stored, by key.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, is no npz file, lacks a key, or holds Python objects.
        DataError: The operating system refuses to read it.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"expected an npz file at {path}, found none; check the path.")
    try:
        _check_zip(path)
        with np.load(path, allow_pickle=False) as archive:
            held = set(archive.files)
            missing = [key for key in keys if key not in held]
            arrays = {} if missing else {key: archive[key] for key in keys}
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check its permissions.") from error
    except Exception as error:  # a file made to mislead can raise nearly anything inside zipfile and numpy
        reason = " ".join(str(error).split())
        raise ValueError(
            f"expected an intact npz file of plain arrays at {path}, got: {reason}; fetch it again, or write "
            "it with numpy.savez."
        ) from error
    if missing:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(keys)}, got {', '.join(sorted(held)) or 'none'}; "
            f"add {', '.join(missing)}."
        )
    return arrays


def _check_zip(path: Path) -> None:
    """Raise ValueError unless the file is a zip file whose members all have their checksums."""
    if not zipfile.is_zipfile(path):
        raise ValueError("a file that does not end like a zip file, so it is cut short or something else")
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"a file whose member {damaged} is damaged")


def to_dataset(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
    name: str,
    credit: str,
    *,
    origin: str,
    classes: int | None = None,
) -> Dataset:
    """Check stored arrays and turn them into a data set.

    Args:
        arrays: `x_train`, `y_train`, `x_test` and `y_test`, as stored.
        name: Name of the data set.
        credit: Whom to name.
        origin: Where the arrays come from, for error messages.
        classes: How many classes there are; None to count them: one more than the largest label.

    Returns:
        Inputs as float32 in [0, 1] and labels as int32.

    Raises:
        ValueError: An array is empty, of a wrong type or shape, or holds values that are not allowed.
    """
    x_train, x_test = (unit_interval(arrays[key], f"{origin}: {key}") for key in ("x_train", "x_test"))
    y_train, y_test = (_labels(arrays[key], f"{origin}: {key}", classes) for key in ("y_train", "y_test"))
    if classes is None:
        classes = int(max(y_train.max(), y_test.max())) + 1
    try:
        return Dataset(name, x_train, y_train, x_test, y_test, classes, credit)
    except ValueError as error:
        raise ValueError(f"{origin} does not hold a data set: {error}") from error


def unit_interval(x: Shaped[np.ndarray, "n ..."], origin: str) -> Float[np.ndarray, "n ..."]:
    """Return inputs as float32 in [0, 1].

    - uint8 is divided by 255, its largest value, whatever the largest value present.
    - float16, float32 and float64 must lie in [0, 1] already and are only converted.
    - Every other type is refused, because its scale cannot be known.

    Args:
        x: Inputs, `[n, ...]`.
        origin: How error messages call the array.

    Returns:
        Inputs of the same shape.

    Raises:
        ValueError: The array is empty, has a single axis, or holds other types or values.

    Example:
        >>> unit_interval(np.array([[0, 51, 255]], np.uint8), "x").tolist()
        [[0.0, 0.20000000298023224, 1.0]]
    """
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{origin}: expected examples [n, ...], at least one, got shape {x.shape}; store one a row.")
    if x.dtype == np.uint8:
        return np.divide(x, 255, dtype=np.float32)
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise ValueError(
            f"{origin}: expected uint8 in 0..255 or float in [0, 1], got {x.dtype}; scale it to [0, 1] "
            "and store it as float32."
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{origin}: expected finite values, got NaN or infinity; remove or replace them.")
    low, high = float(x.min()), float(x.max())
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{origin}: expected floats in [0, 1], got values from {low:g} to {high:g}; scale them to [0, 1]."
        )
    return x.astype(np.float32)


def _labels(y: Shaped[np.ndarray, " n"], origin: str, classes: int | None) -> Int[np.ndarray, " n"]:
    if y.ndim != 1 or y.size == 0:
        raise ValueError(f"{origin}: expected labels [n], at least one, got shape {y.shape}; store class indices.")
    if y.dtype.kind not in "iu":
        raise ValueError(f"{origin}: expected integer labels, got {y.dtype}; store class indices.")
    low, high = int(y.min()), int(y.max())
    limit = np.iinfo(np.int32).max if classes is None else classes
    if low < 0 or high >= limit:
        raise ValueError(
            f"{origin}: expected labels from 0 to {limit - 1}, got {low} to {high}; number the classes from 0."
        )
    return y.astype(np.int32)
