"""The contract of every learning rule."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._show import module_text
from vicinal.credit import Credit, Info, local_gradient, presynaptic_norms
from vicinal.graph import Graph, Values
from vicinal.keys import presented
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
    """Whether weights wait until credit is assigned. A rule without phases moves them along: it overrides `update`, and
    its gradient is what a step does to first order in the learning rate."""
    holds_errors: ClassVar[bool] = False
    """Whether vertices hold errors beside values, as states of their own, which `errors` may read back."""

    def __repr__(self) -> str:
        return module_text(self)

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
            key: Needed by rules that draw random numbers, and by models that do.

        Returns:
            `(loss, gradient, state, info)`: the mean feedforward loss before the update; a tree like the model's
            floating-point arrays, the mean over the batch; the new state; what the rule saw.

        Example:
            A step of one's own. Compile it, and donate what it replaces: the old weights and the optimiser's old state
            then give their memory to the new ones, which at batch size 1 takes a third of the time off. (What was
            donated is gone: `model` below names the new one.)

            >>> import functools, jax, jax.numpy as jnp, optax, vicinal as vc
            >>> model = vc.nn.MLP((3, 8, 2), key=jax.random.key(0))
            >>> x, y = jnp.eye(3), jnp.array([0, 1, 1])
            >>> rule, graph, optimizer = vc.rules.InferenceLearning(), vc.capture(model, x[0]), optax.sgd(0.5)
            >>> @functools.partial(jax.jit, donate_argnums=(0, 1))
            ... def step(model, optimizer_state, x, y):
            ...     loss, gradient, _, _ = rule.value_and_grad(graph, model, (), x, y)
            ...     updates, optimizer_state = optimizer.update(gradient, optimizer_state, graph.trainable(model))
            ...     return optax.apply_updates(model, updates), optimizer_state, loss
            >>> optimizer_state = optimizer.init(graph.trainable(model))
            >>> for _ in range(100):
            ...     model, optimizer_state, loss = step(model, optimizer_state, x, y)
            >>> bool(loss < 0.05)  # it was log 2 or so
            True
        """
        x, key = presented(graph, x, key)
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
        """One update of the model: `value_and_grad`, then the optimiser. A rule says how in `update`.

        Returns:
            `(model, optimizer_state, state, loss, info)`.
        """
        x, key = presented(graph, x, key)
        done = self.update(graph, optimizer, model, optimizer_state, state, x, y, key=key)
        return graph.updated(model, x, done[0]), *done[1:]

    def update(
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
        """What `step` does to the parameters: `assign`, then the optimiser.

        The optimiser may take extra arguments: `presynaptic`, a tree like the gradient with the mean squared norm of
        what enters each parameter's product; `value`, the mean loss; and for a line search (`optax.lbfgs`) `grad`,
        the gradient, and `value_fn`, the mean loss of this batch as a function of the parameters. A line search
        differentiates that function by backpropagation, whatever the rule.

        Returns:
            `(model, optimizer_state, state, loss, info)`.
        """
        gradient, credit, state = self.assign(graph, model, state, x, y, key=key)
        presynaptic, loss = presynaptic_norms(graph, model, credit.values, x), jnp.mean(credit.loss)
        extra = {"presynaptic": presynaptic, "value": loss, "grad": gradient}
        search = _mean_loss(graph, model, self.loss, x, y)
        model, optimizer_state = apply_gradient(optimizer, gradient, optimizer_state, model, **extra, value_fn=search)
        return model, optimizer_state, state, loss, credit.info


def _mean_loss(graph: Graph, model: PyTree, loss: Loss, x: PyTree, y: PyTree) -> Callable[..., Float[Array, ""]]:
    """The mean feedforward loss of a batch, as a function of the parameters; nothing is computed until it is called."""

    def value(parameters: PyTree, presynaptic: PyTree = None) -> Float[Array, ""]:
        del presynaptic  # optax's line searches want their function to take every extra argument there is
        output, _ = graph.feedforward(eqx.combine(parameters, model), x)
        return jnp.mean(jax.vmap(loss)(output, y))

    return jax.tree_util.Partial(value)  # without leaves, so that optax may pass it on into a `lax.cond`


def apply_gradient(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    optimizer_state: optax.OptState,
    model: PyTree,
    **extra: Any,
) -> tuple[PyTree, optax.OptState]:
    """The model and the optimiser's state after one gradient; `extra` is for optimisers that take it.

    Raises:
        TypeError: If the optimiser needs an argument that is not among `extra`.
        ValueError: If its state was made for other arrays than those that have a gradient.
    """
    parameters = jax.tree.map(
        lambda g, leaf: None if g is None else leaf, gradient, model, is_leaf=lambda node: node is None
    )
    # Under strict promotion optax's own arithmetic (a float to the power of an integer count) would raise.
    with jax.numpy_dtype_promotion("standard"):
        takes_extra = optax.with_extra_args_support(optimizer)
        try:
            update, optimizer_state = takes_extra.update(gradient, optimizer_state, parameters, **extra)
        except (TypeError, ValueError) as error:
            _check_taken(optimizer, optimizer_state, parameters, extra, error)
            raise
    update = jax.tree.map(lambda u, p: u.astype(p.dtype), update, parameters)  # a rate of more digits widens it
    return eqx.apply_updates(model, update), optimizer_state


def _check_taken(
    optimizer: optax.GradientTransformation, state: optax.OptState, parameters: PyTree, extra: Any, error: Exception
) -> None:
    """Raises the error that an optimiser's own error comes from, if it is one of these."""
    missing = re.search(r"missing \d+ required keyword-only arguments?: (.*)", str(error))
    if missing is not None and isinstance(error, TypeError):
        raise TypeError(
            f"expected an optimiser that needs no more than {', '.join(extra)}, got one that also needs "
            f"{missing[1]}, which this rule does not have; choose an optimiser without a line search"
        ) from error
    if jax.tree.structure(state) != jax.tree.structure(jax.eval_shape(optimizer.init, parameters)):
        raise ValueError(
            "expected an optimiser's state for the arrays of the model that are trained, got one for others; "
            "make it with optimizer.init(graph.trainable(model))"
        ) from error
