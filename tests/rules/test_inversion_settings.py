"""Dynamic inversion: what it inverts and reads, its clip and tolerance, and what it refuses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from inversion_builders import KEY, SQUARED, at_rest, credit, error_of, linear, rule_of
from matrix import full
from precision import double

import vicinal as vc
from vicinal.inference import Result
from vicinal.rules import Backprop, DynamicInversion
from vicinal.rules.inversion import Allow, ClosedForm, Dynamic, PseudoInverse, Stabilise, Uniform
from vicinal.settings import InferenceSettings, TaskSettings
from vicinal.testing import cases, check_rule

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------------------------------- what is inverted, and read


@pytest.mark.parametrize("place", ["pre", "post"])
def test_dense_layers_over_convolutions(x64, place):
    """The dense layers are inverted, down to the maps below them; what is below has the transposed maps' errors."""
    model = double(vc.nn.ConvNet((1, 8, 8), [(3, 3, 1), (2, 3, 1)], (6, 3), "tanh", place, key=KEY))
    x = jax.random.normal(jax.random.key(1), (2, 1, 8, 8), jnp.float64)
    graph = vc.capture(model, x[0])
    found, state = credit(rule_of(inversion=ClosedForm(), leak=0.2), (model, graph, x, jnp.zeros((2, 3))))
    assert {name: back.shape for name, back in state.items()} == {"hidden1": (6, 3), "conv2": (32, 6)}
    _, values = eqx.filter_jit(graph.feedforward)(model, x)

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
    found, state = credit(rule_of(leak=0.1, clip=0.05, inversion=ClosedForm()), task)
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
    rule = DynamicInversion(feedback=Uniform(), stability=Stabilise(repair=True), leak=0.05, clip=1.0, loss=SQUARED)
    state, optimizer_state = rule.init(graph, model, key=KEY), optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    step, losses = eqx.filter_jit(rule.step), []
    for _ in range(80):
        model, optimizer_state, state, loss, info = step(graph, optimizer, model, optimizer_state, state, x, y)
        assert np.all(info.result <= Result.STEP_LIMIT)
        losses.append(float(loss))
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize(
    ("case", "rule", "left_out"),
    [
        full("mlp", DynamicInversion(inversion=PseudoInverse()), ()),
        ("recurrent", DynamicInversion(inversion=ClosedForm(), leak=0.1), ("jit", "vmap")),
        full("recurrent", DynamicInversion(inversion=ClosedForm(), leak=0.1), ()),
        full(
            "tied weights",
            DynamicInversion(single_loop=True, leak=0.1, stability=Stabilise(repair=True), clip=5.0),
            (),
        ),
    ],
)
def test_the_contract_in_other_chains(case, rule, left_out):
    check_rule(rule, skip=left_out, only=[chosen for chosen in cases() if chosen.name == case])


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"inversion": "exact"}, TypeError, "expected inversion as a strategy of vicinal.rules.inversion, got 'exact'"),
        ({"feedback": Allow()}, TypeError, "expected feedback as a strategy of vicinal.rules.inversion"),
        ({"stability": Uniform()}, TypeError, "expected stability as a strategy of vicinal.rules.inversion"),
        ({"single_loop": "all"}, ValueError, "expected single_loop as True or False, got 'all'"),
        ({"leak": -0.1}, ValueError, "expected the leak of at least 0"),
        ({"step_size": 0.0}, ValueError, "expected the step size above 0"),
        ({"clip": 0.0}, ValueError, "expected clip above 0"),
        ({"loss": "mse"}, TypeError, "expected a loss as a function"),
    ],
)
def test_wrong_settings_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        DynamicInversion(**settings)


@pytest.mark.parametrize(
    ("strategy", "settings", "words"),
    [
        (Dynamic, {"activation": "elu"}, "expected an activation of tanh, .* got 'elu'"),
        (Dynamic, {"steps": 0}, "expected steps as an integer of at least 1"),
        (Dynamic, {"tolerance": 0.0}, "expected the tolerance above 0"),
        (Uniform, {"scale": -1.0}, "expected the scale of the feedback of at least 0"),
        (Stabilise, {"repair": 1}, "expected repair as True or False"),
    ],
)
def test_wrong_settings_of_strategies_are_refused(strategy, settings, words):
    with pytest.raises(ValueError, match=words):
        strategy(**settings)


def test_settings_reach_the_rule_and_its_inversion():
    inference = InferenceSettings(steps=7, step_size=0.2, tolerance=1e-2)
    made = TaskSettings(set=("leak=0.1",), inference=inference).make("di")["di"][0]
    assert made.inversion.steps == 7
    np.testing.assert_allclose([made.leak, made.step_size, made.inversion.tolerance], [0.1, 0.2, 1e-2], rtol=1e-6)
    assert TaskSettings(set=("inversion.steps=9",)).make("di")["di"][0].inversion.steps == 9


def test_a_scale_that_the_recipe_does_not_read_is_refused():
    """Its feedback is minus the transpose."""
    with pytest.raises(ValueError, match=r"expected a number of di among .*, got 'feedback\.scale'"):
        TaskSettings(set=("feedback.scale=0.1",)).make("di")


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
        rule_of(feedback=Uniform(), stability=Stabilise()).init(graph, model)
    for state in ((), {"h1": jnp.ones((4, 3))}):
        with pytest.raises(ValueError, match="expected the feedback of h0 as state, got"):
            rule_of().value_and_grad(graph, model, state, x, y)


def test_transposed_feedback_is_of_the_first_weights_and_no_backpropagation(x64):
    """With a large leak the loop barely moves from `W^T e / leak`: backpropagation, by feedback that is its own."""
    model, graph, x, y = linear(5, 4, 3)
    found, _ = credit(rule_of(leak=1e6, inversion=ClosedForm()), (model, graph, x, y))
    exact, _ = eqx.filter_jit(Backprop(loss=SQUARED).credit)(graph, model, (), x, y)
    np.testing.assert_allclose(1e6 * found.errors["h0"], exact.errors["h0"], rtol=1e-5)
