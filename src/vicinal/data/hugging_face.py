"""Batches from a Hugging Face data set: columns by name, read when they are needed."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray, Shaped

from vicinal._foreign import is_a
from vicinal._numbers import check_count
from vicinal.data.batching import epoch_order
from vicinal.data.precision import check_apart
from vicinal.data.streams import Batches
from vicinal.data.tables import target_column


def from_hugging_face(
    dataset: Any,
    inputs: str | Sequence[str] | None = None,
    target: str | None = None,
    *,
    batch_size: int = 64,
    key: PRNGKeyArray | None = None,
) -> Batches:
    """Makes batches from a `datasets.Dataset` or `datasets.IterableDataset`; the data are never in memory as a whole.

    Images and other bytes are divided by 255 and floats stay as they are, all float32; whole numbers that are one
    input by themselves (tokens) stay whole. Several columns must hold a number each and become `[batch, columns]`.
    Targets are labels (`ClassLabel`, whole numbers), or floats, of which `[batch]` becomes `[batch, 1]`.

    Args:
        dataset: One split; `datasets["train"]` of several.
        inputs: The column or columns to read; by default all but the target.
        target: The column to predict; by default the one called y, target(s), label(s) or class, else the last.
        batch_size: Examples in a batch.
        key: Shuffles each pass differently, and drops an incomplete last batch; None reads all in the order of the
            data. Data that can only be iterated over shuffle themselves (`dataset.shuffle(...)`).

    Returns:
        The batches.

    Raises:
        TypeError: `dataset` is something else.
        ValueError: A column is missing, or holds no usable numbers; the latter may show only when a batch is read.

    Example:
        ```python
        train = datasets.load_dataset("mnist", split="train")
        run = vc.train.fit(rule, model, optimizer, vc.data.from_hugging_face(train, "image", "label", key=key), ...)
        ```
    """
    if is_a(dataset, "datasets.DatasetDict", "datasets.IterableDatasetDict"):
        raise TypeError(f"expected one split, got {', '.join(dataset)}; choose one of them by its name")
    if not is_a(dataset, "datasets.Dataset", "datasets.IterableDataset"):
        raise TypeError(f"expected a datasets.Dataset or datasets.IterableDataset, got {type(dataset).__name__}")
    batch_size = check_count("batch_size", batch_size)
    columns = dataset.column_names or [*next(iter(dataset), {})]
    predicted = target_column(columns, target)
    chosen = [name for name in columns if name != predicted] if inputs is None else inputs
    chosen = [chosen] if isinstance(chosen, str) else [*chosen]
    for name in chosen:
        if name not in columns:
            raise ValueError(f"expected inputs among the columns {', '.join(columns)}, got {name!r}")
    if not chosen:
        raise ValueError(f"expected columns beside the target {predicted!r}, got none")
    dataset = dataset.select_columns([*dict.fromkeys([*chosen, predicted])]).with_format("numpy")

    def pair(rows: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        return _inputs(rows, chosen), _targets(rows[predicted], predicted)

    names = getattr((dataset.features or {}).get(predicted), "names", None)
    begin, length = (_indexed if is_a(dataset, "datasets.Dataset") else _streamed)(dataset, batch_size, key, pair)
    return Batches(begin, length, None if names is None else tuple(names))


def _indexed(dataset: Any, size: int, key: Any, pair: Callable) -> tuple[Callable[[int, int], Iterator], int]:
    examples = len(dataset)
    if examples < (1 if key is None else size):
        raise ValueError(f"expected at least {1 if key is None else size} examples, one batch, got {examples}")
    length = -(-examples // size) if key is None else examples // size

    def begin(number: int, skip: int) -> Iterator:
        order = np.arange(examples) if key is None else np.asarray(epoch_order(key, number, examples))
        return (pair(dataset[order[i * size : (i + 1) * size].tolist()]) for i in range(skip, length))

    return begin, length


def _streamed(dataset: Any, size: int, key: Any, pair: Callable) -> tuple[Callable[[int, int], Iterator], None]:
    def begin(number: int, skip: int) -> Iterator:
        dataset.set_epoch(number)
        return map(pair, itertools.islice(dataset.iter(size, drop_last_batch=key is not None), skip, None))

    return begin, None


def _inputs(rows: dict[str, Any], chosen: list[str]) -> Shaped[np.ndarray, "batch ..."]:
    columns = [_numbers(rows[name], name) for name in chosen]
    if len(columns) == 1 and columns[0].ndim > 1:
        return columns[0]
    for name, column in zip(chosen, columns, strict=True):
        if column.ndim != 1:
            raise ValueError(
                f"expected a number of each example in column {name!r}, beside other columns, got shape "
                f"{column.shape[1:]}; give inputs= with one column"
            )
        check_apart(column, f"column {name!r}")
    return np.stack([column.astype(np.float32) for column in columns], axis=1)


def _targets(values: Any, name: str) -> Shaped[np.ndarray, "batch ..."]:
    numbers = np.asarray(values)
    if numbers.dtype.kind in "iub" and numbers.ndim == 1:
        return _whole(numbers, name)
    numbers = _numbers(values, name)
    return numbers[:, None] if numbers.ndim == 1 else numbers


def _whole(array: np.ndarray, name: str) -> np.ndarray:
    limits = np.iinfo(np.int32)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(
            f"expected whole numbers that int32 can hold in column {name!r}, got {array.min()} to {array.max()}; map "
            "the column to floats, or subtract an offset"
        )
    return array.astype(np.int32)


def _numbers(values: Any, name: str) -> Shaped[np.ndarray, "batch ..."]:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind == "O" and len({np.shape(value) for value in array.ravel()}) == 1:
        array = np.array(array.tolist())
    if array.dtype == np.uint8:
        return np.divide(array, 255, dtype=np.float32)
    if array.dtype.kind in "iu":
        return _whole(array, name)
    if array.dtype.kind not in "fb":
        got = {"U": "words", "O": "values of different shapes, or missing ones"}.get(array.dtype.kind, array.dtype)
        raise ValueError(
            f"expected numbers of one shape in column {name!r}, got {got}; map the column, or for labels that are "
            f"words use dataset.class_encode_column({name!r})"
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers in column {name!r}, got NaN, infinity or missing ones; filter them")
    return array
