"""Normalised least mean squares: the gradient of each weight, divided by the squared norm of its input."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, PyTree

from vicinal._masking import Unknown
from vicinal._numbers import check, widened


class NLMSState(NamedTuple):
    """An empty state."""


def scale_by_presynaptic_norm(eps: ArrayLike = 0.0) -> optax.GradientTransformationExtraArgs:
    """Divides the gradient of each weight, and of its bias, by `n + eps`.

        n = mean over the batch of ||what enters the weight||^2  (+ 1 for a bias)

    `Rule.step` passes the norms, from the values of the vertices after inference. Chain it with other transformations:
    `optax.chain(scale_by_presynaptic_norm(5.0), optax.adam(3e-5))` is the step of "IL-prox Adam".

    Args:
        eps: Added to the norms, at least 0. With the papers' settings (0.25 to 20) it limits the step of a matrix
            with small inputs; it is more than a numerical safeguard.

    Returns:
        An optax transformation whose `update` takes `presynaptic`: a tree like the gradient with the mean squared
        norm for each parameter.

    Raises:
        ValueError: If `eps` is below 0 or not finite; from `update`, if the norms are missing or have another
            structure, or if a parameter neither multiplies an activity nor is added to such a product.

    References:
        Nagumo and Noda, A learning method for system identification, IEEE TAC 12, 1967. Alonso et al., A
        theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164.
    """

    check("eps", eps, lambda v: v >= 0, "of at least 0")

    def init(params: PyTree) -> NLMSState:
        del params
        return NLMSState()

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, presynaptic: PyTree = None, **extra: Any
    ) -> tuple[PyTree, Any]:
        del params, extra
        if presynaptic is None:
            raise ValueError("expected the presynaptic norms, got none; call the optimiser through Rule.step or fit")

        def divide(path: Any, gradient: Any, norm: Any) -> Any:
            if isinstance(norm, Unknown):
                raise ValueError(norm.reason)
            if norm is None:
                name = jax.tree_util.keystr(path)
                raise ValueError(
                    f"expected parameters that multiply an activity, or add to such a product, got {name}; "
                    "exclude it with optax.masked"
                )
            wide = widened(gradient)  # the norm may overflow half precision though the quotient does not
            return (wide / (norm + jnp.asarray(eps)).astype(wide.dtype)).astype(gradient.dtype)

        flat, structure = jax.tree_util.tree_flatten_with_path(updates)
        norms = structure.flatten_up_to(presynaptic)  # a parameter without a norm has None there
        divided = [divide(path, g, n) for (path, g), n in zip(flat, norms, strict=True)]
        return jax.tree.unflatten(structure, divided), state

    return optax.GradientTransformationExtraArgs(init, update)


def nlms(learning_rate: optax.ScalarOrSchedule = 1.0, eps: ArrayLike = 0.0) -> optax.GradientTransformationExtraArgs:
    """The normalised step: `-learning_rate * gradient / (mean squared presynaptic norm + eps)`.

    With inference learning, one example and a learning rate of 1, the next feedforward pass reproduces the settled
    activities: the step is the smallest change of each matrix that does so.

    Args:
        learning_rate: Learning rate of the weights; 1 in IL-prox, whose learning rate enters through the output.
        eps: Added to the norms, at least 0.

    Returns:
        An optax transformation.

    Raises:
        ValueError: If a number is below 0 or not finite.

    References:
        As `scale_by_presynaptic_norm`.
    """
    if not callable(learning_rate):
        check("the learning rate", learning_rate, lambda v: v >= 0, "of at least 0")
    return optax.chain(scale_by_presynaptic_norm(eps), optax.scale_by_learning_rate(learning_rate))
