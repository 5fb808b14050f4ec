"""Checkpoints: any pytree in one file, restored bit for bit, without pickle.

The file is an ordinary `.npz` archive, so `numpy.load` opens it without this library:

- `vicinal.json` comes first: the format version, the version of vicinal, the user's metadata, and one entry
  for each leaf (its path in the tree, kind, shape and dtype);
- `0.npy`, `1.npy`, ... hold the leaves, numbered as in the header. What NumPy cannot name (bfloat16, float8,
  int4) is stored as unsigned integers of the same width;
- the archive comment is the SHA-256 of every byte before it, so that one altered byte anywhere is noticed.

Functions and other static leaves are not stored: a checkpoint is loaded into a template, which has them.
"""

import json
import os
from itertools import zip_longest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal._numbers import weakened
from vicinal.files import write_atomically
from vicinal.keys import is_key
from vicinal.train.checkpoint_file import (
    FORMAT_VERSION,
    CheckpointError as CheckpointError,
    Contents,
    fault,
    pack,
    short,
    unpack,
)


def save(path: str | os.PathLike[str], tree: PyTree, *, metadata: dict[str, Any] | None = None) -> None:
    """Write a pytree to one file, replacing an older checkpoint in a single step.

    Args:
        path: The file to write; its folder must exist.
        tree: Any pytree. Stored leaves: JAX and NumPy arrays of numbers or booleans, of any shape; typed keys
            (`jax.random.key`); Python numbers; `None`. Other leaves, such as activation functions, are left
            to the template given to `load`.
        metadata: JSON values to keep beside the tree. As always with JSON, a tuple comes back as a list and
            every dictionary key as a string.

    Raises:
        CheckpointError: A leaf or the metadata has a type that cannot be stored.
        OSError: The file could not be written; an older checkpoint at `path` is intact.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> state = {"weight": jnp.arange(3.0), "key": jax.random.key(0), "epoch": 4}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Path(folder) / "last.npz", state, metadata={"loss": 0.25})
        ...     restored, metadata = load(Path(folder) / "last.npz", like=state)
        >>> restored["weight"], restored["epoch"], metadata
        (Array([0., 1., 2.], dtype=float32), 4, {'loss': 0.25})
    """
    from vicinal import __version__  # here, because the package itself imports this module

    entries, arrays = [], {}
    for index, (name, leaf) in enumerate(_flatten(tree)[0]):
        entry = {"path": name, **_describe(leaf)}
        if entry["kind"] == "key":
            entry["implementation"] = str(jax.random.key_impl(leaf))
        if entry["kind"] in ("array", "key", "scalar"):
            arrays[f"{index}.npy"] = _encode(leaf, entry)
        entries.append(entry)
    header = {
        "format_version": FORMAT_VERSION,
        "vicinal_version": __version__,
        "metadata": {} if metadata is None else metadata,
        "leaves": entries,
    }
    try:
        text = json.dumps(header)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"Expected metadata made of JSON values, got something else ({error}); "
            "convert it to numbers, strings, lists and dictionaries."
        ) from error
    write_atomically(path, pack(text.encode(), arrays))


def load(path: str | os.PathLike[str], like: PyTree, *, part: str = "") -> tuple[PyTree, dict[str, Any]]:
    """Read a checkpoint into the structure of a template.

    The template decides what each leaf becomes: a JAX array (with the template's weak type, and its placement
    if that was chosen explicitly), a NumPy array, a key or a Python number. A step compiled for the saved
    state is therefore not traced again for the restored one.

    Args:
        path: A file written by `save`.
        like: A pytree with the structure, shapes and dtypes of the saved one. Arrays and keys may be
            `jax.ShapeDtypeStruct`, as `equinox.filter_eval_shape` makes them. Static leaves are taken from
            here.
        part: The path of the part of the saved tree to read, such as `.model`; by default the whole tree.

    Returns:
        The restored tree and the metadata.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint or of a newer format, or its leaves
            are not those of `like`.
    """
    contents = unpack(path)
    named_leaves, structure = _flatten(like)
    found = [(index, entry) for index, entry in enumerate(contents.leaves) if _is_within(entry["path"], part)]
    _check_structure(path, [entry for _, entry in found], [(part + name, leaf) for name, leaf in named_leaves])
    chosen = zip(found, named_leaves, strict=True)
    leaves = [_restored(contents, index, template) for (index, _), (_, template) in chosen]
    return structure.unflatten(leaves), contents.metadata


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata of a checkpoint, for which no template is needed.

    Args:
        path: A file written by `save`.

    Returns:
        The metadata given to `save`, or an empty dictionary.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint or of a newer format.
    """
    return unpack(path).metadata


def read_paths(path: str | os.PathLike[str]) -> list[str]:
    """Read the paths of the leaves of a checkpoint, such as `.model.layers[0].weight`.

    Args:
        path: A file written by `save`.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint or of a newer format.
    """
    return [entry["path"] for entry in unpack(path).leaves]


def _is_within(path: str, part: str) -> bool:
    """Whether a leaf belongs to a part of the tree, and not to one whose name merely begins alike."""
    return path.startswith(part) and path[len(part) :][:1] in ("", ".", "[") if part else True


def _flatten(tree: PyTree) -> tuple[list[tuple[str, Any]], jax.tree_util.PyTreeDef]:
    """Name and value of every leaf; `None` counts as one, so that a leaf that became `None` is noticed."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is None)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves], structure


