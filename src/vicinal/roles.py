"""Roles: which arrays of a model an optimiser trains.

Every array of a model has one role. The optimiser trains a `parameter`, and `feedback` that is learned. A `fixed` array
never changes. `state`, such as a running average, changes as the model runs, and not by the optimiser.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
from jaxtyping import PyTree

Role = Literal["parameter", "feedback", "fixed", "state"]
"""The role of an array of a model."""

TRAINED = ("parameter", "feedback")
"""The roles that an optimiser sees."""

Where = Callable[[PyTree], Any]
"""A function from a model to a submodule or array, or a list of them, as for `equinox.tree_at`."""


class Part(eqx.Module):
    """A part of a model that declares the role of its arrays.

    Example:
        >>> import jax.numpy as jnp
        >>> class Scale(Part):
        ...     role = "fixed"
        ...     factor: jax.Array
        >>> roles_of({"scale": Scale(jnp.ones(3)), "weight": jnp.ones(3)})
        ('fixed', 'parameter')
    """

    role: ClassVar[Role] = "parameter"


def roles_of(model: PyTree, fixed: Where | None = None, state: Where | None = None) -> tuple[Role | None, ...]:
    """Finds the role of each leaf of a model.

    It recognises `Part` (which includes the feedback weights of `vicinal.feedback` and the running averages of
    `vicinal.nn.BatchNorm`), `equinox.nn.State` and `StateIndex`, collections such as `batch_stats` beside `params` in a
    Flax dictionary, and NNX variables other than `nnx.Param`. All other arrays are parameters.

    Args:
        model: A model.
        fixed: Returns the submodules or arrays of the model that never change.
        state: Returns those that change as the model runs.

    Returns:
        The roles, in the order of the leaves; None for leaves that are not arrays.

    Raises:
        TypeError: If `fixed` or `state` is not a function.
        ValueError: If one of them chooses no array, if both choose the same, or if nothing is left to train.
    """
    roles = [role if eqx.is_array(leaf) else None for leaf, role in _walk(model, "parameter")]
    chosen: dict[int, str] = {}
    for role, where in (("fixed", fixed), ("state", state)):
        for i in () if where is None else _chosen(model, where, role):
            if chosen.setdefault(i, role) != role:
                raise ValueError("expected each array to be fixed or state, got one that is both; choose one role")
            roles[i] = role
    if chosen and not any(role in TRAINED for role in roles):
        raise ValueError("expected `fixed` and `state` to leave something to train, got all arrays of the model")
    return tuple(roles)


def trained(tree: PyTree) -> PyTree:
    """Replaces every leaf by None that is not recognised as trained; for trees without a graph."""
    flat, structure = jax.tree.flatten(tree)
    return structure.unflatten(
        [leaf if role in TRAINED else None for leaf, role in zip(flat, roles_of(tree), strict=True)]
    )


def _walk(tree: PyTree, role: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the leaves of a tree in order, each with its role; `role` is the default."""
    for node in jax.tree.leaves(tree, is_leaf=lambda node: _own(node) is not None or _is_collections(node)):
        own = _own(node)
        if own is not None:
            yield from ((leaf, own if role == "parameter" else role) for leaf in jax.tree.leaves(node))
        elif _is_collections(node):
            for path, part in jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda n, top=node: n is not top)[0]:
                params = path[-1].key == "params" or not isinstance(part, Mapping)
                yield from _walk(part, role if params else "state")
        else:
            yield node, role


def _own(node: Any) -> str | None:
    """Returns the role that a node declares for its arrays, or None."""
    if isinstance(node, Part):
        return node.role
    if isinstance(node, eqx.nn.State | eqx.nn.StateIndex):
        return "state"
    nnx: Any = sys.modules.get("flax.nnx")  # a tree with NNX variables implies the import
    return "state" if nnx and isinstance(node, nnx.Variable) and not isinstance(node, nnx.Param) else None


def _is_collections(node: Any) -> bool:
    """Whether a node is a Flax dictionary: `params` beside other dictionaries."""
    return isinstance(node, Mapping) and "params" in node and all(isinstance(key, str) for key in node)


class _Tag:
    """Replaces a leaf of a model, so that we see which leaves a function chooses."""

    def __init__(self, index: int):
        self.index = index


def _chosen(model: PyTree, where: Where, role: str) -> list[int]:
    """Returns the indices of the arrays that `where` chooses."""
    if not callable(where):
        raise TypeError(
            f"expected `{role}` as a function from the model to its submodules or arrays, got {where!r}; "
            "write lambda model: model.layers[0]"
        )
    flat, structure = jax.tree.flatten(model)
    tagged = [_Tag(i) if eqx.is_array(leaf) else leaf for i, leaf in enumerate(flat)]
    found = [leaf.index for leaf in jax.tree.leaves(where(structure.unflatten(tagged))) if isinstance(leaf, _Tag)]
    if not found:
        raise ValueError(f"expected `{role}` to choose arrays of the model, got none; return submodules or arrays")
    return found
