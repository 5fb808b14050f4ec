"""The locality audit: measures what the error of each vertex depends on."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from vicinal.credit import Credit
from vicinal.graph import OUTPUT, Graph
from vicinal.rules import Rule


@dataclasses.dataclass(frozen=True)
class Audit:
    """The result of an audit.

    Sources are named `value NAME` and `error NAME` (of a vertex, or `output`), `input`, `parameter PATH`, `loss`
    and `feedforward output`.

    Attributes:
        support: For each vertex, the sources that its error depends on.
        allowed: For each vertex, the sources at the two ends of the synapses of its prediction: its value, the values
            just below, the parameters of the prediction, and the input if the prediction reads it; also its own error
            if the rule's vertices hold errors (`Rule.holds_errors`).
    """

    support: dict[str, frozenset[str]]
    allowed: dict[str, frozenset[str]]

    @property
    def local(self) -> bool:
        """Whether every error depends only on allowed sources."""
        return not self.violations

    @property
    def violations(self) -> tuple[str, ...]:
        """A sentence for each non-local dependence."""
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
    """Replaces each source by random numbers, one at a time, and finds which errors change.

    By construction, the local product (`vicinal.local_gradient`) needs only the error of a vertex and the values just
    below, so an update is local if the error is. The audit assigns credit, then computes the errors from the credit
    (`Rule.errors`) with one source replaced, and compares them bit for bit with those before. This finds a dependence
    even if its derivative is zero or stopped. Settled values are sources; how they settled is not audited.

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
        The sources that each error depends on, and those it may depend on.

    Raises:
        ValueError: If the credit is not finite, or the model computes batch statistics.

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
    x, rule_key = graph.with_keys(x, rule_key)
    state = rule.init(graph, model, key=rule_key) if state is None else state
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y, key=rule_key)
    held = _held(credit, model, x)
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((credit.values, credit.errors))):
        raise ValueError("expected finite values and errors to audit, got others; lower the step size")

    @jax.jit
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

    # The same compiled function with nothing replaced, so that a difference is a dependence and not rounding.
    before = errors(held)
    draw = np.random.default_rng(np.asarray(jax.random.bits(probe_key, (4,), "uint32")))
    support: dict[str, set[str]] = {name: set() for name in graph.vertices}
    for source in held:
        for _ in range(probes):
            after = errors(held | {source: _random(held[source], draw)})
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
    held |= {f"error {OUTPUT}": credit.output_error, "input": x} | seen
    return jax.tree.map(lambda leaf: np.asarray(leaf) if _is_real(leaf) else leaf, held)  # as `_random` gives them


def _is_real(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _random(source: PyTree, draw: np.random.Generator) -> PyTree:
    """A source with random numbers in place of its own; drawn by NumPy, which needs no compilation for each shape."""
    return jax.tree.map(
        lambda leaf: draw.standard_normal(leaf.shape).astype(leaf.dtype) if _is_real(leaf) else leaf, source
    )


def _predicting(graph: Graph, name: str) -> set[str]:
    """A vertex, and all vertices whose masked units pass its prediction through."""
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
