"""Values of a traced program, and the products among them: of a stored array with vectors, or of two activities."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from jax.extend import core

from vicinal._stored import Stored, shape_of


@dataclasses.dataclass(frozen=True)
class Product:
    """One product of two arrays.

    Attributes:
        macs: Multiplications that end in a sum.
        stored: The array among the two that holds a parameter, if one does.
        combined: The parameters that one of the two is made of, if it holds none of them as it is.
        vectors: Vectors that the stored array multiplies; for a convolution, positions of the result.
        senders: For a convolution, positions of what is multiplied; otherwise `vectors`.
        matrix: What the product with one vector sums over, and what it returns.
        contracted: The axes of the parameter that are summed over.
        window: Places in the window of a convolution, which are part of what its product sums over.
    """

    macs: int
    stored: Stored | None = None
    combined: frozenset[str] = frozenset()
    vectors: int = 0
    senders: int = 0
    matrix: tuple[int, int] = (0, 0)
    contracted: frozenset[int] = frozenset()
    window: int = 1


@dataclasses.dataclass(eq=False, slots=True)
class Value:
    """One value of the program.

    Attributes:
        shape: Its shape.
        operation: The name of the primitive that made it.
        parents: The values that it is made of.
        given: Whether it depends on the batch or a key.
        sources: The parameters that it is made of, if it is not given.
        stored: The parameter that it holds in some arrangement.
        product: The product that made it.
        depth: The reads on the longest chain that leads to it.
        times: How often it is made.
    """

    shape: tuple[int, ...]
    operation: str = ""
    parents: tuple["Value", ...] = ()
    given: bool = False
    sources: frozenset[str] = frozenset()
    stored: Stored | None = None
    product: Product | None = None
    depth: int = 0
    times: int = 1

    @property
    def size(self) -> int:
        """The number of its entries."""
        return math.prod(self.shape)


def multiplied(eqn: core.JaxprEqn, operands: Sequence[Value]) -> Product | None:
    """Describes the product that an equation takes; None if it takes none."""
    name, out = eqn.primitive.name, shape_of(eqn.outvars[0])
    if name == "dot_general":
        return _dot(eqn.params["dimension_numbers"], out, *operands)
    if name == "conv_general_dilated":
        numbers = eqn.params["dimension_numbers"]
        to, into, *window = numbers.rhs_spec
        return _convolution(eqn.params, out, operands, numbers.lhs_spec[2:], (into, to, window), numbers.out_spec[2:])
    if name == "canonical_convolution":
        space = list(range(1, len(out) - 1))
        kernel = len(out) - 2, len(out) - 1, list(range(len(out) - 2))
        return _convolution(eqn.params, out, operands, space, kernel, space)
    if name == "reduce_sum" and operands[0].operation == "mul":
        return _scaled_and_summed(eqn.params["axes"], *operands[0].parents)
    return None


def _dot(numbers: Any, out: Sequence[int], left: Value, right: Value) -> Product:
    summed, summed_right = numbers[0]
    macs = math.prod(out) * _size(left.shape, summed)
    if (left.stored is None) == (right.stored is None):
        return Product(macs, combined=_combined(left, right))
    if left.stored is not None:
        return _read(macs, left, summed) or Product(macs, combined=_combined(left, right))
    return _read(macs, right, summed_right) or Product(macs, combined=_combined(left, right))


def _read(macs: int, value: Value, summed: Sequence[int]) -> Product | None:
    """The product of what a value stores with vectors: all that is not an axis of the parameter repeats it."""
    axes = () if value.stored is None else value.stored.axes
    rows = _size(value.shape, [i for i in summed if axes[i]])
    columns = _size(value.shape, [i for i, axis in enumerate(axes) if axis and i not in summed])
    contracted = frozenset().union(*(axes[i] for i in summed))
    if not contracted or not rows * columns:
        return None
    vectors = macs // (rows * columns)
    return Product(macs, value.stored, frozenset(), vectors, vectors, (rows, columns), contracted)


def _convolution(
    params: Any,
    out: Sequence[int],
    operands: Sequence[Value],
    space: Sequence[int],
    kernel: tuple[int, int, Sequence[int]],
    out_space: Sequence[int],
) -> Product:
    x, weight = operands
    into, to, window = kernel
    macs = math.prod(out) * weight.size // max(1, weight.shape[to])
    if weight.stored is None or x.stored is not None or not weight.size:
        return Product(macs, combined=_combined(x, weight))
    examples = math.prod(out) // (_size(out, out_space) * weight.shape[to])
    senders, receivers = (examples * _size(*pair) for pair in ((x.shape, space), (out, out_space)))
    vectors = senders if any(by > 1 for by in params["lhs_dilation"]) else receivers
    places = _size(weight.shape, window)
    matrix, contracted = (weight.shape[into] * places, weight.shape[to]), weight.stored.axes[into]
    return Product(macs, weight.stored, frozenset(), vectors, senders, matrix, contracted, places)


def _scaled_and_summed(summed: Sequence[int], left: Value, right: Value) -> Product | None:
    """A product with a parameter that is written as `sum(weights * x)`."""
    if (left.stored is None) == (right.stored is None) or len(left.shape) != len(right.shape):
        return None
    value, other = (left, right) if left.stored is not None else (right, left)
    axes = () if value.stored is None else value.stored.axes
    own = {i for i, axis in enumerate(axes) if axis and value.shape[i] > 1}
    if any(other.shape[i] > 1 for i in own - {*summed}) or not own & {*summed} or not own - {*summed}:
        return None
    whole = math.prod(max(a, b) for a, b in zip(value.shape, other.shape, strict=True))
    return _read(whole, value, [i for i in summed if i in own])


def is_outer(value: Value) -> bool:
    """Whether a value is a product of two activities, entry by entry or as a sum of such products."""
    if value.product is not None:
        return value.product.stored is None and not value.product.combined
    if value.operation != "mul" or not all(parent.given for parent in value.parents):
        return False
    sizes = [_before_copies(parent).size for parent in value.parents]
    return all(1 < size < value.size for size in sizes)


def outer_products(gradient: Value) -> list[Value]:
    """The products of activities that a gradient is a sum of, however they are scaled, cut, joined and rearranged."""
    found, seen, pending = [], {id(gradient)}, [(gradient, gradient.size)]
    while pending:
        value, least = pending.pop()
        if value.product is not None or is_outer(value):
            found += [value] if is_outer(value) else []
            continue
        for parent in value.parents:
            enough = min(least, max(parent.size, 2)) if value.operation in _JOINED else least
            if parent.given and parent.stored is None and parent.size >= enough and id(parent) not in seen:
                seen.add(id(parent))
                pending.append((parent, enough))
    return found


_JOINED = {"stack", "concatenate", "pad", "dynamic_update_slice", "scatter", "scatter-add", "scatter_add"}


def _combined(left: Value, right: Value) -> frozenset[str]:
    return left.sources | right.sources


def _before_copies(value: Value) -> Value:
    return value.parents[0] if value.operation == "broadcast_in_dim" else value


def _size(shape: Sequence[int], axes: Sequence[int]) -> int:
    return math.prod(shape[i] for i in axes)
