"""Under `graph`: `vertex` and its primitive, which is the identity under every transformation.

The first operand is the value; the optional second one is the mask of the units that count, in the value's shape. The
parameters are the name and whether several vertices may share it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, ArrayLike, Bool, Float

OUTPUT = "output"
"""Name of the output's node in `Graph.parents` and `Graph.children`."""

vertex_p = core.Primitive("vertex")
vertex_p.def_impl(lambda value, *mask, **params: value)
vertex_p.def_abstract_eval(lambda value, *mask, **params: value)
ad.deflinear2(vertex_p, lambda cotangent, value, *mask, **params: [cotangent, *(None for _ in mask)])
mlir.register_lowering(vertex_p, lambda context, value, *mask, **params: [value])


def _vertex_batching(arguments, axes, **params):
    sizes = [a.shape[axis] for a, axis in zip(arguments, axes, strict=True) if axis is not None]

    def in_front(argument: jax.Array, axis: int | None) -> jax.Array:
        if axis is None:  # a mask of all rows, or one value under many masks
            return jnp.broadcast_to(argument[None], (sizes[0], *argument.shape))
        return jnp.moveaxis(argument, axis, 0)

    return vertex_p.bind(*map(in_front, arguments, axes), **params), 0


def _vertex_jvp(primals, tangents, **params):
    return vertex_p.bind(*primals, **params), tangents[0]


batching.primitive_batchers[vertex_p] = _vertex_batching
ad.primitive_jvps[vertex_p] = _vertex_jvp

_ARRAY_LIKE = (jax.Array, np.ndarray, np.generic, float, int, complex)


def vertex(value: Float[Array, "..."], name: str, mask: Bool[ArrayLike, "..."] | None = None) -> Float[Array, "..."]:
    """Marks `value` as a vertex called `name`; with a mask, marks only the units that count.

    Outside `capture` this is the identity, also under `jit`, `grad`, `vmap` and their compositions. Use the returned
    array: `capture` refuses a vertex whose result is not used.

    Under `jax.vmap` *inside* the model one vertex holds all the mapped rows, with the mapped axis first. In the
    body of a `jax.lax.scan` each iteration has its own vertex: `name[0]`, `name[1]`, ... in order of evaluation.

    A masked unit behaves as if it were not marked. Readers of the vertex see its incoming value there, and errors pass
    through it. It holds no value (0 is returned for it), has no energy and no error, and does not affect when inference
    stops. Padding therefore changes nothing: a recurrent network that carries its state over padded steps,
    `h = vertex(where(t < length, new, h), name, mask=t < length)`, learns as it does from the sequence without padding.

    Args:
        value: Real floating-point array of any shape.
        name: Unique within the function; `"output"` is reserved.
        mask: True for the units that count, in a shape that broadcasts to the value's: one number for a step of a
            recurrent network, `[time, 1]` for a sequence of vectors. It may depend on the input, such as a length, but
            not on a vertex. None counts all units.

    Returns:
        `value`, unchanged.

    Raises:
        TypeError: If `value` is not a real floating-point array, `name` not a string, or `mask` not boolean.
        ValueError: If `name` is empty or reserved, or the shape of `mask` does not broadcast to the value's.

    Example:
        >>> import jax.numpy as jnp, vicinal as vc
        >>> float(jax.grad(lambda x: vc.vertex(x**2, "square"))(3.0))
        6.0
        >>> def padded(x):
        ...     steps, length = x
        ...     counts = (jnp.arange(3) < length)[:, None]
        ...     return jnp.sum(vc.vertex(2 * steps, "steps", mask=counts), axis=0, where=counts)
        >>> batch = jnp.ones((2, 3, 1)), jnp.array([3, 1])
        >>> graph = vc.capture(padded, (jnp.ones((3, 1)), jnp.array(3)))
        >>> graph.feedforward(padded, batch)[1]["steps"][..., 0].tolist()
        [[2.0, 2.0, 2.0], [2.0, 0.0, 0.0]]
    """
    return bind_vertex(value, name, mask)


def bind_vertex(value: Any, name: Any, mask: Any = None, *, repeats: bool = False) -> Array:
    """As `vertex`; with `repeats`, several vertices may share the name and are numbered as in a loop."""
    if not isinstance(name, str):
        raise TypeError(f"expected the vertex's name as a string, got {type(name).__name__}; write vertex(value, name)")
    if not name or name == OUTPUT:
        raise ValueError(f"expected a vertex name other than '' and '{OUTPUT}', got {name!r}; choose another name")
    dtype = jnp.result_type(value) if isinstance(value, _ARRAY_LIKE) else None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"expected a real floating-point array at vertex {name!r}, got {dtype or type(value).__name__}; "
            "mark an activity that can hold any real value"
        )
    value = jnp.asarray(value)
    return vertex_p.bind(
        value, *(() if mask is None else (_full_mask(mask, value.shape, name),)), name=name, repeats=repeats
    )


def _full_mask(mask: Any, shape: tuple[int, ...], name: str) -> Bool[Array, "..."]:
    kind = jnp.result_type(mask) if isinstance(mask, (*_ARRAY_LIKE, bool)) else type(mask).__name__
    if kind != jnp.bool_:
        raise TypeError(
            f"expected the mask of vertex {name!r} as booleans, True for what counts, got {kind}; "
            "compare something, as in mask=jnp.arange(time) < length"
        )
    mask = jnp.asarray(mask)
    try:
        fits = jnp.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"expected the mask of vertex {name!r} in a shape that broadcasts to the value's, {list(shape)}, got "
            f"{list(mask.shape)}; give a mask of steps an axis for their units, mask[:, None]"
        )
    return jnp.broadcast_to(mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape), shape)
