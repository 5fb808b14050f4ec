"""Incremental predictive coding: weights and activities move together, at every inference step."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, check_turns, number
from vicinal.credit import Credit, Info, batch_mean, in_pieces, mean_products, presynaptic_norms
from vicinal.energy import SUBTRACTIVE, Encoding, VertexEnergy, check_encoding, check_precision, converted
from vicinal.graph import Graph, Values
from vicinal.inference import Problem
from vicinal.inference.base import conclude, moved, total
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules._schedules import learn_in_every_step
from vicinal.rules.base import Rule, State


class IncrementalPC(Rule):
    """Incremental predictive coding (iPC): one gradient of the energy moves activities and weights, at every step.

        F       = nudge * loss(output, y) + sum over vertices of precision/2 ||value_l - prediction_l||^2
        repeat `steps` times, both from the same state:
            value_l -= step_size * dF/dvalue_l
            theta    = optimizer(theta, dF/dtheta)

    There are no phases, so nothing has to signal the end of inference. The optimiser is called `steps` times per batch:
    give it a learning rate that is smaller than for inference learning by that factor. Schedules count batches, so that
    a schedule over the run ends with the run; counts such as Adam's bias correction count calls. `value_and_grad`
    has no optimiser: it holds the weights and returns the sum of the `steps` gradients, which is what `step` applies to
    first order in the learning rate.

    The result code of `step` does not say whether energies rose, since moving weights may raise the energy of an
    example while that of the batch falls. That of `credit`, which holds the weights, does.

    Args:
        steps: Number of steps per batch.
        step_size: Step size of the activities.
        loss: Loss of one example, `loss(output, target) -> scalar`.
        nudge: 1 clamps the output to the target; `n < 1` holds it at `n * target + (1 - n) * prediction`.
        precision: One number for all vertices, or one for each by name; 1 by default.
        encoding: How errors are encoded (`vicinal.energy`): as differences by default.

    Raises:
        ValueError: If a setting is out of its range, or a precision names no vertex of the graph.

    Example:
        >>> import jax, jax.numpy as jnp, optax, vicinal as vc
        >>> model, x, y = vc.nn.MLP((3, 4, 2), key=jax.random.key(0)), jnp.ones((5, 3)), jnp.zeros(5, int)
        >>> graph, rule, optimizer = vc.capture(model, x[0]), vc.rules.IncrementalPC(steps=4), optax.sgd(0.1)
        >>> model, *_, info = rule.step(graph, optimizer, model, optimizer.init(graph.trainable(model)), (), x, y)
        >>> int(info.steps[0])
        4

    References:
        Salvatori, Song, Yordanov, Millidge, Xu, Sha, Emde, Bogacz and Lukasiewicz, A stable, fast, and fully automatic
        learning algorithm for predictive coding networks, ICLR 2024, arXiv 2212.00720.
    """

    local: ClassVar[bool] = True
    phases: ClassVar[bool] = False

    steps: int = eqx.field(static=True, default=5)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)
    nudge: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    precision: Any = eqx.field(converter=converted, default=None)
    encoding: Encoding = SUBTRACTIVE

    def __check_init__(self):
        check_turns("steps", self.steps, 1)
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        check("nudge", self.nudge, lambda v: (v > 0) & (v <= 1), "in (0, 1]")
        check_loss(self.loss)
        check_encoding(self.encoding)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        """Assigns credit with the weights held: values and errors after the last step."""
        return self.assign(graph, model, state, x, y, key=key)[1:]

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        _, predictions = graph.predict(model, credit.values, x)
        return VertexEnergy(self.precision, self.encoding).errors(credit.values, predictions)

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        output, begin = graph.feedforward(model, x)

        def body(carry: Any, t: Array) -> tuple[Any, None]:
            values, gradient = carry
            values, added = self._move(graph, model, values, x, y, t)
            return (values, jax.tree.map(jnp.add, gradient, added)), None

        nothing = jax.tree.map(jnp.zeros_like, graph.trainable(model))
        (values, gradient), _ = jax.lax.scan(body, (begin, nothing), jnp.arange(self.steps))
        problem = self._problem(graph, model, x, y)
        errors, (loss, _) = problem.errors(values), loss_and_error(self.loss, output, y)
        info = self._info(problem, output, total(problem.energies(begin)), values)
        return gradient, Credit(loss, values, errors.by_vertex, errors.output, info), state

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
        output, begin = graph.feedforward(model, x)
        loss, _ = loss_and_error(self.loss, output, y)

        def step(model: PyTree, values: Values, t: Array) -> tuple[Values, PyTree, PyTree]:
            new, gradient = self._move(graph, model, values, x, y, t)
            presynaptic = presynaptic_norms(graph, model, values, x)
            return new, gradient, presynaptic

        mean = jnp.mean(loss)
        model, optimizer_state, values = learn_in_every_step(
            step, optimizer, model, optimizer_state, begin, steps=self.steps, loss=mean
        )
        info = self._info(self._problem(graph, model, x, y), output, jnp.full_like(loss, jnp.inf), values)
        return model, optimizer_state, state, mean, info

    def _move(
        self, graph: Graph, model: PyTree, values: Values, x: PyTree, y: PyTree, t: Array
    ) -> tuple[Values, PyTree]:
        """Computes the activities after a step and the gradient of the weights, both from the state before it."""
        parameters, rest = graph.partition(model)
        problem = self._problem(graph, model, x, y)

        def predict(parameters: PyTree, values: Values) -> tuple[PyTree, Values]:
            return graph.predict(eqx.combine(parameters, rest), values, x)

        (output, predictions), back = jax.vjp(predict, parameters, values)
        errors = problem.vertex_energy.errors(values, predictions)
        errors = problem.output_error(output, values), errors
        ascent, feedback = back(errors)
        slope = jax.tree.map(jnp.subtract, feedback, problem.vertex_energy.pulls(values, predictions))
        batch = jax.tree.leaves(x)[0].shape[0]
        whole = not in_pieces(graph, errors, batch)
        gradient = batch_mean(ascent, batch) if whole else mean_products(graph, model, (values, x), errors)
        return moved(values, slope, self.step_size, False, t), gradient

    def _problem(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> Problem:
        check_precision(self.precision, graph)
        return Problem(graph, model, x, y, self.loss, self.nudge, self.precision, encoding=self.encoding)

    def _info(self, problem: Problem, output: PyTree, before: Float[Array, " batch"], values: Values) -> Info:
        ended = conclude(problem, before, values, self.steps)
        return Info(output, ended.result, ended.steps, ended.energies)
