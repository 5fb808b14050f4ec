"""Activation functions that pass errors unchanged."""

from collections.abc import Callable

import jax
from jaxtyping import Array


def without_derivative(activation: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """An activation function whose derivative is taken to be 1, whatever asks for it.

    In a model with vertices at potentials that is the way back through the rates alone, and the weights' own gradient
    is as before; with vertices at rates the gradient of the weights below loses the derivative too. A rule that has
    `derivatives=False` (`vicinal.rules.ActivationRelaxation`) keeps it there.

    Args:
        activation: A function of one array, element by element.

    Returns:
        The same function for values; the identity for errors.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> float(jax.grad(without_derivative(jnp.tanh))(2.0))
        1.0
    """

    @jax.custom_vjp
    def through(x: Array) -> Array:
        return activation(x)

    through.defvjp(lambda x: (activation(x), None), lambda _, error: (error,))
    return through
