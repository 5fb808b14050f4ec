"""Checks the types of arguments of `capture`, `attach` and `fit`."""

import numbers
from typing import Any

import jax
import numpy as np

from vicinal._foreign import is_a
from vicinal.keys import is_key


def check_module(model: Any) -> None:
    """Raises TypeError if the model is a class or a PyTorch module."""
    if isinstance(model, type):
        raise TypeError(f"expected a model, got the class {model.__name__}; make one with {model.__name__}(...)")
    if is_a(model, "torch.Module"):
        raise TypeError(
            f"expected a model of JAX arrays, got PyTorch's {type(model).__name__}; build it of layers from vicinal.nn "
            "or Equinox, and take its parameters over with vc.interchange.from_state_dict"
        )


def check_example(x: Any) -> None:
    """Raises TypeError if an example contains anything but arrays, their shapes, and numbers."""
    leaves = jax.tree.leaves(x)
    for leaf in leaves:
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic | numbers.Number):
            continue
        advice = "write jnp.asarray(...), or jax.ShapeDtypeStruct(shape, dtype)"
        if is_a(leaf, "torch.Tensor"):
            advice = "convert it with jnp.asarray(tensor.numpy())"
        elif type(leaf).__name__ == "Dataset":
            advice = "give one of its examples, like data.x_train[0]"
        raise TypeError(f"expected one example as an array, or a tree of arrays, got {type(leaf).__name__}; {advice}")
    if isinstance(x, list) and leaves and all(isinstance(leaf, numbers.Number) for leaf in leaves):
        raise TypeError("expected one example as an array, got a list of numbers; write jnp.asarray(x)")


def check_key(key: Any) -> None:
    """Raises TypeError unless this is a random key: from `jax.random.key`, or an old key of two or four numbers."""
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        raise TypeError(f"expected key as a random key, got the integer {key}; write key=jax.random.key({key})")
    if not isinstance(key, jax.Array | np.ndarray) or not (is_key(key) or key.dtype == np.uint32):
        raise TypeError(f"expected key as a random key, got {type(key).__name__}; write key=jax.random.key(0)")
    if key.ndim != (0 if is_key(key) else 1):
        raise TypeError(f"expected one random key, got an array of shape {list(key.shape)}; take one of them")
