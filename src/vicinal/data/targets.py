"""What targets mean: labels of classes, with or without names, or numbers to predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Shaped

from vicinal.data.precision import check_apart

TaskKind = Literal["classification", "regression"]
"""Whether targets are labels of classes, or numbers to predict."""

_SHOWN = 6  # values that an error message lists


@dataclass(frozen=True)
class Decoded:
    """Targets as they are trained on.

    Args:
        parts: The arrays by name: labels `[n]`, int32 from 0, or numbers `[n, ...]`, float32.
        classes: How many classes the labels name; None for numbers.
        class_names: Of each class, where the targets were words or one said so.
    """

    parts: dict[str, Shaped[np.ndarray, "..."]]
    classes: int | None
    class_names: tuple[str, ...] | None


def decode(
    parts: Mapping[str, Shaped[np.ndarray, "..."]],
    *,
    task: TaskKind | None = None,
    classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Decoded:
    """Decides what targets mean, for all parts of a data set together.

    Unless `task` says it:

    - words and truth values are labels, numbered in the order of the alphabet; their names are kept;
    - whole numbers `[n]` are labels already, from 0;
    - rows with a single 1 among zeros, `[n, classes]`, are labels too (one-hot);
    - all other numbers are what they are: `[n]` becomes `[n, 1]`, one output unit.

    Args:
        parts: Arrays `[n, ...]` by the name that error messages give them.
        task: `"classification"` numbers whatever values there are (0 and 1000000, or -1 and 1) and keeps them as
            names; `"regression"` takes whole numbers as what they are.
        classes: How many classes there are; by default one more than the largest label.
        class_names: Their names, one for each label from 0; or for each value, in ascending order (`False` before
            `True`). Of targets that are words it is the order in which they are numbered.

    Returns:
        The targets, how many classes they name, and how these are called.

    Raises:
        ValueError: The parts differ in kind, a value is missing or not finite, or a label is out of range.

    Example:
        >>> found = decode({"y": np.array(["dog", "cat", "dog"])})
        >>> found.parts["y"].tolist(), found.class_names
        ([1, 0, 1], ('cat', 'dog'))
        >>> decode({"y": np.array([0.5, 2.0])}).parts["y"].shape
        (2, 1)
    """
    if task is not None and task not in get_args(TaskKind):
        raise ValueError(f"expected the task as 'classification' or 'regression', got {task!r}")
    arrays = {name: _plain(name, part) for name, part in parts.items()}
    sorts = {_sort(name, array) for name, array in arrays.items()}
    if len(sorts) > 1:
        raise ValueError(f"expected {' and '.join(arrays)} of one kind, got {' and '.join(sorted(sorts))}")
    (sort,) = sorts
    if task == "classification":
        return _named(arrays, class_names)
    if sort == "words":
        if task == "regression":
            raise ValueError(f"{next(iter(arrays))}: expected numbers, got words; leave out task='regression'")
        return _named(arrays, class_names)
    if task is None and all(_is_one_hot(array) for array in arrays.values()):
        indices = {name: array.argmax(axis=1).astype(np.int32) for name, array in arrays.items()}
        return _numbered(indices, next(iter(arrays.values())).shape[1], class_names)
    binary = all(array.ndim > 1 and np.isin(array, (0, 1)).all() for array in arrays.values())
    if task == "regression" or sort == "numbers" or binary:
        if classes is not None or class_names is not None:
            raise ValueError(f"{next(iter(arrays))}: expected integer labels, got {sort}; store class indices.")
        return Decoded({name: _numbers(name, array) for name, array in arrays.items()}, None, None)
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(
                f"{name}: expected labels [n], one-hot rows [n, classes] or floats, got {array.dtype} of shape "
                f"{array.shape}; store class indices, or floats for regression."
            )
    return _numbered(arrays, classes, class_names)


def check_every_class(
    train: Shaped[np.ndarray, " n"], test: Shaped[np.ndarray, " m"], names: Sequence[str] | None, origin: str
) -> None:
    """Checks that every class has a training example, where the number of classes was not given.

    Args:
        train: Labels of the training examples.
        test: Labels of the test examples.
        names: Names of the classes; None if labels have none.
        origin: The name of the data in error messages.

    Raises:
        ValueError: Labels leave gaps (0 and 1000000, say), or only the test examples have one of them.
    """
    seen = np.unique(train)
    missing = np.setdiff1d(test, seen)
    if names is None:
        whole = np.union1d(seen, test)
        if not np.array_equal(whole, np.arange(len(whole))):
            raise ValueError(
                f"{origin}: expected labels from 0 to {len(whole) - 1} for {len(whole)} classes, got {_values(whole)}; "
                "give task='classification' (--task classification) to number these and keep them as class names, "
                "task='regression' (--task regression) for regression, or class_names, one for each class, if some "
                "have no example."
            )
    if len(missing):
        shown = _values([names[label] for label in missing] if names is not None else missing)
        raise ValueError(
            f"{origin}: expected a training example of every class, got none of {shown}, which the test examples have; "
            "split the data otherwise, or give class_names."
        )


def _plain(name: str, array: Shaped[np.ndarray, "..."]) -> np.ndarray:
    """The array without an axis of length 1, and without Python objects."""
    array = np.asarray(array)
    if array.ndim < 1 or array.size == 0:
        raise ValueError(f"{name}: expected labels or numbers [n], at least one, got shape {array.shape}.")
    if array.dtype.kind == "O":
        array = _from_objects(name, array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "U":
        array = np.char.strip(array)  # spaces around a word make no other class
    if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind in "iubU":
        array = array[:, 0]
    return array


def _from_objects(name: str, array: np.ndarray) -> np.ndarray:
    values = array.ravel().tolist()
    if any(value is None or value != value for value in values):
        raise ValueError(f"{name}: expected a target for every example, got missing ones; remove these examples.")
    if all(isinstance(value, str) for value in values):
        return array.astype(str)
    if any(isinstance(value, str) for value in values):
        raise ValueError(f"{name}: expected words or numbers, got both; write all as words.")
    try:
        return np.array(array.tolist())
    except ValueError:
        raise ValueError(f"{name}: expected targets of one shape, got different ones.") from None


def _sort(name: str, array: np.ndarray) -> str:
    kind = array.dtype.kind
    sort = {"U": "words", "b": "words", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}.get(kind)
    if sort is None:
        raise ValueError(f"{name}: expected words, integer labels or floats, got {array.dtype}.")
    return sort


def _named(arrays: Mapping[str, np.ndarray], names: Sequence[str] | None) -> Decoded:
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(f"{name}: expected a label for each example, got shape {array.shape}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"{name}: expected a label for every example, got NaN or infinity.")
        if array.dtype.kind == "U" and (np.char.str_len(np.char.strip(array)) == 0).any():
            raise ValueError(f"{name}: expected a label for every example, got an empty word.")
    values = np.unique(np.concatenate(list(arrays.values())))
    words, place = _words(values), next(iter(arrays))
    if len(values) < 2:
        raise ValueError(f"{place}: expected at least two classes, got only {_values(values)}.")
    labels = {name: np.searchsorted(values, array).astype(np.int32) for name, array in arrays.items()}
    if names is None:
        return Decoded(labels, len(values), words)
    names = _own_names(names)
    if set(words) <= set(names):  # their order, in which there may be classes without an example
        order = np.array([names.index(word) for word in words], np.int32)
        return Decoded({name: order[array] for name, array in labels.items()}, len(names), names)
    if values.dtype.kind in "iu" and values[0] >= 0 and values[-1] < len(names):
        return _numbered(arrays, None, names)
    if values.dtype.kind == "U" or len(names) != len(values):
        raise ValueError(
            f"{place}: expected class_names for the {len(values)} classes {_values(values)}, got {_values(names)}; "
            + (
                "give these words in the order that you want."
                if values.dtype.kind == "U"
                else "give one for each, in this order."
            )
        )
    return Decoded(labels, len(names), names)


def _own_names(names: Sequence[str], classes: int | None = None) -> tuple[str, ...]:
    names = tuple(str(name).strip() for name in names)
    if len(set(names)) < len(names) or (classes is not None and len(names) != classes):
        raise ValueError(f"expected a name of its own for each class, got {_values(names)}")
    return names


def _numbered(arrays: Mapping[str, np.ndarray], classes: int | None, names: Sequence[str] | None) -> Decoded:
    if names is not None:
        names = _own_names(names, classes)
        classes = len(names)
    limit = np.iinfo(np.int32).max if classes is None else classes
    for name, array in arrays.items():
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= limit:
            allowed = "0 up" if classes is None and low < 0 else f"0 to {limit - 1}"
            raise ValueError(
                f"{name}: expected labels from {allowed}, got {low} to {high}; number the classes from 0, or "
                "give task='classification' (--task classification) to have these values numbered."
            )
    largest = max(int(array.max()) for array in arrays.values())
    labels = {name: array.astype(np.int32) for name, array in arrays.items()}
    return Decoded(labels, largest + 1 if classes is None else classes, names)


def _numbers(name: str, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"{name}: expected finite numbers, got NaN, infinity or what float32 cannot hold; remove these examples."
        )
    check_apart(array, name)
    return numbers[:, None] if numbers.ndim == 1 else numbers


def _is_one_hot(array: np.ndarray) -> bool:
    if array.ndim != 2 or array.shape[1] < 2 or array.dtype.kind not in "iuf":
        return False
    return bool(np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all())


def _words(values: np.ndarray) -> tuple[str, ...]:
    words = tuple(_word(value) for value in values)
    return words if len(set(words)) == len(words) else tuple(str(value) for value in values)


def _word(value: np.generic) -> str:
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


def _values(values: Sequence | np.ndarray) -> str:
    shown = [_word(value) if isinstance(value, np.generic) else str(value) for value in values[:_SHOWN]]
    return ", ".join(shown) + (f", ... ({len(values)} in all)" if len(values) > _SHOWN else "")
