"""Under `graph`: convolutions in the layout that XLA for CPUs compiles well inside loops.

XLA for CPUs converts a convolution to the layout of its fast kernel (channels last) only in the outermost program.
Inside a loop, where training and inference run, it compiles any other layout to nested scalar loops, some twenty times
slower. Graphs therefore write convolutions and their derivatives in that layout. This needs a primitive of its own,
because JAX's derivative of a convolution changes the layout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from vicinal._activations import shape_and_type, spliced


def canonical(eqn: core.JaxprEqn) -> list[core.JaxprEqn] | None:
    """The equations of a convolution in the canonical layout; None if it is grouped or not a convolution."""
    if eqn.primitive.name != "conv_general_dilated":
        return None
    params, out = eqn.params, shape_and_type(eqn.outvars[0])
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1 or 0 in out.shape:
        return None
    if params["preferred_element_type"] not in (None, out.dtype) or _differ(eqn.invars):
        return None
    numbers = params["dimension_numbers"]
    settings = {name: tuple(params[name]) for name in ("window_strides", "lhs_dilation", "rhs_dilation")}

    def run(x: Array, kernel: Array) -> Array:
        batch, channels, *space = numbers.lhs_spec
        out, into, *window = numbers.rhs_spec
        last = convolution_p.bind(
            jnp.transpose(x, (batch, *space, channels)),
            jnp.transpose(kernel, (*window, into, out)),
            padding=tuple(map(tuple, params["padding"])),
            precision=params["precision"],
            **settings,
        )
        batch, channels, *space = numbers.out_spec
        places = {batch: 0, channels: last.ndim - 1} | {axis: i for i, axis in enumerate(space, 1)}
        return jnp.transpose(last, [places[axis] for axis in range(last.ndim)])

    inputs: list[Any] = list(eqn.invars)
    return spliced(run, inputs, list(eqn.outvars))


def laid_out(function: Callable[[Array], Array], x: Array) -> Callable[[Array], Array]:
    """A function of one array, traced at `x`, with its convolutions in the canonical layout."""
    closed = jax.make_jaxpr(function)(x)
    eqns = [part for eqn in closed.jaxpr.eqns for part in canonical(eqn) or [eqn]]
    unnamed = closed.jaxpr.debug_info.with_unknown_names()
    run = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr.replace(eqns=eqns, debug_info=unnamed), closed.consts))
    return lambda x: run(x)[0]


def _differ(inputs: Sequence[Any]) -> bool:
    return any(isinstance(v, core.Literal) for v in inputs) or len({v.aval.dtype for v in inputs}) > 1


# ------------------------------------------------------------------------------------------------- the primitive

convolution_p = core.Primitive("canonical_convolution")
"""`[batch, *space, channels] * [*window, channels in, channels out] -> [batch, *space, channels out]`."""


def _convolve(x: Array, kernel: Array, *, padding: Any, **settings: Any) -> Array:
    order = "".join(str(i) for i in range(x.ndim - 2))
    numbers = (f"N{order}C", f"{order}IO", f"N{order}C")
    return jax.lax.conv_general_dilated(x, kernel, padding=padding, dimension_numbers=numbers, **settings)


def _abstract(x: Any, kernel: Any, **settings: Any) -> Any:
    shape = jax.eval_shape(lambda a, b: _convolve(a, b, **settings), _struct(x), _struct(kernel)).shape
    return x.update(shape=shape)


def _struct(aval: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype)


def _dilated(length: int, by: int) -> int:
    return 0 if length == 0 else 1 + by * (length - 1)


def _lengths(x: Any, kernel: Any, out: Any, settings: dict[str, Any]) -> list[tuple[int, ...]]:
    """For each spatial axis, the dilated lengths of input, window and output, and the padding before."""
    dilations = settings["lhs_dilation"], settings["rhs_dilation"], settings["window_strides"]
    shapes = x[1:-1], kernel[:-2], out[1:-1]
    lengths = [[_dilated(n, d) for n, d in zip(*pair, strict=True)] for pair in zip(shapes, dilations, strict=True)]
    return list(zip(*lengths, [before for before, _ in settings["padding"]], strict=True))


def _shape(value: Any) -> tuple[int, ...]:
    """The shape of a value in a transposition, known or not."""
    return (value.aval if hasattr(value, "aval") else jax.typeof(value)).shape


def _to_input(error: Array, x: Any, kernel: Array, **settings: Any) -> Array:
    padding = []
    for data, window, out, before in _lengths(_shape(x), _shape(kernel), error.shape, settings):
        start = window - before - 1
        padding.append((start, data + window - 1 - out - start))
    flipped = jnp.flip(kernel, tuple(range(kernel.ndim - 2))).swapaxes(-1, -2)
    return convolution_p.bind(
        error,
        flipped,
        padding=tuple(padding),
        precision=settings["precision"],
        window_strides=settings["lhs_dilation"],
        lhs_dilation=settings["window_strides"],
        rhs_dilation=settings["rhs_dilation"],
    )


def _to_kernel(error: Array, x: Array, kernel: Any, **settings: Any) -> Array:
    lengths = _lengths(_shape(x), _shape(kernel), error.shape, settings)
    padding = [(before, out - data + window - before - 1) for data, window, out, before in lengths]
    product = convolution_p.bind(
        x.swapaxes(0, -1),  # channels in as batch, examples as channels
        jnp.moveaxis(error, 0, -2),
        padding=tuple(padding),
        precision=settings["precision"],
        window_strides=settings["rhs_dilation"],
        lhs_dilation=settings["lhs_dilation"],
        rhs_dilation=settings["window_strides"],
    )
    return jnp.moveaxis(product, 0, -2)


def _batched(arguments: Sequence[Array], axes: Sequence[int | None], **settings: Any) -> tuple[Array, int]:
    (x, kernel), (axis, of_kernel) = arguments, axes
    if axis is None or of_kernel is not None:  # a kernel for each: as JAX does it
        return jax.vmap(lambda a, b: _convolve(a, b, **settings), (axis, of_kernel))(x, kernel), 0
    x = jnp.moveaxis(x, axis, 0)
    out = convolution_p.bind(x.reshape(-1, *x.shape[2:]), kernel, **settings)
    return out.reshape(*x.shape[:2], *out.shape[1:]), 0


convolution_p.def_impl(
    jax.jit(_convolve, static_argnames=("padding", "precision", "window_strides", "lhs_dilation", "rhs_dilation"))
)
convolution_p.def_abstract_eval(_abstract)
ad.defbilinear(convolution_p, _to_input, _to_kernel)
batching.primitive_batchers[convolution_p] = _batched
mlir.register_lowering(convolution_p, mlir.lower_fun(_convolve, multiple_results=False))
