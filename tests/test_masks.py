"""Masks: a padded sequence is worth what it is worth without padding, under every rule."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

import vicinal as vc
from vicinal.inference import Adaptive, ErrorBased, Sequential, Simultaneous
from vicinal.rules import InferenceLearning, projectors

KEY = jax.random.key(0)
LENGTHS = (2, 4)
PADDED = 5

RULES = {
    "backpropagation": vc.rules.Backprop(),
    "simultaneous": InferenceLearning(inference=Simultaneous(steps=20, step_size=0.2, trace=True)),
    "simultaneous, tolerance": InferenceLearning(
        inference=Simultaneous(steps=40, step_size=0.3, momentum=0.3, tolerance=1e-2), nudge=0.8, precision=1.5
    ),
    "sequential": InferenceLearning(inference=Sequential(steps=5, step_size=0.4, trace=True)),
    "sequential, tolerance": InferenceLearning(inference=Sequential(steps=40, decay=False, tolerance=1e-2)),
    "error-based": InferenceLearning(inference=ErrorBased(steps=6, step_size=0.3, trace=True)),
    "error-based, tolerance": InferenceLearning(inference=ErrorBased(steps=60, step_size=0.3, tolerance=1e-2)),
    "adaptive": InferenceLearning(inference=Adaptive(steps=8, tolerance=None)),
    "adaptive, tolerance": InferenceLearning(inference=Adaptive(steps=60, tolerance=1e-2)),
    "ratios": InferenceLearning(
        encoding=vc.energy.Divisive(offset=2.0), inference=Simultaneous(steps=4, step_size=0.1)
    ),
    "incremental": vc.rules.IncrementalPC(steps=4),
    "Z-IL": vc.rules.ZIL(step_size=0.9),
    "fixed prediction": vc.rules.FixedPrediction(steps=3, step_size=0.5),
    "fixed prediction, simultaneous": vc.rules.FixedPrediction(steps=5, step_size=0.5, order="simultaneous"),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=5, step_size=0.4),
    "activation relaxation, without derivatives": vc.rules.ActivationRelaxation(
        steps=5, step_size=0.4, derivatives=False, frozen="none"
    ),
    "relaxed": vc.rules.RelaxedPC(steps=5, step_size=0.4, derivatives=False),
    "relaxed, learned wiring": vc.rules.RelaxedPC(steps=5, step_size=0.4, order="sequential", connections="learned"),
    "direct feedback": vc.rules.DirectFeedback(),
    "direct feedback, hybrid": vc.rules.DirectFeedback(projector=projectors.Dense(), hybrid=0.6),
}


@eqx.filter_jit
def assigned(rule, graph, model, state, x, y):
    gradient, credit, _ = rule.assign(graph, model, state, x, y, key=jax.random.key(7))
    return gradient, credit


def recurrent(place="post", every_step=False):
    model = double(vc.nn.RNN(2, 4, 3, vertex_at=place, every_step=every_step, key=KEY))
    return eqx.tree_at(lambda m: m.recurrent_layer.weight, model, 2 * model.recurrent_layer.weight)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def check_as_without_padding(rule, model, x, y, target_of):
    """Compares a padded batch with each of its examples alone, in a graph as long as that."""
    padded = vc.capture(model, (x[0], jnp.array(0)))
    state = rule.init(padded, model, key=jax.random.key(3))
    gradient, credit = assigned(rule, padded, model, state, (x, jnp.array(LENGTHS)), y)
    alone = []
    for i, length in enumerate(LENGTHS):
        graph = vc.capture(model, x[0, :length])
        kept = {name: state[name] for name in graph.vertices if name in state} if isinstance(state, dict) else state
        found, one = assigned(rule, graph, model, kept, x[i : i + 1, :length], target_of(i))
        alone.append(found)
        check_example(jax.tree.map(np.asarray, credit), i, jax.tree.map(np.asarray, one))
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *alone)
    jax.tree.map(close, gradient, mean)


def check_example(credit, i, one):
    close(credit.loss[i], one.loss[0])
    for ours, theirs in ((credit.values, one.values), (credit.errors, one.errors)):
        for name in ours:
            kept = theirs[name][0] if name in theirs else np.zeros_like(ours[name][i])
            close(ours[name][i][: len(kept)], kept)
            assert not np.any(ours[name][i][len(kept) :])
    for part, axis in (("result", 0), ("steps", 0), ("energies", 0), ("trace", 1)):
        ours, theirs = getattr(credit.info, part), getattr(one.info, part)
        if theirs is not None:
            ours = ours if isinstance(ours, dict) else {part: ours}
            theirs = theirs if isinstance(theirs, dict) else {part: theirs}
            for name in ours:
                here = np.take(ours[name], i, axis)
                close(here, np.take(theirs[name], 0, axis) if name in theirs else np.zeros_like(here))


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, "post") for name in RULES]
    + [(name, "pre") for name in ("simultaneous", "direct feedback", "activation relaxation, without derivatives")],
)
def test_a_padded_recurrent_net_learns_as_without_padding(x64, name, place):
    x, y = jax.random.normal(jax.random.key(1), (2, PADDED, 2), jnp.float64), jnp.array([0, 2])
    check_as_without_padding(RULES[name], recurrent(place), x, y, lambda i: y[i : i + 1])


@pytest.mark.parametrize("name", ["simultaneous, tolerance", "activation relaxation"])
def test_padded_sequences_of_vectors_do_too(x64, name):
    x, y = jax.random.normal(jax.random.key(1), (2, PADDED, 2), jnp.float64), jnp.array([0, 2])
    check_as_without_padding(
        RULES[name], double(vc.nn.Transformer(2, 4, 3, length=PADDED, key=KEY)), x, y, lambda i: y[i : i + 1]
    )


@pytest.mark.parametrize(
    ("name", "mixers"),
    [
        ("simultaneous, tolerance", [partial(vc.attention.SoftmaxAttention, 4, 2, max_length=PADDED)] * 2),
        ("error-based", [partial(vc.attention.SoftmaxAttention, 4, 2, max_length=PADDED)]),
        ("Z-IL", [partial(vc.attention.OVQAttention, 4, 2, num_centroids=4, chunk_size=2)]),
    ],
)
def test_padded_texts_do_too(x64, name, mixers):
    rule = dataclasses.replace(RULES[name], loss=vc.losses.masked_softmax_cross_entropy)
    x, y = jax.random.randint(jax.random.key(1), (2, PADDED), 0, 7), jax.random.randint(KEY, (2, PADDED), 0, 7)
    y = jnp.where(jnp.arange(PADDED)[None] < jnp.array(LENGTHS)[:, None], y, -1)
    model = double(vc.attention.LanguageModel(7, 4, mixers, hidden_features=5, key=KEY))
    check_as_without_padding(rule, model, x, y, lambda i: y[i : i + 1, : LENGTHS[i]])
