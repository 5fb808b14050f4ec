"""Dynamic inversion: where it comes to rest, when it does, and what it reads."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from inversion_builders import KEY, SQUARED, at_rest, credit, error_of, layers, linear, rule_of
from precision import double

import vicinal as vc
from vicinal.inference import Result
from vicinal.rules import Backprop, DynamicInversion
from vicinal.settings import TaskSettings
from vicinal.testing import cases, check_rule


def perceptron(place, batch=4):
    model = double(vc.nn.MLP((5, 8, 6, 3), vertex_at=place, key=KEY))
    x = jax.random.normal(jax.random.key(1), (batch, 5), jnp.float64)
    return model, vc.capture(model, x[0]), x, jax.random.normal(jax.random.key(2), (batch, 3), jnp.float64)


# -------------------------------------------------------------------------------------------- where it comes to rest


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize("feedback", ["transpose", "stabilised"])
def test_the_loops_come_to_rest_at_the_closed_form(x64, place, feedback):
    """T-k1, layer by layer down a network of tanh units, written out in NumPy for both places of a vertex."""
    task = model, _, x, y = perceptron(place)
    settings = {"feedback": feedback, "leak": 0.05}
    found, state = credit(rule_of(**settings), task)
    assert np.all(found.info.result == Result.CONVERGED)

    (_, b1), (w2, b2), (w3, b3) = [(np.asarray(m.weight), np.asarray(m.bias)) for m in model.layers]
    first = np.asarray(x) @ np.asarray(model.layers[0].weight).T + b1
    second = np.tanh(first) @ w2.T + b2
    delta = at_rest(w3, np.asarray(state["hidden2"]), 0.05, np.asarray(y) - np.tanh(second) @ w3.T - b3)
    product = delta * (1 - np.tanh(second) ** 2)  # the error at the product below
    lower = at_rest(w2, np.asarray(state["hidden1"]), 0.05, product)
    expected = {"hidden2": product, "hidden1": lower * (1 - np.tanh(first) ** 2)}
    if place == "post":  # the local product brings the derivative of a rate
        expected = {"hidden2": delta, "hidden1": lower}
    reference, _ = credit(rule_of(method="closed-form", **settings), task, state)
    for name, error in expected.items():
        np.testing.assert_allclose(found.errors[name], error, rtol=0, atol=1e-10)
        np.testing.assert_allclose(reference.errors[name], error, rtol=0, atol=1e-12)


def test_both_places_of_a_vertex_are_one_rule(x64):
    gradients = []
    for place in ("pre", "post"):
        model, graph, x, y = perceptron(place)
        rule = rule_of(method="closed-form")
        gradients.append(rule.value_and_grad(graph, model, rule.init(graph, model), x, y)[1].layers)
    for ours, theirs in zip(jax.tree.leaves(gradients[0]), jax.tree.leaves(gradients[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


def test_the_steps_are_those_of_euler_in_numpy(x64):
    task = model, _, x, y = linear(5, 4, 3)
    found, state = credit(rule_of(steps=17, tolerance=None, step_size=0.3, leak=0.2, nonlinearity="tanh"), task)
    weight, back, errors = np.asarray(model.args[0][1]), np.asarray(state["h0"]), error_of(model, x, y)
    for error, ended in zip(errors, np.asarray(found.errors["h0"]), strict=True):
        u, v = np.zeros(3), np.zeros(4)
        for _ in range(17):
            u, v = u + 0.3 * (weight @ np.tanh(v) - 0.2 * u - error), v + 0.3 * (back @ u - v)
        np.testing.assert_allclose(ended, v, rtol=0, atol=1e-13)
    assert np.all(found.info.steps == 17)
    assert np.all(found.info.result == Result.STEP_LIMIT)


@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 3, 7)])
@pytest.mark.parametrize("method", ["dynamic", "closed-form"])
def test_minus_the_transpose_is_levenberg_marquardt(x64, sizes, method):
    """T-k2 and T-k6: the hidden target is the damped least-squares step, and the update its local product."""
    task = model, graph, x, y = linear(*sizes)
    rule = rule_of(leak=0.3, method=method)
    found, state = credit(rule, task)
    weight, errors = np.asarray(model.args[0][1]), error_of(model, x, y)
    damped = np.vstack([weight, 0.3**0.5 * np.eye(sizes[1])])  # min |W d - e|^2 + leak |d|^2
    steps = [np.linalg.lstsq(damped, np.append(error, np.zeros(sizes[1])))[0] for error in errors]
    np.testing.assert_allclose(found.errors["h0"], np.stack(steps), rtol=0, atol=1e-11)
    update = -rule.value_and_grad(graph, model, state, x, y)[1].args[0][0]
    expected = np.mean([np.outer(step, row) for step, row in zip(steps, np.asarray(x), strict=True)], axis=0)
    np.testing.assert_allclose(update, expected, rtol=0, atol=1e-11)


def test_without_a_leak_and_wide_it_is_the_gauss_newton_step(x64):
    """T-k6: with a leak that vanishes, the pseudo-inverse; which is the method's own reference."""
    task = linear(5, 7, 3)
    small, none = (credit(rule_of(method="closed-form", leak=leak), task)[0].errors["h0"] for leak in (1e-9, 0.0))
    pseudo, state = credit(rule_of(method="pseudo"), task)
    model, _, x, y = task
    expected = error_of(model, x, y) @ np.linalg.pinv(np.asarray(model.args[0][1])).T
    assert state == ()
    for found, within in ((small, 1e-7), (none, 1e-12), (pseudo.errors["h0"], 1e-12)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=within)


