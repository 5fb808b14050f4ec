"""Inference learning in spikes: integrate-and-fire units send values and errors, and learn from low-pass traces."""

import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from vicinal._numbers import check, check_turns, number
from vicinal.credit import Credit, Info, local_gradient
from vicinal.energy import check_precision, converted
from vicinal.events import Events
from vicinal.graph import OUTPUT, Graph, Values
from vicinal.inference import Problem, Result
from vicinal.inference.base import conclude, total
from vicinal.losses import Loss, check_loss, loss_and_error, softmax_cross_entropy
from vicinal.rules._moments import chosen, drawn_step, last_steps, observed
from vicinal.rules._spiking_units import Counts, Units, counts_of, traces_of
from vicinal.rules.base import Rule, State
from vicinal.spikes import Generator, Spiking


class SpikeRecording(eqx.Module):
    """A presentation step by step; made by `SpikingInferenceLearning.record`.

    Attributes:
        potentials: What each vertex held at the start and after each step, `[steps + 1, batch, ...]`.
        values: The trace of each vertex at these times, `[steps + 1, batch, ...]`.
        errors: The trace of the error of each vertex, and of `"output"`, `[steps + 1, batch, ...]`.
        value_spikes: The spikes of each step by vertex, `[steps, batch, ...]`; those of negative generators count
            negative.
        error_spikes: The same of errors, also for `"output"`.
    """

    potentials: Values
    values: Values
    errors: Values
    value_spikes: Values
    error_spikes: Values


