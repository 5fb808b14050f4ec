"""Under rules that call the optimiser several times for a batch: its schedules count batches, not calls.

A schedule over a run is written in updates of the model on a batch, as every other rule counts them. What an optimiser
counts for itself goes on with each call, for that is what it is about: Adam corrects the bias of averages that move
with each call, MQ the weights of its own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

_HOLDERS = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def with_schedules_of(before: PyTree, after: PyTree) -> PyTree:
    """The state after a call of the optimiser, with its schedules where they were before."""
    return _counted(lambda old, new: old, before, after)


def after_a_batch(before: PyTree, after: PyTree) -> PyTree:
    """The state after the calls for a batch, with its schedules one further than before."""
    return _counted(lambda old, new: jnp.asarray(optax.safe_increment(jnp.asarray(old))), before, after)


def _counted(count: Callable[[Any, Any], Any], before: PyTree, after: PyTree) -> PyTree:
    def is_counter(node: Any) -> bool:
        # A schedule remembers a count and nothing else. Some of these states have no public name: those of schedules
        # that `optax.inject_hyperparams` holds, and of one for the weight decay.
        return isinstance(node, _HOLDERS) or (isinstance(node, tuple) and getattr(node, "_fields", ()) == ("count",))

    def changed(old: Any, new: Any) -> Any:
        if not is_counter(new):
            return new
        inner = {
            name: _counted(count, getattr(old, name), getattr(new, name)) for name in new._fields if name != "count"
        }
        return new._replace(count=count(old.count, new.count), **inner)

    return jax.tree.map(changed, before, after, is_leaf=is_counter)
