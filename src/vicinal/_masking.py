"""Under `graph`: vertices with masks.

A masked unit behaves as if it were not marked: readers of the vertex see its incoming value there, errors pass through
it, and it has no energy and no error. A traced program with masks is rewritten so that each vertex has three variables
instead of one:

    held        the value of the vertex, which a rule moves
    seen        where(mask, held, incoming): what readers of the vertex see
    predicted   where(mask, incoming, held): makes held - predicted 0 at masked units

Energies, errors and their derivatives depend on `held - predicted`, so that no rule needs to handle masks. The value
returned to users is `shown`, `where(mask, held, 0)`.
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
    """The variables of a vertex with a mask; see the module's docstring."""

    mask: Any
    seen: core.Var
    predicted: core.Var
    shown: core.Var


def split_masked(closed: core.ClosedJaxpr) -> tuple[core.ClosedJaxpr, dict[core.Var, Masked]]:
    """Gives each vertex with a mask a variable for its held value.

    Args:
        closed: A flat program.

    Returns:
        The program, in which every vertex has one operand, and the variables of each masked vertex, by its held
        variable. A program without masks is returned unchanged.
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

    # A new function for each vertex: from its cache, make_jaxpr would return shared variables.
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
    """Raises ValueError if a mask depends on the values of vertices.

    Args:
        masks: The variable of each mask, by its vertex.
        equations: Returns the equations that compute a variable.
    """
    for name, mask in masks.items():
        above = next((eqn for eqn in equations(mask) if eqn.primitive is vertex_p), None)
        if above is not None:
            raise ValueError(
                f"expected a mask of vertex {name!r} that depends only on the input, got one that changes with vertex "
                f"{above.params['name']!r}; take it from the input (a length, say), or leave out the mask"
            )


def refuse_masks(masked: Sequence[str], what: str) -> None:
    """Raises ValueError if a vertex has a mask.

    Args:
        masked: The vertices with masks.
        what: The operation that does not support masks.
    """
    if masked:
        raise ValueError(
            f"expected a graph without masks for {what}, got one at vertex {masked[0]!r}; take another rule, such as "
            "InferenceLearning, or a model and examples without padding"
        )


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Unknown:
    """A placeholder for an unknown number, with the reason; an optimiser that needs the number raises it."""

    reason: str


NORMS_UNKNOWN = (
    "expected a model without masks for presynaptic norms, which are means over all that enters a weight, got one with "
    "masks, whose padding would count; take a step without nlms, an output that is not proximal, or examples without "
    "padding"
)


def counted(values: dict[str, Array], masks: Mapping[str, Bool[Array, "batch ..."]]) -> dict[str, Array]:
    """The values, with 0 at masked units."""
    return {
        name: jax.lax.select(masks[name], value, jnp.zeros_like(value)) if name in masks else value
        for name, value in values.items()
    }