def _describe(leaf: Any) -> dict[str, Any]:
    """What must agree between a stored leaf and its template: kind, shape and dtype."""
    if isinstance(leaf, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct):
        kind = "key" if is_key(leaf) else "array"
        return {"kind": kind, "shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    if isinstance(leaf, bool | int | float | complex):
        return {"kind": "scalar", "shape": [], "dtype": type(leaf).__name__}
    return {"kind": "none" if leaf is None else "static", "shape": [], "dtype": ""}


def _in_words(entry: dict[str, Any]) -> str:
    if entry["kind"] in ("array", "key"):
        return f"{entry['dtype']}[{','.join(map(str, entry['shape']))}]"
    return {"none": "None", "static": "a static leaf"}.get(entry["kind"], f"a Python {entry['dtype']}")


def _encode(leaf: Any, entry: dict[str, Any]) -> np.ndarray:
    """The bits of a leaf, as an array that NumPy can store."""
    if entry["kind"] == "key":
        return np.asarray(jax.random.key_data(leaf))
    if entry["kind"] == "scalar" and isinstance(leaf, int) and not isinstance(leaf, bool):
        # Python integers have no largest value: their two's complement, in as many bytes as it takes.
        digits = int(leaf).to_bytes(leaf.bit_length() // 8 + 1, "little", signed=True)
        return np.frombuffer(digits, np.uint8)
    array = np.asarray(leaf)
    if array.dtype.isbuiltin == 2:  # registered by ml_dtypes: bfloat16, float8, int4, ...
        return array.view(f"u{array.dtype.itemsize}")
    if array.dtype.kind not in "biufc":
        raise CheckpointError(
            f"Expected an array of numbers or booleans at leaf {entry['path']!r}, got dtype {array.dtype}; "
            "convert it, or put it into the metadata."
        )
    return array


def _restored(contents: Contents, index: int, template: Any) -> Any:
    """A leaf in the type of its template, from its array; a leaf without one is the template itself."""
    array, entry = contents.array(index), contents.leaves[index]
    if array is None:
        return template
    try:
        value = _decode(array, entry, template)
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:  # of a key's implementation, or the type of a number
        raise fault(contents.path, f"leaf {entry['path']!r} with other contents ({error})") from error
    if value is None:
        got = f"{array.dtype}{list(array.shape)}"
        raise fault(contents.path, f"leaf {entry['path']!r} as {got}, which is not {_in_words(entry)}")
    return value


def _decode(array: np.ndarray, entry: dict[str, Any], template: Any) -> Any:
    """The inverse of `_encode`, in the type of the template; None if the array is not what `_encode` returns."""
    if entry["kind"] == "key":
        key = jax.random.wrap_key_data(jnp.array(array), impl=entry["implementation"])
        return _place(key, template) if (key.dtype, key.shape) == (template.dtype, template.shape) else None
    if entry["kind"] == "scalar":
        return _decode_number(array, template)
    stored = f"u{template.dtype.itemsize}" if template.dtype.isbuiltin == 2 else template.dtype
    if (array.dtype, array.shape) != (stored, template.shape):
        return None
    array = array.view(template.dtype)
    if isinstance(template, np.generic):
        return array[()]
    if isinstance(template, np.ndarray):
        return np.array(array)
    value = jnp.array(array)  # a copy: memory shared with NumPy could not be donated to a compiled step
    if value.dtype != template.dtype:
        raise CheckpointError(
            f"Expected to restore leaf {entry['path']!r} as {template.dtype}, but JAX would round it to "
            f"{value.dtype}; set jax_enable_x64 before loading."
        )
    return _place(weakened(value) if template.weak_type else value, template)


def _decode_number(array: np.ndarray, template: Any) -> Any:
    """A Python number of the template's type, or None."""
    if isinstance(template, int) and not isinstance(template, bool):
        whole = array.dtype == np.uint8 and array.ndim == 1 and array.size > 0
        return type(template)(int.from_bytes(array.tobytes(), "little", signed=True)) if whole else None
    same = (array.dtype, array.shape) == (np.asarray(template).dtype, ())
    return type(template)(array.item()) if same else None


def _place(value: jax.Array, template: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """Move a leaf to the devices of its template, if those were chosen and not merely the default."""
    chosen = template.committed if isinstance(template, jax.Array) else template.sharding is not None
    return jax.device_put(value, template.sharding) if chosen else value


def _check_structure(
    path: str | os.PathLike[str], entries: list[dict[str, Any]], named_leaves: list[tuple[str, Any]]
) -> None:
    """Raise a CheckpointError at the first leaf where the file and the template differ."""
    stored = [(entry["path"], _in_words(entry)) for entry in entries]
    wanted = [(name, _in_words(_describe(leaf))) for name, leaf in named_leaves]
    for (stored_name, got), (name, expected) in zip_longest(stored, wanted, fillvalue=(None, None)):
        if (stored_name, got) == (name, expected):
            continue
        if name is not None and name not in dict(stored):
            got = "no such leaf"
        elif stored_name is not None and stored_name not in dict(wanted):
            name, expected = stored_name, "no such leaf"
        elif stored_name != name:
            got = f"leaf {stored_name!r} in its place"
        raise CheckpointError(
            f"Expected {short(str(expected))} at leaf {short(repr(name))}, got {short(str(got))} in {str(path)!r}; "
            "load with a template built by the settings of the saved state."
        )
