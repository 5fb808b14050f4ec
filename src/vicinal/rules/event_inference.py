"""Inference learning by events: units send a change when it is large enough, and learn from what was sent."""

import functools
import numbers
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from vicinal._numbers import check, check_count, check_turns, number
from vicinal.credit import Credit, Info, local_gradient, presynaptic_norms
from vicinal.energy import check_precision, converted
from vicinal.events import Code, Events, Graded
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.inference import Problem, Result
from vicinal.inference.base import conclude
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules._event_units import (
    Counts,
    Recording,
    Units,
    batch_shape,
    counted,
    first_counts,
    parts,
    swept,
    synapses_hold,
)
from vicinal.rules._moments import last_steps
from vicinal.rules._schedules import learn_in_every_step
from vicinal.rules.base import Rule, State


class EventInferenceLearning(Rule):
    """Inference learning by events (sigma-delta inference learning).

    A vertex holds a value `v` and knows its prediction `p`. Others know only what it sent of its value, `v^`, and of
    its error, `e^`: sums of events, sent when the difference is large enough (`vicinal.events`).

        start     from the input up:   v_l = p_l(v^),   v^_l = publish(v_l);     e^ = 0
        repeat    e_l = v_l - p_l(v^),   e_output = -nudge dLoss/dp_output
                  e^ = publish(e)                                                        downwards
                  v_l += step_size (sum over children c of J_c(v^)^T e^_c  -  e_l)        inside the unit
                  v^ = publish(v)                                                        upwards
        end       e^ = publish(e)
        gradient  the local product of errors e^ and values v^

    As both thresholds fall to 0 this becomes inference learning with `vicinal.inference.Simultaneous`, in first order
    of the thresholds; with `Ternary` events only if they fall in proportion to the step size.

    Weights learn from what their two ends hold *now*, so the time of the update is free (`learn`):

        "end"     when settling ends
        "any"     at one random step of the last `part` of the steps
        "mean"    the mean of the product over the last `part` of the steps. Both factors are constant between events,
                  so a synapse can keep this sum and touch it only when one of its ends sends
        "every"   at each step: the optimiser is called `steps` times per batch, and there are no phases

    Statistics of the batch (batch norm) and masks of dropout are those of the feedforward pass, and are held.

    Args:
        steps: Number of inference steps `T`.
        step_size: Step size of the activities; `vicinal.events.step_size` makes it of a membrane's time constant.
        activity: The code of values.
        error: The code of errors. They are smaller, and so is their threshold.
        learn: When weights learn.
        part: The last part of the steps from which `"any"` draws and over which `"mean"` averages, above 0 to 1.
        apart: Whether `"any"` draws a step for each example in place of one for the batch.
        carry: Whether values and what was sent go on from one batch to the next, in place of a feedforward sweep: for
            streams, in which only changes cost events. Example `i` of each batch is stream `i`.
        streams: With `carry`, the number of streams: the batch size.
        loss: Loss of one example, `loss(output, target) -> scalar`.
        nudge: 1 clamps the output to the target; `n < 1` holds it at `n * target + (1 - n) * prediction`.
        precision: A number for all vertices, or a mapping from names to numbers; 1 by default.

    Raises:
        TypeError: If a code is none, or `part` is no Python number.
        ValueError: If a setting is out of its range, or a precision names no vertex of the graph.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph, rule = vc.capture(model, jnp.ones(3)), vc.rules.EventInferenceLearning(steps=10)
        >>> x, y = jnp.array([[1.0, -1.0, 0.5]]), jnp.array([1])
        >>> _, gradient, _, info = rule.value_and_grad(graph, model, (), x, y)
        >>> sorted(info.events.errors)  # no vertex receives the error of hidden1
        ['output']

    References:
        O'Connor, Gavves and Welling, Training a spiking neural network with equilibrium propagation, AISTATS 2019
        (events of changes). Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv
        2206.00164 (inference learning). The combination and its limits are ours; DiffPC (ICLR 2026) sends ternary
        changes in a cycle of sizes (`vicinal.events.Cyclic`).
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True
    sends_events: ClassVar[bool] = True

    steps: int = eqx.field(static=True, default=20)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=0.1)
    activity: Code = eqx.field(default_factory=lambda: Graded(0.05))
    error: Code = eqx.field(default_factory=lambda: Graded(0.0125))
    learn: Literal["end", "any", "mean", "every"] = eqx.field(static=True, default="end")
    part: float = eqx.field(static=True, default=0.5)
    apart: bool = eqx.field(static=True, default=False)
    carry: bool = eqx.field(static=True, default=False)
    streams: int = eqx.field(static=True, default=1)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)
    nudge: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    precision: Any = eqx.field(converter=converted, default=None)

    def __check_init__(self):
        check_turns("steps", self.steps, 1)
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        for name in ("activity", "error"):
            if not isinstance(getattr(self, name), Code):
                raise TypeError(f"expected {name} as a code of vicinal.events, got {getattr(self, name)!r}")
        if self.learn not in ("end", "any", "mean", "every"):
            raise ValueError(f"expected learn as 'end', 'any', 'mean' or 'every', got {self.learn!r}")
        if isinstance(self.part, bool) or not isinstance(self.part, numbers.Real):
            raise TypeError(f"expected part as a Python number above 0 to 1, got {self.part!r}")
        check("part, a part of the steps,", self.part, lambda v: (v > 0) & (v <= 1), "above 0 to 1")
        for name in ("apart", "carry"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"expected {name} as True or False, got {getattr(self, name)!r}")
        check_count("streams", self.streams)
        check("nudge", self.nudge, lambda v: (v > 0) & (v <= 1), "in (0, 1]")
        check_loss(self.loss)

    @property
    def phases(self) -> bool:  # type: ignore[override]
        return self.learn != "every"

    @property
    def takes_product_of_credit(self) -> bool:
        return self.learn in ("end", "any")

    def init(self, graph: Graph, model: PyTree, *, key: PRNGKeyArray | None = None) -> State:
        """Returns `()`; with `carry`, units that hold nothing and have sent nothing, and that nothing has begun."""
        del key
        if not self.carry:
            return ()
        values = jax.tree.map(lambda leaf: jnp.zeros((self.streams, *leaf.shape), leaf.dtype), dict(graph.shapes))
        output = values.pop(OUTPUT)
        return self._silent(values, output), jnp.zeros((), bool)

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        return self.assign(graph, model, state, x, y, key=key)[1:]

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        """Assigns credit with the weights held; for `"every"` the gradient is the sum of those of the steps."""
        problem = self._problem(graph, model, x, y)
        begun, sweep = self._begin(problem, state)
        last = self.steps if self.learn == "every" else last_steps(self.steps, self.part)
        drawn = self._drawn(last, begun, key) if self.learn == "any" else None
        summed = self.learn in ("mean", "every")

        def body(carry: Any, t: Array, learns: bool = False) -> tuple[Any, None]:
            units, kept, counts, total = carry
            new, more = self._step(problem, units, t)
            if drawn is not None:
                kept = _chosen(t == drawn, new, kept)
            if learns:
                total = jax.tree.map(jnp.add, total, local_gradient(graph, model, synapses_hold(new), x))
            return (new, kept, jax.tree.map(jnp.add, counts, more), total), None

        kept = None if drawn is None else begun
        counts = jax.tree.map(jnp.zeros_like, counted(graph, begun, begun))
        total = jax.tree.map(jnp.zeros_like, graph.trainable(model)) if summed else None
        first = self.steps - last if summed else self.steps  # products before are not part of the sum
        carry, _ = jax.lax.scan(body, (begun, kept, counts, total), jnp.arange(first))
        if summed:
            carry, _ = jax.lax.scan(functools.partial(body, learns=True), carry, jnp.arange(first, self.steps))
        units, kept, counts, total = carry
        ended, errors = self._end(problem, units)
        counts = jax.tree.map(jnp.add, counts, counted(graph, units, ended))
        credit = self._credit(problem, begun.values, ended, errors, Events(counts[0], counts[1], sweep))
        if kept is not None:
            credit = eqx.tree_at(lambda c: (c.values, c.errors, c.output_error), credit, replace=parts(kept))
        state = (ended, jnp.ones((), bool)) if self.carry else state
        if not summed:
            return local_gradient(graph, model, credit, x), credit, state
        share = 1 if self.learn == "every" else last
        return jax.tree.map(lambda s: s / jnp.asarray(share, s.dtype), total), credit, state

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
        if self.learn != "every":
            return super().update(graph, optimizer, model, optimizer_state, state, x, y, key=key)
        problem = self._problem(graph, model, x, y)
        begun, sweep = self._begin(problem, state)
        output, _ = graph.feedforward(model, x)
        mean = jnp.mean(loss_and_error(self.loss, output, y)[0])
        counts = jax.tree.map(jnp.zeros_like, counted(graph, begun, begun))

        def step(model: PyTree, moving: Any, t: Array) -> tuple[Any, PyTree, PyTree]:
            units, counts = moving
            new, more = self._step(self._problem(graph, model, x, y), units, t)
            gradient = local_gradient(graph, model, synapses_hold(new), x)
            norms = presynaptic_norms(graph, model, new.activities.sent, x)
            return (new, jax.tree.map(jnp.add, counts, more)), gradient, norms

        model, optimizer_state, (units, counts) = learn_in_every_step(
            step, optimizer, model, optimizer_state, (begun, counts), steps=self.steps, loss=mean
        )
        moved = self._problem(graph, model, x, y)
        ended, errors = self._end(moved, units)
        counts = jax.tree.map(jnp.add, counts, counted(graph, units, ended))
        info = self._credit(
            moved, jnp.full(batch_shape(ended), jnp.inf), ended, errors, Events(counts[0], counts[1], sweep)
        ).info
        info = eqx.tree_at(lambda i: i.output, info, output)
        state = (ended, jnp.ones((), bool)) if self.carry else state
        return model, optimizer_state, state, mean, info

    def record(self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree) -> Recording:
        """Presents a batch with the weights held, and keeps every step.

        Args:
            graph: The captured graph.
            model: The model.
            state: From `init` or the last update.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            Everything that was held and sent. It needs `steps` times the memory of the activities.
        """
        problem = self._problem(graph, model, x, y)
        begun, _ = self._begin(problem, state)

        def body(units: Units, t: Array) -> tuple[Units, tuple[Values, Values, Values]]:
            new, _ = self._step(problem, units, t)
            return new, (new.values, new.activities.sent, new.errors.sent)

        units, rows = jax.lax.scan(body, begun, jnp.arange(self.steps))
        ended, _ = self._end(problem, units)
        start = (begun.values, begun.activities.sent, begun.errors.sent)
        held = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, rows)
        last = jax.tree.map(lambda rest, end: jnp.concatenate([rest, end[None]]), held[2], ended.errors.sent)
        return Recording(held[0], held[1], last)

    def _problem(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> Problem:
        check_precision(self.precision, graph)
        return Problem(graph, model, x, y, self.loss, self.nudge, self.precision)

    def _silent(self, values: Values, output: PyTree) -> Units:
        silent = self.error.silent({**values, OUTPUT: output})
        return Units(values, self.activity.silent(values), silent)

    def _begin(self, problem: Problem, state: State) -> tuple[Units, Counts]:
        """Returns the units at the start, and the events of the sweep that got them there."""
        if not self.carry:
            return self._swept(problem)
        units, begun = state
        batch = jax.tree.leaves(problem.x)[0].shape[0]
        if batch != self.streams:
            raise ValueError(
                f"expected batches of {self.streams} for as many streams, got one of {batch}; set streams={batch}, "
                "or leave out what is left of an epoch"
            )
        units = eqx.tree_at(lambda u: u.values, units, problem.predict.counted(units.values))
        none = {name: jnp.zeros(batch, jnp.int32) for name in units.values}
        return jax.lax.cond(begun, lambda: (units, none), lambda: self._swept(problem))

    def _swept(self, problem: Problem) -> tuple[Units, Counts]:
        """Returns the units after the feedforward sweep, and its events."""
        graph, model, x = problem.graph, problem.model, problem.x
        values, lines = swept(self.activity, problem.predict, graph, model, x, self.steps)
        output, _ = graph.feedforward(model, x)
        return Units(values, lines, self._silent(values, output).errors), first_counts(lines)

    def _step(self, problem: Problem, units: Units, t: Array) -> tuple[Units, tuple[Any, Any]]:
        """Takes one step; returns the units after it and the events that it took."""
        sent = units.activities.sent
        (output, predictions), back = jax.vjp(problem.predict, sent)
        held = problem.vertex_energy.errors(units.values, predictions)
        errors = self.error.publish(units.errors, held | {OUTPUT: problem.output_error(output, sent)}, t, self.steps)
        (feedback,) = back((errors.sent[OUTPUT], {name: errors.sent[name] for name in predictions}))
        pulls = problem.vertex_energy.pulls(units.values, predictions)
        size = self.step_size

        def moved(value: Array, feedback: Array, pull: Array) -> Array:
            return value + size.astype(value.dtype) * (feedback - pull)

        values = jax.tree.map(moved, units.values, feedback, pulls)
        new = Units(values, self.activity.publish(units.activities, values, t, self.steps), errors)
        return new, counted(problem.graph, units, new)

    def _end(self, problem: Problem, units: Units) -> tuple[Units, dict[str, PyTree]]:
        """Publishes errors once more; returns the units, and the errors that they hold."""
        output, predictions = problem.predict(units.activities.sent)
        held = problem.vertex_energy.errors(units.values, predictions)
        held = held | {OUTPUT: problem.output_error(output, units.activities.sent)}
        return Units(
            units.values, units.activities, self.error.publish(units.errors, held, self.steps, self.steps)
        ), held

    def _drawn(self, last: int, units: Units, key: PRNGKeyArray | None) -> Int[Array, "..."]:
        """Draws the step after which weights learn, one for the batch or for each example."""
        if key is None:
            raise ValueError("expected a key for the time of the update, got None; pass key=jax.random.key(...)")
        return jax.random.randint(key, batch_shape(units) if self.apart else (1,), self.steps - last, self.steps)

    def _credit(self, problem: Problem, start: Any, ended: Units, errors: dict[str, PyTree], events: Events) -> Credit:
        output, _ = problem.graph.feedforward(problem.model, problem.x)
        loss, _ = loss_and_error(self.loss, output, problem.y)
        settled = conclude(problem, start, ended.values, self.steps)
        late = self.activity.late(ended.activities, ended.values, self.steps - 1, self.steps)
        late = late | self.error.late(ended.errors, errors, self.steps, self.steps)
        code = jnp.where(late & (settled.result == Result.STEP_LIMIT), jnp.int32(Result.SLEW_LIMITED), settled.result)
        info = Info(output, code, settled.steps, settled.energies, events=events)
        values, of_vertices, of_output = parts(ended)
        return Credit(loss, values, of_vertices, of_output, info)


def _chosen(now: Bool[Array, "..."], new: Units, kept: Units) -> Units:
    """Returns new units where it is time to, else those that are kept."""
    return jax.tree.map(lambda a, b: jnp.where(now.reshape(-1, *(1,) * (a.ndim - 1)), a, b), new, kept)
