"""What the two ends of every synapse hold while events are sent, step by step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from vicinal.graph import OUTPUT, Graph, Values


class Ends:
    """What the two ends of all synapses hold at each step."""

    def __init__(self, graph: Graph, model: PyTree, activities: Values, errors: dict[str, PyTree], x: PyTree):
        self._program, self._activities, self._errors = graph.program, activities, errors
        self._entered = lambda x: graph.entered(model, x)
        self.synapses, _, self._below, self._deviated = graph.program.connections
        self._x, self.batch = x, jax.tree.leaves(x)[0].shape[0]
        self.steps = len(jax.tree.leaves(activities)[0]) - 1 if activities else 0

    def _held(self, t: Any) -> list[Array]:
        return self._program.ordered({name: rows[t] for name, rows in self._activities.items()})

    def below(self, t: Any, x: PyTree = None) -> list[Array]:
        """What synapses read of values after a step, `[batch, ...]` each."""
        return jax.vmap(self._below, in_axes=(None, 0, 0))(*self._entered(self._x if x is None else x), self._held(t))

    def above(self, t: Any, sent: Any) -> list[Array]:
        """What synapses hold of the errors sent in one round, at the values after a step, `[batch, ...]` each."""
        return self._pulled(t, self._errors, lambda leaf: leaf[sent])

    def _pulled(self, t: Any, errors: dict[str, PyTree], at: Callable[[Array], Array]) -> list[Array]:
        """Carries errors from their nodes back to the products of synapses, at the values after a step."""
        leaves, inputs = self._entered(self._x)
        held = self._held(t)
        nothing = [jnp.zeros((self.batch, *s.product.aval.shape), s.product.aval.dtype) for s in self.synapses]
        run = jax.vmap(self._deviated, in_axes=(None, 0, 0, 0))
        _, back = jax.vjp(lambda deviations: run(leaves, inputs, held, deviations), nothing)
        nodes = [OUTPUT, *self._program.names]
        return back([at(leaf) for node in nodes for leaf in jax.tree.leaves(errors[node])])[0]

    def spikes_below(self, t: Any, spikes: Values) -> list[Int[Array, "batch ..."]]:
        """How many spikes of a step each presynaptic unit passes on: none where what it reads does not change."""
        entered, held = self._entered(self._x), self._held(t + 1)

        def read(held: list[Array]) -> list[Array]:
            return jax.vmap(self._below, in_axes=(None, 0, 0))(*entered, held)

        numbers = self._program.ordered({name: jnp.abs(rows[t]) for name, rows in spikes.items()})
        numbers = [number.astype(rows.dtype) for number, rows in zip(numbers, held, strict=True)]
        one, all_spikes = (
            jax.jvp(read, (held,), (tangent,))[1] for tangent in ([jnp.ones_like(rows) for rows in held], numbers)
        )
        return list(map(_passed, all_spikes, one))

    def spikes_above(self, t: Any, spikes: dict[str, PyTree]) -> list[Int[Array, "batch ..."]]:
        """How many spikes of errors of a step enter each synapse on the way down: none where a derivative is 0."""
        kinds = {node: jax.tree.map(lambda e: e.dtype, tree) for node, tree in self._errors.items()}
        spikes = {
            node: jax.tree.map(lambda n, kind: jnp.abs(n).astype(kind), tree, kinds[node])
            for node, tree in spikes.items()
        }
        one, all_spikes = (self._pulled(t, spikes, at) for at in (lambda n: jnp.ones_like(n[t]), lambda n: n[t]))
        return list(map(_passed, all_spikes, one))

    def down(self, sent: Any) -> list[Array]:
        """What goes down in a round: its errors, at the values of the step before."""
        return self.above(jnp.maximum(sent - 1, 0), sent)

    def changed(self, side: Any, *t: Any) -> list[Array]:
        """Where one end differs from what it was a step before."""
        return differ(side(*t), side(*(one - 1 for one in t)))

    def pairs(self, below: list[Array], above: list[Array]) -> Int[Array, " batch"]:
        """Counts the multiplications of all synapses between marked units below and marked units above."""
        rows = [
            jnp.sum(jnp.where(high, jax.vmap(s.reached)(low), 0).reshape(self.batch, -1), axis=1, dtype=jnp.int32)
            for s, low, high in zip(self.synapses, below, above, strict=True)
        ]
        return sum(rows, jnp.zeros(self.batch, jnp.int32))

    def learning(self, t: Any, sent: Any) -> Int[Array, " batch"]:
        """Counts the pairs of which neither is 0."""
        return self.pairs(*([rows != 0 for rows in side] for side in (self.below(t), self.above(t, sent))))

    def touched(self, t: Any) -> Int[Array, " batch"]:
        """Counts the pairs of which one has changed in a step."""
        below, above = self.changed(self.below, t), self.changed(self.above, t, t)
        every = self.pairs(*([jnp.ones_like(rows) for rows in side] for side in (below, above)))
        return every - self.pairs(*([~rows for rows in side] for side in (below, above)))


def differ(now: list[Array], then: list[Array]) -> list[Bool[Array, "batch ..."]]:
    """Where arrays differ."""
    return [a != b for a, b in zip(now, then, strict=True)]


def count(numbers: list[Array]) -> list[Int[Array, " batch"]]:
    """The sum over the units of each example, of marks or of numbers of spikes."""
    return [jnp.sum(rows.reshape(rows.shape[0], -1), axis=1, dtype=jnp.int32) for rows in numbers]


def _passed(all_spikes: Array, one: Array) -> Int[Array, "batch ..."]:
    """The number of spikes, from their number times a slope, and the slope."""
    ratio = all_spikes / jnp.where(one == 0, jnp.ones((), one.dtype), one)
    return jnp.where(one == 0, 0, jnp.round(ratio).astype(jnp.int32))
