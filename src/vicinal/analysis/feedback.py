"""How close feedback is to the forward weights, and its errors to those of backpropagation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.analysis._parts import norm
from vicinal.analysis.angles import angle
from vicinal.feedback import Fed
from vicinal.feedback.attach import is_fed
from vicinal.graph import Values


class Likeness(eqx.Module):
    """A layer's feedback compared with its forward weight.

    Attributes:
        angle: The angle between the two, in degrees.
        norm_ratio: The norm of the feedback divided by that of the weight.
        sign_agreement: The share of entries with equal signs, in [0, 1]; 0.5 by chance.
    """

    angle: Float[Array, ""]
    norm_ratio: Float[Array, ""]
    sign_agreement: Float[Array, ""]


def feedback_likeness(model: PyTree) -> dict[str, Likeness]:
    """Compares the feedback of each layer with its forward weight.

    This includes the layer that reads the input, although its feedback carries no error.

    Args:
        model: A model with feedback (`vicinal.feedback.attach`).

    Returns:
        A `Likeness` for each layer with feedback, by the name of its weight (`layers[1].weight`).

    Raises:
        ValueError: If no layer has feedback.

    Example:
        >>> import jax, vicinal as vc
        >>> model = vc.nn.MLP((3, 40, 40, 2), key=jax.random.key(0))
        >>> fed = vc.feedback.attach(model, vc.feedback.sign_symmetric())
        >>> found = feedback_likeness(fed)["layers[1].weight"]
        >>> round(float(found.angle)), round(float(found.norm_ratio), 2), float(found.sign_agreement)
        (30, 1.01, 1.0)

    References:
        Akrout, Wilson, Humphreys, Lillicrap and Tweed, Deep learning without weight transport, NeurIPS 2019, arXiv
        1904.05391 (angles along training).
    """
    nodes = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_fed)[0]
    found = {f"{jax.tree_util.keystr(path)}.weight".lstrip("."): _likeness(fed) for path, fed in nodes if is_fed(fed)}
    if not found:
        raise ValueError("expected a model with feedback, got one without; give it some with vicinal.feedback.attach")
    return found


def _likeness(fed: Fed) -> Likeness:
    weight = fed.layer.weight
    feedback = jnp.broadcast_to(fed.path.weight(weight), weight.shape)
    agreement = jnp.mean((jnp.sign(feedback) == jnp.sign(weight)).astype(jnp.float32))
    return Likeness(angle(feedback, weight), norm(feedback) / norm(weight), agreement)


def error_angles(errors: Values, reference: Values) -> dict[str, Float[Array, ""]]:
    """The angle between two errors of each vertex, in degrees: the mean over examples.

    Args:
        errors: The errors of a rule (`rule.credit(...)[0].errors`), `[batch, ...]`.
        reference: The errors of another rule at the same vertices, usually backpropagation.

    Returns:
        One angle for each vertex; NaN if an example has an error of zero.

    Raises:
        ValueError: If the vertices differ.

    Example:
        >>> import jax.numpy as jnp
        >>> ours, theirs = {"h": jnp.eye(2)}, {"h": jnp.array([[1.0, 1.0], [0.0, 1.0]])}
        >>> round(float(error_angles(ours, theirs)["h"]), 3)
        22.5
    """
    if errors.keys() != reference.keys():
        raise ValueError(f"expected errors of the same vertices, got {sorted(errors)} and {sorted(reference)}")
    return {name: jnp.mean(jax.vmap(angle)(error, reference[name])) for name, error in errors.items()}


def feedback_invariant(
    first: Float[Array, "hidden in"], second: Float[Array, "out hidden"], feedback: Float[Array, "out hidden"]
) -> Float[Array, "hidden hidden"]:
    """The invariant of feedback alignment in a linear network of two layers, `Q = B W2 + (B W2)^T - W1 W1^T`.

    `B` is the transpose of the feedback. `Q` is constant under gradient flow; with finite steps it drifts in proportion
    to the learning rate. Weights that start at zero have `Q = 0`, so that `B W2 + (B W2)^T = W1 W1^T` is positive
    semidefinite: the feedback acquires a component along the gradient.

    Args:
        first: Weight of the lower layer, `[hidden, in]`.
        second: Weight of the upper layer, `[out, hidden]`.
        feedback: The feedback weight of the upper layer, `[out, hidden]`.

    Returns:
        A symmetric matrix, `[hidden, hidden]`.

    Example:
        >>> import jax.numpy as jnp
        >>> feedback_invariant(jnp.eye(2), jnp.eye(2), jnp.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]

    References:
        Lillicrap, Cownden, Tweed and Akerman, Random synaptic feedback weights support error backpropagation for deep
        learning, Nature Communications 7, 2016 (alignment); the matrix follows from its equations.
    """
    product = feedback.T @ second
    return product + product.T - first @ first.T
