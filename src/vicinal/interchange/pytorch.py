"""Convert parameters to and from PyTorch's state dictionaries."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal.interchange.names import dotted, few, in_words, is_array
from vicinal.marking import Marked
from vicinal.nn import BatchNorm, Conv2d

Names = Mapping[str, str] | Callable[[str], str] | None
Visit = Callable[[str, Any], Any]
"""Takes the name of an array and its value as PyTorch shapes it; returns the value to put in its place."""


def to_state_dict(
    model: PyTree, names: Names = None, *, like: Mapping[str, Any] | None = None, tensors: bool = False
) -> dict[str, Any]:
    """Name and shape the parameters of a model as PyTorch does.

    This converts the layers of Equinox and of this library: biases of convolutions lose their axes of size one, and
    recurrent cells get both of PyTorch's biases. A PyTorch layer computes the same if it has the same settings (`eps`,
    strides, activations).

    Args:
        model: Any pytree of layers.
        names: The names in PyTorch, by our name (`layers.0.weight`) or its beginning (`layers.0`), or a function from
            name to name. None keeps our names.
        like: The state dictionary of the PyTorch module, instead of `names`. The layers of a `torch.nn.Sequential`
            are matched in order.
        tensors: Whether to return PyTorch's tensors (which needs torch) rather than NumPy arrays.

    Returns:
        The state dictionary; `module.load_state_dict` takes it with `tensors=True`.

    Raises:
        ValueError: If names do not match the model, or a layer has no counterpart.
        ImportError: If `tensors` is set and torch is not installed.

    Example:
        >>> import jax, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> {name: value.shape for name, value in to_state_dict(model, {"layers.0": "0", "layers.1": "2"}).items()}
        {'0.weight': (4, 3), '0.bias': (4,), '2.weight': (2, 4), '2.bias': (2,)}
    """
    found: dict[str, np.ndarray] = {}

    def collect(name: str, value: Array) -> Array:
        found[name] = np.asarray(value)
        return value

    _walk(model, "", collect)
    theirs = _matched(list(found), names, like)
    named = {theirs[name]: value for name, value in found.items()}
    if len(named) < len(found):
        raise ValueError(f"expected a name of its own for each array, got {few(theirs.values())}")
    for name, expected in (like or {}).items():
        if tuple(expected.shape) != named[name].shape:
            raise ValueError(f"expected shape {list(expected.shape)} at {name!r}, got {list(named[name].shape)}")
    return {name: _tensor(value) for name, value in named.items()} if tensors else named


def from_state_dict(model: PyTree, state_dict: Mapping[str, Any], names: Names = None) -> PyTree:
    """Put the parameters of a PyTorch module into a model.

    Args:
        model: Any pytree of layers, built like the module; the values of its parameters do not matter.
        state_dict: From `module.state_dict()`: tensors, or NumPy arrays.
        names: As for `to_state_dict`. None matches equal names, or a `torch.nn.Sequential` in order.

    Returns:
        The model with the new parameters; everything else is as in `model`.

    Raises:
        ValueError: If names, shapes or dtypes do not match, or a layer has no counterpart.

    Example:
        >>> import jax, numpy as np, vicinal as vc
        >>> model = vc.nn.MLP((3, 2), key=jax.random.key(0))
        >>> state = {"0.weight": np.ones((2, 3), np.float32), "0.bias": np.zeros(2, np.float32)}
        >>> from_state_dict(model, state)(np.ones(3, np.float32)).tolist()
        [3.0, 3.0]
    """
    ours: list[str] = []

    def collect(name: str, value: Array) -> Array:
        ours.append(name)
        return value

    _walk(model, "", collect)
    theirs = _matched(ours, names, state_dict)

    def put(name: str, value: Array) -> Array:
        given = _numpy(state_dict[theirs[name]])
        if (given.shape, given.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"expected {in_words(value)} at {theirs[name]!r}, got {in_words(given)}; "
                "build the model like the module"
            )
        return jnp.array(given)

    return _walk(model, "", put)


# ------------------------------------------------------------------------------------------------------------ layers


def _walk(tree: PyTree, prefix: str, visit: Visit) -> PyTree:
    """Map a function over the arrays of a tree, each by its name and shaped as in PyTorch."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: isinstance(node, _KNOWN))
    return structure.unflatten([_node(node, _join(prefix, dotted(path)), visit) for path, node in flat])


