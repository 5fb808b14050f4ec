"""Synapses: which parameters multiply an activity, found in the traced program.

A product (`dot_general` or a convolution) of an activity with a parameter, or with a rearranged one, is a synapse:
the parameter is its weight, the activity its presynaptic side, and a parameter added to the product its bias. So a
stock layer, an `einsum` and `weights @ x` are all found, with nothing to declare.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from vicinal._numbers import widened

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


@dataclasses.dataclass(frozen=True)
class Synapse:
    """One product of a weight with an activity.

    Attributes:
        equation: Index of the equation, in the outermost program, that takes the product.
        weight: Path of the weight.
        bias: Path of the bias that is added to the product, or None.
        presynaptic: The variable of the program that holds the activity.
        product: The variable that holds the product, or None where that lies inside a call.
        square: The squared norm of the presynaptic vector: summed over the axes that the weight contracts (for a
            convolution, over channels), the mean over positions.
    """

    equation: int
    weight: str
    bias: str | None
    presynaptic: Any
    product: Any
    square: Callable[[Array], Float[Array, ""]]


def find_synapses(jaxpr: core.Jaxpr, parameters: Mapping[Any, str]) -> list[Synapse]:
    """The synapses of a flat program.

    Args:
        jaxpr: The program.
        parameters: The path of each of its variables that is a parameter.

    Returns:
        One synapse for each use of a weight, in order.
    """
    outer = {v: v for v in [*jaxpr.constvars, *jaxpr.invars] if v not in parameters}
    outer |= {v: v for eqn in jaxpr.eqns for v in eqn.outvars}
    return list(_find(jaxpr, dict(parameters), outer))


def _find(
    jaxpr: core.Jaxpr, leaf: dict[Any, str], outer: dict[Any, Any], equation: int | None = None
) -> Iterator[Synapse]:
    """`leaf` names the variables that are parameters, `outer` maps those that the outermost program holds too."""
    products: dict[Any, int] = {}  # variable -> index of the synapse whose product it is
    found: list[Synapse] = []
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
        elif name in ("dot_general", "conv_general_dilated"):
            for side, other in ((0, 1), (1, 0)):
                if inputs[side] in leaf and inputs[other] in outer:
                    square = _square_dot(eqn.params, other) if name == "dot_general" else _square_conv(eqn.params)
                    products[eqn.outvars[0]] = len(found)
                    product = eqn.outvars[0] if equation is None else None
                    found.append(Synapse(here, leaf[inputs[side]], None, outer[inputs[other]], product, square))
        elif name == "add":
            for side, other in ((0, 1), (1, 0)):
                index = products.get(inputs[side])
                if index is not None and inputs[other] in leaf and found[index].bias is None:
                    found[index] = dataclasses.replace(found[index], bias=leaf[inputs[other]])
        elif inner is not None and len(inner.invars) == len(inputs):
            pairs = list(zip(inner.invars, inputs, strict=True))
            inner_leaf = {v: leaf[u] for v, u in pairs if u in leaf}
            yield from _find(inner, inner_leaf, {v: outer[u] for v, u in pairs if u in outer}, here)
    yield from found


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


def _square_conv(params: Mapping[str, Any]) -> Callable[[Array], Array]:
    channels = params["dimension_numbers"].lhs_spec[1]

    def square(presynaptic: Array) -> Array:
        return jnp.mean(jnp.sum(jnp.square(widened(presynaptic)), axis=channels))

    return square
