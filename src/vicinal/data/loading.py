"""Loads data sets: the embedded one, npz files in the data folder, and files and folders elsewhere."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from vicinal.data.archive import arrays_in, read_arrays
from vicinal.data.arrays import from_arrays, to_dataset
from vicinal.data.dataset import Dataset
from vicinal.data.folders import from_folder
from vicinal.data.sources import SOURCES, Source
from vicinal.data.tables import from_frame, is_table, read_table
from vicinal.data.targets import TaskKind

FOLDER_VARIABLE = "VICINAL_DATA"

DIGITS_PATH = Path(__file__).with_name("digits.npz")
DIGITS_CREDIT = (
    "Optical Recognition of Handwritten Digits: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, "
    "1998; CC BY 4.0"
)


def data_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the data files.

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


def load(
    name_or_path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    target: str | None = None,
    inputs: str | Sequence[str] | None = None,
    test_share: float | None = None,
    task: TaskKind | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Loads a data set into memory.

    `"digits"` is part of the package: 1797 images of 8x8, of which every fifth (index divisible by 5) is for
    testing. Any other name stands for `<folder>/<name>.npz`. A path is that of

    - an `.npz` file with `x_train`, `y_train`, `x_test` and `y_test`; or with inputs `x`, `X` or `data` and targets
      `y`, `target` or `labels`, and perhaps `split` or `test`, which says what is for testing (see `from_arrays`);
    - a table, `.csv` or `.parquet`: a column is the target, the others are inputs (see `from_frame`);
    - a folder of images, one folder for each class (see `from_folder`).

    Inputs of bytes are divided by 255, floats stay as they are. Targets are labels or numbers, as `from_arrays` says.
    If the data do not say which examples are for testing, a share is drawn, always the same. Files are never unpickled.

    Args:
        name_or_path: A name, or the path of a file or a folder.
        folder: Where to look for a name, as for `data_folder`.
        target: The column of a table to predict.
        inputs: The column or columns to predict it from; by default all others.
        test_share: Which share of the examples is for testing, where the data do not say it; by default 0.2.
        task: `"classification"` or `"regression"`, where the targets do not tell; see `from_arrays`.
        image_size: Height and width, in pixels, that images are resized to.

    Returns:
        The data set: inputs float32, labels int32 or numbers float32. The classes of labels without names that are
        not in `SOURCES` are counted: one more than the largest label.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The name is unknown, the file is damaged or holds something else, or an argument does not fit it.
        DataError: The operating system refuses to read the file.
        ImportError: Tables need pandas (`pip install 'vicinal[tables]'`), images Pillow (`vicinal[images]`).

    Example:
        >>> digits = load("digits")
        >>> digits.x_train.shape, digits.x_train.dtype, digits.y_test.shape
        ((1437, 8, 8), dtype('float32'), (360,))
    """
    name, path, source = locate(name_or_path, folder, SOURCES)
    return read(
        name, path, source, target=target, inputs=inputs, test_share=test_share, task=task, image_size=image_size
    )


def locate(
    name_or_path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None,
    sources: Mapping[str, Source],
) -> tuple[str, Path, Source | None]:
    """Finds the file of a data set, and its source if the name is that of a published one.

    Args:
        name_or_path: A name, or the path of an npz file, a table, or a folder of images.
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
    path = Path(text).expanduser()
    if text.endswith(".npz") or is_table(path):
        return path.stem, path, None
    known = ", ".join(("digits", *sources))
    if text and Path(text).name != text and os.path.isdir(path):
        return path.resolve().name, path, None
    if not text or Path(text).name != text or "\\" in text:
        raise ValueError(
            f"expected the name of a data set ({known}), a path that ends in .npz, .csv or .parquet, or a folder of "
            f"images, got {text!r}; give one of these."
        )
    own, path = path, data_folder(folder) / f"{text}.npz"
    if os.path.isfile(path):
        return text, path, sources.get(text)
    if text not in (*sources, ".", "..") and os.path.isdir(own):
        return text, own, None
    if text in sources:
        raise FileNotFoundError(
            f"expected {text} at {path}, found no file; run `vicinal data fetch {text}`, or set "
            f"{FOLDER_VARIABLE} to the folder that holds {text}.npz."
        )
    raise ValueError(
        f"expected the name of a data set ({known}), got {text!r}, and there is no {path}; check the "
        f"spelling, or set {FOLDER_VARIABLE} to the folder that holds {text}.npz."
    )


def read(name: str, path: Path, source: Source | None, **options: Any) -> Dataset:
    """Reads and checks the file of a data set.

    Args:
        name: Its name.
        path: Its file, or its folder.
        source: The published source; None for the embedded set and for the user's own files.
        options: Further arguments of `load`; None where not given.

    Returns:
        The data set, as `load` describes it.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged or holds something else, or an option does not fit it.
        DataError: The operating system refuses to read the file.
    """
    given = {option: value for option, value in options.items() if value is not None}
    if path == DIGITS_PATH or source is not None:
        _only((), given, name)
        if source is None:
            return _read_digits()
        return to_dataset(read_arrays(path), name, source.credit, origin=str(path), classes=source.classes)
    common: dict[str, Any] = {"name": name, "credit": f"{path.name}: a file of the user's own", "origin": str(path)}
    if is_table(path):
        _only(("target", "inputs", "test_share", "task"), given, str(path))
        return from_frame(read_table(path), **common, **given)
    if os.path.isdir(path):
        _only(("test_share", "image_size"), given, str(path))
        return from_folder(path, **given)
    _only(("test_share", "task"), given, str(path))
    found = arrays_in(read_arrays(path))
    names = found.pop("class_names", None)
    given |= {} if names is None else {"class_names": [str(name) for name in names.ravel()]}
    x, y, *test = (value for key, value in found.items() if key != "split")
    return from_arrays(x, y, *test, test_rows=found.get("split"), **common, **given)


def _only(read: tuple[str, ...], given: Mapping[str, Any], origin: str) -> None:
    """Raises a ValueError if an option is given that is not read."""
    for option in given:
        if option not in read:
            known = f"; of the options it reads {' and '.join(read)}" if read else ""
            raise ValueError(f"{origin}: expected no {option}, which these data do not read, got one{known}.")


def _read_digits() -> Dataset:
    stored = read_arrays(DIGITS_PATH, ("x", "y"))
    x = stored["x"].astype(np.float32) / 16  # intensities are counts from 0 to 16
    y = stored["y"]
    test = np.arange(len(x)) % 5 == 0
    arrays = {"x_train": x[~test], "y_train": y[~test], "x_test": x[test], "y_test": y[test]}
    return to_dataset(arrays, "digits", DIGITS_CREDIT, origin=str(DIGITS_PATH), classes=10)
