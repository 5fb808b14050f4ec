"""Statistics of the batch and state: taken in the feedforward pass, held while activities settle."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from precision import double

import vicinal as vc

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
BATCH = 6
X, Y = jax.random.normal(jax.random.key(1), (BATCH, 3)), jnp.arange(BATCH) % 2


class Normalised(eqx.Module):
    """Batch norm before a vertex, and after another."""

    below: vc.nn.Linear
    first: vc.nn.BatchNorm
    middle: vc.nn.Linear
    second: vc.nn.BatchNorm
    above: vc.nn.Linear

    def __init__(self, key=KEY):
        k = jax.random.split(key, 3)
        self.below, self.middle, self.above = (
            vc.nn.Linear(i, o, key=k[n]) for n, (i, o) in enumerate([(3, 5), (5, 4), (4, 2)])
        )
        self.first, self.second = vc.nn.BatchNorm(5, momentum=0.9), vc.nn.BatchNorm(4, momentum=0.8)

    def __call__(self, x):
        h = vc.vertex(jnp.tanh(self.first(self.below(x))), "h1")
        h = vc.vertex(jnp.tanh(self.middle(h)), "h2")
        return self.above(self.second(h))


MODEL = Normalised()
GRAPH = vc.capture(MODEL, X[0], batch_size=BATCH)


def by_hand(model, x):
    """The forward pass in NumPy, with the statistics on the way."""
    p = jax.tree.map(np.asarray, eqx.filter(model, eqx.is_array))

    def normal(layer, a):
        return layer.weight * (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5) + layer.bias

    a1 = np.asarray(x) @ p.below.weight.T + p.below.bias
    h1 = np.tanh(normal(p.first, a1))
    h2 = np.tanh(h1 @ p.middle.weight.T + p.middle.bias)
    return normal(p.second, h2) @ p.above.weight.T + p.above.bias, (h1, h2), (a1, h2)


def loss_of_batch(model, x, y):
    outputs = jax.vmap(lambda x: model(x), axis_name="batch")(x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, y))


def gradient(graph, model, loss):
    parameters, rest = graph.partition(model)
    return eqx.filter_jit(eqx.filter_grad(lambda parameters, rest: loss(eqx.combine(parameters, rest))))(
        parameters, rest
    )


@eqx.filter_jit
def value_and_grad(rule, graph, model, x, y):
    return rule.value_and_grad(graph, model, (), x, y)


def test_the_forward_pass_is_that_of_the_batch():
    @eqx.filter_jit
    def run(model, x):
        output, values = GRAPH.feedforward(model, x)
        return output, values, GRAPH.predict(model, values, x)[1]

    output, values, predictions = run(MODEL, X)
    expected, (h1, h2), _ = by_hand(MODEL, X)
    for found, wanted in ((output, expected), (values["h1"], h1), (values["h2"], h2)):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    for name in GRAPH.vertices:
        np.testing.assert_allclose(predictions[name], values[name], rtol=1e-4, atol=1e-5)
    assert GRAPH.parents == {"h1": (), "h2": ("h1",), "output": ("h2",)}


def test_backpropagation_goes_through_the_statistics():
    with jax.enable_x64(True):
        model, x = double(MODEL), X.astype(jnp.float64)
        graph = vc.capture(model, x[0], batch_size=BATCH)
        expected = gradient(graph, model, lambda model: loss_of_batch(model, x, Y))
        rule = vc.rules.Backprop()
        loss, found, _, _ = value_and_grad(rule, graph, model, x, Y)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(loss, eqx.filter_jit(loss_of_batch)(model, x, Y), rtol=1e-12)

        def moved(shift):  # of what h2 holds in the first example
            _, (_, h2), _ = by_hand(model, x)
            h2 = h2.copy()
            h2[0, 0] += shift
            normal = (h2 - h2.mean(0)) / np.sqrt(h2.var(0) + 1e-5)
            logits = normal @ np.asarray(model.above.weight).T + np.asarray(model.above.bias)
            return float(np.sum(np.log(np.sum(np.exp(logits), -1)) - logits[np.arange(BATCH), np.asarray(Y)]))

        credit, _ = eqx.filter_jit(rule.credit)(graph, model, (), x, Y)
        slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
        np.testing.assert_allclose(credit.errors["h2"][0, 0], -slope, rtol=1e-6)


def held(model, x):
    """The model as a function of one example, with the statistics of its batch as constants."""
    _, _, statistics = by_hand(model, x)
    fixed = [(jnp.asarray(a.mean(0)), jnp.asarray(a.var(0))) for a in statistics]

    def normal(layer, a, mean, variance):
        return layer.weight * (a - mean) / jnp.sqrt(variance + 1e-5) + layer.bias

    def run(model, x):
        h = vc.vertex(jnp.tanh(normal(model.first, model.below(x), *fixed[0])), "h1")
        h = vc.vertex(jnp.tanh(model.middle(h)), "h2")
        return model.above(normal(model.second, h, *fixed[1]))

    return run


@pytest.mark.parametrize("rule", [vc.rules.ZIL(), vc.rules.FixedPrediction()], ids=["zil", "fixed"])
def test_exact_rules_equal_backpropagation_with_statistics_held(rule):
    with jax.enable_x64(True):
        model, x = double(MODEL), X.astype(jnp.float64)
        graph, run = vc.capture(model, x[0], batch_size=BATCH), held(double(MODEL), x)

        def loss(model):
            outputs = jax.vmap(lambda x: run(model, x))(x)
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, Y))

        expected = gradient(graph, model, loss)
        _, found, _, _ = value_and_grad(rule, graph, model, x, Y)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    "inference",
    [
        vc.inference.Simultaneous(steps=6, step_size=0.1),
        vc.inference.Sequential(steps=3, step_size=0.1),
        vc.inference.ErrorBased(steps=3, step_size=0.1),
    ],
    ids=["simultaneous", "sequential", "error-based"],
)
def test_inference_settles_with_the_statistics_held(inference):
    """As a model does in which they are constants from the start."""
    with jax.enable_x64(True):
        model, x = double(MODEL), X.astype(jnp.float64)
        run = held(model, x)
        constant = eqx.Partial(lambda model, x: run(model, x), model)
        rule = vc.rules.InferenceLearning(inference=inference)
        _, expected, _, info = value_and_grad(rule, vc.capture(constant, x[0]), constant, x, Y)
        graph = vc.capture(model, x[0], batch_size=BATCH)
        _, found, _, ours = value_and_grad(rule, graph, model, x, Y)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)
        for name in info.energies:
            np.testing.assert_allclose(ours.energies[name], info.energies[name], rtol=1e-8, atol=1e-12)


def test_running_averages_move_by_their_formula():
    _, _, (a1, h2) = by_hand(MODEL, X)
    for rule in (vc.rules.Backprop(), vc.rules.InferenceLearning(), vc.rules.IncrementalPC(steps=2)):
        optimizer = optax.adamw(0.1, weight_decay=0.5)
        memory = optimizer.init(GRAPH.trainable(MODEL))
        after, *_ = eqx.filter_jit(rule.step)(GRAPH, optimizer, MODEL, memory, (), X, Y)
        for layer, before, a, keep in ((after.first, MODEL.first, a1, 0.9), (after.second, MODEL.second, h2, 0.8)):
            np.testing.assert_allclose(layer.running.mean, (1 - keep) * a.mean(0), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(layer.running.variance, keep + (1 - keep) * a.var(0), rtol=1e-4)
            assert not np.allclose(layer.weight, before.weight, atol=0.01)
    assert {role for path, role in GRAPH.roles.items() if "running" in path} == {"state"}


def test_evaluation_takes_the_running_averages():
    model = eqx.tree_at(lambda m: m.second.running.mean, MODEL, jnp.arange(4.0))
    graph, still = GRAPH.evaluation(model)
    assert graph.batch_size is None
    assert still.second.inference
    p = jax.tree.map(np.asarray, eqx.filter(model, eqx.is_array))
    h = np.tanh((np.asarray(X[:2]) @ p.below.weight.T + p.below.bias) / np.sqrt(1 + 1e-5))
    h = np.tanh(h @ p.middle.weight.T + p.middle.bias)
    expected = (h - np.arange(4.0)) / np.sqrt(1 + 1e-5) @ p.above.weight.T + p.above.bias
    np.testing.assert_allclose(eqx.filter_jit(graph.feedforward)(still, X[:2])[0], expected, rtol=1e-4, atol=1e-5)


def test_statistics_of_several_positions():
    layer, x = vc.nn.BatchNorm(2, momentum=0.5), np.random.default_rng(0).normal(2.0, 3.0, (4, 2, 3, 3)).astype("f")
    graph = vc.capture(layer, jnp.asarray(x[0]), batch_size=4)
    output, updated = eqx.filter_jit(lambda layer, x: (graph.feedforward(layer, x)[0], graph.updated(layer, x)))(
        layer, x
    )
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    expected = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-5)
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(updated.running.variance, 0.5 + 0.5 * var, rtol=1e-4)


def test_half_precision_does_not_overflow_in_the_sum():
    layer = jax.tree.map(lambda leaf: leaf.astype(jnp.float16) if eqx.is_array(leaf) else leaf, vc.nn.BatchNorm(1))
    x = jnp.full((1000, 1), 100.0, jnp.float16).at[::2].set(80.0)
    output, _ = eqx.filter_jit(vc.capture(layer, x[0], batch_size=1000).feedforward)(layer, x)
    assert output.dtype == jnp.float16
    np.testing.assert_allclose(np.unique(output), [-1, 1], rtol=2e-2)


RULES = {
    "implicit": vc.rules.ImplicitSGD(learning_rate=0.05, steps=3),
    "ar": vc.rules.ActivationRelaxation(steps=4),
    "dfa": vc.rules.DirectFeedback(),
    "ipc": vc.rules.IncrementalPC(steps=4),
    "rpc": vc.rules.RelaxedPC(),
    "events": vc.rules.EventInferenceLearning(),
    "events, down": vc.rules.EventBackprop(),
    "spikes": vc.rules.SpikingInferenceLearning(steps=20),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_other_rules_learn_with_statistics(rule):
    optimizer, state = optax.adam(0.05), rule.init(GRAPH, MODEL, key=KEY)
    model, memory = MODEL, optimizer.init(GRAPH.trainable(MODEL))
    step = eqx.filter_jit(rule.step)
    losses = []
    for _ in range(15):
        model, memory, state, loss, _ = step(GRAPH, optimizer, model, memory, state, X, Y, key=KEY)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


class Potentials(eqx.Module):
    """One hidden layer at potentials, with batch norm before it or dropout behind."""

    below: vc.nn.Linear
    norm: vc.nn.BatchNorm | None
    dropout: eqx.nn.Dropout | None
    above: vc.nn.Linear

    def __init__(self, normalises, drops):
        self.below, self.above = vc.nn.Linear(3, 5, key=KEY), vc.nn.Linear(5, 2, key=jax.random.key(1))
        self.norm = vc.nn.BatchNorm(5) if normalises else None
        self.dropout = eqx.nn.Dropout(0.5) if drops else None

    def __call__(self, x, key=None):
        a = self.below(x) if self.norm is None else self.norm(self.below(x))
        h = jnp.tanh(vc.vertex(a, "h"))
        return self.above(h if self.dropout is None else self.dropout(h, key=key))


@pytest.mark.full
def test_the_contract_holds_with_batch_norm_and_dropout():
    case = vc.testing.Case("both", Potentials(True, True), X, Y)
    vc.testing.check_rule(vc.rules.InferenceLearning(), only=[case])


def test_rules_with_feedback_of_their_own_work_or_say_why_not():
    normed, dropped = (vc.testing.Case("", Potentials(n, not n), X, Y) for n in (True, False))
    rule = vc.rules.PhaselessAlignment()
    state = rule.init(dropped.graph, dropped.model, key=KEY)
    state = dataclasses.replace(state, feedback={"output": dropped.model.above.weight})
    found, _ = eqx.filter_jit(rule.noiseless)(dropped.graph, dropped.model, state, dropped.inputs, Y)
    _, expected, _, _ = value_and_grad(vc.rules.Backprop(), dropped.graph, dropped.model, dropped.inputs, Y)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="weight @ rates"):
        rule.init(normed.graph, normed.model, key=KEY)
    with pytest.raises(ValueError, match="no dropout"):
        vc.rules.Microcircuit().init(dropped.graph, dropped.model, key=KEY)


def test_dynamic_inversion_inverts_beside_batch_norm():
    """The pseudo-inverse of the weight above takes the output's error to the rates, whose slopes multiply it."""
    case = vc.testing.Case("", Potentials(True, False), X, Y)
    rule = vc.rules.DynamicInversion(inversion=vc.rules.inversion.PseudoInverse())
    credit, _ = eqx.filter_jit(rule.credit)(case.graph, case.model, rule.init(case.graph, case.model), X, Y)
    inverse = np.linalg.pinv(np.asarray(case.model.above.weight))
    expected = np.asarray(credit.output_error) @ inverse.T * (1 - np.tanh(np.asarray(credit.values["h"])) ** 2)
    np.testing.assert_allclose(credit.errors["h"], expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ refusals


def test_an_audit_of_statistics_is_refused():
    with pytest.raises(ValueError, match="expected a model without statistics of the batch"):
        vc.analysis.audit(vc.rules.InferenceLearning(), GRAPH, MODEL, X, Y, key=KEY)


def test_a_batch_size_is_asked_for_and_kept():
    with pytest.raises(ValueError, match=r"vicinal\.capture\(model, x, batch_size=\.\.\.\)"):
        vc.capture(MODEL, X[0])
    with pytest.raises(ValueError, match="expected a batch of 6 examples, for which the statistics"):
        GRAPH.feedforward(MODEL, X[:4])
    with pytest.raises(ValueError, match="only over the axis 'batch'"):
        vc.capture(lambda x: x - jax.lax.pmean(x, "rows"), X[0], batch_size=6)
    assert vc.capture(vc.nn.MLP((3, 4, 2), key=KEY), X[0], batch_size=6).batch_size is None


def test_collectives_with_a_result_for_each_example_are_refused():
    with pytest.raises(ValueError, match="got 'axis_index'"):
        vc.capture(lambda x: x * jax.lax.axis_index("batch").astype(x.dtype), X[0], batch_size=6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda mean, x: vc.update(mean, x), "average it first"),
        (lambda mean, x: vc.update(2 * mean, jnp.zeros(3)), "an array of the model"),
        (lambda mean, x: [vc.update(mean, jnp.zeros(3)) for _ in range(2)], "got two"),
        (lambda mean, x: vc.update(mean, jnp.zeros(2)), "in the shape of the old one"),
        (lambda mean, x: jax.vmap(lambda row: vc.update(mean, row * jnp.ones(3)))(x), "average it first"),
    ],
    ids=["one example", "computed", "twice", "shape", "mapped"],
)
def test_updates_that_have_no_meaning_are_refused(function, message):
    def model(mean, x):
        function(mean, x)
        return x - mean

    with pytest.raises(ValueError, match=message):
        vc.capture(jax.tree_util.Partial(model, jnp.zeros(3)), X[0], batch_size=6)


def test_updates_are_found_inside_jit():
    @jax.jit
    def layer(mean, x):
        vc.update(mean, 0.5 * mean + 0.5 * jax.lax.pmean(x, "batch"))
        return x - mean

    model = jax.tree_util.Partial(layer, jnp.zeros(3))
    graph = vc.capture(model, X[0], batch_size=6)
    np.testing.assert_allclose(jax.jit(graph.updated)(model, X).args[0], 0.5 * np.mean(X, 0), rtol=1e-5, atol=1e-7)


def test_update_does_nothing_elsewhere():
    def run(mean, x):
        vc.update(mean, mean + x)
        return jnp.sum(x * mean)

    assert float(jax.jit(jax.grad(run))(jnp.ones(()), jnp.array(3.0))) == 3.0
    np.testing.assert_array_equal(jax.vmap(run, in_axes=(None, 0))(jnp.ones(()), jnp.arange(3.0)), jnp.arange(3.0))
