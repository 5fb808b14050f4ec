"""Reads arrays from an npz file, checks the file, and finds the arrays of a data set."""

import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from vicinal._archives import check_sizes, read_header
from vicinal._memory import free_host_bytes
from vicinal.data.errors import DataError
from vicinal.data.names import CLASS_NAMES, INPUTS, KEYS, SPLIT, TARGETS


def read_arrays(path: Path, keys: Sequence[str] | None = None) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads named arrays from an npz file, without unpickling anything.

    Args:
        path: The file.
        keys: The arrays it must hold; by default those of a data set, see `names_in`. Others are not read.

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
            twofold = "" if keys is not None else _twofold(held)
            keys = tuple(names_in(held).values()) if keys is None else keys
            missing = [key for key in keys if key not in held]
            for key in () if missing else keys:
                _check_array(archive.zip, key)
            arrays = {} if missing else {key: archive[key] for key in keys}
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check its permissions.") from error
    except Exception as error:  # a manipulated file can raise nearly anything inside zipfile and numpy
        reason = " ".join(str(error).split())
        raise ValueError(
            f"expected an intact npz file of plain arrays at {path}, got: {reason}; fetch it again, or write "
            "it with numpy.savez."
        ) from error
    if twofold:
        raise ValueError(f"{path}: expected the examples once, got {twofold}; leave one of them out of the file.")
    if missing:
        raise ValueError(
            f"{path}: expected the arrays {', '.join(keys)}, got {', '.join(sorted(held)) or 'none'}; "
            f"add {', '.join(missing)}" + ("." if keys != KEYS else ", or give only x and y.")
        )
    return arrays


def names_in(held: Collection[str]) -> dict[str, str]:
    """Finds the arrays of a data set among the names in a file.

    Args:
        held: The names in the file.

    Returns:
        A name in the file for each part: `x_train` and `y_train`, or `x` and `y`; and if present `x_test`, `y_test`,
        `split` (which examples are for testing) and `class_names`.

    Example:
        >>> names_in(["X", "target", "split"])
        {'x': 'X', 'y': 'target', 'split': 'split'}
    """
    x, y, split, names = (
        next((name for name in known if name in held), None) for known in (INPUTS, TARGETS, SPLIT, CLASS_NAMES)
    )
    parts = [key for key in KEYS if key in held]
    if x is not None and y is not None and parts in ([], [*KEYS[2:]]):
        found = {"x": x, "y": y} | {key: key for key in parts} | ({} if split is None else {"split": split})
    else:
        wanted = KEYS[:2] if set(KEYS[:2]) <= set(held) and not set(KEYS[2:]) & set(held) else KEYS
        found = dict(zip(wanted, wanted, strict=True))
    return found | ({} if names is None else {"class_names": names})


def arrays_in(mapping: Mapping[str, Shaped[np.ndarray, "..."]]) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays of a data set, by part: those that `names_in` finds.

    Args:
        mapping: Arrays by their names in the file.

    Returns:
        Arrays by part.

    Raises:
        KeyError: One is missing.
    """
    return {key: mapping[name] for key, name in names_in(mapping).items()}


def _twofold(held: Collection[str]) -> str:
    """Names in a file that may mean the same part, for an error message; empty if there are none."""
    found = [[name for name in known if name in held] for known in (INPUTS, TARGETS, SPLIT, CLASS_NAMES)]
    for names in found:
        if len(names) > 1:
            return " and ".join(names)
    (x, y), train = found[:2], [key for key in KEYS[:2] if key in held]
    return f"{x[0]}, {y[0]} and {', '.join(train)}" if x and y and train else ""


def _check_zip(path: Path) -> None:
    """Raises a ValueError unless the file is a zip file whose members all match their checksums."""
    if not zipfile.is_zipfile(path):
        raise ValueError("a file that does not end like a zip file, so it is cut short or something else")
    with zipfile.ZipFile(path) as archive:
        check_sizes(archive, free_host_bytes())
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"a file whose member {damaged} is damaged")


def _check_array(archive: zipfile.ZipFile, key: str) -> None:
    """Raises a ValueError unless a member holds an array of the size that it announces, and no Python objects."""
    for name in {key, f"{key}.npy"} & set(archive.namelist()):
        with archive.open(name) as stream:
            try:
                read_header(stream, archive.getinfo(name).file_size)
            except ValueError as error:
                raise ValueError(f"the member {name}, of which {error}") from error
