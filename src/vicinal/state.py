"""State: arrays such as running averages, which change as the model runs and not by an optimiser."""

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
    """Marks `new` as the value of `old`, an array of the model, after the forward pass. Call it inside a model.

    `Rule.step` writes the new value into the model; in your own loop, `Graph.updated` does. Outside `vicinal.capture`
    this function does nothing. The array gets the role `"state"`, so no optimiser sees it (`Graph.roles`). The new
    value must be the same for all examples of the batch: average over them with `jax.lax.pmean(value, "batch")`.

    Args:
        old: An array of the model, unchanged.
        new: Its next value, of the same shape. It is cast to the dtype of `old`, and its gradient is stopped.

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
    """Arrays with the role `"state"`."""

    role: ClassVar[Any] = "state"

    arrays: PyTree


class Stateful(eqx.Module):
    """A module with its state, as a function of only the input; made by `with_state`."""

    module: Callable
    held: Held
    inference: bool = False

    @property
    def state(self) -> PyTree:
        """The state, a tree of arrays."""
        return self.held.arrays

    def __call__(self, x: PyTree, *, key: PRNGKeyArray | None = None) -> PyTree:
        given: dict[str, Any] = {"key": key} if takes_key(self.module) else {}
        if self.inference and parameter(self.module, "inference") is not None:
            given["inference"] = True
        old, structure = jax.tree.flatten(self.held.arrays)
        # A copy: Equinox invalidates a state once it has been read.
        output, new = self.module(x, structure.unflatten(old), **given)
        if not self.inference:
            for before, after in zip(old, structure.flatten_up_to(new), strict=True):
                if eqx.is_array(before):
                    update(before, after)
        return output


def with_state(module: Callable, state: PyTree) -> Stateful:
    """Wraps a module called as `module(x, state) -> (output, new state)` into a model of only the input.

    Networks of Equinox with `equinox.nn.State` are called so, and so are functions around those of Flax and Haiku. The
    model holds the state, which each step updates, and trains under every rule. For statistics of the batch, layers
    average over the axis `"batch"`: `equinox.nn.BatchNorm(size, axis_name="batch", mode="batch")`,
    `flax.linen.BatchNorm(axis_name="batch")`.

    Args:
        module: A module, or a function with its parameters bound by `jax.tree_util.Partial`. If it has an argument
            `key`, it gets a key for each example; if it has an argument `inference`, it gets `inference=True` in
            evaluation. Flags `inference` inside it are set as well.
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
