"""Tiles: layers whose weights lie on arrays of cells, and are read through a periphery in either direction."""

import math
import zlib
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import batching, mlir
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, UInt32

from vicinal._convolutions import laid_out
from vicinal._given import check_key
from vicinal.feedback.attach import Fed
from vicinal.feedback.paths import Tied, seed_of, with_weight
from vicinal.hardware._noise import noise_key
from vicinal.hardware._wiring import unfit, wiring_of
from vicinal.hardware.cells import Cells, Device
from vicinal.hardware.periphery import Periphery, read_along
from vicinal.nn.layers import Conv2d, Linear
from vicinal.roles import Part

_LAYERS = (Linear, Conv2d, eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)


class Crossbar(Part):
    """The array that stores one weight. It is no parameter: no optimiser trains it.

    Attributes:
        scale: The weight of a full cell.
        seed: Data of a key, for the noise of reads and of pulses.
        cells: The cells; None for cells that take any weight.
    """

    role: ClassVar[Any] = "fixed"
    scale: Float[Array, ""]
    seed: UInt32[Array, "..."]
    cells: Cells | None

    @property
    def without_cells(self) -> "Crossbar":
        """What a read needs."""
        return Crossbar(self.scale, self.seed, None)


class Tile(eqx.Module):
    """A layer whose weight lies on an array; made by `place`.

        out        = read(weight, x) + bias               through the forward periphery
        error_x    = read(weight^T, error_out)            through the backward periphery
        gradient   = error_out x^T                        exact: what a step makes of it is its own business

    Attributes:
        layer: The layer, or the layer with feedback (`Fed`).
        crossbar: The array of its weight.
        feedback: The array of the feedback weight; None if the error takes the array of the weight.
        forward: Converters and noise of the forward reads.
        backward: Converters and noise of the reads that carry errors.
    """

    layer: Any
    crossbar: Crossbar
    feedback: Crossbar | None
    forward: Periphery
    backward: Periphery

    def __call__(self, x: Array, **kwargs: Any) -> Array:
        fed = self.layer if isinstance(self.layer, Fed) else None
        layer = self.layer if fed is None else fed.layer
        if self.forward.is_ideal and self.backward.is_ideal:
            return self.layer(x, **kwargs)
        back = None
        if fed is not None and not isinstance(fed.path, Tied):
            back = jax.lax.stop_gradient(fed.path.weight(layer.weight))
        if (back is None) != (self.feedback is None):
            raise ValueError(
                "expected feedback that was attached before the model was placed, got a tile whose layer has "
                f"{'lost its' if back is None else 'new'} feedback; remove the tiles, and place the model again"
            )
        jax.eval_shape(layer, x)  # the layer's own checks of its input
        feedback = None if self.feedback is None else self.feedback.without_cells
        parts = _Parts(self.forward, self.backward, self.crossbar.without_cells, feedback)
        wiring = wiring_of(layer, x)
        # The exact product is never computed: only its derivative, the outer product, is taken of it.
        exact = wiring.product(layer.weight, jax.lax.stop_gradient(x))
        out = _reading(wiring)(exact, jax.lax.stop_gradient(layer.weight), back, x, parts)
        out = out if layer.bias is None else out + layer.bias
        return out if fed is None else fed.path.taught(layer, jax.lax.stop_gradient(x), out)

    def __getattr__(self, attribute: str) -> Any:
        """Looks up other attributes in the layer."""
        if attribute.startswith("__") or attribute in ("layer", "crossbar", "feedback", "forward", "backward"):
            raise AttributeError(attribute)
        return getattr(self.layer, attribute)


class _Parts(eqx.Module):
    """What a tile's reads need beside weights and input."""

    forward: Periphery
    backward: Periphery
    crossbar: Crossbar
    feedback: Crossbar | None


# ---------------------------------------------------------------------------------------------------------- reads

read_p = core.Primitive("tile_read")
"""A forward read in place of an exact product, which is the first operand, so that the program shows what it is of."""


def _read(exact: Array, weight: Array, x: Array, *leaves: Array, wiring: Any, structure: Any) -> Array:
    parts: _Parts = jax.tree.unflatten(structure, leaves)
    if parts.forward.is_ideal:
        return exact
    key, scale = noise_key(parts.crossbar.seed, weight, x, 0), parts.crossbar.scale

    def read(matrix: Array, vector: Array, index: Array) -> Array:
        own = jax.random.fold_in(key, index)
        return read_along(parts.forward, matrix, vector, scale.astype(x.dtype), own, axis=1, managed=True)

    return wiring.forward(read, weight, x)


