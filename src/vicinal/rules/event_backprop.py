"""Backpropagation by events: the quantisers of inference learning by events, under one sweep down."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.credit import Credit, Info
from vicinal.events import Events, Graded, Lines
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules._event_units import Recording, first_counts, heard, swept
from vicinal.rules.base import Rule, State


class EventBackprop(Rule):
    """Backpropagation of what units send, each value and each error in one event (quantised backpropagation).

        up      v_l = p_l(v^),                                v^_l = publish(v_l) from 0
        down    e_output = -dLoss/dp_output at v^,            e^_output = publish(e_output) from 0
                e_l = sum over children c of J_c(v^)^T e^_c,  e^_l = publish(e_l) from 0
        gradient  the local product of errors e^ and values v^

    It is what `EventInferenceLearning` has to be compared with: the same rounding and the same silence of small values
    and errors, without inference. As both thresholds fall to 0 it becomes backpropagation. Statistics of the batch are
    held, so that no error passes through them.

    Args:
        activity: The code of values.
        error: The code of errors. They are smaller, and so is their threshold.
        loss: Loss of one example, `loss(output, target) -> scalar`.

    Raises:
        TypeError: If a code is not `vicinal.events.Graded`: events of one size cannot send a value at once.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph, rule = vc.capture(model, jnp.ones(3)), vc.rules.EventBackprop()
        >>> x, y = jnp.array([[1.0, -1.0, 0.5]]), jnp.array([1])
        >>> _, _, _, info = rule.value_and_grad(graph, model, (), x, y)
        >>> int(info.events.sweep["hidden1"][0]), int(info.events.errors["output"][0])  # units that sent something
        (3, 2)

    References:
        Rumelhart, Hinton and Williams, Learning representations by back-propagating errors, Nature 323, 1986. The
        rounding is that of sigma-delta units (`vicinal.events.Graded`) that have sent nothing before.
    """

    local: ClassVar[bool] = False
    sends_events: ClassVar[bool] = True

    activity: Graded = eqx.field(default_factory=lambda: Graded(0.05))
    error: Graded = eqx.field(default_factory=lambda: Graded(0.0125))
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)

    def __check_init__(self):
        for name in ("activity", "error"):
            if not isinstance(code := getattr(self, name), Graded):
                raise TypeError(f"expected {name} as vicinal.events.Graded, since each unit sends once, got {code!r}")
        check_loss(self.loss)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        _, lines = swept(self.activity, graph.clamp(model, x), graph, model, x, steps=1)
        output, _ = graph.feedforward(model, x)
        loss, _ = loss_and_error(self.loss, output, y)
        top, errors = self._sent_errors(graph, model, lines.sent, x, y)
        sent = first_counts(Lines(errors | top.sent))
        none = {name: jnp.zeros_like(number) for name, number in first_counts(lines).items()}
        events = Events(none, {name: sent[name] for name in heard(graph)}, first_counts(lines))
        return Credit(loss, lines.sent, errors, top.sent[OUTPUT], Info(output, events=events)), state

    def record(self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree) -> Recording:
        """Presents a batch: values after the sweep up, errors before and after the sweep down; see `Recording`.

        Arguments are those of `credit`.
        """
        values, lines = swept(self.activity, graph.clamp(model, x), graph, model, x, steps=1)
        top, errors = self._sent_errors(graph, model, lines.sent, x, y)
        held, sent = (jax.tree.map(lambda leaf: leaf[None], tree) for tree in (values, lines.sent))
        return Recording(held, sent, jax.tree.map(lambda e: jnp.stack([jnp.zeros_like(e), e]), errors | top.sent))

    def _sent_errors(self, graph: Graph, model: PyTree, values: Values, x: PyTree, y: PyTree) -> tuple[Lines, Values]:
        """Returns what the output sends of its error, and what vertices send of theirs."""
        _, output_error = loss_and_error(self.loss, graph.prediction(OUTPUT, model, values, x), y)
        top = self._published({OUTPUT: output_error})
        return top, self._carried(graph, model, values, x, top.sent[OUTPUT])

    def errors(self, graph: Graph, model: PyTree, credit: Credit, x: PyTree) -> Values:
        return self._carried(graph, model, credit.values, x, credit.output_error)

    def _carried(self, graph: Graph, model: PyTree, values: Values, x: PyTree, output_error: PyTree) -> Values:
        """Carries the error that the output sent down to each vertex, which sends its own."""
        errors: Values = {}

        def respond(name: str, carried: Array) -> Array:
            errors[name] = self._published({name: carried}).sent[name]
            return errors[name]

        graph.clamp(model, x).linearize(values).sweep(output_error, respond)
        return {name: errors[name] for name in graph.vertices}

    def _published(self, errors: dict[str, PyTree]) -> Lines:
        return self.error.publish(self.error.silent(errors), errors)
