"""Activation functions by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

Activation = str | Callable[[Array], Array]

_NAMED: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "leaky_relu": jax.nn.leaky_relu,
    "identity": lambda x: x,
}


def activation_function(activation: Activation) -> Callable[[Array], Array]:
    """The function of this name; a function is returned as it is.

    Raises:
        ValueError: If there is no activation of this name.
    """
    if callable(activation):
        return activation
    if activation not in _NAMED:
        raise ValueError(f"expected an activation of {', '.join(_NAMED)}, or a function, got {activation!r}")
    return _NAMED[activation]
