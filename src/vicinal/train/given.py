"""The data, test and validation sets given to `fit` and `sweep`: arrays, or iterables of batches."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from vicinal._foreign import as_arrays, is_a, is_array, library_of
from vicinal.data import Dataset, from_frame, from_hugging_face, split_rows
from vicinal.data.names import CLASS_NAMES, INPUTS, TARGETS
from vicinal.data.precision import check_apart
from vicinal.data.streams import Pair, pair_of
from vicinal.graph import Graph
from vicinal.losses import Loss
from vicinal.train.batches import count_examples, is_pair
from vicinal.train.checks import check_examples
from vicinal.train.evaluate import evaluate_batches, evaluator

Held = Pair | Iterable
"""Arrays `(x, y)`, or an iterable of such batches."""


@dataclasses.dataclass(frozen=True)
class Given:
    """Data to train and to evaluate on.

    Attributes:
        data: Arrays `(x, y)`, `[examples, ...]` each, or batches.
        sets: The sets to evaluate on, by their name in records: validation, test.
    """

    data: Held
    sets: dict[str, Held]


def given(data: Any, test: Any, validation: Any, *, batch_size: int, key: PRNGKeyArray | None) -> Given:
    """Converts a user's data to one form.

    Args:
        data: See `fit`.
        test: A pair of arrays, a data set of any kind, or batches that can be read again; None for the data's own.
        validation: The same, or a share in (0, 1) of the training arrays, drawn by `split_rows`: the same
            examples whatever the key, so that runs can be compared.
        batch_size: The batch size for data that can be iterated in batches.
        key: The key of their order.

    Raises:
        TypeError: If an argument is of another kind; the message says what to do.
        ValueError: If the parts do not fit each other.
    """
    if is_a(data, "pandas.DataFrame"):
        parts = _from_frame(data, test)
        test = None
    else:
        parts = _parts(data, batch_size, key)
    train, sets = parts["train"], {}
    if isinstance(validation, int | float | np.number):
        train, sets["validation"] = _shared(train, validation)
    for name, own in (("validation", validation), ("test", test)):
        if name not in sets and (own is not None or name in parts):
            sets[name] = held(parts[name] if own is None else own, name, batch_size)
    _check_apart(train, "data")
    return Given(train, sets)


def in_memory(found: Given) -> tuple[Pair, dict[str, Pair]]:
    """Data and sets; TypeError unless all are arrays: the members of a sweep share them on the devices."""
    for name, value in [("data", found.data), *found.sets.items()]:
        if not isinstance(value, tuple) or not is_pair(value):
            raise TypeError(
                f"expected {name} as a Dataset or a pair of arrays (x, y), got {_kind(value)}; a sweep keeps it on the "
                "devices: vicinal.data.batches(...).collected() puts batches into arrays"
            )
    return found.data, found.sets  # pyrefly: ignore[bad-return]


def held(value: Any, name: str, batch_size: int = 64) -> Held:
    """A test or validation set, as arrays or as batches that can be read again.

    A `Dataset` stands for its test part, and so does a dictionary that has one.
    """
    if isinstance(value, Dataset):
        return value.x_test, value.y_test
    if isinstance(value, Iterator):
        raise TypeError(
            f"expected {name} as something that can be read at every evaluation, got a {type(value).__name__}, which "
            "can be read once; give a list, a DataLoader, or vicinal.data.batches(function)"
        )
    if is_a(value, "pandas.DataFrame"):
        raise TypeError(
            f"expected {name} as a pair of arrays (x, y), got a DataFrame; vicinal.data.from_frame makes them"
        )
    if is_a(value, "datasets.DatasetDict", "datasets.IterableDatasetDict"):
        raise TypeError(f"expected {name} as one split, got {', '.join(value)}; choose one of them by its name")
    if not isinstance(value, Iterable) or isinstance(value, str | bytes) or is_array(value):
        raise TypeError(f"expected {name} as a pair of arrays (x, y), a data set or batches, got {_kind(value)}")
    parts = _parts(value, batch_size, None)
    found = parts.get("test", parts["train"])
    if isinstance(found, tuple) and is_pair(found):
        count_examples(*found)
        _check_apart(found, name)
        return jax.tree.map(jnp.asarray, found)
    return found


def evaluators(
    graph: Graph, loss: Loss, sets: dict[str, Held], metrics: Mapping[str, Callable] | None, model: PyTree
) -> dict[str, Callable[[PyTree], dict[str, float]]]:
    """Returns, for each set, `evaluate` as a function of the model; sets in batches are never held as a whole.

    Checks examples now, with the given model; for a set in batches, the first batch now and the others when read.
    """
    found: dict[str, Callable[[PyTree], dict[str, float]]] = {}
    for name, examples in sets.items():
        where = f"the {name} set"
        if isinstance(examples, tuple) and is_pair(examples):
            found[name] = evaluator(graph, loss, examples, metrics, model, where)
            continue
        for first in itertools.islice(map(pair_of, examples), 1):
            count_examples(*first)
            check_examples(graph, loss, model, jax.tree.map(np.asarray, first), f"the first batch of {where}")
        found[name] = functools.partial(_evaluated, graph, loss, examples, metrics, where)
    return found


def _evaluated(
    graph: Graph, loss: Loss, examples: Iterable, metrics: Mapping[str, Callable] | None, where: str, model: PyTree
) -> dict[str, float]:
    return evaluate_batches(graph, model, loss, map(pair_of, examples), metrics, where)


def _parts(data: Any, batch_size: int, key: PRNGKeyArray | None) -> dict[str, Any]:
    """`train`, and `test` and `validation` if the data have them."""
    if isinstance(data, Dataset):
        return {"train": (data.x_train, data.y_train), "test": (data.x_test, data.y_test)}
    library = library_of(data)
    if library == "datasets":
        splits = {"train": data}
        if is_a(data, "datasets.DatasetDict", "datasets.IterableDatasetDict"):
            splits = dict(data)
            if "train" not in splits:
                raise ValueError(f"expected a split train, got {', '.join(splits) or 'none'}; choose one by its name")
        train = from_hugging_face(splits["train"], batch_size=batch_size, key=key)
        return {"train": train} | {name: splits[name] for name in ("validation", "test") if name in splits}
    if library == "torch" and not is_a(data, "torch.DataLoader"):
        return {"train": _from_torch(data)}
    if isinstance(data, Mapping):
        return _from_mapping(data)
    return {"train": as_arrays(tuple(data)) if is_pair(data) else data}


def _from_frame(frame: Any, test: Any) -> dict[str, Any]:
    if test is not None and not is_a(test, "pandas.DataFrame"):
        raise TypeError(f"expected test as a DataFrame too, got {_kind(test)}; vicinal.data.from_frame makes arrays")
    made = from_frame(frame, test=test)
    return {"train": (made.x_train, made.y_train), "test": (made.x_test, made.y_test)}


def _from_torch(data: Any) -> tuple[PyTree, PyTree]:
    if is_a(data, "torch.TensorDataset") and len(data.tensors) == 2:
        return as_arrays(tuple(data.tensors))
    if is_a(data, "torch.Dataset"):
        raise TypeError(
            f"expected batches, got {type(data).__name__}, a PyTorch Dataset, which gives examples; wrap it: "
            "torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)"
        )
    raise TypeError(f"expected a pair of arrays (x, y), got only {_kind(data)}")


def _from_mapping(data: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs and targets, `x_train`, `y_train` or under names that files have too; perhaps `x_test`, `y_test`."""
    train = [name for name in ("x_train", "y_train") if name in data]
    pairs = {"train": (data["x_train"], data["y_train"]) if len(train) == 2 else pair_of(data)}
    known = {*(train if len(train) == 2 else (*INPUTS, *TARGETS)), "x_test", "y_test", *CLASS_NAMES}
    unknown = [str(name) for name in data if name not in known]
    if unknown:
        raise ValueError(
            f"expected inputs, targets, x_test and y_test in a dictionary of arrays, got {', '.join(unknown)} too; "
            "leave out what is not to be read, and give a validation set as validation=(x, y)"
        )
    if ("x_test" in data) != ("y_test" in data):
        raise ValueError(f"expected x_test and y_test, got one of them in a dictionary of {', '.join(data)}")
    if "x_test" in data:
        pairs["test"] = data["x_test"], data["y_test"]
    return as_arrays(pairs)


