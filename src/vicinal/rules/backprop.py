"""Backpropagation: feedforward values, adjoints as errors."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from vicinal.credit import Credit, Info, batch_mean
from vicinal.graph import Graph, Values
from vicinal.inference import Proximal
from vicinal.losses import Loss, check_loss, loss_and_error, scale_examples, softmax_cross_entropy
from vicinal.rules.base import Rule, State


class Backprop(Rule):
    """Backpropagation of the loss, in the form of the other rules; the reference of all comparisons.

        value_l = prediction_l                          (feedforward)
        error_L = -dLoss/d output
        error_l = sum over children c of J_c^T error_c

    The gradient equals `jax.grad` of the mean loss, at the same cost once compiled. This also holds for models that
    take statistics of the batch; the other rules carry no errors through these.

    Args:
        loss: Loss of one example, `loss(output, target) -> scalar`.
        proximal: Replaces the target by the proximal optimum for a learning rate (BP-prox). None: the target itself.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph = vc.capture(model, jnp.ones(3))
        >>> rule = vc.rules.Backprop()
        >>> loss, gradient, _, _ = rule.value_and_grad(graph, model, (), jnp.ones((5, 3)), jnp.zeros(5, int))
        >>> gradient.layers[0].weight.shape
        (4, 3)

    References:
        Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, Nature 323, 1986.
    """

    local: ClassVar[bool] = False

    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)
    proximal: Proximal | None = None

    def __check_init__(self):
        check_loss(self.loss)

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
        output, values = graph.feedforward(model, x)
        loss, output_error = loss_and_error(self.loss, output, y)
        if self.proximal is not None:
            gain = self.proximal.gain(graph, model, values, x)
            output_error = jax.tree.map(lambda e: scale_examples(gain, e), output_error)
        errors = _adjoints(graph, model, values, x, output_error)
        return Credit(loss, values, errors, output_error, Info(output)), state

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        return _adjoints(graph, model, credit.values, x, credit.output_error)

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        if graph.batch_size is None:
            return super().assign(graph, model, state, x, y, key=key)
        # Through a statistic of the batch, parameters reach the loss without passing a vertex of the same example.
        credit, state = self.credit(graph, model, state, x, y, key=key)
        parameters, rest = graph.partition(model)
        _, back = jax.vjp(lambda p: graph.feedforward(eqx.combine(p, rest), x)[0], parameters)
        (ascent,) = back(credit.output_error)
        return batch_mean(ascent, credit.loss.shape[0]), credit, state


def _adjoints(graph: Graph, model: PyTree, values: Values, x: PyTree, output_error: PyTree) -> Values:
    """Computes minus the gradients of the loss at the vertices, through statistics of the batch too."""
    if graph.batch_size is None:
        return graph.adjoints(model, values, x, output_error)
    nothing = jax.tree.map(jnp.zeros_like, values)
    _, back = jax.vjp(lambda deviations: graph.deviated(model, x, deviations), nothing)
    return back(output_error)[0]
