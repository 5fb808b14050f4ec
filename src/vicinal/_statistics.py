"""Under `graph`: the batch statistics of a model, and the state that changes as it runs.

A collective over the axis `"batch"` (such as `jax.lax.pmean`) computes a statistic: one array for all examples. The
feedforward pass computes statistics; every other part of a program takes them as inputs, so that they are held while
activities settle.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

BATCH = "batch"
"""The name of the batch axis, for collectives such as `jax.lax.pmean`."""

_SHARED = {"psum", "psum_invariant", "pmax", "pmin", "all_gather", "all_gather_invariant"}

# The primitive behind `vicinal.update`: it reads an array of the model and its new value, and has no output.
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
    """Whether an equation reads other examples of the batch, or the index of this one."""
    named = (eqn.params.get(name) for name in ("axes", "axis_name"))
    return any(BATCH in value if isinstance(value, tuple) else value == BATCH for value in named if value is not None)


def statistics_of(jaxpr: core.Jaxpr) -> list[core.Var]:
    """The statistics of the batch in a flat program.

    Raises:
        ValueError: If the result of a collective differs between examples.
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
    """The new values of the model's arrays after the forward pass, in a flat program.

    Args:
        jaxpr: The program.
        leaves: The path of each variable that is an array of the model.
        inputs: The variables of one example.
        statistics: The statistics.

    Raises:
        ValueError: If an updated array is not the model's, is updated twice, or depends on a single example.
    """
    found: dict[core.Var, Any] = {}
    own, shared = set(inputs), set(statistics)  # own: differs between examples
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
    """Marks the new value of an array, and stops its gradient."""
    update_p.bind(old, jax.lax.stop_gradient(new))
