"""Separate weights for the error: the input of a layer gets its error through them, the layer's own learn as ever."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from vicinal.nn.layers import Conv2d, Linear

Route = Callable[[str, Array], tuple[Array, bool] | None]
"""Says what a layer's error goes back through: `route(name of the weight, weight) -> (feedback weight, whether it
learns)`, or None to leave the layer as it is."""

_LAYERS = (Linear, Conv2d, eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)


class Fed(eqx.Module):
    """A linear or convolutional layer whose error goes back through weights of its own; made by `attach`.

    Attributes:
        layer: The layer.
        feedback: What the error goes back through: the shape of the layer's weight, used transposed as that is.
        learned: Whether `feedback` gets the gradient of the weight (Kolen and Pollack), or none.
    """

    layer: Callable
    feedback: Float[Array, "..."]
    learned: bool = eqx.field(static=True)

    def __call__(self, x: Array, **kwargs: Any) -> Array:
        del kwargs  # stock layers take a key that they do not use
        return _fed(self.learned, self.layer, self.feedback, x)

    def __getattr__(self, attribute: str) -> Any:
        """Other attributes are those of the layer."""
        if attribute.startswith("__") or attribute in ("layer", "feedback", "learned"):
            raise AttributeError(attribute)
        return getattr(self.layer, attribute)


def attach(model: PyTree, route: Route) -> PyTree:
    """Gives the layers of a model weights of their own for the error.

    In every linear and convolutional layer that the route names, of this library or of Equinox, the error of the input
    is carried by the feedback weight's transpose in place of the weight's; the gradient of the weight, and all that
    goes forward, is unchanged. Rules do not ask which route they run on: backpropagation becomes feedback alignment,
    inference learning and activation relaxation lose their weight transport.

    The feedback weights are arrays of the model. Unless they learn, their gradient is zero; an optimiser that changes
    weights without a gradient (weight decay) must be kept from them, and so must the normalised step
    (`vicinal.optim.nlms`), which has no norm for them. What needs forward derivatives (`vicinal.analysis.conditioning`)
    is not defined for a map whose way back is another.

    Args:
        model: An Equinox module, or any pytree that holds layers.
        route: What each error goes back through, such as `given`.

    Returns:
        A copy of the model in which these layers are wrapped in `Fed`.

    Raises:
        ValueError: If the route chooses no layer, `given` names one that is not there, a layer has feedback already or
            shares its weight with another, or a feedback weight has another shape than the weight.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> fed = vc.feedback.attach(model, vc.feedback.given({"layers[1].weight": jnp.ones((2, 4))}))
        >>> bool(jnp.all(fed(jnp.ones(3)) == model(jnp.ones(3))))
        True

    References:
        Lillicrap, Cownden, Tweed and Akerman, Random synaptic feedback weights support error backpropagation for deep
        learning, Nature Communications 7, 2016.
    """
    kinds = (*_LAYERS, Fed)
    flat, structure = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: isinstance(node, kinds))
    layers = {f"{jax.tree_util.keystr(place)}.weight".lstrip("."): n for place, n in flat if isinstance(n, kinds)}
    missing = [name for name in getattr(route, "names", ()) if name not in layers]
    if missing:
        raise ValueError(f"expected weights of {', '.join(layers) or 'no layer'}, got feedback for {missing[0]!r}")
    found = {name: route(name, node.weight) for name, node in layers.items()}
    if all(way is None for way in found.values()):
        raise ValueError(f"expected feedback for a weight of {', '.join(layers) or 'no layer'}, got none")
    fed = iter([node if found[name] is None else _fed_layer(name, node, found[name]) for name, node in layers.items()])
    return jax.tree.unflatten(structure, [next(fed) if isinstance(node, kinds) else node for _, node in flat])


def given(weights: Mapping[str, Float[Array, "..."]], learned: bool = False) -> Route:
    """Feedback through given matrices or kernels.

    Args:
        weights: By the name of the weight that each stands in for (`"layers[1].weight"`), in its shape. Layers that
            are not named stay as they are.
        learned: Whether each gets the same gradient as its weight, so that the difference between the two is constant
            under plain gradient descent, and decays with weight decay (Kolen and Pollack).

    Returns:
        A route for `attach`.
    """

    def route(name: str, weight: Array) -> tuple[Array, bool] | None:
        return (jnp.asarray(weights[name]), learned) if name in weights else None

    route.names = tuple(weights)  # type: ignore[attr-defined]
    return route


def _fed_layer(name: str, layer: Any, way: Any) -> Fed:
    feedback, learned = way
    if isinstance(layer, Fed) or not eqx.is_array(layer.weight):
        why = "has feedback already" if isinstance(layer, Fed) else "shares its weight with another"
        raise ValueError(f"expected a layer with a weight of its own for feedback, got {name}, which {why}")
    if feedback.shape != layer.weight.shape or feedback.dtype != layer.weight.dtype:
        raise ValueError(
            f"expected feedback for {name} as {layer.weight.dtype}{list(layer.weight.shape)}, got "
            f"{feedback.dtype}{list(feedback.shape)}"
        )
    return Fed(layer, feedback, learned)


def _fed(learned: bool, layer: Callable, feedback: Array, x: Array) -> Array:
    arrays, static = eqx.partition(layer, eqx.is_array)

    @jax.custom_vjp
    def run(arrays: PyTree, feedback: Array, x: Array) -> Array:
        return eqx.combine(arrays, static)(x)

    def forward(arrays: PyTree, feedback: Array, x: Array) -> tuple[Array, Any]:
        return run(arrays, feedback, x), (arrays, feedback, x)

    def backward(held: Any, error: Array) -> tuple[PyTree, Array, Array]:
        arrays, feedback, x = held
        (own,) = jax.vjp(lambda arrays: eqx.combine(arrays, static)(x), arrays)[1](error)
        down = eqx.tree_at(lambda layer: layer.weight, eqx.combine(arrays, static), feedback)
        (carried,) = jax.vjp(down, x)[1](error)
        return own, own.weight if learned else jnp.zeros_like(feedback), carried

    run.defvjp(forward, backward)
    return run(arrays, feedback, x)
