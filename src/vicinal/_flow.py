"""Values that flow through a traced program, each named once: a run of the program on names in place of numbers.

Loops take each of their turns, so that a scan of `T` steps is the same as `T` steps written one after another. The same
operation on the same values is one value (`merge`), wherever in the program it stands.
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from jax.extend import core

from vicinal._products import Value, multiplied, outer_products
from vicinal._slicing import PRODUCTS, Slice, Step, hides_a_product, scan_parts
from vicinal._stored import Stored, dtype_of, rearranged, shape_of

LONGEST = 1000
"""The turns of a loop that are taken one by one; in a longer loop the one in the middle stands for the others."""


class UnknownTurns(ValueError):
    """A `while` with products in its body, and nobody said how many turns it takes."""


class Flow:
    """A run of a sliced program on names.

    Args:
        turns: The turns that every `while` takes; None to refuse a `while` with products in its body.
        merge: Whether the same operation on the same values is one value.

    Attributes:
        products: The values that are products, in order.
        changed: The arrays that a loop changes as it runs, and for each turn the outer products that it adds.
        unseen: The names of operations on what is given that hide a product.
    """

    def __init__(self, turns: int | None = None, merge: bool = True):
        self.products: list[Value] = []
        self.changed: list[tuple[Stored, list[Value]]] = []
        self.unseen: set[str] = set()
        self._turns, self._merge = turns, merge
        self._known: dict[Hashable, list[Value]] = {}
        self._added: list[Hashable] = []
        self._signatures: dict[int, Hashable] = {}
        self._times = 1

    def run(self, part: Slice, inputs: Sequence[Value]) -> list[Value]:
        """Runs a program on values and returns its outputs."""
        jaxpr = part.jaxpr
        known: dict[Any, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, part.constants, strict=True):
            known[variable] = self._once(("constant", id(constant)), shape_of(variable))

        def of(atom: Any) -> Value:
            if isinstance(atom, core.Literal):
                return self._once(("literal", str(atom.val), dtype_of(atom)), shape_of(atom))
            return known[atom] if atom in known else self._once("not needed", shape_of(atom))

        for step in part.steps:
            given = [of(atom) for atom in step.equation.invars]
            known.update(zip(step.equation.outvars, self._apply(step, given), strict=True))
        return [of(atom) for atom in jaxpr.outvars]

    def _once(self, key: Hashable, shape: tuple[int, ...]) -> Value:
        if key not in self._known:
            self._known[key] = [Value(tuple(shape))]
        return self._known[key][0]

    def _apply(self, step: Step, given: list[Value]) -> list[Value]:
        eqn, name = step.equation, step.equation.primitive.name
        if name == "scan":
            return self._scan(step, given)
        if name == "while":
            return self._while(step, given)
        if name == "cond":
            return self._dearest([lambda b=branch: self.run(b, given[1:]) for branch in step.inner])
        if step.inner:
            return self.run(step.inner[0], given)
        if name in _IDENTITIES or (name == "convert_element_type" and _keeps_type(eqn)):
            return given[: len(eqn.outvars)]
        key = (name, self._signature(eqn), tuple(map(id, given)))
        if not self._merge and name in (*PRODUCTS, "reduce_sum"):
            key = (*key, len(self._added))
        if key not in self._known:
            self._known[key] = self._operation(eqn, given)
            self._added.append(key)
        return self._known[key]

    def _signature(self, eqn: core.JaxprEqn) -> Hashable:
        if id(eqn) not in self._signatures:
            found: Hashable = tuple(sorted(eqn.params.items()))
            try:
                hash(found)
            except TypeError:
                found = id(eqn)
            self._signatures[id(eqn)] = found
        return self._signatures[id(eqn)]

    def _operation(self, eqn: core.JaxprEqn, given: list[Value]) -> list[Value]:
        name, is_given = eqn.primitive.name, any(value.given for value in given)
        common: dict[str, Any] = {
            "operation": name,
            "parents": tuple(given),
            "given": is_given,
            "sources": frozenset() if is_given else frozenset().union(*(value.sources for value in given)),
            "depth": max((value.depth for value in given), default=0),
        }
        made = [Value(shape_of(v), **common, times=self._times) for v in eqn.outvars]
        product = multiplied(eqn, given)
        if product is not None:
            made[0].product = product
            made[0].depth += product.stored is not None
            self.products.append(made[0])
            return made
        if name == _REPEATED and given[0].product is not None:
            given[0].times *= eqn.params["times"]
            made[0].depth += eqn.params["times"] - 1
            return made
        if is_given and hides_a_product(eqn):
            self.unseen.add(name)
        holder = next((value for value in given if value.stored is not None), None)
        if holder is not None and holder.stored is not None and not any(v.given for v in given if v is not holder):
            made[0].stored = rearranged(name, eqn.params, holder.stored, holder.shape, made[0].shape)
        return made

    # ---------------------------------------------------------------------------------------------------------- loops

    def _scan(self, step: Step, given: list[Value]) -> list[Value]:
        params, (body,) = step.equation.params, step.inner
        (consts, carries), length = scan_parts(step.equation), params["length"]
        fixed, carry, rows = given[:consts], given[consts : consts + carries], given[consts + carries :]
        stacked: list[list[Value]] = [[] for _ in step.equation.outvars[carries:]]

        def turn(carry: list[Value], t: int) -> list[Value]:
            place = length - 1 - t if params["reverse"] else t
            out = self.run(body, [*fixed, *carry, *(self._row(value, place) for value in rows)])
            for values, value in zip(stacked, out[carries:], strict=True):
                values.append(value)
            return out[:carries]

        carry = self._turn(turn, carry, length)
        return [*carry, *(_together((length, *v[0].shape) if v else (0,), "stack", v) for v in stacked)]

    def _row(self, value: Value, place: int) -> Value:
        key = ("row", id(value), place)
        if key not in self._known:
            stored = None if value.stored is None else value.stored.row(place)
            row = dataclasses.replace(
                value, shape=value.shape[1:], operation="row", parents=(value,), stored=stored, product=None
            )
            self._known[key] = [row]
        return self._known[key][0]

    def _while(self, step: Step, given: list[Value]) -> list[Value]:
        condition, body = step.inner
        first, consts = step.equation.params["cond_nconsts"], step.equation.params["body_nconsts"]
        fixed, carry = given[first : first + consts], given[first + consts :]

        def turn(carry: list[Value], t: int) -> list[Value]:
            del t
            self.run(condition, [*given[:first], *carry])
            return self.run(body, [*fixed, *carry])

        if self._turns is not None:
            return self._turn(turn, carry, self._turns)
        before = self._mark()
        turn(carry, 0)
        if any(value.given for value in self.products[before[0] :]):
            raise UnknownTurns(
                "expected loops of known length, got a while loop with products in its body, which stops when its "
                "values say so; give the turns that it takes (turns=, or --turns on the command line: the mean of "
                "Info.steps, measured on data), or leave out the tolerance"
            )
        self._forget(before)
        return [_together(value.shape, "while", given) for value in carry]

    def _turn(self, turn: Callable[[list[Value], int], list[Value]], carry: list[Value], length: int) -> list[Value]:
        """Takes the turns of a loop. In a long one, the turn in the middle counts for all that are left out."""
        left_out = max(0, length - LONGEST)
        for t in range(length - left_out):
            times, middle = self._times, left_out and t == LONGEST // 2
            self._times *= 1 + left_out if middle else 1
            new, self._times = turn(carry, t), times
            if middle:
                grown = [max(0, b.depth - a.depth) for a, b in zip(carry, new, strict=True)]
                new = [
                    dataclasses.replace(v, depth=v.depth + left_out * g) if g else v
                    for v, g in zip(new, grown, strict=True)
                ]
            carry = [self._kept(a, b) for a, b in zip(carry, new, strict=True)]
        return carry

    def _kept(self, before: Value, after: Value) -> Value:
        """An array that is changed in a turn of a loop is still that array."""
        stored = before.stored
        if stored is None or after.stored is not None or before.shape != after.shape or not all(stored.axes):
            return after
        self.changed.append((stored, outer_products(after)))
        return dataclasses.replace(after, stored=stored)

    def _dearest(self, branches: list[Callable[[], list[Value]]]) -> list[Value]:
        """Takes the branch with the most multiplications."""
        before, costs = self._mark(), []
        for branch in branches:
            branch()
            made = self.products[before[0] :]
            costs.append(sum(v.product.macs * v.times for v in made if v.product is not None))
            self._forget(before)
        return branches[costs.index(max(costs))]()

    def _mark(self) -> tuple[int, int, int]:
        return len(self.products), len(self.changed), len(self._added)

    def _forget(self, mark: tuple[int, int, int]) -> None:
        """Takes back what was found since a mark."""
        del self.products[mark[0] :], self.changed[mark[1] :]
        for key in self._added[mark[2] :]:
            del self._known[key]
        del self._added[mark[2] :]


def _together(shape: tuple[int, ...], operation: str, values: Sequence[Value]) -> Value:
    """A value that may depend on all of some others."""
    given = any(value.given for value in values)
    sources = frozenset() if given else frozenset().union(*(value.sources for value in values))
    depth = max((value.depth for value in values), default=0)
    return Value(shape, operation, tuple(values), given, sources, depth=depth)


def _keeps_type(eqn: core.JaxprEqn) -> bool:
    return dtype_of(eqn.invars[0]) == dtype_of(eqn.outvars[0])


_REPEATED = "repeated_read"  # of `vicinal.hardware`: the same product as often as its parameter `times` says
_IDENTITIES = {
    "vertex",
    "stop_gradient",
    "copy",
    "copy_p",
    "pvary",
    "optimization_barrier",
    "device_put",
    "sharding_constraint",
}