def _check_apart(value: Held, name: str) -> None:
    """Check arrays of double precision, which become float32 on a device."""
    if isinstance(value, tuple) and is_pair(value) and jnp.result_type(float) == jnp.float32:
        for part, tree in zip("xy", value, strict=True):
            for leaf in jax.tree.leaves(tree):
                if isinstance(leaf, np.ndarray) and leaf.ndim and leaf.dtype == np.float64:
                    check_apart(leaf, f"{part} of the {name}")


def _shared(train: Any, share: Any) -> tuple[tuple[PyTree, PyTree], tuple[PyTree, PyTree]]:
    """Splits off a share for validation, with the same share of each class."""
    if not isinstance(train, tuple):
        raise ValueError(
            f"expected validation as a set, since the data come in batches, got the share {share}; give a pair of "
            "arrays or batches"
        )
    examples, labels = count_examples(*train), train[1]
    if is_array(labels) and labels.ndim == 1 and np.dtype(labels.dtype).kind in "iu":
        labels = np.asarray(labels)
        labels = None if len(np.unique(labels)) > examples * (1 - share) else labels  # rather numbers than labels
    else:
        labels = None
    kept, aside = split_rows(examples, share, labels)
    return jax.tree.map(lambda leaf: leaf[kept], train), jax.tree.map(lambda leaf: leaf[aside], train)


def _kind(value: Any) -> str:
    return f"an array of shape {list(value.shape)}" if is_array(value) else type(value).__name__
