"""Normalised least mean squares: each weight's gradient divided by the squared norm of what enters it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import ArrayLike, PyTree

from vicinal._masking import Unknown
from vicinal._numbers import widened


class NLMSState(NamedTuple):
    """Nothing is remembered."""


def scale_by_presynaptic_norm(eps: ArrayLike = 0.0) -> optax.GradientTransformationExtraArgs:
    """Divides the gradient of each weight, and of its bias, by `n + eps`.

        n = mean over the batch of ||what enters the weight||^2  (+ 1 for a bias)

    `Rule.step` gives the norms, from the values that the vertices hold after inference. Chain it with what should
    follow: `optax.chain(scale_by_presynaptic_norm(5.0), optax.adam(3e-5))` is the step of "IL-prox Adam".

    Args:
        eps: Added to the norms, at least 0. In the papers' settings (0.25 to 20) it caps the step of a matrix
            whose inputs are small; it is no numerical safeguard alone.

    Returns:
        An optax transformation whose `update` takes `presynaptic`: a tree like the gradient with the mean squared
        norm for each parameter.

    Raises:
        ValueError: From `update`, if the norms are missing or in another tree, or a parameter multiplies no activity.

    References:
        Nagumo and Noda, A learning method for system identification, IEEE TAC 12, 1967. Alonso et al., A
        theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164.
    """

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
            wide = widened(gradient)  # a norm may be beyond half precision, and the quotient not
            return (wide / (norm + jnp.asarray(eps)).astype(wide.dtype)).astype(gradient.dtype)

        flat, structure = jax.tree_util.tree_flatten_with_path(updates)
        norms = structure.flatten_up_to(presynaptic)  # a parameter without a norm has None there
        divided = [divide(path, g, n) for (path, g), n in zip(flat, norms, strict=True)]
        return jax.tree.unflatten(structure, divided), state

    return optax.GradientTransformationExtraArgs(init, update)


def nlms(learning_rate: optax.ScalarOrSchedule = 1.0, eps: ArrayLike = 0.0) -> optax.GradientTransformationExtraArgs:
    """The normalised step: `-learning_rate * gradient / (mean squared presynaptic norm + eps)`.

    With a unit step, one example and inference learning, the next feedforward pass reproduces the activities that
    inference settled on: the step is the smallest change of each matrix that does so.

    Args:
        learning_rate: Of the weights; 1 in IL-prox, whose own learning rate enters through the output instead.
        eps: Added to the norms.

    Returns:
        An optax transformation.

    References:
        As `scale_by_presynaptic_norm`.
    """
    return optax.chain(scale_by_presynaptic_norm(eps), optax.scale_by_learning_rate(learning_rate))
