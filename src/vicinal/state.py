"""State: arrays of a model that change as it runs, such as running averages, and not by an optimiser."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal._statistics import bind_update
from vicinal.keys import parameter, takes_key
from vicinal.roles import Part


def update(old: Array, new: Array) -> None:
    """Says, inside a model, that `old`, an array of the model, becomes `new` after the forward pass.

    `Rule.step` writes it into the model, and `Graph.updated` does so in a loop of your own. Outside `vicinal.capture`
    this does nothing. The array becomes state, which no optimiser sees (`Graph.roles`). The new value has to be the
    same for all examples of the batch: average over them with `jax.lax.pmean(value, "batch")`.

    Args:
        old: An array of the model, as it stands there.
        new: What it becomes, in the same shape; it is brought to the same dtype, and its gradient is stopped.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> def centred(mean, x):
        ...     vc.update(mean, 0.9 * mean + 0.1 * jax.lax.pmean(x, "batch"))
        ...     return x - mean
        >>> model, x = jax.tree_util.Partial(centred, jnp.zeros(1)), jnp.array([[1.0], [3.0]])
        >>> graph = vc.capture(model, x[0], batch_size=2)
        >>> round(float(graph.updated(model, x).args[0][0]), 3)
        0.2
    """
    if jnp.shape(new) != jnp.shape(old):
        raise ValueError(
            f"expected a new value in the shape of the old one, {list(jnp.shape(old))}, got {list(jnp.shape(new))}; "
            "reduce it over its other axes"
        )
    new = jnp.asarray(new)
    bind_update(old, new if new.dtype == old.dtype else new.astype(old.dtype))


class Held(Part):
    """Arrays that are state."""

    role: ClassVar[Any] = "state"

    arrays: PyTree


class Stateful(eqx.Module):
    """A module that takes its state and returns it, as a function of the input alone; made by `with_state`."""

    module: Callable
    held: Held
    inference: bool = False

    @property
    def state(self) -> PyTree:
        """The state."""
        return self.held.arrays

    def __call__(self, x: PyTree, *, key: PRNGKeyArray | None = None) -> PyTree:
        given: dict[str, Any] = {"key": key} if takes_key(self.module) else {}
        if self.inference and parameter(self.module, "inference") is not None:
            given["inference"] = True
        old, structure = jax.tree.flatten(self.held.arrays)
        # A copy, for Equinox takes a state back once it has been read.
        output, new = self.module(x, structure.unflatten(old), **given)
        if not self.inference:
            for before, after in zip(old, structure.flatten_up_to(new), strict=True):
                if eqx.is_array(before):
                    update(before, after)
        return output


def with_state(module: Callable, state: PyTree) -> Stateful:
    """Wraps what is called as `module(x, state) -> (output, new state)` into a model of the input alone.

    So are networks of Equinox with `equinox.nn.State`, and functions around those of Flax and Haiku. What is returned
    holds the state, and trains under every rule: its state changes with each step. For statistics of the batch, layers
    average over the axis `"batch"`: `equinox.nn.BatchNorm(size, axis_name="batch", mode="batch")`,
    `flax.linen.BatchNorm(axis_name="batch")`.

    Args:
        module: A module, or a function with its parameters bound by `jax.tree_util.Partial`. It is given `key=`, a key
            for each example, if it has such an argument, and `inference=True` while it is evaluated, if it has that
            one; flags `inference` inside it are set as well.
        state: Its first state.

    Returns:
        A model, called as `model(x)` or `model(x, key=key)`.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp, vicinal as vc
        >>> class Network(eqx.Module):
        ...     below: eqx.nn.Linear
        ...     norm: eqx.nn.BatchNorm
        ...     dropout: eqx.nn.Dropout
        ...     above: eqx.nn.Linear
        ...     def __init__(self, key):
        ...         self.below, self.above = eqx.nn.Linear(3, 8, key=key), eqx.nn.Linear(8, 2, key=key)
        ...         self.norm = eqx.nn.BatchNorm(8, axis_name="batch", mode="batch")
        ...         self.dropout = eqx.nn.Dropout(0.2)
        ...     def __call__(self, x, state, *, key=None):
        ...         h, state = self.norm(jnp.tanh(self.below(x)), state)
        ...         return self.above(self.dropout(h, key=key)), state
        >>> network, state = eqx.nn.make_with_state(Network)(jax.random.key(0))
        >>> model = vc.with_state(vc.mark(network, lambda network: network.below), state)
        >>> graph = vc.capture(model, jnp.ones(3), batch_size=4)
        >>> graph.vertices, graph.needs_key, sorted(set(graph.roles.values()))
        (('below',), True, ['parameter', 'state'])
    """
    if not callable(module):
        raise TypeError(f"expected a callable module, got {type(module).__name__}")
    return Stateful(module, Held(state))
