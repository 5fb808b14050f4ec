"""Synaptic operations: what events ask of synapses, measured on a batch, beside the products of dense computation."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from vicinal.graph import Graph
from vicinal.hardware._synapse_ends import Ends, count, differ
from vicinal.hardware.tracing import counts, shapes_of
from vicinal.rules import Backprop, Rule
from vicinal.rules._moments import last_steps

__all__ = ["SynapticOperations", "synaptic_operations"]


@dataclasses.dataclass(frozen=True)
class SynapticOperations:
    """Synaptic operations of each example of a batch, and multiplications of the same work done densely.

    Attributes:
        values: While activities settle, changes of what synapses read (or spikes), times fan-out, `[batch]`.
        errors: While activities settle and at their last turn, changes of what synapses read on the way down, times
            fan-in, `[batch]`.
        weights: Changes of weights, or touches of synapses that keep a mean, `[batch]`.
        sweep: The feedforward sweep before: entries that are not 0, times fan-out, `[batch]`.
        dense: For one example, the multiplications of the rule's program when every unit sends: `"sweep"`,
            `"settling"` (reads in both directions) and `"weights"`; and all of an update by backpropagation:
            `"backprop"`.
        on: What was measured, as text; may be empty.
    """

    values: Float[np.ndarray, " batch"]
    errors: Float[np.ndarray, " batch"]
    weights: Float[np.ndarray, " batch"]
    sweep: Float[np.ndarray, " batch"]
    dense: dict[str, float]
    on: str = ""

    @property
    def settling(self) -> Float[np.ndarray, " batch"]:
        """Operations of values and errors after the sweep, `[batch]`."""
        return self.values + self.errors

    @property
    def total(self) -> Float[np.ndarray, " batch"]:
        """All operations of an update, `[batch]`."""
        return self.sweep + self.settling + self.weights

    def to_dict(self) -> dict[str, Any]:
        """Returns means over the batch, and the dense counts, as plain data."""
        names = ("sweep", "values", "errors", "weights", "total")
        means = {name: float(np.mean(getattr(self, name))) for name in names}
        return {"on": self.on, "examples": len(self.values), "operations": means, "dense": self.dense}


def synaptic_operations(
    rule: Rule, graph: Graph, model: PyTree, state: PyTree, x: PyTree, y: PyTree, *, before: PyTree = None
) -> SynapticOperations:
    """Counts the synaptic operations of an update by a rule whose units send events, with the weights held.

    An event of a unit is one operation at each of its synapses. A synapse hears of an event if what it reads changes:
    with a ReLU between vertex and synapse, events below 0 reach nobody. In the same way, an error is counted where it
    enters a synapse on its way down: after the derivative of the activation, if that is between synapse and vertex.
    Fan-out is the number of multiplications of a product over that of the units that it reads, fan-in over that of the
    units that it leads to: those of a convolution are means over its positions, padding included.

    Weights change where both ends are not 0: at the end; at one of the last steps, the mean over these (`"any"`); or at
    each (`"every"`, whose weights are held here). A synapse that keeps a mean (`"mean"`) is touched when one of its
    ends changes during the last steps, and at the end if neither is 0.

    A spike (`SpikingInferenceLearning`) is one operation at each of its synapses as well, unless the slope between unit
    and synapse is 0. Those of errors after the last step are left out, and the mean of products of traces, which never
    rest, counts at each of the last steps.

    Args:
        rule: A rule with `record`: `vicinal.rules.EventInferenceLearning`, `EventBackprop` or
            `SpikingInferenceLearning`.
        graph: The captured graph.
        model: The model.
        state: The state of the rule.
        x: Inputs, `[batch, ...]`; with keys (`Graph.keyed`), if the model takes any.
        y: Targets, `[batch, ...]`.
        before: For streams (`carry`) that have begun, the inputs of the frame before, `[batch, ...]`. The operations of
            the sweep are then changes of inputs alone.

    Returns:
        The operations of each example.

    Raises:
        TypeError: If the rule sends no events.
        ValueError: If vertices have masks, a product cannot be seen, or `before` is missing or of no use.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), vertex_at="pre", key=jax.random.key(0))
        >>> graph, rule = vc.capture(model, jnp.ones(3)), vc.rules.EventBackprop()
        >>> found = synaptic_operations(rule, graph, model, (), jnp.array([[1.0, 0.0, 0.5]]), jnp.array([1]))
        >>> float(found.sweep[0]), float(found.errors[0])  # 2 inputs times 4 and 3 units times 2; 2 errors times 4
        (14.0, 8.0)
        >>> found.dense["sweep"], found.dense["backprop"]
        (20.0, 48.0)
    """
    _check(rule, graph, state, before)
    recording = eqx.filter_jit(rule.record)(graph, model, state, x, y)  # type: ignore[attr-defined]
    learn, last = getattr(rule, "learn", "end"), _last(rule)
    found = _operations(graph, model, recording, x, before, learn, last)
    synapses, reads, *_ = graph.program.connections
    sizes = [(s.multiplications, s.presynaptic.aval.size, s.product.aval.size) for s in synapses]

    def operations(rows: list[Array], side: int, counted: list[bool]) -> np.ndarray:
        """Those of changed units, `[batch]`: their number, times the multiplications of each."""
        each = [_total(n) * size[0] / size[side] for n, size in zip(rows, sizes, strict=True)]
        return sum((row for row, want in zip(each, counted, strict=True) if want), np.zeros(found[3].shape[1]))

    return SynapticOperations(
        values=operations(found[0], 1, reads),
        errors=operations(found[1], 2, reads),
        weights=_total(found[3]) / (last if learn == "any" else 1),
        sweep=operations(found[2], 1, [True] * len(reads)),
        dense=_dense(rule, graph, model, state, x, y),
    )


def _total(rows: Int[Array, "times batch"]) -> Float[np.ndarray, " batch"]:
    return np.sum(np.asarray(rows, np.float64), axis=0)


def _check(rule: Rule, graph: Graph, state: PyTree, before: PyTree) -> None:
    if not hasattr(rule, "record"):
        raise TypeError(f"expected a rule whose units send events, such as EventInferenceLearning, got {rule!r}")
    if graph.masked:
        raise ValueError(
            f"expected a model without masks, got one with masks of {', '.join(graph.masked)}; padding would count as "
            "units: take examples without padding"
        )
    begun = bool(getattr(rule, "carry", False)) and bool(state[1])
    if begun and before is None:
        raise ValueError("expected the inputs of the frame before, got none; give before=, as the stream has begun")
    if before is not None and not begun:
        raise ValueError("expected before only for a stream that has begun; leave it out, as there is a sweep here")


@eqx.filter_jit
def _operations(
    graph: Graph,
    model: PyTree,
    recording: Any,
    x: PyTree,
    before: PyTree,
    learn: str,
    last: int,
) -> tuple[list[Array], list[Array], list[Array], Array]:
    """Counts, `[times, batch]`, for each synapse what comes from below and from above, and in the sweep; and pairs."""
    spiking = hasattr(recording, "value_spikes")
    ends = Ends(graph, model, recording.values if spiking else recording.activities, recording.errors, x)
    rounds = len(jax.tree.leaves(recording.errors)[0])
    if spiking:
        values = _over(range(ends.steps), lambda t: count(ends.spikes_below(t, recording.value_spikes)), ends)
        down = _over(range(ends.steps), lambda t: count(ends.spikes_above(t, recording.error_spikes)), ends)
    else:
        values = _over(range(1, ends.steps + 1), lambda t: count(ends.changed(ends.below, t)), ends)
        down = _over(range(1, rounds), lambda t: count(differ(ends.down(t), ends.down(t - 1))), ends)
    first = ends.below(0)
    earlier = [jnp.zeros_like(rows) for rows in first] if before is None else ends.below(0, before)
    sweep = [rows[None] for rows in count(differ(first, earlier))]
    return values, down, sweep, _weights(ends, "every" if spiking and learn == "mean" else learn, last)


def _last(rule: Rule) -> int:
    """The number of last steps in which weights may learn."""
    steps, learn = getattr(rule, "steps", 1), getattr(rule, "learn", "end")
    return steps if learn == "every" else last_steps(steps, getattr(rule, "part", 1.0))


def _weights(ends: Ends, learn: str, last: int) -> Int[Array, "times batch"]:
    """Counts changes of weights; see `synaptic_operations`."""
    first = ends.steps - last + 1
    if learn == "end":
        return ends.learning(ends.steps, -1)[None]
    if learn == "mean":
        (touched,) = _over(range(first + 1, ends.steps + 1), lambda t: [ends.touched(t)], ends)
        return jnp.concatenate([touched, ends.learning(ends.steps, ends.steps)[None]])
    return _over(range(first, ends.steps + 1), lambda t: [ends.learning(t, t)], ends)[0]


def _over(times: range, counting: Any, ends: Ends) -> list[Int[Array, "times batch"]]:
    """Counts at each step; nothing without a step."""
    if not len(times):
        return [jnp.zeros((0, ends.batch), jnp.int32) for _ in jax.eval_shape(counting, jnp.int32(0))]
    return jax.lax.map(counting, jnp.arange(times.start, times.stop))


def _dense(rule: Rule, graph: Graph, model: PyTree, state: PyTree, x: PyTree, y: PyTree) -> dict[str, float]:
    """Counts the multiplications of the same work for one example, from the traced program."""
    x, y = shapes_of(x), shapes_of(y)
    batch = jax.tree.leaves(x)[0].shape[0]

    def products(rule: Rule, state: PyTree) -> tuple[float, float, float]:
        found, sweep = counts(rule, graph, model, x, y, state)
        reads = sum(use.inputs * use.outputs * (use.forward + use.transposed) for use in found.uses)
        return sweep, reads / batch, sum(use.inputs * use.outputs * use.outer for use in found.uses) / batch

    sweep, reads, weights = products(rule, state)
    of_backprop = products(Backprop(loss=rule.loss), ())
    return {"sweep": sweep, "settling": reads - sweep, "weights": weights, "backprop": sum(of_backprop[1:])}
