"""What a traced program asks of the arrays that hold its parameters: reads, and outer products.

A *read* is one product of a stored matrix with one vector. A product with a parameter, however it is transposed, cast
or scaled, is a forward read if it sums over the axes that the model's own product sums over, and a transposed read
otherwise. A product of two activities that becomes the gradient of such a parameter is an outer product.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from jax.extend import core

from vicinal._flow import Flow, UnknownTurns
from vicinal._products import Value, outer_products
from vicinal._slicing import sliced
from vicinal._stored import Part, Stored, shape_of

__all__ = ["Counts", "UnknownTurns", "Use", "count", "forward_pass"]

Orientations = Mapping[str, frozenset[int]]
"""The axes of each parameter that its forward read sums over."""


@dataclasses.dataclass
class Use:
    """What a program asks of one array.

    Attributes:
        path: The path of the parameter.
        part: Usually empty; the place in stacked weights, or a function of the entries that has an array of its own.
        inputs: What a forward read sums over.
        outputs: What it returns.
        forward: Forward reads.
        transposed: Transposed reads.
        outer: Outer products.
    """

    path: str
    part: Part
    inputs: int = 0
    outputs: int = 0
    forward: float = 0.0
    transposed: float = 0.0
    outer: float = 0.0

    @property
    def name(self) -> str:
        """The path, with the place in stacked weights, in the function of it that the array holds."""
        functions = [part for part in self.part if isinstance(part, str)]
        places = "".join(f"[{part}]" for part in self.part if isinstance(part, int))
        return "".join(f"{f}(" for f in reversed(functions)) + self.path + places + ")" * len(functions)


@dataclasses.dataclass(frozen=True)
class Counts:
    """What a program asks of all arrays.

    Attributes:
        uses: One entry for each array, in the order of the parameters.
        depth: The longest chain of reads, each of which needs the one before.
        digital: Multiplications in other products: of two activities, or with a combination of parameters.
        combined: The combinations of parameters that activities are multiplied by.
        unseen: Operations with a product in a program of their own that is not looked into, and calls of the host.
    """

    uses: tuple[Use, ...]
    depth: int
    digital: float
    combined: tuple[tuple[str, ...], ...]
    unseen: tuple[str, ...]


def forward_pass(program: core.ClosedJaxpr, parameters: Sequence[str | None]) -> tuple[dict[str, frozenset[int]], int]:
    """Finds what the model's own products do.

    Args:
        program: The model's program, of a batch.
        parameters: The path of each input that is a parameter, None for the others.

    Returns:
        For every parameter that multiplies an activity, the axes that the first such product sums over: those of its
        forward read. And the multiplications of all reads.
    """
    flow = Flow(turns=1)
    flow.run(sliced(program, [True] * len(program.jaxpr.outvars)), _inputs(program, parameters))
    reads = [value for value in flow.products if _stored_in(value) is not None]
    found: dict[str, frozenset[int]] = {}
    for value in reads:
        if value.product is not None and value.product.stored is not None:
            found.setdefault(value.product.stored.path, value.product.contracted)
    return found, sum(map(_macs, reads))


def count(
    program: core.ClosedJaxpr,
    parameters: Sequence[str | None],
    gradients: Sequence[str | None],
    forward: Orientations,
    *,
    turns: int | None = None,
    merge: bool = True,
) -> Counts:
    """Counts the reads and the outer products that lead to a gradient.

    Args:
        program: The traced program.
        parameters: For each input, the path of the array that it is; None if it is data.
        gradients: For each output, the path of the parameter whose gradient it is; None if it is no gradient.
        forward: From `forward_pass`, and of other arrays that outer products may change. What is not in it is taken to
            be stored `[outputs, inputs]`.
        turns: The turns that every `while` takes; None refuses one with products in its body.
        merge: Whether the same product of the same two values is taken once.

    Returns:
        The counts, for the whole batch.

    Raises:
        UnknownTurns: If a `while` with products has no known number of turns.
    """
    wanted, inputs = [path is not None for path in gradients], _inputs(program, parameters)
    flow = Flow(turns=turns, merge=merge)
    outputs = flow.run(sliced(program, wanted), inputs)
    shapes = {path: value.shape for path, value in zip(parameters, inputs, strict=True) if path is not None}
    tally = _Tally(shapes, forward)
    for value in flow.products:
        tally.read(value)
    outer = set()
    for stored, products in flow.changed:
        outer |= tally.written(stored.path, products if tally.reads(stored.path) else [])
    for path, value in zip(gradients, outputs, strict=True):
        if path is not None:
            outer |= tally.written(path, outer_products(value))
    rest = [value for value in flow.products if _stored_in(value) is None and id(value) not in outer]
    combined = {tuple(sorted(v.product.combined)) for v in rest if v.product is not None and v.given}
    return Counts(
        tally.sorted(),
        max((value.depth for value, want in zip(outputs, wanted, strict=True) if want), default=0),
        float(sum(_macs(value) for value in rest)),
        tuple(sorted(combined - {()})),
        tuple(sorted(flow.unseen)),
    )


class _Tally:
    """The uses of all arrays so far."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], forward: Orientations):
        self._shapes, self._forward = shapes, forward
        self._uses: dict[tuple[str, Part], Use] = {}

    def sorted(self) -> tuple[Use, ...]:
        order = {path: i for i, path in enumerate(self._shapes)}
        return tuple(sorted(self._uses.values(), key=lambda use: (order[use.path], str(use.part))))

    def read(self, value: Value) -> None:
        stored, product = _stored_in(value), value.product
        if stored is None or product is None:
            return
        use = self._use(stored.path, stored.part)
        if product.contracted & self._summed(stored.path):
            use.forward += product.vectors * value.times
            use.inputs, use.outputs = product.matrix
        else:
            use.transposed += product.senders * value.times
            if not use.forward:  # a patch is part of the inputs, also where errors go back to it
                use.outputs, use.inputs = product.matrix[0] // product.window, product.matrix[1] * product.window

    def reads(self, path: str) -> bool:
        return any(use.path == path for use in self._uses.values())

    def written(self, path: str, products: Sequence[Value]) -> set[int]:
        """Adds the outer products of a change to an array, and returns which values they are."""
        own = [use for use in self._uses.values() if use.path == path]
        if path in self._forward and not own:  # it is only written to, such as feedback to the input
            own = [self._use(path, ())]
        for use in own:
            if any(isinstance(part, str) for part in use.part):
                continue  # the array of their signs, for one, follows the array itself
            entries = math.prod(self._shapes[path])
            use.outer += sum(map(_macs, products)) / entries
            if not use.inputs:
                use.inputs = math.prod(self._shapes[path][axis] for axis in self._summed(path))
                use.outputs = entries // max(1, use.inputs)
        return set(map(id, products)) if own else set()

    def _use(self, path: str, part: Part) -> Use:
        return self._uses.setdefault((path, part), Use(path, part))

    def _summed(self, path: str) -> frozenset[int]:
        return self._forward.get(path, frozenset(range(1, len(self._shapes[path]))))


def _inputs(program: core.ClosedJaxpr, parameters: Sequence[str | None]) -> list[Value]:
    found = []
    for path, variable in zip(parameters, program.jaxpr.invars, strict=True):
        shape = shape_of(variable)
        if path is None:
            found.append(Value(shape, given=True))
        else:
            stored = Stored.whole(path, len(shape)) if len(shape) > 1 else None
            found.append(Value(shape, sources=frozenset([path]), stored=stored))
    return found


def _stored_in(value: Value) -> Stored | None:
    return None if value.product is None else value.product.stored


def _macs(value: Value) -> int:
    return (value.size if value.product is None else value.product.macs) * value.times
