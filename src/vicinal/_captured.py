"""Under `graph`: what a graph knows of the model and the input that were captured."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal._program import Program
from vicinal._statistics import BATCH
from vicinal._trace import Spec
from vicinal.keys import keyed
from vicinal.roles import Role


class Captured:
    """A program with the roles of its model's arrays, its keys and its batches; the base of `Graph`."""

    roles: Mapping[str, Role]
    needs_key: bool
    batch_size: int | None

    def __init__(self, program: Program):
        self.program = program
        self._spec: Spec = program.spec
        self.roles = MappingProxyType(dict(zip(self._spec.paths, filter(None, self._spec.roles), strict=True)))
        self.needs_key, self.batch_size = self._spec.keyed, self._spec.batch_size

    def trainable(self, model: PyTree) -> PyTree:
        """What an optimiser trains: the model with None in place of all but its parameters and learned feedback.

        This is what `optimizer.init` is given. For a model all of whose arrays are parameters it equals
        `equinox.filter(model, equinox.is_inexact_array)`; integers are no parameters.

        Raises:
            ValueError: If the model has another structure than what was captured.

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
        """The model in two parts, `(trainable, rest)`; `equinox.combine` puts them together again."""
        return self._spec.split(model)

    def keyed(self, x: PyTree, key: PRNGKeyArray) -> PyTree:
        """The inputs with a key for each example, `[batch]`, split from `key`; `x` itself if the model takes none."""
        return keyed(x, key) if self.needs_key else x

    def updated(self, model: PyTree, x: PyTree, into: PyTree = None) -> PyTree:
        """The model with the state that it has after a forward pass, such as its running averages.

        Args:
            model: The model captured, or one of the same structure.
            x: A batch of inputs, `[batch, ...]`.
            into: The model that the new state is put into, if it is another: one that has learned from this batch.
        """
        into, (places, part) = model if into is None else into, self.program.updated
        if not places:
            return into
        new = self._over_batch(part, out_axes=None)(*self._spec.check(model, x))
        return self._spec.replaced(into, dict(zip(places, new, strict=True)))

    def _over_batch(self, part: Callable, groups: int = 2, out_axes: int | None = 0) -> Callable:
        """Maps a part of the program over examples, which see each other if the model takes statistics of the batch."""
        in_axes, name = (None, *(0,) * (groups - 1)), None if self.batch_size is None else BATCH
        return jax.vmap(part, in_axes=in_axes, out_axes=out_axes, axis_name=name)

    def entered(self, model: PyTree, x: PyTree) -> tuple[list[Array], list[Array]]:
        """The leaves of the model, the statistics of this batch among them, and of the input."""
        leaves, inputs = self._spec.check(model, x)
        if self.program.statistics is None:
            return leaves, inputs
        found = self._over_batch(self.program.statistics, out_axes=None)(leaves, inputs)
        return leaves + jax.lax.stop_gradient(found), inputs