def _node(node: Any, name: str, visit: Visit) -> Any:
    if isinstance(node, Marked):  # PyTorch has no such wrapper
        return eqx.tree_at(lambda marked: marked.module, node, _walk(node.module, name, visit))
    if isinstance(node, Conv2d):
        return eqx.tree_at(lambda layer: layer.convolution, node, _node(node.convolution, name, visit))
    if isinstance(node, eqx.nn.Conv):
        return _convolution(node, name, visit)
    if isinstance(node, BatchNorm):
        return _batch_norm(node, name, visit)
    if isinstance(node, eqx.nn.GRUCell):
        return _gru(node, name, visit)
    if isinstance(node, eqx.nn.LSTMCell):
        return _lstm(node, name, visit)
    if isinstance(node, eqx.nn.BatchNorm):
        raise ValueError(
            f"expected a batch norm that holds its running averages, vicinal.nn.BatchNorm, got Equinox's at {name!r}, "
            "which keeps them in a State; build the model with vicinal.nn.BatchNorm"
        )
    if isinstance(node, eqx.nn.ConvTranspose):
        raise ValueError(
            f"expected layers that PyTorch computes alike, got {type(node).__name__} at {name!r}; convert this one "
            "by hand with equinox.tree_at"
        )
    return visit(name, node) if is_array(node) else node


_KNOWN = (
    Marked,
    Conv2d,
    BatchNorm,
    eqx.nn.Conv,
    eqx.nn.GRUCell,
    eqx.nn.LSTMCell,
    eqx.nn.BatchNorm,
    eqx.nn.ConvTranspose,
)


def _convolution(layer: eqx.nn.Conv, name: str, visit: Visit) -> eqx.nn.Conv:
    new = eqx.tree_at(lambda conv: conv.weight, layer, visit(_join(name, "weight"), layer.weight))
    if layer.bias is None:
        return new
    bias = visit(_join(name, "bias"), layer.bias.reshape(-1)).reshape(layer.bias.shape)
    return eqx.tree_at(lambda conv: conv.bias, new, bias)


def _batch_norm(layer: BatchNorm, name: str, visit: Visit) -> BatchNorm:
    """PyTorch names the averages otherwise, and counts the batches, which we do not need."""

    def parts(layer: BatchNorm) -> tuple[Any, ...]:
        return layer.weight, layer.bias, layer.running.mean, layer.running.variance

    names = ("weight", "bias", "running_mean", "running_var")
    new = [visit(_join(name, theirs), part) for theirs, part in zip(names, parts(layer), strict=True)]
    visit(_join(name, "num_batches_tracked"), np.zeros((), np.int64))
    return eqx.tree_at(parts, layer, tuple(new))


def _gru(cell: eqx.nn.GRUCell, name: str, visit: Visit) -> eqx.nn.GRUCell:
    """PyTorch has two biases: their sum for the gates, and the last part of `bias_hh` goes through the reset gate."""
    new = _weights(cell, name, visit)
    if cell.bias is None or cell.bias_n is None:
        return new
    gates = 2 * cell.hidden_size
    first = visit(_join(name, "bias_ih"), cell.bias)
    second = visit(_join(name, "bias_hh"), jnp.concatenate([jnp.zeros_like(cell.bias[:gates]), cell.bias_n]))
    bias = jnp.concatenate([first[:gates] + second[:gates], first[gates:]])
    return eqx.tree_at(lambda cell: (cell.bias, cell.bias_n), new, (bias, second[gates:]))


