"""The change of weights, output and loss by an update, against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from once import once

import vicinal as vc
from vicinal import analysis
from vicinal.analysis import mean_sizes, norms

pytestmark = pytest.mark.usefixtures("x64")

LOSS = vc.losses.squared_error
BACKPROP = vc.rules.Backprop(loss=LOSS)

# Compiled as a whole: an operation at a time would compile each.
update, function_change = eqx.filter_jit(analysis.update), eqx.filter_jit(analysis.function_change)
target_alignment, descent_alignment = (
    eqx.filter_jit(analysis.target_alignment),
    eqx.filter_jit(analysis.descent_alignment),
)


@once
def network(sizes=(4, 6, 3), batch=5, use_bias=True):
    model = vc.nn.MLP(sizes, use_bias=use_bias, key=jax.random.key(0))
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if eqx.is_array(leaf) else leaf, model)
    random = np.random.default_rng(1)
    x, y = (jnp.asarray(random.standard_normal((batch, size))) for size in (sizes[0], sizes[-1]))
    return vc.capture(model, x[0]), model, x, y


def linear(batch=5, use_bias=True):
    """One layer, and its batch."""
    return network((4, 3), batch, use_bias)


@eqx.filter_jit
@eqx.filter_grad
def gradient_of(model, x, y):
    return jnp.mean(jax.vmap(LOSS)(jax.vmap(model)(x), y))


def flat(tree):
    return np.asarray(jax.flatten_util.ravel_pytree(eqx.filter(tree, eqx.is_inexact_array))[0])


def random_update(model, scale=0.1):
    parameters = eqx.filter(model, eqx.is_inexact_array)
    vector, rebuild = jax.flatten_util.ravel_pytree(parameters)
    return rebuild(jnp.asarray(scale * np.random.default_rng(5).standard_normal(vector.shape)))


# --------------------------------------------------------------------------------------------------------- update


def test_the_update_of_gradient_descent_is_minus_the_rate_times_the_gradient():
    graph, model, x, y = network()
    gradient = gradient_of(model, x, y)
    found = update(BACKPROP, optax.sgd(0.3), graph, model, x, y)
    np.testing.assert_allclose(flat(found), -0.3 * flat(gradient), atol=1e-15)
    assert jax.tree.structure(found) == jax.tree.structure(gradient)


def test_a_given_optimizer_state_is_used():
    graph, model, x, y = network()
    optimizer = optax.sgd(0.1, momentum=0.5)
    first = update(BACKPROP, optimizer, graph, model, x, y)
    _, state, *_ = eqx.filter_jit(BACKPROP.step)(
        graph, optimizer, model, optimizer.init(eqx.filter(model, eqx.is_array)), (), x, y
    )
    second = update(BACKPROP, optimizer, graph, model, x, y, optimizer_state=state)
    np.testing.assert_allclose(flat(second), 1.5 * flat(first), atol=1e-15)


def test_adam_first_step_is_the_sign():
    graph, model, x, y = network()
    found = flat(update(BACKPROP, optax.adam(1e-3, eps=0.0), graph, model, x, y))
    np.testing.assert_allclose(np.abs(found), 1e-3, rtol=1e-6)


def test_the_key_and_the_state_reach_the_rule():
    """A rule that adds noise of its key, and remembers noise of its first key."""

    class Noisy(vc.rules.Backprop):
        """Shifts the output's error."""

        def init(self, graph, model, *, key=None):
            return jax.random.normal(key)

        def credit(self, graph, model, state, x, y, *, key=None):
            credit, _ = super().credit(graph, model, (), x, y)
            shifted = credit.output_error + state + jax.random.normal(key)
            return eqx.tree_at(lambda c: c.output_error, credit, shifted), state

    graph, model, x, y = linear()
    key = jax.random.key(3)
    plain = flat(update(BACKPROP, optax.sgd(1.0), graph, model, x, y))
    shift = jnp.zeros((), jnp.float64) + jax.random.normal(key)
    bias = slice(12, 15)  # the mean error is what a bias learns from
    fresh = update(Noisy(loss=LOSS), optax.sgd(1.0), graph, model, x, y, key=key)
    drawn = jax.random.normal(jax.random.fold_in(key, 1))
    np.testing.assert_allclose(flat(fresh)[bias], plain[bias] + float(shift + drawn), rtol=1e-12)
    given = update(Noisy(loss=LOSS), optax.sgd(1.0), graph, model, x, y, key=key, state=jnp.array(7.0))
    np.testing.assert_allclose(flat(given)[bias], plain[bias] + float(shift) + 7.0, rtol=1e-12)


