"""Arrays of other libraries, as NumPy arrays; none of these libraries is imported unless an object of its own comes."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


def library_of(value: Any) -> str:
    """The package that an object's class, or one of its bases, comes from, where we know it; else `""`.

    Example:
        >>> library_of([1, 2])
        ''
    """
    packages = [base.__module__.partition(".")[0] for base in type(value).__mro__]
    return next((name for name in packages if name in ("torch", "pandas", "datasets")), "")  # the nearest base's


def is_a(value: Any, *names: str) -> bool:
    """Whether an object's class, or one of its bases, has one of these names, `package.Class`."""
    bases = [(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__]
    return any(f"{package}.{name}" in names for package, name in bases)


def is_array(value: Any) -> bool:
    """Whether something is an array of any library: it has a shape, and NumPy can read it; no class is one."""
    return not isinstance(value, type) and all(hasattr(value, name) for name in ("shape", "__array__"))


def as_numpy(value: Any) -> Any:
    """An array of another library as a NumPy array; what is none stays what it is.

    JAX's own arrays stay where they are, and so do NumPy's.

    Raises:
        TypeError: The array holds something else than numbers, has holes, or is of a kind that NumPy cannot hold.

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
    """A masked array without its mask; TypeError if something is masked, which would silently count otherwise."""
    masked = int(np.ma.count_masked(value))
    if masked:
        raise TypeError(f"expected whole arrays, got a masked array with {masked} masked values; fill or drop them")
    return value.data


def as_arrays(tree: PyTree) -> PyTree:
    """Every array of a tree as a NumPy or JAX array; see `as_numpy`."""
    return jax.tree.map(as_numpy, tree)
