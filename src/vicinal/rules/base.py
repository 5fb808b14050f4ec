"""The contract of every learning rule."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal.credit import Credit, Info, local_gradient, presynaptic_norms
from vicinal.graph import Graph, Values
from vicinal.losses import Loss

State = PyTree
"""What a rule carries from one update to the next: any pytree; `()` for a rule without memory."""


class Rule(eqx.Module):
    """A learning rule: what value does each vertex hold, and what error does it carry?

    A rule is a frozen pytree. Its numeric hyper-parameters are arrays, so that changing one does not recompile, and
    a grid of them can be mapped with `jax.vmap`. To write a rule, give `credit`, and `errors` unless vertices hold
    theirs; everything else follows, and `vicinal.testing.check_rule` says whether it keeps the contract.
    """

    loss: eqx.AbstractVar[Loss]
    local: eqx.AbstractClassVar[bool]
    """Whether each update depends on its synapses' two ends alone; `vicinal.analysis.audit` checks it."""
    phases: ClassVar[bool] = True
    """Whether weights wait until credit is assigned. A rule without phases moves them along: it overrides `step`, and
    its gradient is what a step does to first order in the learning rate."""
    holds_errors: ClassVar[bool] = False
    """Whether vertices hold errors beside values, as states of their own, which `errors` may read back."""

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns the state before the first update; `()` unless the rule remembers something."""
        del graph, model, key
        return ()

    def credit(
        self,
        graph: Graph,
        model: PyTree,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Credit, State]:
        """Assigns credit for a batch.

        Args:
            graph: The captured graph.
            model: The model.
            state: From `init` or the last update.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.
            key: Needed by rules that draw random numbers.

        Returns:
            `(credit, state)`.
        """
        raise NotImplementedError

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        """The error each vertex carries, from what is held: the rule's reading of `credit`.

        What this function reads is what the synapses need; `vicinal.analysis.audit` differentiates it to see
        whether that is local. Errors that are held are read back.
        """
        if self.holds_errors:
            return credit.errors
        raise NotImplementedError

    def value_and_grad(
        self,
        graph: Graph,
        model: PyTree,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, ""], PyTree, State, Info]:
        """The drop-in for `jax.value_and_grad`: `credit`, then the local product.

        Args:
            graph: The captured graph.
            model: The model.
            state: From `init` or the last update.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.
            key: Needed by rules that draw random numbers.

        Returns:
            `(loss, gradient, state, info)`: the mean feedforward loss before the update; a tree like the model's
            floating-point arrays, the mean over the batch; the new state; what the rule saw.
        """
        gradient, credit, state = self.assign(graph, model, state, x, y, key=key)
        return jnp.mean(credit.loss), gradient, state, credit.info

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        """`credit`, then the local product; returns `(gradient, credit, state)`."""
        credit, state = self.credit(graph, model, state, x, y, key=key)
        return local_gradient(graph, model, credit, x), credit, state

    def step(
        self,
        graph: Graph,
        optimizer: optax.GradientTransformation,
        model: PyTree,
        optimizer_state: optax.OptState,
        state: State,
        x: PyTree,
        y: PyTree,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[PyTree, optax.OptState, State, Float[Array, ""], Info]:
        """One update of the model: `value_and_grad`, then the optimiser.

        The optimiser may take two extra arguments: `presynaptic`, a tree like the gradient with the mean squared
        norm of what enters each parameter's product, and `value`, the mean loss.

        Returns:
            `(model, optimizer_state, state, loss, info)`.
        """
        gradient, credit, state = self.assign(graph, model, state, x, y, key=key)
        presynaptic, loss = presynaptic_norms(graph, model, credit.values, x), jnp.mean(credit.loss)
        model, optimizer_state = apply_gradient(
            optimizer, gradient, optimizer_state, model, presynaptic=presynaptic, value=loss
        )
        return model, optimizer_state, state, loss, credit.info


def apply_gradient(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    optimizer_state: optax.OptState,
    model: PyTree,
    **extra: Any,
) -> tuple[PyTree, optax.OptState]:
    """The model and the optimiser's state after one gradient; `extra` is for optimisers that take it."""
    # Under strict promotion optax's own arithmetic (a float to the power of an integer count) would raise.
    with jax.numpy_dtype_promotion("standard"):
        takes_extra = optax.with_extra_args_support(optimizer)
        parameters = eqx.filter(model, eqx.is_inexact_array)
        update, optimizer_state = takes_extra.update(gradient, optimizer_state, parameters, **extra)
    update = jax.tree.map(lambda u, p: u.astype(p.dtype), update, parameters)  # a rate of more digits widens it
    return eqx.apply_updates(model, update), optimizer_state
