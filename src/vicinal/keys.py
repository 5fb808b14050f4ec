"""Keys: what a model that draws random numbers (dropout) is given for each example."""

import functools
import inspect
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
from jax.extend import core
from jaxtyping import PRNGKeyArray, PyTree

if TYPE_CHECKING:
    from vicinal.graph import Graph


class Keyed(eqx.Module):
    """Inputs with a key for each example; made by `Graph.keyed`.

    Attributes:
        x: Inputs, `[batch, ...]`.
        key: Keys, `[batch]`.
    """

    x: PyTree
    key: PRNGKeyArray


def is_key(array: Any) -> bool:
    """Whether an array, or its shape and dtype, is one of keys of the kind that `jax.random.key` makes."""
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def keyed(x: PyTree, key: PRNGKeyArray) -> Keyed:
    """A batch of inputs with a key for each example, of the kind that `jax.random.key` makes."""
    if not is_key(key):
        key = jax.random.wrap_key_data(key)
    if key.dtype != _plain().dtype:
        key = jax.random.key(jax.random.bits(key, dtype="uint32"))
    return Keyed(x, jax.random.split(key, jax.tree.leaves(x)[0].shape[0]))


def presented(graph: "Graph", x: PyTree, key: PRNGKeyArray | None) -> tuple[PyTree, PRNGKeyArray | None]:
    """A batch as the graph takes it, and the key that is left for the rule.

    The key is split only where the model takes one, so that other runs keep their random numbers.

    Raises:
        ValueError: If the model takes a key and there is none.
    """
    if not graph.needs_key or isinstance(x, Keyed):
        return x, key
    if key is None:
        raise ValueError("expected a key, as the model takes one (for dropout, say), got none; pass key=...")
    own, key = jax.random.split(key)
    return keyed(x, own), key


def example_of(x: PyTree) -> Keyed:
    """One example with a key, of which only the type counts."""
    plain = _plain()
    key: Any = jax.ShapeDtypeStruct(plain.shape, plain.dtype)
    return Keyed(x, key)


def _plain() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def takes_key(model: Any) -> bool:
    """Whether a model may be called as `model(x, key=key)`."""
    return parameter(model, "key") is not None


def needs_keyword(model: Any) -> bool:
    """Whether it must be."""
    found = parameter(model, "key")
    return found is not None and found.default is inspect.Parameter.empty


def parameter(model: Any, name: str) -> inspect.Parameter | None:
    """A parameter of a model's signature; None without one, or where it is bound already."""
    if isinstance(model, functools.partial | eqx.Partial) and name in model.keywords:
        return None
    try:
        # The signature of `equinox.Partial` itself takes anything.
        found = inspect.signature(model.func if isinstance(model, eqx.Partial) else model).parameters.get(name)
    except (TypeError, ValueError):  # a function without a signature
        return None
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return found if found is not None and found.kind in named else None


def reads_last_input(jaxpr: core.Jaxpr, always: Collection[core.Primitive] = ()) -> bool:
    """Whether what a program makes depends on its last input; equations of `always` count though nothing reads them."""
    return jaxpr.invars[-1] in _needed(jaxpr, jaxpr.outvars, always)


def _needed(jaxpr: core.Jaxpr, wanted: Iterable[Any], always: Collection[core.Primitive]) -> set[Any]:
    needed = {v for v in wanted if not isinstance(v, core.Literal)}
    for eqn in reversed(jaxpr.eqns):
        inner = next(filter(None, map(_jaxpr, eqn.params.values())), None)
        if needed.isdisjoint(eqn.outvars) and eqn.primitive not in always and not _holds(inner, always):
            continue
        read = eqn.invars
        if inner is not None and (len(inner.invars), len(inner.outvars)) == (len(eqn.invars), len(eqn.outvars)):
            chosen = [own for own, v in zip(inner.outvars, eqn.outvars, strict=True) if v in needed]
            if eqn.primitive.name not in ("scan", "while"):  # in a loop an output may reach an input by going round
                inside = _needed(inner, chosen, always)
                read = [v for own, v in zip(inner.invars, eqn.invars, strict=True) if own in inside]
        needed.update(v for v in read if not isinstance(v, core.Literal))
    return needed


def _jaxpr(value: Any) -> core.Jaxpr | None:
    return value.jaxpr if isinstance(value, core.ClosedJaxpr) else value if isinstance(value, core.Jaxpr) else None


def _holds(jaxpr: core.Jaxpr | None, primitives: Collection[core.Primitive]) -> bool:
    """Whether a program holds an equation of one of these primitives, at any depth."""
    if jaxpr is None or not primitives:
        return False
    return any(
        eqn.primitive in primitives or any(_holds(_jaxpr(value), primitives) for value in eqn.params.values())
        for eqn in jaxpr.eqns
    )