@pytest.mark.parametrize(
    "rule",
    [vc.rules.Backprop(), vc.rules.InferenceLearning(), vc.rules.ImplicitSGD(0.1)],
    ids=lambda r: type(r).__name__,
)
def test_every_rule_in_single_precision_under_jit(rule):
    jax.config.update("jax_enable_x64", False)
    model, x, y = vc.nn.MLP((4, 6, 3), key=jax.random.key(0)), jnp.ones((2, 4)), jnp.array([0, 2])
    graph = vc.capture(model, x[0])
    found = update(rule, optax.sgd(0.1), graph, model, x, y)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert float(function_change(graph, model, found, x, y, loss=rule.loss).loss_change) < 0


# ---------------------------------------------------------------------------------------------------------- norms


def test_norms_and_mean_sizes_by_hand():
    tree = {"w": jnp.array([[3.0, -4.0]]), "v": jnp.array([[1.0], [-3.0]]), "bias": jnp.array([1.0])}
    found = norms(tree)
    assert list(found) == ["['v']", "['w']", "concatenated"] == list(eqx.filter_jit(vc.analysis.angles)(tree, tree))
    assert {name: float(n) for name, n in found.items()} == pytest.approx(
        {"['w']": 5.0, "['v']": np.sqrt(10), "concatenated": 6.0}
    )
    assert {name: float(n) for name, n in mean_sizes(tree).items()} == {"['w']": 3.5, "['v']": 2.0}


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_norms_of_small_and_large_numbers(scale):
    tree = {"w": jnp.full((2, 2), scale, jnp.float32)}
    assert float(norms(tree)["['w']"]) == pytest.approx(2 * scale, rel=1e-6)


def test_norms_of_half_precision_are_summed_in_single():
    found = norms({"w": jnp.ones((100, 100), jnp.bfloat16)})["['w']"]
    assert found.dtype == jnp.float32
    assert float(found) == 100.0


def test_norms_of_zero_and_of_what_is_not_finite():
    assert float(norms({"w": jnp.zeros((2, 2))})["concatenated"]) == 0.0
    assert np.isinf(norms({"w": jnp.array([[jnp.inf, 1.0]])})["concatenated"])
    assert np.isnan(norms({"w": jnp.array([[jnp.nan, 1.0]])})["concatenated"])


def test_norms_need_arrays():
    with pytest.raises(ValueError, match="expected a tree with floating-point arrays, got none"):
        norms({"w": jnp.arange(3)})


# -------------------------------------------------------------------------------------------------- function change


def test_function_change_of_one_linear_layer():
    """The output changes by `u x`, whatever the weights."""
    graph, model, x, y = linear()
    step = random_update(model)
    found = function_change(graph, model, step, x, y, loss=LOSS)
    change = np.asarray(x) @ np.asarray(step.layers[0].weight).T + np.asarray(step.layers[0].bias)
    expected = np.linalg.norm(change, axis=1)
    error = np.asarray(y - jax.vmap(model)(x))
    loss_change = np.mean(np.sum((error - change) ** 2 - error**2, axis=1)) / 2
    np.testing.assert_allclose(found.output_change, expected, rtol=1e-12)
    np.testing.assert_allclose(found.loss_change, loss_change, rtol=1e-10)
    np.testing.assert_allclose(found.weight_change, np.linalg.norm(flat(step)), rtol=1e-14)
    np.testing.assert_allclose(found.output_ratio, expected.mean() / np.linalg.norm(flat(step)), rtol=1e-12)
    np.testing.assert_allclose(found.loss_ratio, -loss_change / np.linalg.norm(flat(step)), rtol=1e-10)


def test_the_loss_falls_by_the_gradient_norm_per_unit_of_a_small_gradient_step():
    graph, model, x, y = network()
    gradient = gradient_of(model, x, y)
    size = np.linalg.norm(flat(gradient))
    misses = []
    for rate in (1e-4, 1e-5):
        step = jax.tree.map(lambda g, rate=rate: -rate * g, gradient)
        misses.append(abs(float(function_change(graph, model, step, x, y, loss=LOSS).loss_ratio) - size))
    assert misses[0] < 1e-3 * size
    assert misses[1] < 0.11 * misses[0]  # first order in the rate


def test_no_update_changes_nothing():
    graph, model, x, y = network()
    nothing = jax.tree.map(jnp.zeros_like, random_update(model))
    found = analysis.function_change(graph, model, nothing, x, y, loss=LOSS)
    assert float(found.loss_change) == float(found.weight_change) == 0.0
    assert not np.any(found.output_change)
    assert np.isnan(found.output_ratio)
    assert np.isnan(found.loss_ratio)


