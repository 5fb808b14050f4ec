"""Under `graph`: what a model takes from the whole batch, and the state that changes as it runs.

A collective over the axis `"batch"` (`jax.lax.pmean` and its like) makes a statistic: one array for all examples. The
feedforward pass computes it; every other part of a program is given it, so that it is held while activities settle.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

BATCH = "batch"
"""The axis of the examples of a batch, for `jax.lax.pmean` and its like."""

_SHARED = {"psum", "psum_invariant", "pmax", "pmin", "all_gather", "all_gather_invariant"}

# The primitive behind `vicinal.update`: it reads an array of the model and what it becomes, and makes nothing.
update_p = core.Primitive("update")
update_p.multiple_results = True
update_p.def_impl(lambda old, new: [])
update_p.def_abstract_eval(lambda old, new: [])
ad.primitive_jvps[update_p] = lambda primals, tangents: (update_p.bind(*primals), [])
mlir.register_lowering(update_p, lambda context, old, new: [])


def _update_batching(arguments, axes):
    moved = [a if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(arguments, axes, strict=True)]
    return update_p.bind(*moved), []


batching.primitive_batchers[update_p] = _update_batching


def is_collective(eqn: core.JaxprEqn) -> bool:
    """Whether an equation reads other examples of the batch, or asks which one this is."""
    named = (eqn.params.get(name) for name in ("axes", "axis_name"))
    return any(BATCH in value if isinstance(value, tuple) else value == BATCH for value in named if value is not None)


def statistics_of(jaxpr: core.Jaxpr) -> list[core.Var]:
    """The statistics of the batch in a flat program.

    Raises:
        ValueError: If a collective gives each example a result of its own.
    """
    found: list[core.Var] = []
    for eqn in filter(is_collective, jaxpr.eqns):
        if eqn.primitive.name not in _SHARED or eqn.params.get("axis_index_groups") is not None:
            raise ValueError(
                f"expected collectives over '{BATCH}' whose result is the same for all examples (pmean, psum, pmax, "
                f"pmin, all_gather), got {eqn.primitive.name!r}; take what belongs to one example from its input"
            )
        found += eqn.outvars
    return found


def updates_of(
    jaxpr: core.Jaxpr, leaves: Mapping[core.Var, str], inputs: Sequence[core.Var], statistics: Sequence[core.Var]
) -> dict[core.Var, Any]:
    """What the arrays of a model become after the forward pass, in a flat program.

    Args:
        jaxpr: The program.
        leaves: The path of each of its variables that is an array of the model.
        inputs: Its variables of one example.
        statistics: Its statistics.

    Raises:
        ValueError: If what changes is no array of the model, changes twice, or depends on a single example.
    """
    found: dict[core.Var, Any] = {}
    own, shared = set(inputs), set(statistics)  # what each example has of its own
    for eqn in jaxpr.eqns:
        if eqn.primitive is not update_p:
            if not own.isdisjoint(v for v in eqn.invars if not isinstance(v, core.Literal)):
                own.update(v for v in eqn.outvars if v not in shared)
            continue
        old, new = eqn.invars
        shapes: list[Any] = [v.aval for v in eqn.invars]
        if isinstance(old, core.Literal) or old not in leaves:
            raise ValueError(
                "expected an array of the model as what `update` changes, got something computed; give the array "
                "itself, update(self.mean, new), and not inside jax.lax.scan"
            )
        if shapes[0].shape != shapes[1].shape or (not isinstance(new, core.Literal) and new in own):
            raise ValueError(
                f"expected a new value of {leaves[old]!r} that is the same for all examples of a batch, got one of a "
                f"single example; average it first, jax.lax.pmean(value, '{BATCH}')"
            )
        if old in found:
            raise ValueError(
                f"expected one new value of {leaves[old]!r} in a forward pass, got two; call a layer with state once"
            )
        found[old] = new
    return found


def nested(jaxpr: core.Jaxpr, outer: tuple[str, ...] = ()) -> Iterator[tuple[core.JaxprEqn, tuple[str, ...]]]:
    """The collectives and updates inside other primitives, each with the primitives around it, outermost first."""
    for eqn in jaxpr.eqns:
        if outer and (eqn.primitive is update_p or is_collective(eqn)):
            yield eqn, outer
        for value in eqn.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                if isinstance(item, core.ClosedJaxpr | core.Jaxpr):
                    inner = item.jaxpr if isinstance(item, core.ClosedJaxpr) else item
                    yield from nested(inner, (*outer, eqn.primitive.name))


def bind_update(old: Array, new: Array) -> None:
    """Marks what an array becomes; its gradient is stopped."""
    update_p.bind(old, jax.lax.stop_gradient(new))