class SpikingInferenceLearning(Rule):
    """Inference learning by spikes of integrate-and-fire units, without surrogate gradients.

    A vertex holds a potential `v` and knows its prediction `p`. Each unit has two pairs of generators
    (`vicinal.spikes.Generator`), of which one sends positive and the other negative parts: `v+` and `v-`, and for its
    error `(v - p)+` and `(p - v)+`. Others know only the traces of these spikes, `r` of values and `q` of errors.

        start     v = r = the feedforward values;     q = 0
        repeat    e_l = v_l - p_l(r),   e_output = -nudge dLoss/dp_output(r)
                  q += share (area (spikes of e+ - spikes of e-) - q)                    downwards
                  v_l += step_size (sum over children c of J_c(r)^T q_c  -  e_l)          inside the unit
                  r += share (area (spikes of v+ - spikes of v-) - r)                    upwards
        end       q once more
        gradient  the local product of traces of errors `q` and of values `r`

    with `share = 1 - exp(-1 / trace)`. No spike is ever differentiated. `J_c(r)` is the derivative of the prediction of
    a child in its inputs at the traces, which both sides know. With vertices at potentials, `p = W f(r) + b`, it is
    `W f'(r)`: each unit multiplies what it receives by its own gate, `1[r > 0]` for rectified units. With vertices at
    rates, `p = f(W r + b)`, it is the gate of the child, at the input that it gets. The negative generators of units
    that are never negative are silent. A rectified unit with its vertex at the potential sends negative spikes to no
    effect.

    Without leak, this becomes inference learning with `vicinal.inference.Simultaneous` in first order of the area of
    a spike, if any number of spikes is allowed in a step: of the same steps if traces are short, and at equilibrium
    otherwise. With a leak units start where they would come to rest: `r` at the mean of what is sent of `v`, and `v` at
    its prediction from traces. An error below `area / leak` is never sent, and of the errors of a softmax output that
    leaves the large ones of one sign: with an area of 1 and a leak of 20 steps in generators of errors, weights grow
    until rates can no longer be sent. Leave `error` without leak, or its area small.

    Weights learn from the traces at their two ends, at any time (`learn`):

        "end"     when settling ends
        "any"     at one random step of the last `part` of the steps
        "mean"    the mean of the product over the last `part` of the steps

    A rate above `most * area` cannot be sent, and values then never settle: it should be at least 1.5 times the largest
    rate. Examples in which a unit came closer have the code `Result.RATE_LIMITED`. It is `Result.DIVERGED` instead if
    the energy ended above where it started by more than errors as large as what one spike adds to a trace: less is the
    ripple of spikes.

    The feedforward values are in all traces at the start as if spikes had run for long, and no spikes are counted for
    that: `Info.events.sweep` is 0, `values` and `errors` are the spikes while settling. Statistics of the batch (batch
    norm) and masks of dropout are those of the feedforward pass, and are held.

    Args:
        steps: Number of inference steps `T`.
        step_size: Step size of potentials; that of a membrane of time constant `tau` steps is `1 - exp(-1 / tau)`, by
            default for 20 steps. `vicinal.events.step_size` makes it of times.
        activity: The generators of values.
        error: The generators of errors.
        learn: When weights learn.
        part: The last part of the steps from which `"any"` draws and over which `"mean"` averages, above 0 to 1.
        loss: Loss of one example, `loss(output, target) -> scalar`.
        nudge: 1 clamps the output to the target; `n < 1` holds it at `n * target + (1 - n) * prediction`.
        precision: A number for all vertices, or a mapping from names to numbers; 1 by default.

    Raises:
        TypeError: If generators are none.
        ValueError: If a setting is out of its range, or a precision names no vertex of the graph.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph, rule = vc.capture(model, jnp.ones(3)), vc.rules.SpikingInferenceLearning()
        >>> x, y = jnp.array([[1.0, -1.0, 0.5]]), jnp.array([1])
        >>> _, gradient, _, info = rule.value_and_grad(graph, model, (), x, y)
        >>> vc.inference.Result(int(info.result[0])).name, int(info.events.errors["output"][0]) > 0
        ('STEP_LIMIT', True)

    References:
        Alonso et al., A theoretical framework for inference learning, NeurIPS 2022, arXiv 2206.00164 (inference
        learning). Ororbia, Spiking neural predictive coding for continual learning from data streams, arXiv 1908.08655
        (predictive coding in spikes, with units for errors). The rule on any graph, and its limits, are ours.
    """

    local: ClassVar[bool] = True
    holds_errors: ClassVar[bool] = True
    sends_events: ClassVar[bool] = True

    steps: int = eqx.field(static=True, default=120)
    step_size: Float[Array, ""] = eqx.field(converter=number, default=-math.expm1(-1 / 20))
    activity: Generator = eqx.field(default_factory=Generator)
    error: Generator = eqx.field(default_factory=Generator)
    learn: Literal["end", "any", "mean"] = eqx.field(static=True, default="end")
    part: float = eqx.field(static=True, default=0.5)
    loss: Loss = eqx.field(static=True, default=softmax_cross_entropy)
    nudge: Float[Array, ""] = eqx.field(converter=number, default=1.0)
    precision: Any = eqx.field(converter=converted, default=None)

    def __check_init__(self):
        check_turns("steps", self.steps, 1)
        check("the step size", self.step_size, lambda v: v >= 0, "of at least 0")
        for name in ("activity", "error"):
            if not isinstance(getattr(self, name), Generator):
                raise TypeError(f"expected {name} as a vicinal.spikes.Generator, got {getattr(self, name)!r}")
        if self.learn not in ("end", "any", "mean"):
            raise ValueError(f"expected learn as 'end', 'any' or 'mean', got {self.learn!r}")
        check("part, a part of the steps,", self.part, lambda v: (v > 0) & (v <= 1), "above 0 to 1")
        check("nudge", self.nudge, lambda v: (v > 0) & (v <= 1), "in (0, 1]")
        check_loss(self.loss)

    @property
    def takes_product_of_credit(self) -> bool:
        return self.learn != "mean"

    def credit(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Credit, State]:
        problem, begun = self._begin(graph, model, x, y)
        last = last_steps(self.steps, self.part)
        drawn = drawn_step(key, (1,), self.steps, last) if self.learn == "any" else None

        def body(carry: Any, t: Array) -> tuple[Any, None]:
            units, counts, kept = carry
            units, counts = self._counted_step(problem, units, counts)
            return (units, counts, kept if drawn is None else chosen(t == drawn, traces_of(units), kept)), None

        start = (begun, counts_of(graph, begun), None if drawn is None else traces_of(begun))
        (units, counts, kept), _ = jax.lax.scan(body, start, jnp.arange(self.steps))
        return self._credit(problem, begun, units, counts, kept), state

    def assign(
        self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[PyTree, Credit, State]:
        if self.learn != "mean":
            return super().assign(graph, model, state, x, y, key=key)
        problem, begun = self._begin(graph, model, x, y)

        def step(carry: Any, t: Array) -> Any:
            return self._counted_step(problem, *carry)

        def product(carry: Any) -> PyTree:
            values, (output, errors) = traces_of(carry[0])
            return local_gradient(graph, model, Credit(jnp.zeros(()), values, errors, output, Info(None)), x)

        last = last_steps(self.steps, self.part)
        (units, counts), mean = observed(step, (begun, counts_of(graph, begun)), product, self.steps, last)
        return mean, self._credit(problem, begun, units, counts), state

    def record(self, graph: Graph, model: PyTree, state: State, x: PyTree, y: PyTree) -> SpikeRecording:
        """Presents a batch, and keeps every step.

        Args:
            graph: The captured graph.
            model: The model.
            state: `()`.
            x: Inputs, `[batch, ...]`.
            y: Targets, `[batch, ...]`.

        Returns:
            Potentials, traces and spikes. They need `steps` times the memory of the activities.
        """
        problem, begun = self._begin(graph, model, x, y)

        def body(units: Units, t: Array) -> tuple[Units, tuple[PyTree, PyTree]]:
            new = self._step(problem, units)
            spikes = jax.tree.map(lambda n: n[0] - n[1], (new.values.spikes, new.errors.spikes))
            return new, ((new.potentials, new.values.traces, new.errors.traces), spikes)

        _, (rows, spikes) = jax.lax.scan(body, begun, jnp.arange(self.steps))
        start = (begun.potentials, begun.values.traces, begun.errors.traces)
        held = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, rows)
        return SpikeRecording(*held, *spikes)

    def _begin(self, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> tuple[Problem, Units]:
        check_precision(self.precision, graph)
        problem = Problem(graph, model, x, y, self.loss, self.nudge, self.precision)
        output, values = graph.feedforward(model, x)
        values = problem.predict.counted(values)
        traces = self.activity.sending(values).traces
        if self.activity.leak is not None:  # what is sent is less than what is held
            for name in graph.vertices:
                own = problem.predict.counted({name: graph.prediction(name, model, traces, x)})
                values, traces = values | own, traces | self.activity.sending(own).traces
        sending = eqx.tree_at(lambda s: s.traces, self.activity.sending(values), traces)
        nothing = jnp.zeros(jax.tree.leaves(output)[0].shape[:1], bool)
        crowded = nothing | self.activity.crowded(values)
        return problem, Units(values, sending, self.error.silent({**values, OUTPUT: output}), crowded)

    def _step(self, problem: Problem, units: Units) -> Units:
        """Takes one step."""
        (output, predictions), back = jax.vjp(problem.predict, units.values.traces)
        errors, crowded = self._sent_errors(problem, units, output, predictions)
        (feedback,) = back((errors.traces[OUTPUT], {name: errors.traces[name] for name in predictions}))
        pulls = problem.vertex_energy.pulls(units.potentials, predictions)
        size = self.step_size

        def moved(potential: Array, feedback: Array, pull: Array) -> Array:
            return potential + size.astype(potential.dtype) * (feedback - pull)

        potentials = jax.tree.map(moved, units.potentials, feedback, pulls)
        crowded = crowded | self.activity.crowded(potentials)
        return Units(potentials, self.activity.send(units.values, potentials), errors, crowded)

    def _sent_errors(
        self, problem: Problem, units: Units, output: PyTree, predictions: Values
    ) -> tuple[Spiking, Bool[Array, " batch"]]:
        """Sends the errors of all nodes; returns their generators, and whether a rate has been too large."""
        held = problem.vertex_energy.errors(units.potentials, predictions)
        held = held | {OUTPUT: problem.output_error(output, units.values.traces)}
        return self.error.send(units.errors, held), units.crowded | self.error.crowded(held)

    def _counted_step(self, problem: Problem, units: Units, counts: tuple[Counts, Counts]) -> Any:
        new = self._step(problem, units)
        return new, jax.tree.map(jnp.add, counts, counts_of(problem.graph, new))

    def _credit(
        self, problem: Problem, begun: Units, units: Units, counts: tuple[Counts, Counts], kept: PyTree = None
    ) -> Credit:
        """Sends errors once more, and concludes; `kept` are the traces that weights learn from, if not those now."""
        predicted, predictions = problem.predict(units.values.traces)
        errors, crowded = self._sent_errors(problem, units, predicted, predictions)
        silent = jax.tree.map(jnp.zeros_like, units.values.spikes)
        ended = Units(units.potentials, eqx.tree_at(lambda s: s.spikes, units.values, silent), errors, crowded)
        counts = jax.tree.map(jnp.add, counts, counts_of(problem.graph, ended))
        output, _ = problem.graph.feedforward(problem.model, problem.x)
        loss, _ = loss_and_error(self.loss, output, problem.y)
        before = total(problem.energies(begun.potentials)) + self._blur(problem, begun.potentials)
        settled = conclude(problem, before, ended.potentials, self.steps)
        limited = crowded & (settled.result == Result.STEP_LIMIT)
        code = jnp.where(limited, jnp.int32(Result.RATE_LIMITED), settled.result)
        sweep = jax.tree.map(jnp.zeros_like, counts[0])
        info = Info(output, code, settled.steps, settled.energies, events=Events(*counts, sweep))
        values, (of_output, of_vertices) = traces_of(ended) if kept is None else kept
        return Credit(loss, values, of_vertices, of_output, info)

    def _blur(self, problem: Problem, values: Values) -> Float[Array, ""]:
        """Returns the energy of errors as large as what one spike adds to the traces."""
        size, blur = self.activity.mark + self.error.mark, jnp.zeros(())
        for name, value in values.items():
            error = jnp.full((1, *value.shape[1:]), size.astype(value.dtype))
            energy = problem.vertex_energy.energy(name, error, jnp.zeros_like(error))[0]
            blur = blur.astype(energy.dtype) + energy
        return blur
