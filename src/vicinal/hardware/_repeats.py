"""Marks a product that an array takes several times, for the ledger: the program itself takes it once."""

from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

repeated_p = core.Primitive("repeated_read")
repeated_p.def_impl(lambda product, *, times: product)
repeated_p.def_abstract_eval(lambda product, *, times: product)
ad.deflinear2(repeated_p, lambda cotangent, product, *, times: [cotangent])
batching.primitive_batchers[repeated_p] = lambda arguments, axes, *, times: (
    repeated_p.bind(*arguments, times=times),
    axes[0],
)
mlir.register_lowering(repeated_p, lambda context, product, *, times: [product])


def repeated(product: Array, times: int) -> Array:
    """The same product, which `vicinal._flow` counts as so many reads, one after another."""
    return repeated_p.bind(product, times=times)
