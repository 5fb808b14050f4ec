"""Models that take a key: dropout, whose masks stay as they are while activities settle."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.keys import Keyed

KEY = jax.random.key(0)
X, Y = jax.random.normal(jax.random.key(1), (6, 3)), jnp.arange(6) % 2


class Dropped(eqx.Module):
    below: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    above: eqx.nn.Linear

    def __init__(self, key, p=0.5):
        first, second = jax.random.split(key)
        self.below, self.above = eqx.nn.Linear(3, 16, key=first), eqx.nn.Linear(16, 2, key=second)
        self.dropout = eqx.nn.Dropout(p)

    def __call__(self, x, *, key=None):
        h = vc.vertex(jnp.tanh(self.below(x)), "h")
        return self.above(self.dropout(h, key=key))


MODEL = Dropped(KEY)
GRAPH = vc.capture(MODEL, X[0])


def test_dropout_has_a_mask_for_each_example():
    keyed = GRAPH.keyed(X, KEY)
    assert isinstance(keyed, Keyed)
    output, values = eqx.filter_jit(GRAPH.feedforward)(MODEL, keyed)
    hidden = np.tanh(np.asarray(X) @ np.asarray(MODEL.below.weight).T + np.asarray(MODEL.below.bias))
    np.testing.assert_allclose(values["h"], hidden, rtol=1e-5, atol=1e-6)
    kept = np.asarray(jax.jit(jax.vmap(lambda k: jax.random.bernoulli(k, 0.5, (16,))))(jax.random.split(KEY, 6)))
    assert len(np.unique(kept, axis=0)) == 6
    expected = np.where(kept, hidden / 0.5, 0) @ np.asarray(MODEL.above.weight).T + np.asarray(MODEL.above.bias)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_the_rule_gets_a_key_of_its_own():
    """Draws of the rule (a random start, say) do not go with the masks of the examples."""
    own, rest = jax.random.split(KEY)
    keyed, left = GRAPH.with_keys(X, KEY)
    np.testing.assert_array_equal(jax.random.key_data(keyed.key), jax.random.key_data(jax.random.split(own, 6)))
    np.testing.assert_array_equal(jax.random.key_data(left), jax.random.key_data(rest))


def test_the_gradient_is_that_of_the_loss_with_these_masks():
    keyed = GRAPH.keyed(X, KEY)

    def loss(model):
        outputs = jax.vmap(lambda x, k: model(x, key=k))(keyed.x, keyed.key)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, Y))

    expected = eqx.filter_jit(eqx.filter_grad(loss))(MODEL)
    for rule in (vc.rules.Backprop(), vc.rules.ZIL(), vc.rules.FixedPrediction()):
        _, found, _, _ = eqx.filter_jit(rule.value_and_grad)(GRAPH, MODEL, (), keyed, Y)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(eqx.filter(expected, eqx.is_array)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_dropped_unit_learns_nothing_while_activities_settle():
    """Masks that changed from step to step would leave no unit without an error."""
    keyed = GRAPH.keyed(X[:1], KEY)
    kept = np.asarray(jax.random.bernoulli(keyed.key[0], 0.5, (16,)))
    rule = vc.rules.InferenceLearning(inference=vc.inference.Simultaneous(steps=20, step_size=0.2))
    _, gradient, _, _ = eqx.filter_jit(rule.value_and_grad)(GRAPH, MODEL, (), keyed, Y[:1])
    rows = np.abs(np.asarray(gradient.below.weight)).max(axis=1)
    assert (rows[~kept] == 0).all()
    assert (rows[kept] > 0).all()


RULES = {
    "il": vc.rules.InferenceLearning(),
    "seq": vc.rules.InferenceLearning(inference=vc.inference.Sequential(steps=2)),
    "error": vc.rules.InferenceLearning(inference=vc.inference.ErrorBased(steps=2)),
    "ipc": vc.rules.IncrementalPC(steps=2),
    "ar": vc.rules.ActivationRelaxation(steps=4),
    "dfa": vc.rules.DirectFeedback(),
    "implicit": vc.rules.ImplicitSGD(steps=3),
    "events": vc.rules.EventInferenceLearning(steps=3, learn="any"),
    "events, down": vc.rules.EventBackprop(),
    "spikes": vc.rules.SpikingInferenceLearning(steps=3, learn="any"),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_takes_the_key_from_its_step(rule):
    optimizer, state = optax.sgd(0.1), rule.init(GRAPH, MODEL, key=KEY)
    memory = optimizer.init(GRAPH.trainable(MODEL))
    step = eqx.filter_jit(rule.step)
    same, other = (step(GRAPH, optimizer, MODEL, memory, state, X, Y, key=jax.random.key(i))[0] for i in (5, 6))
    again = step(GRAPH, optimizer, MODEL, memory, state, X, Y, key=jax.random.key(5))[0]
    assert eqx.tree_equal(same, again)
    assert not eqx.tree_equal(same, other)
    with pytest.raises(ValueError, match="expected a key, as the model takes one"):
        rule.step(GRAPH, optimizer, MODEL, memory, state, X, Y)


def test_an_input_without_keys_is_refused():
    with pytest.raises(ValueError, match=r"give graph\.keyed\(x, key\)"):
        GRAPH.feedforward(MODEL, X)
    with pytest.raises(ValueError, match=r"give graph\.keyed\(x, key\)"):
        vc.rules.Backprop().credit(GRAPH, MODEL, (), X, Y)


def test_old_style_keys_and_other_generators_serve_too():
    for key in (jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")):
        keyed = GRAPH.keyed(X, key)
        assert keyed.key.shape == (6,)
        eqx.filter_jit(GRAPH.feedforward)(MODEL, keyed)


def test_a_key_that_is_not_used_is_not_asked_for():
    """So that networks of Equinox, whose layers take a key as an option, keep their numbers."""
    mlp = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    sequential = eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Dropout(0.5, inference=True)])
    for model in (mlp, sequential, eqx.nn.inference_mode(MODEL)):
        graph = vc.capture(model, X[0])
        assert not graph.needs_key
        assert graph.keyed(X, KEY) is X
        assert graph.evaluation(model) == (graph, model)
    assert not vc.capture(Dropped(KEY, p=0.0), X[0]).needs_key
    assert vc.capture(eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Dropout(0.5)]), X[0]).needs_key


def test_a_bound_key_stays_as_it_is():
    graph = vc.capture(eqx.Partial(MODEL, key=jax.random.key(9)), X[0])
    assert not graph.needs_key


def test_evaluation_is_without_dropout():
    graph, model = GRAPH.evaluation(MODEL)
    assert not graph.needs_key
    assert graph is GRAPH.evaluation(MODEL)[0]
    expected = eqx.filter_jit(lambda model, x: jax.vmap(model)(x))(eqx.nn.inference_mode(MODEL), X)
    np.testing.assert_allclose(eqx.filter_jit(graph.feedforward)(model, X)[0], expected, rtol=1e-6)


def test_evaluation_of_a_function_is_without_a_key():
    def noisy(weight, x, key):
        noise = 0.0 if key is None else jax.random.normal(key, (2,))
        return weight @ x + noise

    model = jax.tree_util.Partial(noisy, jnp.ones((2, 3)))
    graph = vc.capture(model, X[0])
    assert graph.needs_key
    still, model = graph.evaluation(model)
    np.testing.assert_allclose(still.feedforward(model, X)[0], np.repeat(X.sum(1), 2).reshape(6, 2), rtol=1e-5)


def test_evaluation_sees_through_wrappers():
    model = eqx.nn.Sequential([eqx.nn.Linear(3, 4, key=KEY), eqx.nn.Dropout(0.5)])
    marked = vc.mark(model, lambda m: m.layers[1], names=["dropped"])
    graph, still = vc.capture(marked, X[0]).evaluation(marked)
    assert graph.vertices == ("dropped",)
    np.testing.assert_allclose(graph.feedforward(still, X)[0], jax.vmap(model.layers[0])(X), rtol=1e-6)