@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 3, 7), (5, 4, 4)])
def test_the_smaller_inverse_is_the_same(x64, sizes):
    """T-k3, push-through: `(B W - leak)^-1 B = B (W B - leak)^-1`."""
    task = model, _, x, y = linear(*sizes)
    found, state = credit(rule_of(method="closed-form", feedback="random", leak=0.2, allow_unstable=True), task)
    weight, back = np.asarray(model.args[0][1]), np.asarray(state["h0"])
    np.testing.assert_allclose(
        found.errors["h0"], at_rest(weight, back, 0.2, error_of(model, x, y)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_stable_feedback_inverts_without_a_leak(x64, seed):
    """T-k5: `W delta = e` for feedback that is neither the transpose nor the pseudo-inverse."""
    task = model, graph, x, y = linear(5, 9, 4, seed=seed)
    rule = rule_of(leak=0.0, feedback="stabilised")
    state = rule.init(graph, model, key=jax.random.key(seed))
    found, _ = credit(rule, task, state)
    weight, errors = np.asarray(model.args[0][1]), error_of(model, x, y)
    assert np.all(found.info.result == Result.CONVERGED)
    np.testing.assert_allclose(np.asarray(found.errors["h0"]) @ weight.T, errors, rtol=0, atol=1e-10)
    assert float(vc.analysis.angle(state["h0"], -weight.T)) > 40
    assert np.max(np.abs(found.errors["h0"] - errors @ np.linalg.pinv(weight).T)) > 0.01


def test_a_bent_loop_inverts_what_it_bends(x64):
    """At rest without a leak `W tanh(v) = e`."""
    model, graph, x, y = linear(5, 9, 3)
    y = jax.vmap(model)(x) + 0.1 * y  # rates below 1 can do so much
    found, _ = credit(rule_of(leak=0.0, nonlinearity="tanh"), (model, graph, x, y))
    made = np.tanh(np.asarray(found.errors["h0"])) @ np.asarray(model.args[0][1]).T
    np.testing.assert_allclose(made, error_of(model, x, y), rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------------- the single loop


def test_a_single_loop_equals_the_layers_where_the_inverse_is_one(x64):
    """Layers of one width: `W^-1 e` at every vertex, whatever the feedback."""
    weights = [scipy.stats.ortho_group.rvs(4, random_state=i) * [0.9, 0.8, 1.0, 1.1] for i in range(4)]
    model = jax.tree_util.Partial(layers, [jnp.asarray(weight) for weight in weights])
    x, y = jax.random.normal(KEY, (2, 3, 4), jnp.float64)
    task = model, vc.capture(model, x[0]), x, y
    one, state = credit(rule_of(loop="single", leak=0.0, tolerance=1e-12), task)
    many, states = credit(rule_of(leak=0.0, tolerance=1e-12), task)
    assert (set(state), set(states)) == ({"h0"}, {"h0", "h1", "h2"})
    assert np.all(one.info.result == Result.CONVERGED)
    for name, error in many.errors.items():
        np.testing.assert_allclose(one.errors[name], error, rtol=0, atol=1e-9)


def test_a_single_loop_in_wide_layers(x64):
    """Both invert; they are the same inverse where the feedback is `B1 (W1 B1)^-1 B2`."""
    task = model, _, x, y = linear(5, 8, 6, 3)
    (_, w1, w2), errors = (np.asarray(w) for w in model.args[0]), error_of(model, x, y)
    many, states = credit(rule_of(method="closed-form", leak=0.0), task)
    one, state = credit(rule_of(method="closed-form", loop="single", leak=0.0), task)
    np.testing.assert_allclose(state["h0"], -(w2 @ w1).T, rtol=0, atol=1e-14)
    for found in (one, many):
        lower, upper = (np.asarray(found.errors[name]) for name in ("h0", "h1"))
        np.testing.assert_allclose(lower @ w1.T, upper, rtol=0, atol=1e-11)
        np.testing.assert_allclose(upper @ w2.T, errors, rtol=0, atol=1e-11)
    assert np.max(np.abs(one.errors["h1"] - many.errors["h1"])) > 0.01
    b1, b2 = np.asarray(states["h0"]), np.asarray(states["h1"])
    chosen = {"h0": jnp.asarray(b1 @ np.linalg.solve(w1 @ b1, b2))}
    same, _ = credit(rule_of(loop="single", leak=0.0, method="closed-form"), task, chosen)
    for name, error in many.errors.items():
        np.testing.assert_allclose(same.errors[name], error, rtol=0, atol=1e-11)


def test_a_single_loop_with_a_bend_copies_it(x64):
    task = model, _, _, _ = linear(5, 4, 4, 3)
    found, _ = credit(rule_of(loop="single", leak=0.1, nonlinearity="tanh"), task)
    copied = np.tanh(np.asarray(found.errors["h0"])) @ np.asarray(model.args[0][1]).T
    np.testing.assert_allclose(found.errors["h1"], copied, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------- along training


def test_angles_to_the_references(x64):
    task = model, graph, x, y = linear(5, 9, 4)
    rule = rule_of(leak=0.0, feedback="stabilised", tolerance=1e-12)
    _, state = credit(rule, task)
    found = vc.analysis.inversion_angles(rule, graph, model, state, x, y)
    weight, back = np.asarray(model.args[0][1]), np.asarray(state["h0"])

    def degrees(a, b):
        return np.rad2deg(np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)))

    np.testing.assert_allclose(found.feedback["h0"], degrees(back, -weight.T), rtol=1e-9)
    assert float(found.closed_form["h0"]) < 1e-8
    errors = error_of(model, x, y)
    rest, pseudo = at_rest(weight, back, 0.0, errors), errors @ np.linalg.pinv(weight).T
    expected = np.mean([degrees(a, b) for a, b in zip(rest, pseudo, strict=True)])
    np.testing.assert_allclose(found.pseudo["h0"], expected, rtol=1e-9)


# ---------------------------------------------------------------------------------------- what is inverted, and read


@pytest.mark.parametrize("place", ["pre", "post"])
def test_dense_layers_over_convolutions(x64, place):
    """The dense layers are inverted, down to the maps below them; what is below has the transposed maps' errors."""
    model = double(vc.nn.ConvNet((1, 8, 8), [(3, 3, 1), (2, 3, 1)], (6, 3), "tanh", place, key=KEY))
    x = jax.random.normal(jax.random.key(1), (2, 1, 8, 8), jnp.float64)
    graph = vc.capture(model, x[0])
    found, state = credit(rule_of(method="closed-form", leak=0.2), (model, graph, x, jnp.zeros((2, 3))))
    assert {name: back.shape for name, back in state.items()} == {"hidden1": (6, 3), "conv2": (32, 6)}
    _, values = graph.feedforward(model, x)

    def slope(name):
        held = np.asarray(values[name])
        return 1 - np.tanh(held) ** 2 if place == "pre" else 1 - held**2

    w1, w2 = (np.asarray(layer.weight) for layer in model.layers)
    delta = at_rest(w2, -w2.T, 0.2, -np.asarray(jax.vmap(model)(x))) * slope("hidden1")
    maps = at_rest(w1, -w1.T, 0.2, delta).reshape(2, 2, 4, 4) * slope("conv2")
    np.testing.assert_allclose(
        found.errors["conv2"] * (1 if place == "pre" else slope("conv2")), maps, rtol=0, atol=1e-12
    )
    _, back = jax.vjp(jax.vmap(model.convolutions[1]), jnp.asarray(np.tanh(np.asarray(values["conv1"]))))
    (below,) = back(jnp.asarray(maps))
    scale = slope("conv1") if place == "pre" else 1
    np.testing.assert_allclose(found.errors["conv1"], scale * np.asarray(below), rtol=0, atol=1e-12)


def test_the_first_response_comes_by_the_feedback_alone(x64):
    """After two steps the units below hold `-step_size^2 B e`; the forward copy of `W` comes in with the fourth."""
    model, graph, x, y = linear(5, 4, 3)
    state = {"h0": jax.random.normal(KEY, (4, 3), jnp.float64)}
    other = eqx.tree_at(lambda m: m.args[0][1], model, replace_fn=lambda w: jnp.flip(w) - 0.2)
    moved = y + jax.vmap(other)(x) - jax.vmap(model)(x)  # the same output error
    for steps, same in ((2, True), (3, True), (4, False)):
        rule = rule_of(steps=steps, tolerance=None)
        found = [credit(rule, (m, graph, x, t), state)[0].errors["h0"] for m, t in ((model, y), (other, moved))]
        assert np.allclose(*found, rtol=0, atol=1e-13) == same
        if steps == 2:
            expected = -0.25 * error_of(model, x, y) @ np.asarray(state["h0"]).T
            np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-13)


def test_the_audit_finds_held_errors(x64):
    """The update reads the two ends of its synapses; the controllers hold the errors there."""
    model, graph, x, y = linear(5, 4, 4, 3)
    assert vc.analysis.audit(rule_of(leak=0.1), graph, model, x, y, key=KEY).local


def test_clipping(x64):
    task = linear(5, 4, 4, 3)
    free, clipped = (credit(rule_of(leak=0.1, clip=clip), task)[0].errors["h1"] for clip in (None, 0.5))
    norms = np.linalg.norm(free, axis=1)
    assert norms.max() > 0.5
    np.testing.assert_allclose(clipped, free * np.minimum(1, 0.5 / norms)[:, None], rtol=0, atol=1e-12)


def test_clipped_errors_go_down_and_the_output_is_left(x64):
    task = model, _, x, y = linear(5, 4, 4, 3)
    found, state = credit(rule_of(leak=0.1, clip=0.05, method="closed-form"), task)
    np.testing.assert_allclose(found.output_error, error_of(model, x, y), rtol=0, atol=1e-12)
    assert np.linalg.norm(found.output_error, axis=1).min() > 0.05
    weight = np.asarray(model.args[0][1])
    below = at_rest(weight, np.asarray(state["h0"]), 0.1, np.asarray(found.errors["h1"]))
    expected = below * np.minimum(1, 0.05 / np.linalg.norm(below, axis=1))[:, None]
    np.testing.assert_allclose(found.errors["h0"], expected, rtol=0, atol=1e-12)


def test_a_controller_that_drifts_does_not_keep_the_units_below_from_rest():
    """By default, where layers widen: what no unit below can answer fades by the leak alone, in thousands of steps."""
    model, x = vc.nn.MLP((10, 6, 8), key=KEY), jax.random.normal(jax.random.key(1), (4, 10))
    graph, rule = vc.capture(model, x[0]), DynamicInversion(loss=SQUARED)
    y = jax.random.normal(jax.random.key(2), (4, 8))
    state = rule.init(graph, model)
    done, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y)
    assert np.all(done.info.result == Result.CONVERGED)
    assert np.max(done.info.steps) < 1000
    assert float(vc.analysis.inversion_angles(rule, graph, model, state, x, y).closed_form["hidden1"]) < 0.1


