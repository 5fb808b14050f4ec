"""Activation functions by name."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vicinal._nearest import did_you_mean
from vicinal._numbers import check

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


def shifted(activation: Activation, shift: float) -> Callable[[Array], Array]:
    """An activation function with a constant added, so that rates are positive: `f(z) + shift`.

    Args:
        activation: Name or function.
        shift: The constant.

    Returns:
        The function; equal arguments return the same object.

    Example:
        >>> float(shifted("tanh", 3.0)(jnp.zeros(())))
        3.0

    Raises:
        ValueError: If the name is unknown, or the constant is not finite.

    References:
        Alonso and Neftci, Tightening the biological constraints on gradient-based predictive coding, ICONS 2021, arXiv
        2104.15137.
    """
    check("the shift", shift)
    return _shifted(activation_function(activation), float(shift))


@functools.cache
def _shifted(function: Callable[[Array], Array], shift: float) -> Callable[[Array], Array]:
    return lambda z: function(z) + shift


def activation_function(activation: Activation) -> Callable[[Array], Array]:
    """The activation function of this name; a function is returned unchanged.

    Raises:
        ValueError: If the name is unknown.
    """
    if callable(activation):
        return activation
    if not isinstance(activation, str) or activation not in _NAMED:
        hint = did_you_mean(str(activation), _NAMED)
        raise ValueError(f"expected an activation of {', '.join(_NAMED)}, or a function, got {activation!r}{hint}")
    return _NAMED[activation]
