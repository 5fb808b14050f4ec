"""A data set from arrays: which inputs are allowed, what targets mean, and which examples are for testing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vicinal._foreign import as_numpy, is_a, is_array, whole
from vicinal.data.dataset import Dataset
from vicinal.data.precision import check_apart
from vicinal.data.splitting import TEST_SHARE, rows_of, split_rows
from vicinal.data.targets import TaskKind, check_every_class, decode


def from_arrays(
    x: Any,
    y: Any,
    x_test: Any = None,
    y_test: Any = None,
    *,
    test_rows: Any = None,
    test_share: float | None = None,
    task: TaskKind | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    credit: str = "",
    origin: str | None = None,
) -> Dataset:
    """Makes a data set from arrays, as `load` does from a file.

    Targets are labels if they are words, truth values, whole numbers from 0 or one-hot rows, and else numbers to
    predict: floats `[n]` become `[n, 1]`, for one output unit.

    Examples for testing are those given as `x_test` and `y_test`, those that `test_rows` names, or a share, drawn
    once and for all with as large a part of each class. The credit then says so.

    Args:
        x: Inputs `[n, ...]`: uint8, which is divided by 255, or floats, which stay as they are.
        y: Targets, `[n]` or `[n, ...]`.
        x_test: Inputs for testing; `y_test` belongs to it.
        y_test: Targets for testing.
        test_rows: Which rows are for testing instead: truth values `[n]`, the words `train` and `test`, or indices.
        test_share: The share for testing instead; by default 0.2.
        task: `"classification"` to number whatever values there are and keep them as class names, `"regression"` to
            predict whole numbers; by default what the targets look like.
        class_names: Of the classes, one for each label from 0, and some may have no example then; or for each value in
            ascending order (`False`, `True`); or the words of `y` in the order in which to number them.
        name: A short name, for tables and file names.
        credit: Whom to name.
        origin: What error messages call the data; by default the name.

    Returns:
        The data set: inputs float32; labels int32, or numbers float32.

    Raises:
        ValueError: An array is empty, of a wrong type or shape, or holds values that are not allowed.

    Example:
        >>> x = np.linspace(-2, 2, 40).reshape(20, 2)
        >>> data = from_arrays(x, np.array(["no", "yes"] * 10), test_share=0.25)
        >>> data, data.class_names
        (Dataset('arrays': 15 training and 5 test examples of shape (2,), 2 classes), ('no', 'yes'))
    """
    origin = name if origin is None else origin
    arrays = {"x": x, "y": y} | ({} if x_test is None and y_test is None else {"x_test": x_test, "y_test": y_test})
    arrays = {key: _array(value, f"{origin}: {key}") for key, value in arrays.items()}
    if "x_test" in arrays:
        if test_rows is not None or test_share is not None:
            raise ValueError(f"{origin}: expected one way to say what is for testing, got test arrays and another")
        stored = {f"{key}_train" if key in ("x", "y") else key: value for key, value in arrays.items()}
        return to_dataset(stored, name, credit, origin=origin, task=task, class_names=class_names)
    inputs = finite_inputs(arrays["x"], f"{origin}: x")
    found = decode({f"{origin}: y": arrays["y"]}, task=task, class_names=class_names)
    (values,) = found.parts.values()
    if len(values) != len(inputs):
        raise ValueError(f"{origin}: expected one target for each example, got {len(inputs)} and {len(values)}.")
    if found.classes is not None and class_names is None and (values == values[0]).all():
        raise ValueError(f"{origin}: expected at least two classes, got only {values[0]}.")
    if test_rows is not None:
        if test_share is not None:
            raise ValueError(f"{origin}: expected either test rows or a test share, got both")
        train, test = rows_of(test_rows, len(inputs), f"{origin}: test rows")
    else:
        if found.classes is not None and len(np.unique(values)) == len(values):
            raise ValueError(
                f"{origin}: expected a class with at least two examples, got {len(values)} examples of as many "
                "classes; give task='regression' (--task regression) if the targets are numbers to predict."
            )
        share = TEST_SHARE if test_share is None else test_share
        train, test = split_rows(len(inputs), share, None if found.classes is None else values)
        kind = "at random" if found.classes is None else "at random from each class"
        credit = "; ".join(filter(None, [credit, f"{100 * share:g} % of the examples, drawn {kind}, are for testing"]))
    if found.classes is not None and class_names is None:
        check_every_class(values[train], values[test], found.class_names, origin)
    return Dataset(
        name, inputs[train], values[train], inputs[test], values[test], found.classes, credit, found.class_names
    )


def to_dataset(
    arrays: Mapping[str, Shaped[np.ndarray, "..."]],
    name: str,
    credit: str,
    *,
    origin: str,
    classes: int | None = None,
    task: TaskKind | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Checks stored arrays and turns them into a data set.

    Args:
        arrays: `x_train`, `y_train`, `x_test` and `y_test`, as stored.
        name: Name of the data set.
        credit: Whom to name.
        origin: Where the arrays come from, for error messages.
        classes: How many classes there are; None to count them: one more than the largest label.
        task: What targets mean, as for `from_arrays`.
        class_names: As for `from_arrays`.

    Returns:
        Inputs as float32 and labels as int32, or numbers as float32.

    Raises:
        ValueError: An array is empty, of a wrong type or shape, or holds values that are not allowed.
    """
    x_train, x_test = (finite_inputs(arrays[key], f"{origin}: {key}") for key in ("x_train", "x_test"))
    kinds = [arrays[key].dtype for key in ("x_train", "x_test")]
    if (kinds[0] == np.uint8) != (kinds[1] == np.uint8):
        raise ValueError(
            f"{origin}: expected training and test inputs of one kind, got {kinds[0]} and {kinds[1]}, of which only "
            "bytes are divided by 255; store both alike."
        )
    parts = {f"{origin}: {key}": arrays[key] for key in ("y_train", "y_test")}
    found = decode(parts, task=task, classes=classes, class_names=class_names)
    y_train, y_test = found.parts.values()
    try:
        data = Dataset(name, x_train, y_train, x_test, y_test, found.classes, credit, found.class_names)
    except ValueError as error:
        raise ValueError(f"{origin} does not hold a data set: {error}") from error
    if found.classes is not None and classes is None and class_names is None:
        check_every_class(y_train, y_test, found.class_names, origin)
    return data