def test_a_tolerance_stops_each_example_by_itself(x64):
    task = model, graph, x, y = linear(5, 4, 3)
    rule = rule_of(leak=0.3, tolerance=1e-3)
    together, state = credit(rule, task)
    alone = [credit(rule, (model, graph, x[i : i + 1], y[i : i + 1]), state)[0] for i in range(3)]
    np.testing.assert_array_equal(together.info.steps, [int(one.info.steps[0]) for one in alone])
    for i, one in enumerate(alone):
        np.testing.assert_allclose(together.errors["h0"][i], one.errors["h0"][0], rtol=0, atol=1e-14)
    rest = at_rest(np.asarray(model.args[0][1]), np.asarray(state["h0"]), 0.3, error_of(model, x, y))
    assert 1e-8 < np.max(np.abs(together.errors["h0"] - rest)) < 1e-1


def test_stabilised_feedback_learns_without_the_transpose():
    model = vc.nn.MLP((6, 12, 8, 3), key=KEY)
    x, y = jax.random.normal(jax.random.key(1), (16, 6)), jax.random.normal(jax.random.key(2), (16, 3))
    graph, optimizer = vc.capture(model, x[0]), optax.adam(1e-2)
    rule = DynamicInversion(feedback="stabilised", repair=True, leak=0.05, clip=1.0, loss=SQUARED)
    state, optimizer_state = rule.init(graph, model, key=KEY), optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    step, losses = eqx.filter_jit(rule.step), []
    for _ in range(80):
        model, optimizer_state, state, loss, info = step(graph, optimizer, model, optimizer_state, state, x, y)
        assert np.all(info.result <= Result.STEP_LIMIT)
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ("mlp", DynamicInversion(method="pseudo")),
        ("recurrent", DynamicInversion(method="closed-form", leak=0.1)),
        ("tied weights", DynamicInversion(loop="single", leak=0.1, repair=True, clip=5.0)),
    ],
)
def test_the_contract_in_other_chains(case, rule):
    check_rule(rule, only=[chosen for chosen in cases() if chosen.name == case])


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"method": "exact"}, ValueError, "expected method as one of dynamic, closed-form, pseudo, got 'exact'"),
        ({"loop": "all"}, ValueError, "expected loop as one of layer, single, got 'all'"),
        ({"feedback": "tied"}, ValueError, "expected feedback as one of transpose, random, stabilised"),
        ({"nonlinearity": "relu"}, ValueError, "expected nonlinearity as one of identity, tanh"),
        ({"nonlinearity": "tanh", "method": "pseudo"}, ValueError, "'identity' with method 'pseudo'"),
        ({"steps": 0}, ValueError, "expected steps as an integer of at least 1"),
        ({"leak": -0.1}, ValueError, "expected the leak of at least 0"),
        ({"step_size": 0.0}, ValueError, "expected the step size above 0"),
        ({"tolerance": 0.0}, ValueError, "expected the tolerance above 0"),
        ({"clip": 0.0}, ValueError, "expected clip above 0"),
        (
            {"feedback_scale": -1.0, "feedback": "random"},
            ValueError,
            "expected the scale of the feedback of at least 0",
        ),
        (
            {"feedback_scale": 0.1},
            ValueError,
            "expected no feedback_scale with feedback 'transpose', which is not drawn",
        ),
        ({"repair": 1}, ValueError, "expected repair as True or False"),
        ({"loss": "mse"}, TypeError, "expected a loss as a function"),
    ],
)
def test_wrong_settings_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        DynamicInversion(**settings)