def _read_back(weight: Array, error: Array, x: Array, crossbar: Crossbar, periphery: Periphery, wiring: Any) -> Array:
    if periphery.is_ideal:
        (carried,) = jax.vjp(laid_out(lambda x: wiring.product(weight, x), x), x)[1](error)
        return carried
    key, scale = noise_key(crossbar.seed, weight, error, 1), crossbar.scale

    def read(matrix: Array, vector: Array, index: Array) -> Array:
        own = jax.random.fold_in(key, index)
        return read_along(periphery, matrix, vector, scale.astype(error.dtype), own, axis=0)

    return wiring.backward(read, weight, error, x)


def _batched(arguments: Any, axes: Any, **params: Any) -> tuple[Array, int]:
    return jax.vmap(lambda *each: _read(*each, **params), axes)(*arguments), 0


read_p.def_impl(jax.jit(_read, static_argnames=("wiring", "structure")))
read_p.def_abstract_eval(lambda exact, *operands, **params: exact)
batching.primitive_batchers[read_p] = _batched
mlir.register_lowering(read_p, mlir.lower_fun(_read, multiple_results=False))


def _reading(wiring: Any) -> Any:
    """`(exact product, weight, feedback weight or None, x, parts) -> output` of the reads.

    The error of the output goes to the exact product, and so to the weight, and through a transposed read to `x`. (A
    gradient of the weight from here would be an outer product of each example before their sum.)
    """

    @jax.custom_vjp
    def reading(exact: Array, weight: Array, back: Array | None, x: Array, parts: _Parts) -> Array:
        leaves, structure = jax.tree.flatten(parts)
        return read_p.bind(exact, weight, x, *leaves, wiring=wiring, structure=structure)

    def forward(exact: Array, weight: Array, back: Array | None, x: Array, parts: _Parts) -> tuple[Array, Any]:
        return reading(exact, weight, back, x, parts), (weight, back, x, parts)

    def backward(held: Any, error: Array) -> tuple[Any, ...]:
        weight, back, x, parts = held
        bar, way = (parts.crossbar, weight) if back is None else (cast(Crossbar, parts.feedback), back)
        return error, None, None, _read_back(way, error, x, bar, parts.backward, wiring), None

    reading.defvjp(forward, backward)
    return reading


# ---------------------------------------------------------------------------------------------------------- place


def place(
    model: PyTree,
    device: Device | str | None = None,
    *,
    forward: Periphery | str = "default",
    backward: Periphery | str = "default",
    deviations: float = 3.0,
    key: PRNGKeyArray,
) -> PyTree:
    """Places the weights of a model on arrays of cells.

    Every linear and convolutional layer, of this library or of Equinox, becomes a `Tile`. Its weight stays a parameter,
    and every rule trains it as before; what its cells make of a change is up to the optimiser: `pulsed`, `coincident`,
    `transfer` or `thresholded`. An ordinary optimiser programs any weight exactly. Biases and all other arrays stay
    digital.

    A separate feedback weight (`vicinal.feedback.attach`, before `place`) lies on an array of its own, which is read
    through `backward`. In a convolution each position of the output is one read of a patch, and of its errors one
    transposed read.

    Weights are in units of a scale for each array, `deviations` standard deviations of its first weights. Weights that
    no cell can take are changed to the nearest, and stuck cells keep what they have.

    Noise of a read is drawn anew for each input, weight and direction. Two reads of the *same* input share a draw.

    Args:
        model: An Equinox module, or any pytree that contains layers.
        device: The kind of the cells, or its name (`Device.preset`). None: cells that take any weight.
        forward: Converters and noise of forward reads, or the name of a periphery (`Periphery.preset`).
        backward: Those of the reads that carry errors back.
        deviations: The scale, above 0.
        key: For the cells and the noise.

    Returns:
        A copy of the model with tiles.

    Raises:
        TypeError: If a part is of the wrong kind.
        ValueError: If the model has no such layer or tiles already, or a layer cannot lie on an array.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> tiles = vc.hardware.place(model, forward="ideal", backward="ideal", key=jax.random.key(1))
        >>> bool(jnp.all(tiles(jnp.ones(3)) == model(jnp.ones(3))))
        True
    """
    kind = Device.preset(device) if isinstance(device, str) else device
    sides = [Periphery.preset(side) if isinstance(side, str) else side for side in (forward, backward)]
    for side in sides:
        if not isinstance(side, Periphery):
            raise TypeError(f"expected a vicinal.hardware.Periphery or its name, got {side!r}")
    if not isinstance(kind, Device | None):
        raise TypeError(f"expected a vicinal.hardware.Device, its name or None, got {device!r}")
    if not 0 < deviations < math.inf:
        raise ValueError(f"expected a scale of more than 0 standard deviations, got {deviations}")
    check_key(key)
    kinds = (*_LAYERS, Fed, Tile)
    flat, structure = jax.tree_util.tree_flatten_with_path(model, is_leaf=lambda node: isinstance(node, kinds))
    layers = {jax.tree_util.keystr(place): node for place, node in flat if isinstance(node, kinds)}
    if not layers:
        raise ValueError(
            "expected a model with linear or convolutional layers, of this library or of Equinox, got "
            f"{type(model).__name__} without any; the order is place(model, device, key=key)"
        )
    for name, node in layers.items():
        if why := "a tile already" if isinstance(node, Tile) else unfit(node.layer if isinstance(node, Fed) else node):
            name = name.lstrip(".") or "the model"
            raise ValueError(f"expected layers that can lie on an array, got {why}, {name}; leave it out of the model")
    tiles = iter(
        [
            _tile(node, kind, sides[0], sides[1], deviations, jax.random.fold_in(key, zlib.crc32(name.encode())))
            for name, node in layers.items()
        ]
    )
    return jax.tree.unflatten(structure, [next(tiles) if isinstance(node, kinds) else node for _, node in flat])


