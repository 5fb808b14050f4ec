"""Loading data sets: the embedded one, and npz files in the data folder or anywhere else."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pooch

from vicinal.data.archive import read_arrays, to_dataset
from vicinal.data.dataset import Dataset
from vicinal.data.sources import SOURCES, Source

FOLDER_VARIABLE = "VICINAL_DATA"

DIGITS_PATH = Path(__file__).with_name("digits.npz")
DIGITS_CREDIT = (
    "Optical Recognition of Handwritten Digits: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, "
    "1998; CC BY 4.0"
)


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the data files.

    Args:
        folder: The folder to use. When None, the environment variable `VICINAL_DATA` names it, and when that
            is unset or empty, it is the user's cache folder for vicinal.

    Returns:
        The folder, which need not exist.

    Example:
        >>> data_folder("sets").name
        'sets'
    """
    chosen = folder if folder is not None else os.environ.get(FOLDER_VARIABLE) or pooch.os_cache("vicinal")
    return Path(chosen).expanduser()


def load(name_or_path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set into memory.

    `"digits"` is part of the package: 1797 images of 8x8, of which every fifth (index divisible by 5) is for
    testing. Any other name stands for `<folder>/<name>.npz`, and anything that ends in `.npz` is the path of
    a file. A file holds `x_train`, `y_train`, `x_test` and `y_test`: uint8 inputs are divided by 255, float
    inputs must lie in [0, 1] already, other types are refused; labels are integers from 0. Files are never
    unpickled.

    Args:
        name_or_path: A name, or the path of an npz file.
        folder: Where to look for a name, as for `data_folder`.

    Returns:
        The data set, inputs float32 in [0, 1] in the shape of the file, labels int32. The classes of a file
        that is not in `SOURCES` are counted: one more than the largest label.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The name is unknown, or the file is damaged or holds something else.
        DataError: The operating system refuses to read the file.

    Example:
        >>> digits = load("digits")
        >>> digits.x_train.shape, digits.x_train.dtype, digits.y_test.shape
        ((1437, 8, 8), dtype('float32'), (360,))
    """
    return read(*locate(name_or_path, folder, SOURCES))


def locate(
    name_or_path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None,
    sources: Mapping[str, Source],
) -> tuple[str, Path, Source | None]:
    """Find the file of a data set, and where it was published when it goes by the name of a source.

    Args:
        name_or_path: A name, or the path of an npz file.
        folder: Where to look for a name, as for `data_folder`.
        sources: Published data sets.

    Returns:
        The name, the path, and the source or None.

    Raises:
        FileNotFoundError: The name is that of a source, but its file is not in the folder.
        ValueError: The name is unknown.
    """
    text = os.fspath(name_or_path)
    if text == "digits":
        return text, DIGITS_PATH, None
    if text.endswith(".npz"):
        path = Path(text).expanduser()
        return path.stem, path, None
    known = ", ".join(("digits", *sources))
    if not text or Path(text).name != text or "\\" in text:
        raise ValueError(
            f"expected the name of a data set ({known}) or a path that ends in .npz, got {text!r}; give one of these."
        )
    path = data_folder(folder) / f"{text}.npz"
    if os.path.isfile(path):
        return text, path, sources.get(text)
    if text in sources:
        raise FileNotFoundError(
            f"expected {text} at {path}, found no file; run `vicinal data fetch {text}`, or set "
            f"{FOLDER_VARIABLE} to the folder that holds {text}.npz."
        )
    raise ValueError(
        f"expected the name of a data set ({known}), got {text!r}, and there is no {path}; check the "
        f"spelling, or set {FOLDER_VARIABLE} to the folder that holds {text}.npz."
    )


def read(name: str, path: Path, source: Source | None) -> Dataset:
    """Read and check the file of a data set.

    Args:
        name: Its name.
        path: Its file.
        source: Where it was published; None for the embedded set and for files of the user's own.

    Returns:
        The data set, as `load` describes it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged or holds something else.
        DataError: The operating system refuses to read the file.
    """
    if path == DIGITS_PATH:
        return _read_digits()
    if source is None:
        return to_dataset(read_arrays(path), name, f"{path.name}: a file of the user's own", origin=str(path))
    return to_dataset(read_arrays(path), name, source.credit, origin=str(path), classes=source.classes)


def _read_digits() -> Dataset:
    stored = read_arrays(DIGITS_PATH, ("x", "y"))
    x = stored["x"].astype(np.float32) / 16  # intensities are counts from 0 to 16
    y = stored["y"]
    test = np.arange(len(x)) % 5 == 0
    arrays = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    return to_dataset(arrays, "digits", DIGITS_CREDIT, origin=str(DIGITS_PATH), classes=10)
