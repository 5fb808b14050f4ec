"""One example shown to a network whose units send events: what they hold and send, for the report."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from vicinal.graph import OUTPUT, Graph
from vicinal.report import Presentation, SentBy, UnitCourse
from vicinal.rules import Rule

__all__ = ["presented"]

_UNITS = 48  # of a node, in a figure of events
_COURSES = 3  # units whose courses are shown

Rows = dict[str, np.ndarray]
"""For each node an array `[times, units]` of one example."""


def presented(rule: Rule, graph: Graph, model: PyTree, x: PyTree, y: PyTree) -> Presentation | None:
    """Presents the first of some examples, and keeps what its units held and sent.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        x: Inputs, `[batch, ...]`, at least as many as the rule has streams.
        y: Targets, `[batch, ...]`.

    Returns:
        The presentation; None if units send no events, or do not settle.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
        >>> graph, rule = vc.capture(model, jnp.ones(3)), vc.rules.EventInferenceLearning(steps=10)
        >>> found = presented(rule, graph, model, jnp.array([[1.0, -1.0, 0.5]]), jnp.array([1]))
        >>> [(sent.node, sent.kind) for sent in found.sent]
        [('hidden1', 'values'), ('output', 'errors')]
    """
    if not rule.sends_events or not hasattr(rule, "record") or not hasattr(rule, "steps"):
        return None
    count = getattr(rule, "streams", 1)
    x, y = jax.tree.map(lambda leaf: jnp.asarray(leaf[:count]), (x, y))
    record: Any = eqx.filter_jit(rule.record)
    recording = record(graph, model, rule.init(graph, model, key=jax.random.key(0)), x, y)
    held, sent, values, errors = _arrays(recording)
    heard = {node: rows for node, rows in errors.items() if graph.parents[node]}
    order = [*graph.vertices, OUTPUT]
    pairs = [("values", node, values) for node in graph.vertices] + [("errors", node, heard) for node in order]
    events = [_sent(node, kind, of[node]) for kind, node, of in pairs if node in of]
    return Presentation(int(rule.steps), events, _courses(order, held, sent, values))


def _arrays(recording: Any) -> tuple[Rows, Rows, Rows, Rows]:
    """What vertices held and had sent, and the signs of the events of values and of errors in each step."""
    if hasattr(recording, "value_spikes"):
        held, sent = _rows(recording.potentials), _rows(recording.values)
        return held, sent, _signs(_rows(recording.value_spikes)), _signs(_rows(recording.error_spikes))
    sent, errors = _rows(recording.activities), _rows(recording.errors)
    values, down = ({node: np.diff(rows, axis=0) for node, rows in of.items()} for of in (sent, errors))
    return _rows(recording.values), sent, _signs(values), _signs(down)


def _rows(recorded: Mapping[str, PyTree]) -> Rows:
    """The first example of each node, `[times, units]`."""

    def flat(leaf: Any) -> np.ndarray:
        return np.asarray(leaf[:, 0], np.float64).reshape(len(leaf), -1)

    return {node: np.concatenate(list(map(flat, jax.tree.leaves(tree))), axis=1) for node, tree in recorded.items()}


def _signs(rows: Rows) -> Rows:
    return {node: np.sign(each) for node, each in rows.items()}


def _sent(node: str, kind: str, signs: np.ndarray) -> SentBy:
    """The events of a node, of the units that sent most, in the order of the units."""
    most = np.argsort(-np.abs(signs).sum(axis=0), kind="stable")[:_UNITS]
    shown = signs[:, np.sort(most)]
    times, places = np.nonzero(shown)
    plain = (times + 1).tolist(), places.tolist(), shown[times, places].tolist()
    return SentBy(node, kind, shown.shape[1], signs.shape[1], *plain)


def _courses(order: list[str], held: Rows, sent: Rows, signs: Rows) -> list[UnitCourse]:
    """Units that sent most: one of each vertex from the top down, then others."""
    found = [
        (rank, -position, unit, node)
        for position, node in enumerate(order)
        if node in signs
        for rank, unit in enumerate(np.argsort(-np.abs(signs[node]).sum(axis=0), kind="stable")[:_COURSES])
    ]
    return [
        UnitCourse(f"{node}[{unit}]", held[node][:, unit].tolist(), sent[node][:, unit].tolist())
        for _, _, unit, node in sorted(found)[:_COURSES]
    ]
