"""Under `graph`: finds the activation functions in a traced program, and replaces their derivatives by 1.

An activation is a non-linear elementwise function of one array: one equation (`tanh`), several (`jax.nn.gelu`,
`x * sigmoid(x)`) or a call (`jax.nn.relu`). Scales after it, elementwise weights before it, and masks do not belong to
it. Exponentials and powers whose results are summed, or that are taken of a sum, are not activations but a softmax or a
normalisation. Jitted functions that also contain a product, and choices among more than two cases, are skipped.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array

_SQUASHING = {"tanh", "logistic", "erf", "erfc", "sin", "cos", "tan", "asinh", "atan"}
_CHOOSING = {"select_n", "lt", "le", "gt", "ge", "eq", "ne", "max", "min", "clamp", "abs", "sign"}
_POWERS = {"exp", "exp2", "log", "log1p", "expm1", "pow", "integer_pow", "square", "sqrt", "rsqrt", "cbrt", "logaddexp"}
_OF_SUMS = {"log", "sqrt", "rsqrt"}
_REARRANGE = {"broadcast_in_dim", "reshape", "squeeze", "expand_dims"}
_AFFINE = {"add", "sub", "mul", "div", "neg", "copy", "convert_element_type"}
_ELEMENTWISE = (
    _SQUASHING
    | _CHOOSING
    | _POWERS
    | _AFFINE
    | {
        "broadcast_in_dim",
        "stop_gradient",
        "is_finite",
        "not",
        "and",
        "or",
        "erf_inv",
        "sinh",
        "cosh",
        "acosh",
        "atanh",
    }
)


def without_derivatives(
    program: core.Jaxpr, indices: Iterable[int], held: Iterable[core.Var], outputs: Iterable[Any]
) -> dict[int, list[core.JaxprEqn]]:
    """Returns replacements of equations, with the same results, under which the derivatives of activations are 1.

    Args:
        program: The program.
        indices: The indices of the equations of one prediction, in order.
        held: The variables that the prediction reads; only functions of these are activations.
        outputs: The prediction.
    """
    eqns = {i: program.eqns[i] for i in indices}
    found = _Functions(eqns, held)
    leaving = _variables(outputs)
    for eqn in eqns.values():
        inside = found.root.get(eqn.outvars[0])
        leaving += [v for v in _variables(eqn.invars) if v in found.root and found.root[v] is not inside]
    changed = {}
    for out in dict.fromkeys(found.bent[v] for v in leaving if v in found.bent):
        if found.is_activation(out):
            start, parts = _after_weights(found.root[out], found.parts(out), found.moving)
            changed[found.maker[out]] = _straight_through(program, parts, start, out)
    return changed


def entered(
    program: core.Jaxpr, indices: Iterable[int], held: Iterable[core.Var], outputs: Iterable[Any]
) -> dict[core.Var, core.Var]:
    """Maps each variable that is read only through one activation to the output of that activation.

    Args:
        program: The program.
        indices: The indices of the equations of all predictions, in order.
        held: The variables that the predictions read.
        outputs: The predictions.
    """
    eqns = {i: program.eqns[i] for i in indices}
    found = _Functions(eqns, held)
    leaving: dict[core.Var, set[core.Var]] = {v: set() for v in held}
    for v in _variables(outputs):
        leaving.get(found.root.get(v, v), set()).add(v)
    for eqn in eqns.values():
        inside = found.root.get(eqn.outvars[0])
        for v in _variables(eqn.invars):
            if (start := found.root.get(v, v)) in leaving and start is not inside:
                leaving[start].add(v)
    ends = {start: next(iter(ends)) for start, ends in leaving.items() if len(ends) == 1}
    return {v: end for v, end in ends.items() if end in found.bent and found.is_activation(found.bent[end])}


class _Functions:
    """The elementwise functions in a list of equations.

    Attributes:
        root: For each variable that is an elementwise function of one array, that array.
        bent: For each variable that is not affine in its root, the last non-linear variable on the way.
        maker: The index of the equation that makes each variable.
        moving: The variables that depend on the held ones.
        summed: The variables that are summed.
        sums: The variables that are sums.
    """

    def __init__(self, eqns: dict[int, core.JaxprEqn], held: Iterable[core.Var]):
        self.eqns = eqns
        self.root: dict[core.Var, core.Var] = {}
        self.bent: dict[core.Var, core.Var] = {}
        self.maker: dict[core.Var, int] = {}
        self.moving: set[core.Var] = set(held)
        self.summed: set[core.Var] = set()
        self.sums: set[core.Var] = set()
        for i, eqn in eqns.items():
            operands = [v for v in dict.fromkeys(_variables(eqn.invars)) if v in self.moving]
            if operands and eqn.primitive.name != "stop_gradient":
                self._follow(i, eqn, operands)

    def _follow(self, i: int, eqn: core.JaxprEqn, operands: list[core.Var]) -> None:
        self.moving.update(eqn.outvars)
        self.maker.update(dict.fromkeys(eqn.outvars, i))
        if _reduces(eqn):
            self.summed.update(operands)
            self.sums.update(eqn.outvars)
        elif eqn.primitive.name in _REARRANGE and operands[0] in self.sums:
            self.sums.update(eqn.outvars)
        roots = {self.root.get(v, v) for v in operands}
        if len(roots) != 1 or not _elementwise(eqn, operands):
            return
        (out,) = eqn.outvars
        self.root[out] = roots.pop()
        if not _is_affine(eqn, operands):
            self.bent[out] = out
        elif operands[0] in self.bent:
            self.bent[out] = self.bent[operands[0]]

    def parts(self, out: core.Var) -> list[core.JaxprEqn]:
        """The equations from the root of a variable to the variable."""
        found, pending = set(), [out]
        while pending:
            v = pending.pop()
            if v is not self.root[out] and v in self.maker and self.maker[v] not in found:
                found.add(self.maker[v])
                pending += _variables(self.eqns[self.maker[v]].invars)
        return [self.eqns[i] for i in sorted(found)]

    def is_activation(self, out: core.Var) -> bool:
        """Whether a non-linear variable is the output of an activation, not part of a softmax or normalisation."""
        root, parts = self.root[out], self.parts(out)
        names = {name for part in parts for name in _names(part)}
        normalises = root in self.sums and bool(names & _OF_SUMS or self._is_spread(out))
        guarded = bool(names & _CHOOSING) and not normalises
        near_sums = not {root, *(part.outvars[0] for part in parts)}.isdisjoint(self.summed | self.sums)
        return bool(names & _SQUASHING) or guarded or not names & _POWERS or not near_sums

    def _is_spread(self, out: core.Var) -> bool:
        """Whether a result is broadcast, as the scale of a normalisation is."""
        return any(
            self.bent.get(v) is out and shape_and_type(eqn.outvars[0]).size > shape_and_type(v).size
            for eqn in self.eqns.values()
            if eqn.primitive.name in _AFFINE | _REARRANGE
            for v in _variables(eqn.invars)
        )


def _after_weights(
    start: core.Var, parts: list[core.JaxprEqn], moving: set[core.Var]
) -> tuple[core.Var, list[core.JaxprEqn]]:
    """The start of an activation: after any weights that scale its array elementwise."""
    while True:
        readers = [part for part in parts if start in _variables(part.invars)]
        others = [v for v in _variables(readers[0].invars) if v is not start]
        scales = readers[0].primitive.name == "mul" or (
            readers[0].primitive.name == "div" and readers[0].invars[0] is start
        )
        if len(readers) > 1 or len(parts) == 1 or not scales or len(others) != 1 or others[0] in moving:
            return start, parts
        start, parts = readers[0].outvars[0], [part for part in parts if part is not readers[0]]


def _straight_through(
    program: core.Jaxpr, parts: Sequence[core.JaxprEqn], start: core.Var, end: core.Var
) -> list[core.JaxprEqn]:
    made = {v for part in parts for v in part.outvars}
    read = dict.fromkeys(v for part in parts for v in _variables(part.invars))
    inputs = [start, *(v for v in read if v not in made and v is not start)]
    unnamed = program.debug_info.with_unknown_names()
    activation = program.replace(constvars=[], invars=inputs, outvars=[end], eqns=list(parts), debug_info=unnamed)
    run = core.jaxpr_as_fun(core.ClosedJaxpr(activation, []))

    @jax.custom_vjp
    def through(*arrays: Array) -> Array:
        return run(*arrays)[0]

    def forward(*arrays: Array) -> tuple[Array, None]:
        return run(*arrays)[0], None

    def backward(_: None, error: Array) -> tuple[Array | None, ...]:
        return error.astype(shape_and_type(start).dtype), *(None for _ in inputs[1:])

    through.defvjp(forward, backward)
    return spliced(through, inputs, [end])


def spliced(function: Callable, inputs: list[core.Var], outputs: list[core.Var]) -> list[core.JaxprEqn]:
    """The equations of a function between given variables of a program."""
    traced = jax.make_jaxpr(function)(*map(shape_and_type, inputs)).jaxpr
    names = dict(zip([*traced.invars, *traced.outvars], [*inputs, *outputs], strict=True))

    def rename(v: core.Var | core.Literal) -> core.Var | core.Literal:
        return v if isinstance(v, core.Literal) else names.get(v, v)

    return [
        eqn.replace(invars=[rename(v) for v in eqn.invars], outvars=[names.get(v, v) for v in eqn.outvars])
        for eqn in traced.eqns
    ]


# ------------------------------------------------------------------------------------------- what an equation does


def _elementwise(eqn: core.JaxprEqn, operands: Sequence[core.Var]) -> bool:
    """Whether each element of the single result depends only on the same element of the operands."""
    if len(eqn.outvars) != 1:
        return False
    shape, shapes = shape_and_type(eqn.outvars[0]).shape, {shape_and_type(v).shape for v in operands}
    inner = _inner(eqn)
    flat = [eqn] if inner is None else _flat(inner)
    sizes = {shape_and_type(v).shape for part in flat for v in part.outvars}
    return shapes == {shape} and sizes <= {(), shape} and _names(eqn) <= _ELEMENTWISE


def _is_affine(eqn: core.JaxprEqn, operands: Sequence[core.Var]) -> bool:
    """Whether an elementwise equation scales, shifts or masks one operand."""
    name, moving = eqn.primitive.name, [v for v in _variables(eqn.invars) if v in operands]
    if not jnp.issubdtype(shape_and_type(eqn.outvars[0]).dtype, jnp.inexact):
        return False
    inner = _inner(eqn)
    if inner is None:
        if len(moving) != 1 or name not in _AFFINE | {"select_n"}:
            return False
        first = eqn.invars[0] is moving[0]
        return first if name == "div" else not first if name == "select_n" else True
    if len(inner.invars) != len(eqn.invars):
        return False
    inside = {own for own, v in zip(inner.invars, eqn.invars, strict=True) if v in moving}
    for part in inner.eqns:
        reads = [v for v in _variables(part.invars) if v in inside]
        if reads and not _is_affine(part, reads):
            return False
        inside.update(part.outvars if reads else ())
    return True


def _reduces(eqn: core.JaxprEqn) -> bool:
    return any(name.startswith(("reduce", "arg", "cum")) for name in _names(eqn))


def _names(eqn: core.JaxprEqn) -> set[str]:
    """The primitives of an equation, including those inside calls."""
    inner = _inner(eqn)
    return {eqn.primitive.name} if inner is None else {part.primitive.name for part in _flat(inner)}


def _flat(jaxpr: core.Jaxpr) -> list[core.JaxprEqn]:
    found = []
    for eqn in jaxpr.eqns:
        inner = _inner(eqn)
        found += [eqn] if inner is None else _flat(inner)
    return found


def _inner(eqn: core.JaxprEqn) -> core.Jaxpr | None:
    for value in eqn.params.values():
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            return value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
    return None


def _variables(atoms: Iterable[Any]) -> list[core.Var]:
    return [v for v in atoms if not isinstance(v, core.Literal)]


def shape_and_type(v: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of a variable."""
    return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