def _lstm(cell: eqx.nn.LSTMCell, name: str, visit: Visit) -> eqx.nn.LSTMCell:
    """PyTorch adds two biases where one is enough."""
    new = _weights(cell, name, visit)
    if cell.bias is None:
        return new
    first = visit(_join(name, "bias_ih"), cell.bias)
    second = visit(_join(name, "bias_hh"), jnp.zeros_like(cell.bias))
    return eqx.tree_at(lambda cell: cell.bias, new, first + second)


def _weights(cell: Any, name: str, visit: Visit) -> Any:
    weights = [visit(_join(name, part), getattr(cell, part)) for part in ("weight_ih", "weight_hh")]
    return eqx.tree_at(lambda cell: (cell.weight_ih, cell.weight_hh), cell, tuple(weights))


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


# ------------------------------------------------------------------------------------------------------------- names


def _matched(ours: list[str], names: Names, state_dict: Mapping[str, Any] | None) -> dict[str, str]:
    """Map the name of each of our arrays to its name in PyTorch."""
    if names is not None:
        theirs = {name: names(name) if callable(names) else _renamed(name, names) for name in ours}
        unused = [] if callable(names) else [old for old in names if not any(_begins(name, old) for name in ours)]
        if unused:
            raise ValueError(f"expected names of the model's arrays, {few(ours)}, got {few(unused)}")
    elif state_dict is None or set(ours) == set(state_dict):
        theirs = {name: name for name in ours}
    else:
        theirs = _in_order(ours, list(state_dict))
    if state_dict is not None and set(theirs.values()) != set(state_dict):
        missing = [name for name in theirs.values() if name not in state_dict]
        unknown = [name for name in state_dict if name not in theirs.values()]
        raise ValueError(
            f"expected a PyTorch array for each of the model's, got missing {few(missing)} and unknown {few(unknown)}; "
            "give the names with names="
        )
    return theirs


def _renamed(name: str, names: Mapping[str, str]) -> str:
    """Replace the longest beginning of a name that is in `names`."""
    begins = [old for old in names if _begins(name, old)]
    longest = max(begins, key=len, default=None)
    return name if longest is None else names[longest] + name[len(longest) :]


def _begins(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(f"{beginning}.")


def _in_order(ours: list[str], theirs: list[str]) -> dict[str, str]:
    """Match our layers to those of a `torch.nn.Sequential`, the one module whose order is certain."""
    found = [re.fullmatch(r"((?:.*\.)?)(\d+)\.(\w+)", name) for name in theirs]
    prefixes = {match[1] for match in found if match}
    if not all(found) or len(prefixes) != 1:
        raise ValueError(
            f"expected the model's names, {few(ours)}, or those of a torch.nn.Sequential, got {few(theirs)}; "
            "give the names with names="
        )
    (prefix,) = prefixes
    numbers = sorted({int(match[2]) for match in found if match})
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in ours))
    if len(numbers) != len(layers):
        raise ValueError(
            f"expected a layer with parameters for each of the model's {len(layers)}, {few(layers)}, got "
            f"{len(numbers)} in {few(theirs)}"
        )
    number = dict(zip(layers, numbers, strict=True))
    return {name: f"{prefix}{number[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in ours}


# ----------------------------------------------------------------------------------------------------------- tensors


def _numpy(value: Any) -> np.ndarray:
    """Convert a tensor or an array to NumPy; bfloat16, which torch cannot convert, by its bits."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    return value.view(torch.int16).numpy().view(jnp.bfloat16) if value.dtype == torch.bfloat16 else value.numpy()


def _tensor(value: np.ndarray) -> Any:
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ImportError("tensors need PyTorch; install torch, or leave tensors=False for NumPy arrays") from error
    if value.dtype == jnp.bfloat16:
        return torch.from_numpy(value.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(value))