def finite_inputs(x: Shaped[np.ndarray, "n ..."], origin: str) -> Float[np.ndarray, "n ..."]:
    """Return inputs as float32.

    - uint8 is divided by 255, its largest value, whatever the largest value present.
    - float16, float32 and float64 are only converted, whatever their range.
    - Every other type is refused, because its scale cannot be known.

    Args:
        x: Inputs, `[n, ...]`.
        origin: How error messages call the array.

    Returns:
        Inputs of the same shape.

    Raises:
        ValueError: The array is empty, has a single axis, or holds other types or values.

    Example:
        >>> finite_inputs(np.array([[0, 51, 255]], np.uint8), "x").tolist()
        [[0.0, 0.20000000298023224, 1.0]]
        >>> finite_inputs(np.array([[-1.5, 200.0]]), "x").tolist()
        [[-1.5, 200.0]]
    """
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"{origin}: expected examples [n, ...], at least one, got shape {x.shape}; store one a row.")
    if x.dtype == np.uint8:
        return np.divide(x, 255, dtype=np.float32)
    if x.dtype.kind != "f" or x.dtype.itemsize > 8:
        raise ValueError(
            f"{origin}: expected uint8 in 0..255 or floats, got {x.dtype}; scale it and store it as float32."
        )
    if not np.isfinite(x).all():
        raise ValueError(f"{origin}: expected finite values, got NaN or infinity; remove or replace them.")
    with np.errstate(over="ignore"):
        converted = x.astype(np.float32)
    if not np.isfinite(converted).all():
        low, high = float(x.min()), float(x.max())
        raise ValueError(f"{origin}: expected what float32 can hold, got {low:g} to {high:g}; scale the values.")
    check_apart(x, origin)
    return converted


def _array(value: Any, origin: str) -> np.ndarray:
    """An array of any library, or a list, as a NumPy array, words included."""
    if value is None:
        raise ValueError(f"{origin}: expected an array, got None; give inputs and targets together.")
    if is_a(value, "torch.Tensor"):
        value = as_numpy(value)
    if isinstance(value, np.ma.MaskedArray):
        value = whole(value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{origin}: expected examples of one shape, got different ones.") from None
    if array.dtype.kind == "O" and not is_array(value) and not isinstance(value, list | tuple):
        raise ValueError(f"{origin}: expected an array, got a {type(value).__name__}.")
    return array
