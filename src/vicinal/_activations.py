"""Under `graph`: the activation functions in a traced program, and how to leave out their derivatives.

An activation is a non-linear function of one array, element by element, whatever it is written with: one equation
(`tanh`), several (`jax.nn.gelu`, `x * sigmoid(x)`) or a call (`jax.nn.relu`). A scale after it is no part of it, nor is
a weight that multiplies the array before it, nor a mask. Exponentials and powers are none where a sum is taken of them
or they are taken of a sum: that is a softmax or a normalisation. A jitted function that holds a product as well is not
looked into, nor is a choice among more than two cases.
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
    """Equations to put in place of some of a program's, with the same results: activations' derivatives become 1.

    Args:
        program: The program.
        indices: Of the equations of one prediction, in order.
        held: What it is taken from: activations are functions of what depends on these.
        outputs: Its results.
    """
    eqns = {i: program.eqns[i] for i in indices}
    root: dict[core.Var, core.Var] = {}  # of what is a function, element by element, of one array: that array
    bent: dict[core.Var, core.Var] = {}  # of what is an activation, or affine in one: the activation
    moving, maker = set(held), {}
    summed, sums = set(), set()  # what a sum is taken of, and what is one
    for i, eqn in eqns.items():
        operands = [v for v in dict.fromkeys(_variables(eqn.invars)) if v in moving]
        if not operands or eqn.primitive.name == "stop_gradient":
            continue
        moving.update(eqn.outvars)
        maker.update(dict.fromkeys(eqn.outvars, i))
        if _reduces(eqn):
            summed.update(operands)
            sums.update(eqn.outvars)
        elif eqn.primitive.name in _REARRANGE and operands[0] in sums:
            sums.update(eqn.outvars)
        roots = {root.get(v, v) for v in operands}
        if len(roots) != 1 or not _elementwise(eqn, operands):
            continue
        (out,) = eqn.outvars
        root[out] = roots.pop()
        if not _is_affine(eqn, operands):
            bent[out] = out
        elif operands[0] in bent:
            bent[out] = bent[operands[0]]
    leaving = _variables(outputs)
    for eqn in eqns.values():
        inside = root.get(eqn.outvars[0])
        leaving += [v for v in _variables(eqn.invars) if v in root and root[v] is not inside]
    changed = {}
    for out in dict.fromkeys(bent[v] for v in leaving if v in bent):
        start, parts = _after_weights(root[out], _between(eqns, maker, root[out], out), moving)
        names = {name for part in parts for name in _names(part)}
        region = {root[out], *(part.outvars[0] for part in parts)}
        normalises = root[out] in sums and bool(names & _OF_SUMS or _spread(eqns.values(), bent, out))
        guarded = bool(names & _CHOOSING) and not normalises
        if names & _SQUASHING or guarded or not names & _POWERS or not region & (summed | sums):
            changed[maker[out]] = _straight_through(program, parts, start, out)
    return changed


def _after_weights(
    start: core.Var, parts: list[core.JaxprEqn], moving: set[core.Var]
) -> tuple[core.Var, list[core.JaxprEqn]]:
    """Where an activation begins: after the weights that scale its array element by element, if any do."""
    while True:
        readers = [part for part in parts if start in _variables(part.invars)]
        others = [v for v in _variables(readers[0].invars) if v is not start]
        scales = readers[0].primitive.name == "mul" or (
            readers[0].primitive.name == "div" and readers[0].invars[0] is start
        )
        if len(readers) > 1 or len(parts) == 1 or not scales or len(others) != 1 or others[0] in moving:
            return start, parts
        start, parts = readers[0].outvars[0], [part for part in parts if part is not readers[0]]


def _spread(eqns: Iterable[core.JaxprEqn], bent: dict[core.Var, core.Var], out: core.Var) -> bool:
    """Whether a result is written to several elements, as the scale of a normalisation is."""
    return any(
        bent.get(v) is out and shape_and_type(eqn.outvars[0]).size > shape_and_type(v).size
        for eqn in eqns
        if eqn.primitive.name in _AFFINE | _REARRANGE
        for v in _variables(eqn.invars)
    )


def _between(eqns: dict[int, core.JaxprEqn], maker: dict[core.Var, int], start: core.Var, end: core.Var) -> list:
    """The equations that lead from one variable to another."""
    found, pending = set(), [end]
    while pending:
        v = pending.pop()
        if v is not start and v in maker and maker[v] not in found:
            found.add(maker[v])
            pending += _variables(eqns[maker[v]].invars)
    return [eqns[i] for i in sorted(found)]


def _straight_through(
    program: core.Jaxpr, parts: Sequence[core.JaxprEqn], start: core.Var, end: core.Var
) -> list[core.JaxprEqn]:
    made = {v for part in parts for v in part.outvars}
    read = dict.fromkeys(v for part in parts for v in _variables(part.invars))
    inputs = [start, *(v for v in read if v not in made and v is not start)]
    unnamed = program.debug_info.with_unknown_names()
    alone = program.replace(constvars=[], invars=inputs, outvars=[end], eqns=list(parts), debug_info=unnamed)
    run = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))

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
    """The equations of a function, written between given variables of a program."""
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
    """Whether each element of the one result depends on the same element of the operands alone."""
    if len(eqn.outvars) != 1:
        return False
    shape, shapes = shape_and_type(eqn.outvars[0]).shape, {shape_and_type(v).shape for v in operands}
    inner = _inner(eqn)
    flat = [eqn] if inner is None else _flat(inner)
    sizes = {shape_and_type(v).shape for part in flat for v in part.outvars}
    return shapes == {shape} and sizes <= {(), shape} and _names(eqn) <= _ELEMENTWISE


def _is_affine(eqn: core.JaxprEqn, operands: Sequence[core.Var]) -> bool:
    """Of an elementwise equation: whether it scales, shifts or masks one operand."""
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
    """The primitives of an equation, calls opened."""
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
    """Of a variable."""
    return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype)
