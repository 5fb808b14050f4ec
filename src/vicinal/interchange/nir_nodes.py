"""Layers, units and traces as nodes of NIR, and what such nodes compute."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from vicinal._optional import optional
from vicinal.nn import MLP, Autoencoder, AvgPool2d, Conv2d, ConvNet, Linear
from vicinal.spikes import Generator

Shape = tuple[int, ...]
WEIGHTS, FIRING, TRACE, SHAPES = ("Affine", "Linear", "Conv2d"), ("IF", "LIF"), ("LI",), ("AvgPool2d", "Flatten")
"""The types of nodes that a chain may have between Input and Output."""


def package() -> Any:
    """The package nir.

    Raises:
        ImportError: If it is not installed.
    """
    return optional("nir", "A graph of NIR", "nir", "nir")


# ------------------------------------------------------------------------------------------------------------- models


class Parts(NamedTuple):
    """The layers of a model, in order."""

    convolutions: tuple[Conv2d, ...]
    pool: AvgPool2d | None
    layers: tuple[Linear, ...]

    @property
    def weighing(self) -> tuple[Conv2d | Linear, ...]:
        """All layers with weights."""
        return *self.convolutions, *self.layers


def parts_of(model: PyTree) -> Parts:
    """Takes a model apart.

    Raises:
        ValueError: If a part has no counterpart in NIR.
    """
    chain = model.mlp if isinstance(model, Autoencoder) else model
    if not isinstance(chain, MLP | ConvNet):
        raise ValueError(
            f"expected a chain of layers, vicinal.nn.MLP, Autoencoder or ConvNet, got {type(model).__name__}; other "
            "models have no counterpart in NIR"
        )
    if chain.activation is not jax.nn.relu:
        raise ValueError(
            "expected the activation 'relu', which is the rate of an integrate-and-fire unit, got "
            f"{getattr(chain.activation, '__name__', chain.activation)!r}; train a model with activation='relu'"
        )
    convolutions, pool = (chain.convolutions, chain.pool) if isinstance(chain, ConvNet) else ((), None)
    for layer, kind in [*((c, Conv2d) for c in convolutions), *((d, Linear) for d in chain.layers)]:
        if not isinstance(layer, kind):
            raise ValueError(
                f"expected layers of vicinal.nn, {kind.__name__}, got {type(layer).__name__}; take feedback off with "
                "vicinal.feedback.detach, and layers off their arrays with vicinal.hardware.remove"
            )
    if pool is not None and (not isinstance(pool, AvgPool2d) or pool.use_ceil or np.any(pool.padding)):
        raise ValueError(
            f"expected pooling by an AvgPool2d without padding and use_ceil, got {type(pool).__name__}; a maximum of "
            "spikes is not the maximum of rates"
        )
    return Parts(tuple(convolutions), pool, tuple(chain.layers))


def with_parameters(model: PyTree, given: list[tuple[np.ndarray, np.ndarray | None]]) -> PyTree:
    """Puts weights and biases into a model, in its own shapes and dtypes.

    Raises:
        ValueError: If there is a bias where the model has none.
    """
    new = []
    for i, (layer, (weight, bias)) in enumerate(zip(parts_of(model).weighing, given, strict=True)):
        new.append(jnp.asarray(weight, layer.weight.dtype))
        if layer.bias is not None:
            held = np.zeros(layer.bias.shape) if bias is None else bias.reshape(layer.bias.shape)
            new.append(jnp.asarray(held, layer.bias.dtype))
        elif bias is not None and np.any(bias):
            raise ValueError(f"expected no biases, as in the model, got some in layer {i + 1}; build it with use_bias")

    def places(model: PyTree) -> list[Array]:
        leaves = itertools.chain(*((layer.weight, layer.bias) for layer in parts_of(model).weighing))
        return [leaf for leaf in leaves if leaf is not None]

    return eqx.tree_at(places, model, new)


# -------------------------------------------------------------------------------------------------------------- nodes


def nodes_of(parts: Parts, shape: Shape, units: Callable[[str, Shape], dict[str, Any]], jump: float) -> dict[str, Any]:
    """Makes the nodes of a chain.

    Args:
        parts: The layers.
        shape: Of the input.
        units: Makes the nodes of a layer of units of a name and a shape.
        jump: What multiplies the weights above the first.

    Returns:
        The nodes by name, in order.
    """
    nir = package()
    nodes: dict[str, Any] = {"input": nir.Input({"input": np.array(shape)})}
    for i, layer in enumerate(parts.convolutions):
        nodes[f"convolutions_{i}"], shape = _convolution(layer, shape, jump if i else 1.0)
        nodes |= units(f"conv{i + 1}", shape)
        if parts.pool is not None:
            nodes[f"conv{i + 1}_pool"], shape = _average(parts.pool, shape)
    if len(shape) > 1:
        nodes["flatten"] = nir.Flatten({"input": np.array(shape)}, 0, -1)
    for i, layer in enumerate(parts.layers):
        nodes[f"layers_{i}"] = _dense(layer, jump if i or parts.convolutions else 1.0)
        if i + 1 < len(parts.layers):
            nodes |= units(f"hidden{i + 1}", layer.weight.shape[:1])
    return nodes | {"output": nir.Output({"output": np.array(parts.layers[-1].weight.shape[:1])})}


def units_of(generator: Generator, dt: float, traces: bool, dtype: Any) -> Callable[[str, Shape], dict[str, Any]]:
    """Returns the function that makes units, and their traces, for `nodes_of`."""
    nir, area = package(), float(generator.area) * dt
    leak = None if generator.leak is None else float(generator.leak) * dt
    trace = float(generator.trace) * dt

    def units(name: str, shape: Shape) -> dict[str, Any]:
        def full(value: float) -> np.ndarray:
            return np.full(shape, value, dtype)

        if leak is None:  # v_reset is 0 where it is left out, and unknown to nir before 1.0.6
            made = {name: nir.IF(full(1), full(area))}
        else:
            made = {name: nir.LIF(full(leak), full(leak), full(0), full(area))}
        return made | ({f"{name}_trace": nir.LI(full(trace), full(area), full(0))} if traces else {})

    return units


def plain(array: Array) -> np.ndarray:
    """The numbers of an array in a dtype that HDF5 has."""
    return np.asarray(array, np.float64 if array.dtype == jnp.float64 else np.float32)


def _dense(layer: Linear, scale: float) -> Any:
    weight = _scaled(plain(layer.weight), scale)
    return package().Linear(weight) if layer.bias is None else package().Affine(weight, plain(layer.bias))


def _convolution(layer: Conv2d, shape: Shape, scale: float) -> tuple[Any, Shape]:
    own = layer.convolution
    weight = _scaled(plain(layer.weight), scale)
    height, width = weight.shape[2:]
    if own.groups != 1 or height != width:  # NIR derives shapes as if there were neither
        raise ValueError(
            "expected convolutions with square kernels and one group, the only ones whose shapes NIR checks, got "
            f"kernels {height} × {width} and {own.groups} groups"
        )
    spans = [dilation * (side - 1) + 1 for dilation, side in zip(own.dilation, (height, width), strict=True)]
    padding = own.padding
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(shape[1:], spans, own.stride, padding)
    if any(before != after for before, after in padding):
        raise ValueError(
            f"expected padding that is equal on both sides, got {padding}; give it in pixels, or take kernels of odd "
            "sides"
        )
    bias = np.zeros(len(weight), weight.dtype) if layer.bias is None else plain(layer.bias).reshape(-1)
    sides = tuple(before for before, _ in padding)
    node = package().Conv2d(shape[1:], weight, tuple(own.stride), sides, tuple(own.dilation), 1, bias)
    return node, tuple(map(int, node.output_type["output"]))


def _average(pool: AvgPool2d, shape: Shape) -> tuple[Any, Shape]:
    node = package().AvgPool2d(np.array(pool.kernel_size), np.array(pool.stride), np.zeros(2, int))
    return node, eqx.filter_eval_shape(pool, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _scaled(weight: np.ndarray, scale: float) -> np.ndarray:
    return weight * weight.dtype.type(scale)


# ------------------------------------------------------------------------------------------------------ back to layers


def gain_of(name: str, node: Any) -> float:
    """Returns what a node makes of a constant current or rate: for units the rate for a current of 1, without leak.

    Raises:
        ValueError: If the units of a node differ, or rest above or below 0.
    """
    kind = type(node).__name__
    if kind not in FIRING + TRACE:
        return 1.0

    def one(field: str) -> float:
        values = np.unique(getattr(node, field))
        if len(values) != 1:
            raise ValueError(f"expected one {field} for all units of {name!r}, got {len(values)} different ones")
        return float(values[0])

    if kind != "IF" and one("v_leak"):
        raise ValueError(f"expected units of {name!r} that rest at v_leak = 0, got {one('v_leak')}")
    if kind == "LI":
        return one("r")
    reset = one("v_reset") if hasattr(node, "v_reset") else 0.0
    return one("r") / (one("v_threshold") - reset) / (one("tau") if kind == "LIF" else 1.0)


def settings_of(node: Any) -> str:
    """Writes out what a node shares with a layer of the same kind, all but the values of its parameters."""
    kind = type(node).__name__
    found: dict[str, Any] = {}
    if kind == "Conv2d":
        found = {"stride": node.stride, "padding": node.padding, "dilation": node.dilation}
        spans = np.array(node.dilation) * (np.array(node.weight.shape[2:]) - 1)
        if isinstance(node.padding, str):
            found["padding"] = spans // 2 if node.padding == "same" else (0, 0)
    elif kind == "AvgPool2d":
        found = {"kernel": node.kernel_size, "stride": node.stride, "padding": node.padding}
    words = [f" {name} {' × '.join(str(int(side)) for side in np.broadcast_to(at, 2))}" for name, at in found.items()]
    if kind in WEIGHTS:
        words = [f" of weights {' × '.join(map(str, node.weight.shape))}", *words]
    return ("Affine" if kind == "Linear" else kind) + ",".join(words)
