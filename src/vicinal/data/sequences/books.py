"""Text as bytes: public-domain books from the data folder, a text of your own, and windows of them."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vicinal._numbers import check, check_count, check_counts
from vicinal.data.errors import DataError
from vicinal.data.loading import FOLDER_VARIABLE, data_folder
from vicinal.data.sequences.base import Sequences

Documents = tuple[UInt8[np.ndarray, " bytes"], ...]
"""Independent texts, as bytes."""


@dataclass(frozen=True, eq=False, repr=False)
class Texts:
    """Texts for training, validation and testing.

    Args:
        train: For training.
        validation: For choosing settings.
        test: For testing.
    """

    train: Documents
    validation: Documents
    test: Documents

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        described = (f"{name} {sum(map(len, texts))} bytes in {len(texts)}" for name, texts in parts.items())
        return f"Texts({', '.join(described)})"


def books(folder: str | os.PathLike[str] | None = None) -> Texts:
    """Load the books of the data folder: `books_train.txt`, `books_valid.txt` and `books_test.txt`.

    No book is in two of them. In each file the books follow one another, with a zero byte between them;
    white space around a book is left out.

    Args:
        folder: Where to look, as for `data_folder`.

    Returns:
        One array of bytes for each book.

    Raises:
        FileNotFoundError: A file is missing.
        DataError: The operating system refuses to read a file.
        ValueError: A file holds no text.

    Example:
        >>> try:
        ...     books("a-folder-that-is-not-there")
        ... except FileNotFoundError as error:
        ...     print(str(error)[:63])
        expected text at a-folder-that-is-not-there/books_train.txt, fo
    """
    return Texts(*(_documents(data_folder(folder) / f"books_{split}.txt") for split in ("train", "valid", "test")))


def text(path: str | os.PathLike[str], validation: float = 0.05, test: float = 0.05) -> Texts:
    """Load a text file of your own, and split it by position: first training, then validation, then testing.

    Args:
        path: The file.
        validation: The share of its bytes for validation, in (0, 1).
        test: The share for testing, in (0, 1).

    Returns:
        One array of bytes for each part.

    Raises:
        FileNotFoundError: The file is missing.
        DataError: The operating system refuses to read it.
        ValueError: The shares leave no part, or the file holds too little.
    """
    check("the shares of validation and test", np.array([validation, test]), lambda v: (v > 0) & (v < 1), "in (0, 1)")
    content = np.frombuffer(_content(Path(path).expanduser()), np.uint8)
    ends = [round(len(content) * (1 - validation - test)), round(len(content) * (1 - test))]
    parts = np.split(content, ends) if 0 < ends[0] < ends[1] < len(content) else ()
    if not parts:
        raise ValueError(
            f"expected three parts of {path}, got {len(content)} bytes with shares of {validation} and {test}; "
            "give a longer file or other shares"
        )
    return Texts(*((part,) for part in parts))


def byte_windows(documents: Documents, length: int) -> Sequences:
    """Cut texts into windows one after the other: read a byte, predict the next.

    A window lies within one text, and no byte is predicted twice. What remains of a text after its last whole window
    is left out, and so are texts that are too short.

    Args:
        documents: The texts.
        length: Steps of a window.

    Returns:
        The windows in order; all steps count.

    Raises:
        ValueError: If the length is below 1, or no text is longer than it.

    Example:
        >>> windows = byte_windows((np.frombuffer(b"abcdefg", np.uint8),), 3)
        >>> windows.inputs, windows.targets
        (array([[ 97,  98,  99],
               [100, 101, 102]], dtype=int32), array([[ 98,  99, 100],
               [101, 102, 103]], dtype=int32))
    """
    check_count("length", length, 1)
    starts = [(document, start) for document in documents for start in range(0, len(document) - length, length)]
    return _windows(starts, length)


def random_windows(documents: Documents, length: int, examples: int, *, seed: int) -> Sequences:
    """Draw windows of texts; every place where a window can start is as likely as any other.

    Args:
        documents: The texts.
        length: Steps of a window.
        examples: How many windows.
        seed: Of the draw.

    Returns:
        The windows; all steps count.

    Raises:
        ValueError: If a number is below 1, or no text is longer than a window.

    Example:
        >>> random_windows((np.frombuffer(b"abcdefg", np.uint8),), 3, 100, seed=0)
        Sequences(100 examples of 3 steps, 3 of them counted)
    """
    check_counts(length=length, examples=examples)
    long = [document for document in documents if len(document) > length]
    ends = np.cumsum([len(document) - length for document in long], dtype=np.int64)
    if not long:
        return _windows([], length)
    places = np.random.default_rng(seed).integers(ends[-1], size=examples)
    which = np.searchsorted(ends, places, side="right")
    starts = places - np.concatenate([[0], ends])[which]
    return _windows([(long[i], start) for i, start in zip(which, starts, strict=True)], length)


def _windows(starts: list, length: int) -> Sequences:
    if not starts:
        raise ValueError(f"expected a text of more than {length} bytes, got none; take a shorter length")
    windows = np.stack([document[start : start + length + 1] for document, start in starts]).astype(np.int32)
    return Sequences(windows[:, :-1], windows[:, 1:], np.ones((len(windows), length), bool))


def _documents(path: Path) -> Documents:
    parts = [part.strip() for part in _content(path).split(b"\0") if part.strip()]
    if not parts:
        raise ValueError(f"expected books in {path}, got an empty file; put the file there again")
    return tuple(np.frombuffer(part, np.uint8) for part in parts)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"expected text at {path}, found no file; set {FOLDER_VARIABLE} to the folder that holds {path.name}, or "
            "give the path of another file."
        ) from error
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}; check its permissions.") from error
