"""Under `graph`: the primitive that marks a vertex. It is the identity under every transformation."""

import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir

vertex_p = core.Primitive("vertex")
vertex_p.def_impl(lambda value, *, name: value)
vertex_p.def_abstract_eval(lambda value, *, name: value)
ad.deflinear2(vertex_p, lambda cotangent, value, *, name: [cotangent])
mlir.register_lowering(vertex_p, lambda context, value, *, name: [value])


def _vertex_batching(arguments, axes, *, name):
    return vertex_p.bind(jnp.moveaxis(arguments[0], axes[0], 0), name=name), 0


def _vertex_jvp(primals, tangents, *, name):
    return vertex_p.bind(primals[0], name=name), tangents[0]


batching.primitive_batchers[vertex_p] = _vertex_batching
ad.primitive_jvps[vertex_p] = _vertex_jvp