# --------------------------------------------------------------------------------------------------------- alignment


def test_alignment_of_one_linear_layer_and_one_example_is_one():
    """Any update that is an outer product of error and input moves the output straight to the target."""
    graph, model, x, y = linear(batch=1)
    for rule in (BACKPROP, vc.rules.ImplicitSGD(0.5, loss=LOSS), vc.rules.InferenceLearning(loss=LOSS)):
        step = update(rule, optax.sgd(0.01), graph, model, x, y)
        np.testing.assert_allclose(target_alignment(graph, model, step, x, y), 1.0, rtol=1e-9)
        away = jax.tree.map(jnp.negative, step)
        np.testing.assert_allclose(target_alignment(graph, model, away, x, y), -1.0, rtol=1e-9)


def test_target_alignment_by_hand_is_descent_alignment_for_squared_error():
    graph, model, x, y = network()
    step = random_update(model)
    before, after = (np.asarray(jax.vmap(m)(x)) for m in (model, eqx.apply_updates(model, step)))
    a, b = after - before, np.asarray(y) - before
    expected = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    found = target_alignment(graph, model, step, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(descent_alignment(graph, model, step, x, y, loss=LOSS), found, rtol=1e-12)


def test_descent_alignment_of_classes_is_the_cosine_with_target_minus_softmax():
    graph, model, x, _ = network()
    y = jnp.array([0, 1, 2, 0, 1])
    step = random_update(model)
    before, after = (np.asarray(jax.vmap(m)(x)) for m in (model, eqx.apply_updates(model, step)))
    a, b = after - before, np.eye(3)[np.asarray(y)] - np.asarray(jax.nn.softmax(before))
    expected = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    found = descent_alignment(graph, model, step, x, y, loss=vc.losses.softmax_cross_entropy)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_an_output_may_be_a_tree():
    def two(parameters, x):
        return {"sum": parameters["w"] @ x, "product": (parameters["w"] @ x)[0] ** 2, "count": jnp.int32(3)}

    def loss(output, target):
        return LOSS(output["sum"], target["sum"]) + 0.5 * jnp.square(output["product"] - target["product"])

    model = jax.tree_util.Partial(two, {"w": jnp.array([[1.0, 2.0], [0.5, -1.0]])})
    x = jnp.array([[1.0, 1.0], [2.0, -1.0]])
    graph = vc.capture(model, x[0])
    y = {"sum": jnp.ones((2, 2)), "product": jnp.zeros(2), "count": jnp.full(2, 3, jnp.int32)}
    step = jax.tree.map(lambda w: 0.1 * jnp.ones_like(w), model)
    rows = []
    for w in (np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([[1.1, 2.1], [0.6, -0.9]])):
        h = np.asarray(x) @ w.T
        rows.append(np.concatenate([h[:, :1] ** 2, h], axis=1))  # keys in order: product, then sum
    a, b = rows[1] - rows[0], np.array([0.0, 1.0, 1.0]) - rows[0]
    expected = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(target_alignment(graph, model, step, x, y), expected, atol=1e-14)
    np.testing.assert_allclose(descent_alignment(graph, model, step, x, y, loss=loss), expected, atol=1e-14)
    np.testing.assert_allclose(
        function_change(graph, model, step, x, y, loss=loss).output_change, np.linalg.norm(a, axis=1), rtol=1e-12
    )


def test_alignment_is_not_a_number_where_nothing_moves():
    graph, model, x, y = network()
    nothing = jax.tree.map(jnp.zeros_like, random_update(model))
    assert np.all(np.isnan(analysis.target_alignment(graph, model, nothing, x, y)))


def test_clear_errors():
    graph, model, x, y = network()
    step = random_update(model)
    with pytest.raises(
        ValueError, match=r"output's structure and shapes \[\[5, 3\]\], got \[\[5\]\]; use descent_alig"
    ):
        target_alignment(graph, model, step, x, jnp.zeros(5, int))
    with pytest.raises(ValueError, match="as many targets as inputs"):
        function_change(graph, model, step, x, y[:2], loss=LOSS)
    wrong = eqx.tree_at(lambda m: m.layers[1].weight, step, jnp.ones((3, 1)))
    with pytest.raises(ValueError, match=r"with shape \[3, 6\] at 'layers\[1\].weight', got shape \[3, 1\]; use"):
        function_change(graph, model, wrong, x, y, loss=LOSS)
    with pytest.raises(ValueError, match=r"no such parameter at \"\['w'\]\", got shape \[2\]|at .*got nothing"):
        descent_alignment(graph, model, {"w": jnp.ones(2)}, x, y, loss=LOSS)
