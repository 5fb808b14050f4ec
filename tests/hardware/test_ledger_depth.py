"""The longest chain of reads, and the busiest array, derived by hand and by brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ledger_builders import counted, ledger_of
from matrix import full

from vicinal._counting import count, forward_pass
from vicinal.inference import ErrorBased, Sequential, Simultaneous
from vicinal.rules import (
    ActivationRelaxation,
    Backprop,
    DirectFeedback,
    IncrementalPC,
    InferenceLearning,
)


def il(steps):
    return InferenceLearning(inference=Simultaneous(steps=steps))


def seqil(steps):
    return InferenceLearning(inference=Sequential(steps=steps))


def epc(steps):
    return InferenceLearning(inference=ErrorBased(steps=steps))


def ar(steps):
    return ActivationRelaxation(steps=steps, order="simultaneous")


DEPTH = {
    "bp": (lambda T: Backprop(), lambda L, T: 2 * L - 1),
    "dfa": (lambda T: DirectFeedback(), lambda L, T: L + 1),  # its projection is an array
    # L - 1 for the values, 2 for each step, 1 for the errors at the end
    "il": (il, lambda L, T: L + 2 * T),
    # The next sweep begins at the top while the last is still below.
    "seqil": (seqil, lambda L, T: 2 * L + 2 * T - 2),
    # Each step passes L - 1 matrices up and down.
    "epc": (epc, lambda L, T: L + 2 * (L - 1) * T),
    # The weights learn from the errors before each step: as inference of T - 1 steps does.
    "ipc": (lambda T: IncrementalPC(steps=T), lambda L, T: L + 2 * (T - 1)),
    # Errors go down one layer in a step, and after L - 1 steps the lowest one has heard of the output's.
    "ar": (ar, lambda L, T: L + min(T, L - 1)),
}
ALWAYS = {(2, 1), (3, 5), (4, 3)}
CASES = [
    pytest.param(L, T) if (L, T) in ALWAYS else full(L, T) for L, T in itertools.product(range(2, 7), range(1, 11))
]


@pytest.mark.parametrize(("L", "T"), CASES)
@pytest.mark.parametrize("name", DEPTH)
def test_depth_is_that_of_the_formula(name, L, T):
    rule, depth = DEPTH[name]
    assert ledger_of(rule(T), L).depth == depth(L, T)
    assert ledger_of(rule(T), L, merge=False).depth == depth(L, T)


@pytest.mark.parametrize("T", [1, 4])
def test_the_busiest_array_is_read_in_every_step(T):
    assert ledger_of(Backprop(), 4).busiest == 2
    assert ledger_of(ar(T), 4).busiest == 1 + T  # though its chain is as short as that of backpropagation
    assert ledger_of(il(T), 4).busiest == 2 * T + 1
    assert ledger_of(DirectFeedback(), 4).busiest == 1


def test_time_is_that_of_the_chain_or_of_the_busiest_array():
    read = ledger_of(Backprop(), 4).constants["read_time"]
    assert ledger_of(Backprop(), 4).latency == pytest.approx(7 * read)
    assert ledger_of(Backprop(), 4, batch=10).latency == pytest.approx(2 * 10 * read)  # 2 reads for each example
    assert ledger_of(Backprop(), 4, batch=3).latency == pytest.approx(7 * read)  # examples go through one after another


@pytest.mark.parametrize("seed", range(4))
def test_depth_is_the_longest_path_of_a_graph_made_by_hand(seed):
    """Every path through a random graph, one by one, against one pass over the program."""
    rng, nodes = np.random.default_rng(seed), 9
    edges = [(a, b) for a in range(nodes) for b in range(a + 1, nodes) if rng.random() < 0.35]
    uses = {edge: int(rng.integers(4)) for edge in edges}  # which of four arrays carries the edge, some more than once
    free = {edge for edge in edges if rng.random() < 0.3}  # an edge without a read

    def network(weights, x):
        values = []
        for node in range(nodes):
            total = x * (1.0 + node)
            for a, b in edges:
                if b == node:
                    carried = values[a] if (a, b) in free else weights[f"w{uses[a, b]}"] @ values[a]
                    total = total + (2.0 + a) * carried
            values.append(jnp.tanh(total))
        return values[-1]

    def paths(node):
        yield 0
        for a, b in edges:
            if b == node:
                yield from (length + ((a, b) not in free) for length in paths(a))

    def needed(node):
        return {node}.union(*(needed(a) for a, b in edges if b == node))

    weights = {f"w{i}": jnp.ones((3, 3)) for i in range(4)}
    found, depth = counted(network, weights, jnp.ones(3))
    assert depth == max(paths(nodes - 1))
    live = needed(nodes - 1)
    asked = {(uses[a, b], a) for a, b in edges if b in live and (a, b) not in free}  # the same read is taken once
    assert {path: reads for path, (reads, _) in found.items()} == {
        f"w{i}": sum(array == i for array, _ in asked) for i in range(4) if any(array == i for array, _ in asked)
    }


def test_depth_does_not_depend_on_digital_projections():
    """Projections that are no arrays are not read: then direct feedback is as deep as the forward pass."""
    import vicinal as vc

    rule, model = DirectFeedback(), vc.nn.MLP((5, 4, 4, 3), vertex_at="pre", key=jax.random.key(0))
    graph, x, y = vc.capture(model, jnp.ones(5)), jnp.ones((1, 5)), jnp.zeros(1, int)
    state = rule.init(graph, model, key=jax.random.key(1))
    weights = graph.trainable(model)

    def gradient(weights):
        import equinox as eqx

        return rule.value_and_grad(graph, eqx.combine(weights, model), state, x, y)[1]

    closed = jax.make_jaxpr(gradient)(weights)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(weights)[0]]
    program = graph.program.closed
    forward, _ = forward_pass(program, names + [None] * (len(program.jaxpr.invars) - len(names)))
    assert count(closed, names, names, forward).depth == 3