def test_a_scale_that_the_recipe_does_not_read_is_refused():
    """Its feedback is the transpose."""
    made = TaskSettings(set=("leak=0.1",)).make("di")["di"][0]
    np.testing.assert_allclose(made.leak, 0.1, rtol=1e-6)
    with pytest.raises(ValueError, match="expected no feedback_scale with feedback 'transpose'"):
        TaskSettings(set=("feedback_scale=0.1",)).make("di")


def test_what_is_no_chain_is_refused():
    rule = DynamicInversion()
    residual = vc.nn.ResidualMLP((5, 8, 3), depth=4, key=KEY)
    with pytest.raises(ValueError, match="expected a chain, in which each vertex reaches one child"):
        rule.init(vc.capture(residual, jnp.ones(5)), residual)
    every = vc.nn.RNN(3, 4, 2, every_step=True, key=KEY)
    with pytest.raises(ValueError, match=r"expected a chain, .* got vertex 'hidden\[0\]'"):
        rule.init(vc.capture(every, jnp.ones((3, 3))), every)
    model = vc.nn.MLP((5, 4, 3), key=KEY)
    fed = vc.feedback.attach(model, vc.feedback.random(), key=KEY)
    with pytest.raises(ValueError, match=r"expected a chain, .* with feedback of their own"):
        rule.init(vc.capture(fed, jnp.ones(5)), fed)
    shallow = vc.nn.MLP((5, 3), key=KEY)
    with pytest.raises(ValueError, match=r"expected a dense layer .* above some vertex"):
        rule.init(vc.capture(shallow, jnp.ones(5)), shallow)


def test_a_key_and_the_state_are_needed(x64):
    model, graph, x, y = linear(5, 4, 3)
    with pytest.raises(ValueError, match="expected a key to draw the feedback with"):
        rule_of(feedback="stabilised").init(graph, model)
    for state in ((), {"h1": jnp.ones((4, 3))}):
        with pytest.raises(ValueError, match="expected the feedback of h0 as state, got"):
            rule_of().value_and_grad(graph, model, state, x, y)


def test_transposed_feedback_is_of_the_first_weights_and_no_backpropagation(x64):
    """With a large leak the loop barely moves from `W^T e / leak`: backpropagation, by feedback that is its own."""
    model, graph, x, y = linear(5, 4, 3)
    found, _ = credit(rule_of(leak=1e6, method="closed-form"), (model, graph, x, y))
    exact, _ = Backprop(loss=SQUARED).credit(graph, model, (), x, y)
    np.testing.assert_allclose(1e6 * found.errors["h0"], exact.errors["h0"], rtol=1e-5)
