"""Separate weights for the error: they carry it back to the input of a layer, whose own weight learns as before."""

import inspect
import zlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal._convolutions import laid_out
from vicinal._given import check_key
from vicinal.feedback.paths import Layer, Path, Route, with_weight
from vicinal.nn.layers import Conv2d, Linear

_LAYERS = (Linear, Conv2d, eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)


class Fed(eqx.Module):
    """A linear or convolutional layer with a separate path for its error; made by `attach`.

        out        = layer(x)
        error_x    = path.weight(layer.weight)^T error_out           in place of weight^T error_out

    Attributes:
        layer: The layer.
        path: The way of the error back.
    """

    layer: Layer
    path: Path

    def __call__(self, x: Array, **kwargs: Any) -> Array:
        del kwargs  # stock layers take a key that they do not use
        held = jax.lax.stop_gradient(x)
        out = self.path.taught(self.layer, held, self.layer(held))
        back = jax.lax.stop_gradient(with_weight(self.layer, self.path.weight(self.layer.weight)))
        return _routed(back, x, out)

    def __getattr__(self, attribute: str) -> Any:
        """Looks up other attributes in the layer."""
        if attribute.startswith("__") or attribute in ("layer", "path"):
            raise AttributeError(attribute)
        return getattr(self.layer, attribute)


def _routed(back: Any, x: Array, out: Array) -> Array:
    """Returns the output of a layer; the transpose of the layer `back` carries its error to `x`."""
    arrays, static = eqx.partition(back, eqx.is_array)

    @jax.custom_vjp
    def route(arrays: PyTree, x: Array, out: Array) -> Array:
        return out

    def forward(arrays: PyTree, x: Array, out: Array) -> tuple[Array, Any]:
        return out, (arrays, x)

    def backward(held: Any, error: Array) -> tuple[PyTree, Array, Array]:
        arrays, x = held
        (carried,) = jax.vjp(laid_out(eqx.combine(arrays, static), x), x)[1](error)
        return jax.tree.map(jnp.zeros_like, arrays), carried, error

    route.defvjp(forward, backward)
    return route(arrays, x, out)


def attach(model: PyTree, route: Route, *, key: PRNGKeyArray | None = None) -> PyTree:
    """Gives the layers of a model separate weights for the error.

    In every linear and convolutional layer, of this library or of Equinox, that the route chooses, the transpose of the
    feedback weight carries the error to the input, in place of the transpose of the weight. The forward pass and the
    gradient of the weight are unchanged. This works with every rule: backpropagation becomes feedback alignment, and
    inference learning and activation relaxation lose their weight transport.

    The feedback weights are arrays of the model. Fixed ones are not parameters: they have no gradient, and an optimiser
    does not see them (`Graph.trainable`). Forward derivatives (`vicinal.analysis.conditioning`) are not defined for
    such a model.

    Args:
        model: An Equinox module, or any pytree that contains layers.
        route: Chooses the path of each layer: `random()`, `kolen_pollack()`, `sign_symmetric()`, `weight_mirror()`,
            `given(...)`, ...
        key: A key, for routes that draw random weights.

    Returns:
        A copy of the model in which these layers are wrapped in `Fed`.

    Raises:
        TypeError: If the route is not a function of this form, or returns something that is not a `Path`.
        ValueError: If the route chooses no layer, `given` names a weight that does not exist, a layer has feedback
            already or shares its weight with another, a feedback weight differs in shape or dtype from the weight, or
            a key is missing.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> fed = vc.feedback.attach(model, vc.feedback.random(), key=jax.random.key(1))
        >>> bool(jnp.all(fed(jnp.ones(3)) == model(jnp.ones(3))))
        True

    References:
        Lillicrap, Cownden, Tweed and Akerman, Random synaptic feedback weights support error backpropagation for deep
        learning, Nature Communications 7, 2016.
    """
    _check_route(route)
    if key is not None:
        check_key(key)
    kinds = (*_LAYERS, Fed)
    flat, structure = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: isinstance(node, kinds))
    layers = {f"{jax.tree_util.keystr(place)}.weight".lstrip("."): n for place, n in flat if isinstance(n, kinds)}
    missing = [name for name in getattr(route, "names", ()) if name not in layers]
    if missing:
        raise ValueError(f"expected weights of {', '.join(layers) or 'no layer'}, got feedback for {missing[0]!r}")
    keys = {name: None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode())) for name in layers}
    found = {name: route(name, node.weight, keys[name]) for name, node in layers.items()}
    if not found:
        raise ValueError(
            f"expected a model with linear or convolutional layers, of this library or of Equinox, got "
            f"{type(model).__name__} without any; the order is attach(model, route, key=key)"
        )
    if all(path is None for path in found.values()):
        raise ValueError(f"expected feedback for a weight of {', '.join(layers) or 'no layer'}, got none")
    fed = iter([node if found[name] is None else _fed(name, node, found[name]) for name, node in layers.items()])
    return jax.tree.unflatten(structure, [next(fed) if isinstance(node, kinds) else node for _, node in flat])


def _check_route(route: Any) -> None:
    """Raises TypeError if the route cannot be called with the name of a weight, the weight and a key."""
    if not callable(route):
        raise TypeError(f"expected a route, like vicinal.feedback.random(), got {route!r}")
    try:
        inspect.signature(route).bind("name", "weight", "key")
    except TypeError:
        name = getattr(route, "__name__", type(route).__name__)
        advice = "the order is attach(model, route)" if isinstance(route, eqx.Module) else f"call it, {name}()"
        raise TypeError(f"expected a route, like vicinal.feedback.random(), got {name}; {advice}") from None


def detach(model: PyTree) -> PyTree:
    """Unwraps the layers that `attach` wrapped, in a model, its gradient or an update."""
    return jax.tree.map(lambda node: node.layer if is_fed(node) else node, model, is_leaf=is_fed)


def is_fed(node: Any) -> bool:
    """Whether a node of a tree is a layer with feedback."""
    return isinstance(node, Fed)


def _fed(name: str, layer: Any, path: Any) -> Fed:
    if isinstance(layer, Fed) or not eqx.is_array(layer.weight):
        why = "has feedback already" if isinstance(layer, Fed) else "shares its weight with another"
        raise ValueError(f"expected a layer with a weight of its own for feedback, got {name}, which {why}")
    if not isinstance(path, Path):
        raise TypeError(f"expected a vicinal.feedback path for {name}, got {type(path).__name__}")
    weight = layer.weight
    own = (getattr(path, name, None) for name in ("feedback", "magnitude"))
    for feedback in (array for array in own if array is not None):
        if feedback.shape != weight.shape or feedback.dtype != weight.dtype:
            raise ValueError(
                f"expected feedback for {name} as {weight.dtype}{list(weight.shape)}, got "
                f"{feedback.dtype}{list(feedback.shape)}"
            )
    return Fed(layer, path)
