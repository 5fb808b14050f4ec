"""A short causal convolution, which lets a token see the few before it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class ShortConvolution(eqx.Module):
    """Each feature on its own: `y_t = sum over s of  weight_s x_{t-s}`, with zeros before the first step.

    Args:
        features: Length of each vector.
        width: Number of steps that are seen, with the present one.
        key: For the initial weights, uniform in `±1/sqrt(width)`.

    Attributes:
        weight: `[width, features]`; the present step is the last row.

    Example:
        >>> convolution = ShortConvolution(2, 3, key=jax.random.key(0))
        >>> y, last = convolution(jnp.ones((5, 2)), convolution.empty())
        >>> y.shape, last.shape
        ((5, 2), (2, 2))
    """

    weight: Float[Array, "width features"]

    def __init__(self, features: int, width: int, *, key: PRNGKeyArray):
        bound = width**-0.5
        self.weight = jax.random.uniform(key, (width, features), minval=-bound, maxval=bound)

    def __call__(
        self,
        x: Float[Array, "time features"],
        last: Float[Array, "width-1 features"],
        length: Int[Array, ""] | None = None,
    ) -> tuple[Float[Array, "time features"], Float[Array, "width-1 features"]]:
        """Reads a sequence, or its next piece.

        Args:
            x: The vectors.
            last: The last `width - 1` vectors before them.
            length: How many steps count. All by default.

        Returns:
            The outputs, and the last `width - 1` vectors that counted.
        """
        time, width = len(x), len(self.weight)
        x = jnp.concatenate([last, x])
        y = jnp.zeros_like(x[:time])
        for s, row in enumerate(self.weight):
            y += row[None] * x[s : s + time]
        end = time if length is None else length
        return y, jax.lax.dynamic_slice_in_dim(x, end, width - 1)

    def empty(self) -> Float[Array, "width-1 features"]:
        """Zeros, as before the first step."""
        return jnp.zeros((len(self.weight) - 1, self.weight.shape[1]), self.weight.dtype)
