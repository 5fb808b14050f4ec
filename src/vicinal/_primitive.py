"""Under `graph`: the primitive that marks a vertex. It is the identity under every transformation.

Its first operand is the value; a second, if there is one, is the mask of the units that count, in the value's shape.
"""

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

vertex_p = core.Primitive("vertex")
vertex_p.def_impl(lambda value, *mask, name: value)
vertex_p.def_abstract_eval(lambda value, *mask, name: value)
ad.deflinear2(vertex_p, lambda cotangent, value, *mask, name: [cotangent, *(None for _ in mask)])
mlir.register_lowering(vertex_p, lambda context, value, *mask, name: [value])


def _vertex_batching(arguments, axes, *, name):
    sizes = [a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None]

    def in_front(argument: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:  # a mask of all rows, or one value under many masks
            return jnp.broadcast_to(argument[None], (sizes[0], *argument.shape))
        return jnp.moveaxis(argument, axis, 0)

    return vertex_p.bind(*map(in_front, arguments, axes), name=name), 0


def _vertex_jvp(primals, tangents, *, name):
    return vertex_p.bind(*primals, name=name), tangents[0]


batching.primitive_batchers[vertex_p] = _vertex_batching
ad.primitive_jvps[vertex_p] = _vertex_jvp
