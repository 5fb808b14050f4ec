"""Synapses: which parameters multiply an activity, found in the traced program.

A synapse is a product (`dot_general` or a convolution) of an activity with a parameter, which may be rearranged. The
parameter is its weight, the activity its presynaptic side, and a parameter added to the product its bias. Stock layers,
`einsum` and `weights @ x` are all found without declarations.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from vicinal._numbers import widened
from vicinal._stored import shape_of

_REARRANGE = {
    "transpose",
    "reshape",
    "squeeze",
    "broadcast_in_dim",
    "expand_dims",
    "convert_element_type",
    "copy",
    "rev",
    "slice",
}

_TILE_READ = "tile_read"  # of `vicinal.hardware`: (exact product, weight, activity, ...) -> the product as read


@dataclasses.dataclass(frozen=True)
class Synapse:
    """One product of a weight with an activity.

    Attributes:
        equation: Index of the product's equation in the outermost program.
        weight: Path of the weight.
        bias: Path of the bias that is added to the product, or None.
        presynaptic: The variable of the program that holds the activity.
        product: The variable that holds the product; None if it is inside a call.
        square: The squared norm of the presynaptic vector: summed over the axes that the weight contracts (for a
            convolution, over channels), the mean over positions.
        multiplications: Multiplications in the product.
        reached: For each entry of the product, how many of some presynaptic units, an array of 0 and 1, reach it.
    """

    equation: int
    weight: str
    bias: str | None
    presynaptic: Any
    product: Any
    square: Callable[[Array], Float[Array, ""]]
    multiplications: int
    reached: Callable[[Array], Array]


def find_synapses(jaxpr: core.Jaxpr, parameters: Mapping[Any, str]) -> list[Synapse]:
    """The synapses of a flat program.

    Args:
        jaxpr: The program.
        parameters: The path of each variable that is a parameter.

    Returns:
        One synapse for each use of a weight, in order.
    """
    outer = {v: v for v in [*jaxpr.constvars, *jaxpr.invars] if v not in parameters}
    outer |= {v: v for eqn in jaxpr.eqns for v in eqn.outvars}
    found: list[Synapse] = []
    _find(jaxpr, dict(parameters), outer, {}, found)
    return found


def _find(
    jaxpr: core.Jaxpr,
    leaf: dict[Any, str],
    outer: dict[Any, Any],
    products: dict[Any, int],
    found: list[Synapse],
    equation: int | None = None,
) -> None:
    """Adds the synapses of a program to those found.

    `leaf` names the variables that are parameters; `outer` maps those that also exist in the outermost program;
    `products` are those that are products, each with the index of its synapse.
    """
    for i, eqn in enumerate(jaxpr.eqns):
        here = i if equation is None else equation
        inputs = [None if isinstance(v, core.Literal) else v for v in eqn.invars]
        name = eqn.primitive.name
        inner = next(_inner(eqn.params), None)
        if name in _REARRANGE:
            if inputs[0] in leaf:
                leaf[eqn.outvars[0]] = leaf[inputs[0]]
            if inputs[0] in products:
                products[eqn.outvars[0]] = products[inputs[0]]
        elif name == _TILE_READ:
            if inputs[0] in products:
                index = products[eqn.outvars[0]] = products[inputs[0]]
                held = found[index].presynaptic  # that of the read without derivative; for a convolution, also reshaped
                activity = outer.get(inputs[2], held)
                if activity.aval.shape == held.aval.shape:
                    found[index] = dataclasses.replace(found[index], presynaptic=activity)
        elif name in _SQUARES:
            for side, other in ((0, 1), (1, 0)):
                if inputs[side] in leaf and inputs[other] in outer:
                    square = _SQUARES[name](eqn.params, other)
                    products[eqn.outvars[0]] = len(found)
                    product = eqn.outvars[0] if equation is None else None
                    own = leaf[inputs[side]], None, outer[inputs[other]], product, square
                    found.append(Synapse(here, *own, _multiplications(eqn, side), _reached(eqn, side)))
        elif name == "add":
            for side, other in ((0, 1), (1, 0)):
                index = products.get(inputs[side])
                if index is not None and inputs[other] in leaf and found[index].bias is None:
                    found[index] = dataclasses.replace(found[index], bias=leaf[inputs[other]])
        elif inner is not None and len(inner.invars) == len(inputs):
            pairs = list(zip(inner.invars, inputs, strict=True))
            inner_leaf = {v: leaf[u] for v, u in pairs if u in leaf}
            within = {v: products[u] for v, u in pairs if u in products}
            _find(inner, inner_leaf, {v: outer[u] for v, u in pairs if u in outer}, within, found, here)
            for own, v in zip(inner.outvars, eqn.outvars, strict=False):
                if not isinstance(own, core.Literal) and own in within:
                    index = products[v] = within[own]
                    if equation is None:
                        found[index] = dataclasses.replace(found[index], product=v)


def _multiplications(eqn: core.JaxprEqn, side: int) -> int:
    """Counts those in a product with a weight on one side."""
    weight, out = shape_of(eqn.invars[side]), shape_of(eqn.outvars[0])
    if eqn.primitive.name == "dot_general":
        return math.prod(out) * math.prod(weight[axis] for axis in eqn.params["dimension_numbers"][0][side])
    return math.prod(out) * math.prod(weight) // max(1, weight[eqn.params["dimension_numbers"].rhs_spec[0]])


def _reached(eqn: core.JaxprEqn, side: int) -> Callable[[Array], Array]:
    """The product with weights of 1."""
    ones, params = shape_of(eqn.invars[side]), eqn.params | {"preferred_element_type": jnp.dtype("float32")}

    def reached(units: Array) -> Array:
        sides = [jnp.ones(ones, jnp.float32), units.astype(jnp.float32).reshape(shape_of(eqn.invars[1 - side]))]
        return eqn.primitive.bind(*(sides if side == 0 else reversed(sides)), **params).astype(jnp.int32)

    return reached


def reads_a_tile(eqn: core.JaxprEqn) -> bool:
    """Whether an operation is a tile's read, of the exact product that is its first operand."""
    return any(each.primitive.name == _TILE_READ for inner in _inner(eqn.params) for each in inner.eqns)


def _inner(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value


def _square_dot(params: Mapping[str, Any], side: int) -> Callable[[Array], Array]:
    contracted = tuple(params["dimension_numbers"][0][side])

    def square(presynaptic: Array) -> Array:
        return jnp.mean(jnp.sum(jnp.square(widened(presynaptic)), axis=contracted))

    return square


def _square_conv(params: Mapping[str, Any], side: int) -> Callable[[Array], Array]:
    channels = params["dimension_numbers"].lhs_spec[1]

    def square(presynaptic: Array) -> Array:
        return jnp.mean(jnp.sum(jnp.square(widened(presynaptic)), axis=channels))

    return square


_SQUARES = {"dot_general": _square_dot, "conv_general_dilated": _square_conv}
"""The products, each with what makes the squared norm of its presynaptic side."""
