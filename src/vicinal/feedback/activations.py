"""Activation functions that pass errors unchanged."""

from collections.abc import Callable

import jax
from jaxtyping import Array


def without_derivative(activation: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Replaces the derivative of an activation function by 1, for every use.

    In a model with vertices at potentials this changes the errors only, and not the gradient of the weights; with
    vertices at rates the gradient of the weights below loses the derivative too. A rule with `derivatives=False`
    (`vicinal.rules.ActivationRelaxation`) keeps the derivative there.

    Args:
        activation: An elementwise function of one array.

    Returns:
        The same function in the forward pass; the identity in the backward pass.

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
