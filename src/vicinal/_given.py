"""What is handed to `capture` and `attach`, looked at: a wrong kind of thing is told from what was expected."""

import numbers
from typing import Any

import jax
import numpy as np


def check_module(model: Any) -> None:
    """TypeError if the model is a class, or a module of PyTorch."""
    if isinstance(model, type):
        raise TypeError(f"expected a model, got the class {model.__name__}; make one with {model.__name__}(...)")
    if any(kind.__module__.startswith("torch.") for kind in type(model).__mro__):
        raise TypeError(
            f"expected a model of JAX arrays, got PyTorch's {type(model).__name__}; build it of layers from vicinal.nn "
            "or Equinox, and take its parameters over with vicinal.interchange.from_state_dict"
        )


def check_example(x: Any) -> None:
    """TypeError if an example is made of anything but arrays, their shapes, and numbers."""
    leaves = jax.tree.leaves(x)
    for leaf in leaves:
        if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic | numbers.Number):
            continue
        kind = type(leaf)
        advice = "write jnp.asarray(...), or jax.ShapeDtypeStruct(shape, dtype)"
        if kind.__module__.split(".")[0] == "torch":
            advice = "convert it with jnp.asarray(tensor.numpy())"
        elif kind.__name__ == "Dataset":
            advice = "give one of its examples, like data.x_train[0]"
        raise TypeError(f"expected one example as an array, or a tree of arrays, got {kind.__name__}; {advice}")
    if isinstance(x, list) and leaves and all(isinstance(leaf, numbers.Number) for leaf in leaves):
        raise TypeError("expected one example as an array, got a list of numbers; write jnp.asarray(x)")


def check_key(key: Any) -> None:
    """TypeError if a key is a plain number, or no key at all."""
    if isinstance(key, numbers.Number):
        raise TypeError(f"expected key as a random key, got the number {key}; write key=jax.random.key({key})")
    if key is not None and not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(f"expected key as a random key, got {type(key).__name__}; write key=jax.random.key(0)")
