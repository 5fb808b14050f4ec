"""The form of losses, their checks, and the error of the output."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Loss = Callable[..., Float[Array, ""]]
"""`loss(output, target) -> scalar` for one example."""


def scale_examples(factors: Float[Array, " batch"], leaf: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
    """Multiplies each example of `leaf` by its factor; a leaf without a gradient (`float0`) is unchanged."""
    if leaf.dtype == jax.dtypes.float0:
        return leaf
    return leaf * factors.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))


def loss_and_error(loss: Loss, output: PyTree, y: PyTree) -> tuple[Float[Array, " batch"], PyTree]:
    """Computes the loss of each example, and the error of the output: minus the gradient of the loss.

    Args:
        loss: Loss of one example, `loss(output, target) -> scalar`.
        output: The output, `[batch, ...]`.
        y: Targets, `[batch, ...]`.

    Returns:
        `(losses, error)`: `[batch]`, and a tree like the output.

    Raises:
        ValueError: If the loss of one example is not a scalar, or the batch sizes of output and target differ.
    """
    sizes = {leaf.shape[:1] for leaf in jax.tree.leaves((output, y))}
    if len(sizes) > 1:
        raise ValueError(f"expected as many targets as inputs, got batch sizes {sorted(s[0] for s in sizes if s)}")

    def losses(output: PyTree) -> Float[Array, " batch"]:
        value = jax.vmap(loss)(output, y)
        if value.ndim != 1:
            raise ValueError(
                f"expected the loss of one example as a scalar, got shape {list(value.shape[1:])}; sum over its units"
            )
        return value

    values, back = jax.vjp(losses, output)
    (slope,) = back(jnp.ones_like(values))
    # The gradient of an integer output has the dtype float0; it carries no error.
    return values, jax.tree.map(lambda s: s if s.dtype == jax.dtypes.float0 else -s, slope)


def check_loss(loss: Loss) -> None:
    """Raises TypeError if the loss is not a function."""
    if not callable(loss):
        raise TypeError(f"expected a loss as a function of (output, target), got {loss!r}; see vicinal.losses")
