"""Under `graph`: vertices some of whose units do not count.

A masked unit is as if it had not been marked: what reads the vertex sees its incoming value there, errors pass through
it, and it has no energy and no error of its own. A traced program with masks is rewritten so that each of its vertices
has three sides in place of one:

    held        what the vertex holds, and a rule moves
    seen        where(mask, held, incoming): what reads the vertex reads
    predicted   where(mask, incoming, held): so that held - predicted is 0 at masked units, whatever is held there

Energies, errors and their derivatives are made of `held - predicted`, so that no rule need know of masks. What is
given back as a value is `shown`, `where(mask, held, 0)`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Bool

from vicinal._activations import shape_and_type
from vicinal._primitive import vertex_p


@dataclasses.dataclass(frozen=True)
class Masked:
    """The variables of a vertex with a mask; for their meaning see above."""

    mask: Any
    seen: core.Var
    predicted: core.Var
    shown: core.Var


def split_masked(closed: core.ClosedJaxpr) -> tuple[core.ClosedJaxpr, dict[core.Var, Masked]]:
    """Gives each vertex with a mask a variable for what it holds.

    Args:
        closed: A flat program.

    Returns:
        The program, in which vertices have one operand, and the variables of those that had two, by what they hold. A
        program without masks is returned as it is.
    """
    eqns, found = [], {}
    for eqn in closed.jaxpr.eqns:
        if eqn.primitive is vertex_p and len(eqn.invars) == 2:
            more, held, masked = _sides(eqn)
            eqns += more
            found[held] = masked
        else:
            eqns.append(eqn)
    return (core.ClosedJaxpr(closed.jaxpr.replace(eqns=eqns), closed.consts), found) if found else (closed, {})


def _sides(eqn: core.JaxprEqn) -> tuple[list[core.JaxprEqn], core.Var, Masked]:
    (incoming, mask), (seen,) = eqn.invars, eqn.outvars

    def sides(held: Array, incoming: Array, mask: Array) -> list[Array]:
        select = jax.lax.select
        return [select(mask, held, incoming), select(mask, incoming, held), select(mask, held, jnp.zeros_like(held))]

    # A function of its own for each vertex: what make_jaxpr has in its cache would share variables.
    traced = jax.make_jaxpr(sides)(*map(shape_and_type, (seen, seen, mask))).jaxpr
    held, *given = traced.invars
    names = dict(zip([*given, traced.outvars[0]], [incoming, mask, seen], strict=True))

    def rename(v: Any) -> Any:
        return v if isinstance(v, core.Literal) else names.get(v, v)

    eqns = [
        part.replace(invars=[rename(v) for v in part.invars], outvars=[rename(v) for v in part.outvars])
        for part in traced.eqns
    ]
    mark = eqn.replace(invars=[incoming], outvars=[held])
    return [mark, *eqns], held, Masked(mask, seen, *traced.outvars[1:])


def check_masks(masks: Mapping[str, Any], equations: Callable[[Any], list[core.JaxprEqn]]) -> None:
    """Raises ValueError if a mask depends on what vertices hold.

    Args:
        masks: The variable of each mask, by its vertex.
        equations: All that lead to a variable.
    """
    for name, mask in masks.items():
        above = next((eqn for eqn in equations(mask) if eqn.primitive is vertex_p), None)
        if above is not None:
            raise ValueError(
                f"expected a mask of vertex {name!r} that depends on the input alone, got one that changes with vertex "
                f"{above.params['name']!r}; take it from the input (a length, say), or leave out the mask"
            )


def refuse_masks(masked: Sequence[str], what: str) -> None:
    """Raises ValueError if a vertex has a mask.

    Args:
        masked: Those that have one.
        what: What has no meaning for them.
    """
    if masked:
        raise ValueError(
            f"expected a graph without masks for {what}, got one at vertex {masked[0]!r}; take another rule, such as "
            "InferenceLearning, or a model and examples without padding"
        )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Unknown:
    """Stands for a number that is not known, with the reason; an optimiser that needs the number says it."""

    reason: str


NORMS_UNKNOWN = (
    "expected a model without masks for presynaptic norms, which are means over all that enters a weight, got one with "
    "masks, whose padding would count; take a step without nlms, an output that is not proximal, or examples without "
    "padding"
)


def counted(values: dict[str, Array], masks: Mapping[str, Bool[Array, "batch ..."]]) -> dict[str, Array]:
    """The values, with 0 in place of what is masked."""
    return {
        name: jax.lax.select(masks[name], value, jnp.zeros_like(value)) if name in masks else value
        for name, value in values.items()
    }
