"""Save and load the arrays of a model as a safetensors file, which many programs read."""

import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal._optional import optional
from vicinal._reading import read_bytes
from vicinal.files import write_atomically
from vicinal.interchange.names import few, in_words, is_array, named_arrays
from vicinal.keys import is_key

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def save_safetensors(path: str | os.PathLike[str], model: PyTree, *, metadata: dict[str, str] | None = None) -> None:
    """Write the arrays of a model to a safetensors file, replacing an existing one in a single step.

    Args:
        path: The file; its folder must exist.
        model: Any pytree. Arrays are named by their path, `layers.0.weight`; keys are stored as their numbers; other
            leaves are left out.
        metadata: Text to store with the arrays.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If the model has no arrays, or two with the same name.
        TypeError: If a name or value of the metadata is not a string.
        OSError: If the file cannot be written; an existing file stays intact.

    Example:
        >>> import jax, pathlib, tempfile, vicinal as vc
        >>> model = vc.nn.MLP((3, 2), key=jax.random.key(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "model.safetensors"
        ...     save_safetensors(path, model)
        ...     other = load_safetensors(path, vc.nn.MLP((3, 2), key=jax.random.key(1)))
        >>> bool((other.layers[0].weight == model.layers[0].weight).all())
        True

    References:
        The format: https://github.com/huggingface/safetensors
    """
    _package()
    from safetensors.numpy import save

    arrays = {name: _plain(leaf) for name, leaf in named_arrays(model).items()}
    if not arrays:
        raise ValueError("expected a model with arrays, got none to write")
    given = {} if metadata is None else metadata
    if not all(isinstance(text, str) for item in given.items() for text in item):
        raise TypeError(f"expected metadata of strings by name, got {metadata!r}; convert values with str()")
    write_atomically(path, save(arrays, {"format": "vicinal", **given}))


def load_safetensors(path: str | os.PathLike[str], like: PyTree) -> PyTree:
    """Read the arrays of a model from a safetensors file.

    Args:
        path: A file of `save_safetensors`, or any other with the names, shapes and dtypes of `like`.
        like: A model of the same structure. Its arrays are replaced; its other leaves are kept.

    Returns:
        The model.

    Raises:
        ImportError: If safetensors is not installed.
        ValueError: If the file is damaged, or its names, shapes or dtypes differ from those of `like`.
        OSError: If the file cannot be read.
    """
    package = _package()
    content = read_bytes(path)
    try:
        stored = {name: _array(entry) for name, entry in package.deserialize(content)}
    except (package.SafetensorError, ValueError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"expected a safetensors file at {str(path)!r}, got something else ({reason})") from error
    wanted = named_arrays(like)
    missing, unknown = [n for n in wanted if n not in stored], [n for n in stored if n not in wanted]
    if missing or unknown:
        raise ValueError(
            f"expected the arrays of the model in {str(path)!r}, got missing {few(missing)} and unknown "
            f"{few(sorted(unknown))}; load with a model built as the saved one was"
        )
    loaded = {name: _restored(name, stored[name], leaf, path) for name, leaf in wanted.items()}
    leaves, structure = jax.tree.flatten(like)
    rest = iter(loaded.values())  # in the order of the tree
    return structure.unflatten([next(rest) if is_array(leaf) else leaf for leaf in leaves])


def _package() -> Any:
    return optional("safetensors", "a safetensors file", "safetensors", "safetensors")


def _plain(leaf: Any) -> np.ndarray:
    """Return the numbers of a leaf in C order, as the file holds them."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf, order="C")


def _array(entry: dict[str, Any]) -> np.ndarray:
    """Read an array from its bytes."""
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"expected a dtype among {', '.join(_DTYPES)}, got {entry['dtype']}")
    return np.frombuffer(entry["data"], jnp.dtype(_DTYPES[entry["dtype"]])).reshape(entry["shape"])


def _restored(name: str, array: np.ndarray, like: Any, path: str | os.PathLike[str]) -> Any:
    """Convert a stored array to the kind of the template's leaf."""
    expected = jax.eval_shape(jax.random.key_data, like) if is_key(like) else like
    if (array.shape, array.dtype) != (expected.shape, expected.dtype):
        raise ValueError(
            f"expected {in_words(expected)} at {name!r}, got {in_words(array)} in {str(path)!r}; load with a "
            "model built as the saved one was"
        )
    if is_key(like):
        return jax.random.wrap_key_data(jnp.array(array), impl=jax.random.key_impl(like))
    if isinstance(like, np.ndarray):
        return np.array(array)
    value = jnp.array(array)
    if value.dtype != array.dtype:
        raise ValueError(
            f"expected to load {name!r} as {array.dtype}, but JAX would round it to {value.dtype}; "
            "set jax_enable_x64 before loading"
        )
    return value
