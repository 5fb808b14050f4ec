"""Name the arrays of a model as other libraries do: `layers.0.weight`."""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from vicinal._show import names_text


def dotted(path: tuple[Any, ...]) -> str:
    """Name a leaf by its path in the tree: `.layers[0].weight` is `layers.0.weight`."""
    return ".".join(jax.tree_util.keystr((key,), simple=True) for key in path)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX or NumPy, or its shape and dtype."""
    return isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct)


def named_arrays(tree: PyTree) -> dict[str, Any]:
    """The arrays of a model by name, in the order of the tree.

    Raises:
        ValueError: If two have the same name, or the model is a single array, which has no name.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = dotted(path)
        if is_array(leaf) and (name in found or not name):
            raise ValueError(f"expected a name of its own for each array of the model, got {name!r} twice or empty")
        if is_array(leaf):
            found[name] = leaf
    return found


def in_words(array: Any) -> str:
    """Write dtype and shape: `float32[3, 4]`."""
    return f"{array.dtype}{list(array.shape)}"


def few(names: Iterable[str]) -> str:
    """Quote names; of many, the first ones and their number.

    Example:
        >>> few(["0.weight", "0.bias"]), few([])
        ("'0.weight', '0.bias'", 'none')
    """
    return names_text(map(repr, names)) or "none"
