"""The locality audit: what does the error of each vertex really depend on?"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.credit import Credit
from vicinal.graph import OUTPUT, Graph
from vicinal.keys import presented
from vicinal.rules import Rule


@dataclasses.dataclass(frozen=True)
class Audit:
    """What an audit found.

    Sources are named `value NAME` and `error NAME` (of a vertex, or `output`), `input`, `parameter PATH`, `loss`
    and `feedforward output`.

    Attributes:
        support: For each vertex, the sources that its error depends on.
        allowed: The sources at the two ends of the synapses that make the vertex's prediction: the value there and
            those just below, the parameters of the prediction, and the input where it is read; and its own error,
            for a rule whose vertices hold errors (`Rule.holds_errors`).
    """

    support: dict[str, frozenset[str]]
    allowed: dict[str, frozenset[str]]

    @property
    def local(self) -> bool:
        """Whether no error depends on anything but its own two ends."""
        return not self.violations

    @property
    def violations(self) -> tuple[str, ...]:
        """A sentence for each dependence that is not local."""
        return tuple(
            f"the error of {vertex} depends on {source}"
            for vertex, sources in self.support.items()
            for source in sorted(sources - self.allowed[vertex])
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
    """Replaces each thing that the network holds by another, and sees which errors respond.

    The local product (`vicinal.local_gradient`) needs the error of a vertex and the values just below, by
    construction. So an update is local if the error is. The audit takes the errors as the rule reads them
    (`Rule.errors`) from what is held once credit has been assigned, exchanges one source at a time for random
    numbers of the same size, and compares bit for bit: a dependence shows even where its derivative is zero or was
    stopped. Values that activities settled on are held; how they settled is not audited here.

    Args:
        rule: The rule.
        graph: The captured graph.
        model: The model.
        x: Inputs, `[batch, ...]`; a few examples are enough.
        y: Targets, `[batch, ...]`.
        key: For the rule and the random numbers.
        state: The rule's state; by default a fresh one.
        probes: Random replacements of each source.

    Returns:
        What was found.

    Raises:
        ValueError: If the credit is not finite: then nothing can be compared; or if the model takes statistics of the
            batch.

    Example:
        >>> import jax, jax.numpy as jnp, vicinal as vc
        >>> model = vc.nn.MLP((3, 4, 4, 2), key=jax.random.key(0))
        >>> graph, x, y = vc.capture(model, jnp.ones(3)), jnp.ones((2, 3)), jnp.zeros(2, int)
        >>> audit(vc.rules.InferenceLearning(), graph, model, x, y, key=jax.random.key(1)).local
        True
        >>> audit(vc.rules.Backprop(), graph, model, x, y, key=jax.random.key(1)).violations[0]
        'the error of hidden1 depends on error output'
    """
    if graph.batch_size is not None:
        raise ValueError(
            "expected a model without statistics of the batch, which carry what lies below to each unit, got one with; "
            "audit the rule on the model in evaluation mode, graph.evaluation(model)"
        )
    rule_key, probe_key = jax.random.split(key)
    x, rule_key = presented(graph, x, rule_key)
    state = rule.init(graph, model, key=rule_key) if state is None else state
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y, key=rule_key)
    held = _held(credit, model, x)
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((credit.values, credit.errors))):
        raise ValueError("expected finite values and errors to audit, got others; lower the step size")

    def errors(held: dict[str, PyTree]) -> dict[str, Array]:
        parameters, rest = eqx.partition(model, eqx.is_inexact_array)
        leaves = [held[f"parameter {path}"] for path in _paths(model)]
        moved = Credit(
            held["loss"],
            {name: held[f"value {name}"] for name in graph.vertices},
            {name: held[f"error {name}"] for name in graph.vertices},
            held[f"error {OUTPUT}"],
            dataclasses.replace(credit.info, output=held["feedforward output"]),
        )
        replaced = eqx.combine(jax.tree.unflatten(jax.tree.structure(parameters), leaves), rest)
        return rule.errors(graph, replaced, moved, held["input"])

    @jax.jit
    def read(source: Array, key: PRNGKeyArray) -> dict[str, Array]:
        return errors(_replaced(held, source, key))

    # The same compiled function, with nothing replaced: so that a difference is a dependence, not a rounding.
    before = read(jnp.int32(-1), probe_key)
    support: dict[str, set[str]] = {name: set() for name in graph.vertices}
    for i, source in enumerate(held):
        for probe in range(probes):
            after = read(jnp.int32(i), jax.random.fold_in(probe_key, i * probes + probe))
            for name in graph.vertices:
                if not np.array_equal(before[name], after[name]):
                    support[name].add(source)
    return Audit(
        {name: frozenset(sources) for name, sources in support.items()},
        {name: _ends(rule, graph, name) for name in graph.vertices},
    )


def _paths(model: PyTree) -> list[str]:
    flat = jax.tree_util.tree_flatten_with_path(eqx.filter(model, eqx.is_inexact_array))[0]
    return [jax.tree_util.keystr(path) for path, _ in flat]


def _held(credit: Credit, model: PyTree, x: PyTree) -> dict[str, PyTree]:
    held = {f"value {name}": value for name, value in credit.values.items()}
    held |= {f"error {name}": error for name, error in credit.errors.items()}
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    held |= {f"parameter {path}": leaf for path, leaf in zip(_paths(model), leaves, strict=True)}
    seen = {"loss": credit.loss, "feedforward output": credit.info.output}
    return held | {f"error {OUTPUT}": credit.output_error, "input": x} | seen


def _replaced(held: dict[str, PyTree], source: Array, key: PRNGKeyArray) -> dict[str, PyTree]:
    """What is held, with the source of this index replaced by random numbers."""

    def replace(i: int, leaf: Array) -> Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.where(source == i, jax.random.normal(key, leaf.shape, leaf.dtype), leaf)

    return {name: jax.tree.map(lambda leaf, i=i: replace(i, leaf), tree) for i, (name, tree) in enumerate(held.items())}


def _predicting(graph: Graph, name: str) -> set[str]:
    """A vertex, and those whose masked units may lie between it and what predicts it."""
    found, pending = {name}, [name]
    while pending:
        masked = set(graph.parents[pending.pop()]) & set(graph.masked) - found
        found |= masked
        pending += masked
    return found


def _ends(rule: Rule, graph: Graph, name: str) -> frozenset[str]:
    predicting = _predicting(graph, name)
    ends = {f"value {name}", *(f"value {parent}" for node in predicting for parent in graph.parents[node])}
    ends |= {f"parameter {path}" for node in predicting for path in graph.parameters[node]}
    ends |= {"input"} if predicting & graph.reads_input else set()
    return frozenset(ends | ({f"error {name}"} if rule.holds_errors else set()))
