"""The part of a traced program that some of its outputs need, through all nested programs.

A loop carries what its own body needs: a carry is kept if an output needs it, or another kept carry, to a fixed point.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.extend import core

PRODUCTS = {"dot_general", "conv_general_dilated", "canonical_convolution"}
"""The primitives that multiply arrays and sum."""


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """An equation that is needed.

    Attributes:
        equation: The equation.
        needs: Which of its inputs are needed.
        inner: Its nested programs, cut in the same way: the body of a call or a scan, condition and body of a `while`,
            the branches of a `cond`. Empty for an operation.
    """

    equation: core.JaxprEqn
    needs: tuple[bool, ...]
    inner: tuple["Slice", ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """A program without what is not needed.

    Attributes:
        jaxpr: The program.
        constants: The values of its constants.
        steps: The equations that are needed, in order.
        needs: Which of its inputs are needed.
    """

    jaxpr: core.Jaxpr
    constants: Sequence[Any]
    steps: tuple[Step, ...]
    needs: tuple[bool, ...]


def sliced(program: core.ClosedJaxpr | core.Jaxpr, wanted: Sequence[bool]) -> Slice:
    """Cuts a program down to what some of its outputs need.

    Args:
        program: The program.
        wanted: Which outputs are wanted.

    Returns:
        The part of the program that is needed.
    """
    jaxpr, constants = (program.jaxpr, program.consts) if isinstance(program, core.ClosedJaxpr) else (program, ())
    live = {v for v, want in zip(jaxpr.outvars, wanted, strict=True) if want}
    steps = []
    for eqn in reversed(jaxpr.eqns):
        out = [v in live for v in eqn.outvars]
        if any(out):
            steps.append(_step(eqn, out))
            live.update(v for v, need in zip(eqn.invars, steps[-1].needs, strict=True) if need and _is_variable(v))
    return Slice(jaxpr, constants, tuple(reversed(steps)), tuple(v in live for v in jaxpr.invars))


def _is_variable(atom: Any) -> bool:
    return not isinstance(atom, core.Literal)


def _step(eqn: core.JaxprEqn, out: list[bool]) -> Step:
    kind = _KINDS.get(eqn.primitive.name)
    if kind is not None:
        return kind(eqn, out)
    body = body_of(eqn)
    if body is None:
        return Step(eqn, (True,) * len(eqn.invars))
    inner = sliced(body, out)
    return Step(eqn, inner.needs, (inner,))


def body_of(eqn: core.JaxprEqn) -> core.ClosedJaxpr | core.Jaxpr | None:
    """The program that an equation calls, with its inputs and its outputs; None for an operation."""
    for inner in programs_in(eqn.params):
        jaxpr = inner.jaxpr if isinstance(inner, core.ClosedJaxpr) else inner
        if len(jaxpr.invars) == len(eqn.invars) and len(jaxpr.outvars) == len(eqn.outvars):
            return inner
    return None


def programs_in(params: Mapping[str, Any]) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
    """The nested programs among the parameters of an equation."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            yield value


def hides_a_product(eqn: core.JaxprEqn) -> bool:
    """Whether an operation has a product in a program that is not looked into, or calls the host."""
    parts = [part for value in eqn.params.values() for part in (value if isinstance(value, tuple) else [value])]
    programs = [part.jaxpr if isinstance(part, core.ClosedJaxpr) else part for part in parts]
    inner = [inner for program in programs if isinstance(program, core.Jaxpr) for inner in program.eqns]
    own = any(one.primitive.name in PRODUCTS or hides_a_product(one) for one in inner)
    return own or "callback" in eqn.primitive.name


def scan_parts(eqn: core.JaxprEqn) -> tuple[int, int]:
    """The numbers of constants and of carries of a `scan`; what is stacked has one axis more than in its body.

    Its parameters that tell have other names from one release of JAX to the next.
    """
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])

    def stacked(outside: Any, inside: Any) -> int:
        return sum(len(a.aval.shape) > len(b.aval.shape) for a, b in zip(outside, inside, strict=True))

    carries = len(eqn.outvars) - stacked(eqn.outvars, body.outvars)
    return len(eqn.invars) - stacked(eqn.invars, body.invars) - carries, carries


def _scan(eqn: core.JaxprEqn, out: list[bool]) -> Step:
    consts, carries = scan_parts(eqn)
    carried, stacked = out[:carries], out[carries:]
    while True:
        body = sliced(eqn.params["jaxpr"], [*carried, *stacked])
        more = [a or b for a, b in zip(carried, body.needs[consts : consts + carries], strict=True)]
        if more == carried:
            return Step(eqn, (*body.needs[:consts], *carried, *body.needs[consts + carries :]), (body,))
        carried = more


def _while(eqn: core.JaxprEqn, out: list[bool]) -> Step:
    of_condition, of_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    condition = sliced(eqn.params["cond_jaxpr"], [True])
    carried = [a or b for a, b in zip(out, condition.needs[of_condition:], strict=True)]
    while True:
        body = sliced(eqn.params["body_jaxpr"], carried)
        more = [a or b for a, b in zip(carried, body.needs[of_body:], strict=True)]
        if more == carried:
            needs = (*condition.needs[:of_condition], *body.needs[:of_body], *carried)
            return Step(eqn, needs, (condition, body))
        carried = more


def _cond(eqn: core.JaxprEqn, out: list[bool]) -> Step:
    branches = tuple(sliced(branch, out) for branch in eqn.params["branches"])
    needs = [any(column) for column in zip(*(branch.needs for branch in branches), strict=True)]
    return Step(eqn, (True, *needs), branches)


_KINDS = {"scan": _scan, "while": _while, "cond": _cond}
