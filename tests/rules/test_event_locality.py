"""What events travel by, and models that events of inference meet elsewhere: with keys, statistics, masks, feedback."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from event_builders import SQUARED, assigned, chain, flat, graded, network, settled
from matrix import full
from precision import double

import vicinal as vc
from vicinal.events import Graded
from vicinal.feedback import attach
from vicinal.rules import Backprop, EventBackprop, EventInferenceLearning

KEY = jax.random.key(0)


@pytest.mark.parametrize("learn", ["end", full("any"), full("mean"), full("every")])
def test_each_synapse_learns_from_its_two_ends(learn):
    model, x, y = vc.nn.MLP((4, 6, 5, 3), key=KEY), jnp.ones((2, 4)), jnp.array([0, 2])
    found = vc.analysis.audit(EventInferenceLearning(learn=learn), vc.capture(model, x[0]), model, x, y, key=KEY)
    assert found.local
    assert found.support["hidden1"] == {"error hidden1"}


def test_the_sweep_down_is_not_local():
    model, x, y = vc.nn.MLP((4, 6, 5, 3), key=KEY), jnp.ones((2, 4)), jnp.array([0, 2])
    rule = EventBackprop(Graded(0.01), Graded(0.001))
    found = vc.analysis.audit(rule, vc.capture(model, x[0]), model, x, y, key=KEY)
    assert found.violations[0] == "the error of hidden1 depends on error output"


@pytest.mark.parametrize(("route", "transported"), [(vc.feedback.random(), False), (vc.feedback.tied(), True)])
def test_a_step_reads_no_forward_weight_above_where_feedback_is_separate(x64, route, transported):
    """Units hold and have sent what they have; other weights above, the same events: do they move as before?"""
    plain, _, x, y = chain()
    model = attach(plain, route, key=jax.random.key(3))
    graph = vc.capture(model, x[0])
    rule = graded(1e6, steps=1, step_size=0.2, carry=True, streams=len(x))  # nothing is sent in this step
    units, _ = rule.init(graph, model)
    random = np.random.default_rng(0)
    state = jax.tree.map(lambda v: jnp.asarray(random.normal(size=v.shape)), units), jnp.ones((), bool)
    moved = []
    for sign in (1, -1):
        others = [sign * layer.layer.weight for layer in model.layers[1:]]
        other = eqx.tree_at(lambda m: [layer.layer.weight for layer in m.layers[1:]], model, others)
        moved.append(assigned(rule, graph, other, x, y, state)[2][0].values["hidden1"])
    assert np.allclose(*moved, rtol=1e-12) == (not transported)
    assert not np.allclose(moved[0], state[0].values["hidden1"])


def test_with_separate_feedback_every_change_sent_is_inference_learning_with_it(x64):
    plain, _, x, y = network()
    model = attach(plain, vc.feedback.random(), key=jax.random.key(3))
    graph = vc.capture(model, x[0])
    ours, theirs = (assigned(rule, graph, model, x, y)[0] for rule in (graded(1e-9), settled(20, 0.1)))
    np.testing.assert_allclose(flat(ours), flat(theirs), rtol=0, atol=1e-7)


class Normed(eqx.Module):
    first: vc.nn.Linear
    norm: vc.nn.BatchNorm
    last: vc.nn.Linear

    def __init__(self):
        keys = jax.random.split(KEY)
        self.first, self.last = vc.nn.Linear(4, 6, key=keys[0]), vc.nn.Linear(6, 3, key=keys[1])
        self.norm = vc.nn.BatchNorm(6)

    def __call__(self, x):
        return self.last(vc.vertex(jnp.tanh(self.norm(self.first(x))), "hidden"))


class Dropped(eqx.Module):
    layers: vc.nn.MLP
    dropout: eqx.nn.Dropout

    def __init__(self):
        self.layers, self.dropout = vc.nn.MLP((4, 6, 5, 3), vertex_at="pre", key=KEY), eqx.nn.Dropout(0.5)

    def __call__(self, x, key):
        first, second, last = self.layers.layers
        h = vc.vertex(first(x), "hidden1")
        h = vc.vertex(second(self.dropout(jnp.tanh(h), key=key)), "hidden2")
        return last(jnp.tanh(h))


def masked(parameters, x):
    counts = x[:, :1] > 0
    h = vc.vertex(jnp.tanh(x @ parameters["first"]), "first", mask=counts)
    h = vc.vertex(jnp.tanh(h @ parameters["second"]), "second", mask=counts)
    return jnp.sum(h @ parameters["last"], axis=0)


def masked_model():
    shapes = {"first": (2, 4), "second": (4, 4), "last": (4, 3)}
    parameters = {name: jax.random.normal(jax.random.fold_in(KEY, i), s) for i, (name, s) in enumerate(shapes.items())}
    return jax.tree_util.Partial(masked, parameters)


MODELS = {"statistics": (Normed, (5, 4)), "a key": (Dropped, (5, 4)), "masks": (masked_model, (5, 3, 2))}


@pytest.mark.parametrize("kind", MODELS)
def test_statistics_keys_and_masks_are_those_of_the_feedforward_pass(x64, kind):
    make, shape = MODELS[kind]
    model = double(make())
    x = jax.random.normal(jax.random.key(1), shape, jnp.float64)
    y = jax.random.normal(jax.random.key(2), (5, 3), jnp.float64)
    graph = vc.capture(model, x[0], batch_size=5)
    x = graph.keyed(x, jax.random.key(3))
    pairs = [(graded(1e-9, steps=6), settled(6, 0.1)), (graded(1e-9, steps=6, learn="mean", part=1.0), None)]
    if kind != "statistics":  # through which backpropagation carries errors, and events do not
        pairs.append((EventBackprop(Graded(1e-9), Graded(1e-9), SQUARED), Backprop(SQUARED)))
    for rule, other in pairs:
        gradient, credit, _ = assigned(rule, graph, model, x, y)
        assert np.all(np.isfinite(flat(gradient)))
        if other is not None:
            expected, theirs, _ = assigned(other, graph, model, x, y)
            np.testing.assert_allclose(flat(gradient), flat(expected), rtol=0, atol=1e-7)
            np.testing.assert_allclose(flat(credit.values), flat(theirs.values), rtol=0, atol=1e-7)
    if kind == "masks":
        counted = np.sum(np.asarray(x)[..., 0] > 0, axis=1) * 4
        events = assigned(graded(1e-9, steps=6), graph, model, x, y)[1].info.events
        np.testing.assert_array_equal(events.sweep["first"], counted)
        assert np.all(np.asarray(events.values["first"]) <= 6 * counted)


@pytest.mark.parametrize("dtype", [jnp.float16, full(jnp.bfloat16)])
def test_half_precision_keeps_its_kind(dtype):
    model = jax.tree.map(lambda leaf: leaf.astype(dtype), vc.nn.MLP((4, 6, 5, 3), key=KEY))
    x, y = jnp.ones((2, 4), dtype), jnp.array([0, 2])
    for rule in (EventInferenceLearning(steps=4, learn="mean"), EventBackprop()):
        gradient, credit, _ = assigned(rule, vc.capture(model, x[0]), model, x, y)
        leaves = jax.tree.leaves((gradient, credit.values, credit.errors))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves)


def test_an_output_of_several_arrays_sends_the_errors_of_all(x64):
    plain, _, x, y = network()

    def loss(output, target):
        return SQUARED(output["left"], target[:1]) + SQUARED(output["right"], target[1:])

    def two(model, x):
        whole = model(x)
        return {"left": whole[:1], "right": whole[1:]}

    model = jax.tree_util.Partial(two, plain)
    graph, whole = vc.capture(model, x[0]), vc.capture(plain, x[0])
    for rule in (graded(0.05), EventBackprop(loss=SQUARED)):
        ours, found, _ = assigned(dataclasses.replace(rule, loss=loss), graph, model, x, y)
        theirs, expected, _ = assigned(rule, whole, plain, x, y)
        np.testing.assert_allclose(flat(ours), flat(theirs), rtol=1e-10, atol=1e-13)
        np.testing.assert_array_equal(found.info.events.errors["output"], expected.info.events.errors["output"])
