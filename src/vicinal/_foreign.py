"""Converts arrays of other libraries to NumPy arrays, without importing these libraries."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def library_of(value: Any) -> str:
    """The known package of an object's class or of one of its bases; `""` if none is known.

    Example:
        >>> library_of([1, 2])
        ''
    """
    packages = [base.__module__.partition(".")[0] for base in type(value).__mro__]
    return next((name for name in packages if name in ("torch", "pandas", "datasets")), "")  # the nearest base's


def is_a(value: Any, *names: str) -> bool:
    """Whether an object's class or one of its bases has one of these names, `package.Class`."""
    bases = [(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__]
    return any(f"{package}.{name}" in names for package, name in bases)


def is_array(value: Any) -> bool:
    """Whether an object is an array of any library: it has a shape and NumPy can read it. Classes are not arrays."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("shape", "__array__"))


def as_numpy(value: Any) -> Any:
    """Converts an array of another library to a NumPy array; returns any other object, JAX arrays included, unchanged.

    Raises:
        TypeError: If the array is not numeric, has masked values, or NumPy cannot represent it.

    Example:
        >>> as_numpy(np.ones(2)).tolist()
        [1.0, 1.0]
    """
    if type(value).__module__.startswith("scipy.sparse"):
        raise TypeError(f"expected arrays, got a {type(value).__name__}; call its toarray()")
    if isinstance(value, jax.Array) or not is_array(value):
        return value
    if is_a(value, "torch.Tensor"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value  # NumPy has no such type
        value = value.numpy()
    elif not isinstance(value, np.ndarray | np.generic):
        value = np.asarray(value)
    if isinstance(value, np.ma.MaskedArray):
        value = whole(value)
    if value.dtype.kind not in "biufcV" or value.dtype.names is not None:  # V: the small floats of ml_dtypes
        raise TypeError(
            f"expected arrays of numbers, got {value.dtype}; vicinal.data.from_arrays numbers words, "
            "vicinal.data.from_frame reads tables"
        )
    return value


def whole(value: np.ma.MaskedArray) -> np.ndarray:
    """A masked array without its mask; raises TypeError if a value is masked, because it would count as data."""
    masked = int(np.ma.count_masked(value))
    if masked:
        raise TypeError(f"expected whole arrays, got a masked array with {masked} masked values; fill or drop them")
    return value.data


def as_arrays(tree: PyTree) -> PyTree:
    """Converts every array of a tree to a NumPy or JAX array; see `as_numpy`."""
    return jax.tree.map(as_numpy, tree)
