"""The interface of learning rules."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._show import module_text
from vicinal.credit import Credit, ExampleGradients, Info, local_gradient, presynaptic_norms
from vicinal.graph import Graph, Values
from vicinal.losses import Loss

State = PyTree
"""What a rule carries from one update to the next: any pytree; `()` for a rule without state."""


class Rule(eqx.Module):
    """A learning rule: it assigns a value and an error to each vertex.

    A rule is a frozen pytree. Its numeric hyper-parameters are arrays, so that changing one does not recompile, and
    `jax.vmap` can map over a grid of them. To write a rule, implement `credit`, and `errors` unless `holds_errors`;
    the other methods follow. `vicinal.testing.check_rule` checks a rule.
    """

    loss: eqx.AbstractVar[Loss]
    local: eqx.AbstractClassVar[bool]
    """Whether the update of each synapse depends on its two ends only; `vicinal.analysis.audit` checks this."""
    phases: ClassVar[bool] = True
    """Whether weights are held until credit is assigned. A rule without phases updates them during credit assignment:
    it overrides `update`, and its gradient is the effect of a step to first order in the learning rate."""
    holds_errors: ClassVar[bool] = False
    """Whether errors are states of the vertices, beside their values; `errors` then returns them."""
    sends_events: ClassVar[bool] = False
    """Whether units send events; each update then records their numbers in `Info.events`, for records of runs."""

    def __repr__(self) -> str:
        return module_text(self)

    @property
    def takes_product_of_credit(self) -> bool:
        """Whether the gradient is the local product of what `credit` returns, so that examples have theirs as well."""
        return True

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns the state before the first update; `()` for a rule without state."""
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
            key: A key, for rules that draw random numbers.

        Returns:
            `(credit, state)`: values and errors, and the new state.
        """
        raise NotImplementedError

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        """Computes the error of each vertex from the values and errors that `credit` holds.

        Synapses need what this function reads; `vicinal.analysis.audit` checks that it is local. With `holds_errors`
        it returns the errors that are held.

        Args:
            graph: The captured graph.
            model: The model.
            credit: Values and errors.
            x: Inputs, `[batch, ...]`.

        Returns:
            The error of each vertex, `[batch, ...]`.
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
        """Computes loss and gradient, in place of `jax.value_and_grad`: `credit`, then the local product.

        Args:
            graph: The captured graph.
            model: The model.
            state: From `init` or the last update.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.
            key: A key, for rules or models that draw random numbers.

        Returns:
            `(loss, gradient, state, info)`: the mean feedforward loss before the update; the gradient, the mean over
            the batch, in a tree like `graph.trainable(model)`; the new state; and what the rule recorded.

        Raises:
            ValueError: If the model takes a key and there is none.

        Example:
            Your own training step. Compile it and donate its arguments: the new weights and optimiser state then reuse
            the memory of the old ones, which saves a third of the time at batch size 1. (Donated arrays are deleted:
            `model` below is the new one.)

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
            >>> bool(loss < 0.05)  # it started near log 2
            True
        """
        x, key = graph.with_keys(x, key)
        gradient, credit, state = self.assign(graph, model, state, x, y, key=key)
        return jnp.mean(credit.loss), gradient, state, credit.info

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        """Assigns credit, then takes the local product; returns `(gradient, credit, state)`."""
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
        """Updates the model: `value_and_grad`, then the optimiser. Rules without phases override `update`, not this.

        Args:
            graph: The captured graph.
            optimizer: An optax transformation.
            model: The model.
            optimizer_state: From `optimizer.init(graph.trainable(model))` or the last step.
            state: From `init` or the last step.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.
            key: A key, for rules or models that draw random numbers.

        Returns:
            `(model, optimizer_state, state, loss, info)`.
        """
        x, key = graph.with_keys(x, key)
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
        """Updates the parameters, for `step`: `assign`, then the optimiser.

        The optimiser may take extra arguments: `presynaptic`, a tree like the gradient with the mean squared norm of
        the activity that each parameter multiplies; `value`, the mean loss; and for a line search (`optax.lbfgs`)
        `grad`, the gradient, and `value_fn`, the mean loss of this batch as a function of the parameters. A line search
        differentiates that function by backpropagation, whatever the rule. For steps on hardware there are `model_fn`,
        a function that returns the model with its fixed arrays, and `examples`, the gradient of each example, or None
        where it is no local product of one value and one error. Arguments are those of `step`.

        Returns:
            `(model, optimizer_state, state, loss, info)`.
        """
        gradient, credit, state = self.assign(graph, model, state, x, y, key=key)
        presynaptic, loss = presynaptic_norms(graph, model, credit.values, x), jnp.mean(credit.loss)
        extra = {"presynaptic": presynaptic, "value": loss, "grad": gradient}
        extra["examples"] = ExampleGradients(graph, model, credit, x) if self.takes_product_of_credit else None
        search = _mean_loss(graph, model, self.loss, x, y)
        model, optimizer_state = apply_gradient(optimizer, gradient, optimizer_state, model, **extra, value_fn=search)
        return model, optimizer_state, state, loss, credit.info


def _mean_loss(graph: Graph, model: PyTree, loss: Loss, x: PyTree, y: PyTree) -> Callable[..., Float[Array, ""]]:
    """Returns the mean feedforward loss of a batch as a function of the parameters."""

    def value(
        parameters: PyTree, presynaptic: PyTree = None, examples: Any = None, model_fn: Any = None
    ) -> Float[Array, ""]:
        del presynaptic, examples, model_fn  # optax's line searches pass every extra argument to their function
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
    """Applies one gradient to the model.

    Args:
        optimizer: An optax transformation.
        gradient: A tree like `graph.trainable(model)`.
        optimizer_state: Its state.
        model: The model.
        **extra: Extra arguments, for optimisers that take them.

    Returns:
        `(model, optimizer_state)`.

    Raises:
        TypeError: If the optimiser needs an argument that is not among `extra`.
        ValueError: If its state was made for other arrays than those that have a gradient.
    """
    parameters = jax.tree.map(
        lambda g, leaf: None if g is None else leaf, gradient, model, is_leaf=lambda node: node is None
    )
    extra["model_fn"] = jax.tree_util.Partial(lambda: model)
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
    """Raises the cause of an optimiser's error, if it is a missing argument or a state for other arrays."""
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
