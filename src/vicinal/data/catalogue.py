"""The list of data sets, and the check that their files are complete."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pooch

from vicinal.data.dataset import Dataset
from vicinal.data.errors import DataError
from vicinal.data.loading import DIGITS_CREDIT, DIGITS_PATH, data_folder, locate, read
from vicinal.data.sources import SOURCES, Source


@dataclass(frozen=True)
class Entry:
    """One line of the list of data sets.

    Args:
        name: What `load` and `fetch` call it.
        status: `"embedded"` in the package, `"present"` in the folder, or `"missing"` from it.
        path: The path of its file, existing or not.
        credit: Whom to name.
    """

    name: str
    status: Literal["embedded", "present", "missing"]
    path: Path
    credit: str


def available(
    folder: str | os.PathLike[str] | None = None, *, sources: Mapping[str, Source] = SOURCES
) -> tuple[Entry, ...]:
    """Lists the named data sets. Checks only whether files exist; `verify` reads them.

    Args:
        folder: Where to look, as for `data_folder`.
        sources: The published data sets to list after the embedded one.

    Returns:
        The embedded data set first, then one entry for each source.

    Example:
        >>> [(entry.name, entry.status) for entry in available("a-folder-that-is-not-there")][:2]
        [('digits', 'embedded'), ('mnist', 'missing')]
    """
    entries = [Entry("digits", "embedded", DIGITS_PATH, DIGITS_CREDIT)]
    for name, source in sources.items():
        path = data_folder(folder) / f"{name}.npz"
        entries.append(Entry(name, "present" if os.path.isfile(path) else "missing", path, source.credit))
    return tuple(entries)


@dataclass(frozen=True)
class Summary:
    """The contents of a data file, as `verify` found them.

    Args:
        name: Name of the data set.
        path: The file.
        train: How many training examples it holds.
        test: How many test examples it holds.
        shape: Shape of one input.
        classes: How many classes its labels name; None if the targets are numbers.
        sha256: Hash of the file, hexadecimal; None for a folder.
        class_names: What the classes are called; None if they have no names.
        credit: Whom to name, and how examples for testing were drawn.
        outputs: Output units that a network needs: classes, or numbers of a target.
    """

    name: str
    path: Path
    train: int
    test: int
    shape: tuple[int, ...]
    classes: int | None
    sha256: str | None
    class_names: tuple[str, ...] | None = None
    credit: str = ""
    outputs: int = 1


def verify(
    name_or_path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    *,
    sources: Mapping[str, Source] = SOURCES,
    **options: Any,
) -> Summary:
    """Checks that the file of a data set is readable, valid and complete.

    Args:
        name_or_path: A name, or the path of an npz file, a table or a folder of images.
        folder: Where to look for a name, as for `data_folder`.
        options: Arguments of `load`: `target`, `inputs`, `test_share`, `task`, `image_size`.
        sources: Published data sets; a file with the name of one must have the published size.

    Returns:
        The contents of the file, and its hash.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The name is unknown, or the file is damaged, invalid or incomplete.
        DataError: The operating system refuses to read the file.

    Example:
        >>> summary = verify("digits")
        >>> summary.train, summary.test, summary.shape, summary.classes
        (1437, 360, (8, 8), 10)
    """
    name, path, source = locate(name_or_path, folder, sources)
    dataset = read(name, path, source, **options)
    if source is not None:
        check_complete(dataset, source, str(path))
    try:
        sha256 = None if os.path.isdir(path) else pooch.file_hash(str(path), alg="sha256")
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check its permissions.") from error
    train, test = len(dataset.x_train), len(dataset.x_test)
    found = (dataset.shape, dataset.classes, sha256, dataset.class_names, dataset.credit, dataset.outputs)
    return Summary(name, path, train, test, *found)


def check_complete(dataset: Dataset, source: Source, origin: str) -> None:
    """Checks that a data set has the published size.

    Args:
        dataset: The data set.
        source: The published sizes.
        origin: Its name in error messages.

    Raises:
        ValueError: It has another size.
    """
    got = (len(dataset.x_train), len(dataset.x_test), dataset.shape)
    if got != (source.train, source.test, source.shape):
        raise ValueError(
            f"{origin}: expected {source.train} training and {source.test} test examples of shape "
            f"{source.shape}, got {got[0]} and {got[1]} of shape {got[2]}; move the file away and fetch "
            f"{dataset.name} again."
        )
