"""The locality audit: what does the update of each parameter really depend on?"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.credit import Credit, local_gradient
from vicinal.graph import OUTPUT, Graph
from vicinal.rules import Rule


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found.

    Sources are named `value NAME`, `error NAME` (of a vertex, or `output`), `input`, and `parameter PATH`.

    Attributes:
        support: For each parameter, by path, the sources that its update depends on.
        allowed: The sources at the two ends of its synapses: the values just below and at the vertices that it
            predicts, the errors there, the input where it is read, and the parameters of the same predictions.
    """

    support: dict[str, frozenset[str]]
    allowed: dict[str, frozenset[str]]

    @property
    def local(self) -> bool:
        """Whether no update depends on anything but its own two ends."""
        return not self.violations

    @property
    def violations(self) -> tuple[str, ...]:
        """A sentence for each dependence that is not local."""
        return tuple(
            f"the update of {path or 'the parameter'} depends on {source}"
            for path, sources in self.support.items()
            for source in sorted(sources - self.allowed[path])
        )


def audit(
    rule: Rule,
    graph: Graph,
    model: PyTree,
    x: PyTree,
    y: PyTree,
    *,
    key: PRNGKeyArray,
    state: PyTree = None,
    probes: int = 3,
) -> Audit:
    """Differentiates each parameter's update with respect to all that the network holds.

    The update is taken as the rule reads it (`Rule.errors`, then the local product) from what is held once credit
    has been assigned: values, errors, the output's error, the input and the parameters. Each of them in turn is
    moved in random directions; an update that responds depends on it. Where there is no path the response is
    exactly zero, so no threshold is needed.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        x: Inputs, `[batch, ...]`; a few examples are enough.
        y: Targets, `[batch, ...]`.
        key: For the rule and the directions.
        state: The rule's state; by default a fresh one.
        probes: Directions for each source.

    Returns:
        What was found.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 4, 2), key=jax.random.key(0))
        >>> graph, x, y = vc.capture(model, jnp.ones(3)), jnp.ones((2, 3)), jnp.zeros(2, int)
        >>> audit(vc.rules.InferenceLearning(), graph, model, x, y, key=jax.random.key(1)).local
        True
        >>> audit(vc.rules.Backprop(), graph, model, x, y, key=jax.random.key(1)).violations[0]
        'the update of .layers[0].weight depends on error output'
    """
    rule_key, probe_key = jax.random.split(key)
    state = rule.init(graph, model, key=rule_key) if state is None else state
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y, key=rule_key)
    parameters, rest = eqx.partition(model, eqx.is_inexact_array)
    paths = _paths(parameters)
    held = _held(credit, parameters, x)

    def update(held: dict[str, PyTree]) -> list[Array]:
        leaves = [held[f"parameter {path}"] for path in paths]
        model = eqx.combine(jax.tree.unflatten(jax.tree.structure(parameters), leaves), rest)
        moved = Credit(
            credit.loss,
            {name: held[f"value {name}"] for name in graph.vertices},
            {name: held[f"error {name}"] for name in graph.vertices},
            held[f"error {OUTPUT}"],
            credit.info,
        )
        moved = dataclasses.replace(moved, errors=rule.errors(graph, model, moved, held["input"]))
        return jax.tree.leaves(local_gradient(graph, model, moved, held["input"]))

    @jax.jit
    def respond(source: Array, key: PRNGKeyArray) -> list[Array]:
        tangents = _direction(held, source, key)
        return [jnp.any(response != 0) for response in jax.jvp(update, (held,), (tangents,))[1]]

    support: dict[str, set[str]] = {path: set() for path in paths}
    for i, source in enumerate(held):
        for probe in range(probes):
            responses = respond(jnp.int32(i), jax.random.fold_in(probe_key, i * probes + probe))
            for path, responds in zip(paths, responses, strict=True):
                if responds:
                    support[path].add(source)
    found = {path: frozenset(sources) for path, sources in support.items()}
    return Audit(found, {path: _ends(graph, path) for path in paths})


def _paths(parameters: PyTree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(parameters)[0]]


def _held(credit: Credit, parameters: PyTree, x: PyTree) -> dict[str, PyTree]:
    held = {f"value {name}": value for name, value in credit.values.items()}
    held |= {f"error {name}": error for name, error in credit.errors.items()}
    leaves = zip(_paths(parameters), jax.tree.leaves(parameters), strict=True)
    return held | {f"error {OUTPUT}": credit.output_error, "input": x} | {f"parameter {p}": leaf for p, leaf in leaves}


def _direction(held: dict[str, PyTree], source: Array, key: PRNGKeyArray) -> dict[str, PyTree]:
    """A random direction in which the source of this index moves, and nothing else."""

    def tangent(i: int, leaf: Array) -> Any:
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return np.zeros(leaf.shape, jax.dtypes.float0)
        return jnp.where(source == i, jax.random.normal(key, leaf.shape, leaf.dtype), jnp.zeros((), leaf.dtype))

    return {name: jax.tree.map(lambda leaf, i=i: tangent(i, leaf), tree) for i, (name, tree) in enumerate(held.items())}


def _ends(graph: Graph, path: str) -> frozenset[str]:
    nodes = [node for node, paths in graph.parameters.items() if path in paths]
    ends = {f"error {node}" for node in nodes}
    ends |= {f"value {node}" for node in nodes if node != OUTPUT}
    ends |= {f"value {parent}" for node in nodes for parent in graph.parents[node]}
    ends |= {f"parameter {other}" for node in nodes for other in graph.parameters[node]}
    return frozenset(ends | ({"input"} if graph.reads_input.intersection(nodes) else set()))
