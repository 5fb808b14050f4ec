"""Random keys, one per example, for models that draw random numbers, such as those with dropout."""

import functools
import inspect
from collections.abc import Collection, Iterable
from typing import Any

import equinox as eqx
import jax
from jax.extend import core
from jaxtyping import PRNGKeyArray, PyTree


class Keyed(eqx.Module):
    """Inputs with one key per example; made by `Graph.keyed`.

    Attributes:
        x: Inputs, `[batch, ...]`.
        key: Keys, `[batch]`.
    """

    x: PyTree
    key: PRNGKeyArray


def is_key(array: Any) -> bool:
    """Whether an array (or its `jax.ShapeDtypeStruct`) holds typed keys, as `jax.random.key` makes them."""
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def keyed(x: PyTree, key: PRNGKeyArray) -> Keyed:
    """Adds one typed key per example, split from `key`, to a batch of inputs."""
    if not is_key(key):
        key = jax.random.wrap_key_data(key)
    if key.dtype != _plain().dtype:
        key = jax.random.key(jax.random.bits(key, dtype="uint32"))
    return Keyed(x, jax.random.split(key, jax.tree.leaves(x)[0].shape[0]))


def example_of(x: PyTree) -> Keyed:
    """Returns one example with the type of a key, for tracing."""
    plain = _plain()
    key: Any = jax.ShapeDtypeStruct(plain.shape, plain.dtype)
    return Keyed(x, key)


def _plain() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def takes_key(model: Any) -> bool:
    """Whether a model accepts `model(x, key=key)`."""
    return parameter(model, "key") is not None


def needs_keyword(model: Any) -> bool:
    """Whether a model must be called as `model(x, key=key)`."""
    found = parameter(model, "key")
    return found is not None and found.default is inspect.Parameter.empty


def parameter(model: Any, name: str) -> inspect.Parameter | None:
    """Returns a parameter of a model's signature; None if there is none of this name or it is bound already."""
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
    """Whether the outputs of a program, or its equations of the primitives `always`, depend on its last input."""
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
            if eqn.primitive.name not in (
                "scan",
                "while",
            ):  # in a loop, an output may reach an input in a later iteration
                inside = _needed(inner, chosen, always)
                read = [v for own, v in zip(inner.invars, eqn.invars, strict=True) if own in inside]
        needed.update(v for v in read if not isinstance(v, core.Literal))
    return needed


def _jaxpr(value: Any) -> core.Jaxpr | None:
    return value.jaxpr if isinstance(value, core.ClosedJaxpr) else value if isinstance(value, core.Jaxpr) else None


def _holds(jaxpr: core.Jaxpr | None, primitives: Collection[core.Primitive]) -> bool:
    """Whether a program contains an equation of one of these primitives, at any depth."""
    if jaxpr is None or not primitives:
        return False
    return any(
        eqn.primitive in primitives or any(_holds(_jaxpr(value), primitives) for value in eqn.params.values())
        for eqn in jaxpr.eqns
    )