def remove(model: PyTree) -> PyTree:
    """Unwraps the layers that `place` wrapped, in a model, its gradient or an update; weights stay as they are."""
    return jax.tree.map(lambda node: node.layer if is_tile(node) else node, model, is_leaf=is_tile)


def is_tile(node: Any) -> bool:
    """Whether a node of a tree is a layer on an array."""
    return isinstance(node, Tile)


def stored_weights(model: PyTree) -> Iterator[tuple[str, Crossbar, Tile]]:
    """The path of each weight that lies on an array, learned feedback too, with the array and its tile."""
    for place, tile in jax.tree_util.tree_flatten_with_path(model, is_leaf=is_tile)[0]:
        if not is_tile(tile):
            continue
        fed = isinstance(tile.layer, Fed)
        stored = [((tile.layer.layer if fed else tile.layer).weight, tile.crossbar)]
        stored += [(getattr(tile.layer.path, "feedback", None), tile.feedback)] if fed else []
        root = jax.tree_util.keystr((*place, jax.tree_util.GetAttrKey("layer")))
        for path, leaf in jax.tree_util.tree_flatten_with_path(tile.layer)[0]:
            for weight, bar in stored:
                if leaf is weight and bar is not None:
                    yield root + jax.tree_util.keystr(path), bar, tile


def _tile(
    node: Any, device: Device | None, forward: Periphery, backward: Periphery, deviations: float, key: PRNGKeyArray
) -> Tile:
    own, of_feedback = jax.random.split(key)
    layer = node.layer if isinstance(node, Fed) else node
    crossbar = _crossbar(layer.weight, device, deviations, own)
    layer = with_weight(layer, programmed(layer.weight, crossbar))
    if not isinstance(node, Fed):
        return Tile(layer, crossbar, None, forward, backward)
    path, feedback = node.path, None
    if not isinstance(path, Tied):
        weight = path.weight(layer.weight)
        stored = getattr(path, "feedback", None)
        feedback = _crossbar(weight, device if stored is not None else None, deviations, of_feedback)
        if stored is not None:
            path = eqx.tree_at(lambda path: path.feedback, path, programmed(stored, feedback))
    return Tile(Fed(layer, path), crossbar, feedback, forward, backward)


def _crossbar(weight: Array, device: Device | None, deviations: float, key: PRNGKeyArray) -> Crossbar:
    of_cells, of_seed = jax.random.split(key)
    deviation = jnp.std(weight)
    scale = jnp.asarray(deviations, weight.dtype) * jnp.where(deviation > 0, deviation, jnp.ones((), weight.dtype))
    cells = None if device is None else device.draw(weight.shape, weight.dtype, key=of_cells)
    return Crossbar(scale, seed_of(of_seed), cells)


def programmed(weight: Array, crossbar: Crossbar) -> Array:
    """The nearest weight that the cells of an array can have."""
    if crossbar.cells is None:
        return weight
    w = weight / crossbar.scale
    clipped = crossbar.cells.clipped(w)
    return jnp.where(clipped == w, weight, crossbar.scale * clipped)
