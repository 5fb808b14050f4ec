"""The base of `Graph`: what does not depend on vertices, such as roles, keys and the batch."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal._program import Program
from vicinal._statistics import BATCH
from vicinal._trace import Spec
from vicinal.keys import Keyed, keyed
from vicinal.roles import Role


class Captured:
    """A program with the roles of the model's arrays, its keys and its batch size; the base of `Graph`."""

    roles: Mapping[str, Role]
    needs_key: bool
    batch_size: int | None

    def __init__(self, program: Program):
        self.program = program
        self._spec: Spec = program.spec
        self.roles = MappingProxyType(dict(zip(self._spec.paths, filter(None, self._spec.roles), strict=True)))
        self.needs_key, self.batch_size = self._spec.keyed, self._spec.batch_size

    def trainable(self, model: PyTree) -> PyTree:
        """Returns the parameters and learned feedback of a model, with None in place of everything else.

        Pass the result to `optimizer.init`. If all arrays of the model are parameters it equals
        `equinox.filter(model, equinox.is_inexact_array)`; integer arrays are not parameters.

        Args:
            model: The model captured, or one of the same structure.

        Returns:
            A tree like the model.

        Raises:
            ValueError: If the structure of the model differs from what was captured.

        Example:
            >>> import jax.numpy as jnp, vicinal as vc
            >>> arrays = {"gain": jnp.ones(2), "mean": jnp.zeros(2)}
            >>> model = jax.tree_util.Partial(lambda p, x: p["gain"] * (x - p["mean"]), arrays)
            >>> graph = vc.capture(model, jnp.ones(2), state=lambda model: model.args[0]["mean"])
            >>> graph.trainable(model).args[0]["mean"] is None
            True
        """
        return self._spec.split(model)[0]

    def partition(self, model: PyTree) -> tuple[PyTree, PyTree]:
        """Splits the model into `(trainable, rest)`; `equinox.combine` joins them again."""
        return self._spec.split(model)

    def keyed(self, x: PyTree, key: PRNGKeyArray) -> PyTree:
        """Adds one key per example, split from `key`, to a batch of inputs; returns `x` if the model takes no key."""
        return keyed(x, key) if self.needs_key else x

    def with_keys(self, x: PyTree, key: PRNGKeyArray | None) -> tuple[PyTree, PRNGKeyArray | None]:
        """Adds one key per example to a batch, if the model takes keys, and returns the next key.

        The key is split only where the model takes one, so that other runs keep their random numbers.

        Args:
            x: A batch of inputs, `[batch, ...]`, with or without keys.
            key: A key for the batch; None where neither model nor rule needs one.

        Returns:
            `(inputs, key)`, both unchanged where the model takes no key.

        Raises:
            ValueError: If the model takes a key and there is none.
        """
        if not self.needs_key or isinstance(x, Keyed):
            return x, key
        if key is None:
            raise ValueError("expected a key, as the model takes one (for dropout, say), got none; pass key=...")
        own, key = jax.random.split(key)
        return keyed(x, own), key

    def updated(self, model: PyTree, x: PyTree, into: PyTree = None) -> PyTree:
        """Runs a forward pass and writes the new state, such as running averages, into the model.

        Args:
            model: The model captured, or one of the same structure.
            x: A batch of inputs, `[batch, ...]`.
            into: The model to write into, such as one that has learned from this batch. None: `model`.

        Returns:
            The model with the new state.
        """
        into, (places, part) = model if into is None else into, self.program.updated
        if not places:
            return into
        new = self._over_batch(part, out_axes=None)(*self._spec.check(model, x))
        return self._spec.replaced(into, dict(zip(places, new, strict=True)))

    def _over_batch(self, part: Callable, groups: int = 2, out_axes: int | None = 0) -> Callable:
        """Maps a part of the program over examples; the axis has a name if the model takes statistics of the batch."""
        in_axes, name = (None, *(0,) * (groups - 1)), None if self.batch_size is None else BATCH
        return jax.vmap(part, in_axes=in_axes, out_axes=out_axes, axis_name=name)

    def entered(self, model: PyTree, x: PyTree) -> tuple[list[Array], list[Array]]:
        """Returns the leaves of the model, followed by the statistics of this batch, and the leaves of the input."""
        leaves, inputs = self._spec.check(model, x)
        if self.program.statistics is None:
            return leaves, inputs
        found = self._over_batch(self.program.statistics, out_axes=None)(leaves, inputs)
        return leaves + jax.lax.stop_gradient(found), inputs
