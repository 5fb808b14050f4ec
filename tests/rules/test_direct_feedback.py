"""Direct feedback alignment: its limits are backpropagation and feedback alignment."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from direct_feedback_builders import (
    KEY,
    MODELS,
    assert_equal,
    convolutional,
    furthest,
    gradient,
    loss_of_all,
    of_jax,
    rule_of,
    task,
    task_of,
)
from matrix import full, some
from precision import double

import vicinal as vc
from vicinal.rules import Backprop, DirectFeedback
from vicinal.rules.projectors import Broadcast, Dense, DilatedConvolution

pytestmark = pytest.mark.slow

# ----------------------------------------------------------------------------------------------- limits of the rule


def test_with_the_jacobian_as_projection_it_is_backpropagation(x64):
    """On a linear net, whose Jacobian is the same everywhere."""
    net = vc.nn.MLP((5, 6, 4, 3), activation="identity", key=KEY)
    model, graph, x, y = task_of(double(net), (5,))
    w = [layer.weight for layer in model.layers]
    state = {"hidden1": (w[2] @ w[1]).T, "hidden2": w[2].T}
    assert_equal(gradient(rule_of(), graph, model, x, y, state), of_jax(model, x, y), 1e-13)
    state["hidden1"] = 1.01 * state["hidden1"]
    assert furthest(gradient(rule_of(), graph, model, x, y, state), of_jax(model, x, y)) > 1e-4


@pytest.mark.parametrize("every_step", [False, True])
def test_with_the_jacobians_through_time_it_is_backpropagation_through_time(x64, every_step):
    net = vc.nn.RNN(3, 5, 2, activation="identity", every_step=every_step, key=KEY)
    model, graph, x, y = task_of(double(net), (4, 3))
    out, step = model.output_layer.weight, model.recurrent_layer.weight
    state, nothing = {}, jnp.zeros_like(out.T)
    for t in range(4):
        later = [(out @ jnp.linalg.matrix_power(step, s - t)).T if s >= t else nothing for s in range(4)]
        state[f"hidden[{t}]"] = jnp.concatenate(later, axis=1) if every_step else later[-1]
    assert_equal(gradient(rule_of(shared=False), graph, model, x, y, state), of_jax(model, x, y), 1e-12)


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_with_one_hidden_layer_it_is_feedback_alignment(x64, vertex_at, activation):
    """At rates and at potentials; the derivative of the activation is there once, in both."""
    net = vc.nn.MLP((5, 6, 3), activation=activation, vertex_at=vertex_at, key=KEY)
    model, graph, x, y = task_of(double(net), (5,))
    state = rule_of().init(graph, model, key=KEY)
    fed = vc.feedback.attach(model, vc.feedback.given({"layers[1].weight": state["hidden1"].T}))
    expected = eqx.filter_jit(Backprop(loss=loss_of_all).value_and_grad)(vc.capture(fed, x[0]), fed, (), x, y)[1]
    found = gradient(rule_of(), graph, model, x, y, state)
    assert_equal(found.layers[0], expected.layers[0], 1e-13)
    assert_equal(found.layers[1], expected.layers[1].layer, 1e-13)


@pytest.mark.parametrize("name", [full("mlp"), "convolutional"])
def test_rates_and_potentials_are_one_rule(x64, name):
    """An ordinary net is the same function with vertices at either, and Nøkland's rule is the same too."""
    build = {
        "mlp": lambda at: vc.nn.MLP((5, 6, 4, 3), vertex_at=at, key=KEY),
        "convolutional": lambda at: vc.nn.ConvNet((2, 7, 7), [(3, 3, 2)], (4, 3), vertex_at=at, key=KEY),
    }[name]
    shape = (5,) if name == "mlp" else (2, 7, 7)
    found = [
        gradient(rule_of(), *ours[1:2], ours[0], *ours[2:])
        for ours in (task_of(double(build(at)), shape) for at in ("post", "pre"))
    ]
    assert_equal(*found, 1e-13)


def test_the_published_rule_by_hand(x64):
    model, graph, x, y = task("mlp, potentials")
    state = rule_of().init(graph, model, key=KEY)
    z1 = x @ model.layers[0].weight.T + model.layers[0].bias[None]
    z2 = jnp.tanh(z1) @ model.layers[1].weight.T + model.layers[1].bias[None]
    error = y - jnp.tanh(z2) @ model.layers[2].weight.T - model.layers[2].bias[None]
    d1, d2 = ((1 - jnp.tanh(z) ** 2) * (error @ b.T) for z, b in ((z1, state["hidden1"]), (z2, state["hidden2"])))
    found = gradient(rule_of(), graph, model, x, y, state)
    for layer, d, a in zip(found.layers, (d1, d2, error), (x, jnp.tanh(z1), jnp.tanh(z2)), strict=True):
        np.testing.assert_allclose(layer.weight, -d.T @ a / 3, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(layer.bias, -d.mean(0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", some(MODELS, "mlp", "convolutional"))
def test_exact_limits_on_every_architecture(x64, name):
    """Modules of one vertex, and mixed errors of weight 0, are backpropagation; of weight 1, plain."""
    model, graph, x, y = task(name)
    single = [[name] for name in (*graph.vertices, "output")]
    rules = {"single": rule_of(modules=single), "zero": rule_of(hybrid=0), "plain": rule_of(), "one": rule_of(hybrid=1)}
    states = {name: rule.init(graph, model, key=KEY) for name, rule in rules.items()}
    assert states["single"] == {}
    found = eqx.filter_jit(
        lambda model: {r: rule.value_and_grad(graph, model, states[r], x, y)[1] for r, rule in rules.items()}
    )(model)
    expected = of_jax(model, x, y)
    assert_equal(found["single"], expected)
    assert_equal(found["zero"], expected)
    assert_equal(found["one"], found["plain"])
    assert furthest(found["plain"], expected) > 1e-3


# ---------------------------------------------------------------------------------------------------------- modules


@pytest.mark.parametrize("boundary", ["bp", "direct"])
def test_one_module_is_plain(x64, boundary):
    model, graph, x, y = task("mlp, potentials")
    plain = gradient(rule_of(), graph, model, x, y)
    for whole in ([graph.vertices], [[*graph.vertices, "output"]]):
        assert_equal(gradient(rule_of(modules=whole, boundary=boundary), graph, model, x, y), plain, 1e-14)


def deep(vertex_at="pre"):
    return task_of(double(vc.nn.MLP((5, 6, 4, 6, 4, 3), vertex_at=vertex_at, key=KEY)), (5,))


@pytest.mark.parametrize("boundary", ["bp", "direct"])
def test_errors_inside_modules_come_from_the_modules_output(x64, boundary):
    model, graph, x, y = deep()
    rule = rule_of(modules=[["hidden1", "hidden2"], ["hidden3"], ["hidden4"]], boundary=boundary)
    state = rule.init(graph, model, key=KEY)
    boundaries = {} if boundary == "bp" else {"hidden2": (4, 6), "hidden3": (6, 3)}
    assert {name: b.shape for name, b in state.items()} == {"hidden1": (6, 4), "hidden4": (4, 3)} | boundaries
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y)
    exact, _ = eqx.filter_jit(Backprop(loss=loss_of_all).credit)(graph, model, (), x, y)

    def projected(name, error):
        return (1 - jnp.tanh(credit.values[name]) ** 2) * (error @ state[name].T)

    e4 = projected("hidden4", credit.output_error)
    e3 = exact.errors["hidden3"] if boundary == "bp" else projected("hidden3", credit.output_error)
    e2 = exact.errors["hidden2"] if boundary == "bp" else projected("hidden2", e3)
    expected = {"hidden1": projected("hidden1", e2), "hidden2": e2, "hidden3": e3, "hidden4": e4}
    assert_equal(credit.errors, expected, 1e-13)


# ----------------------------------------------------------------------------------------------------------- hybrid


@pytest.mark.parametrize("boundary", ["bp", "direct"])
def test_mixed_errors_by_hand(x64, boundary):
    model, graph, x, y = deep("post")
    rule = rule_of(modules=[["hidden1", "hidden2"], ["hidden3", "hidden4"]], boundary=boundary, hybrid=0.3)
    state = rule.init(graph, model, key=KEY)
    credit, _ = eqx.filter_jit(rule.credit)(graph, model, state, x, y)
    exact, _ = eqx.filter_jit(Backprop(loss=loss_of_all).credit)(graph, model, (), x, y)
    h, w, e = credit.values, [layer.weight for layer in model.layers], credit.output_error
    e4 = 0.7 * e @ w[4] + 0.3 * e @ state["hidden4"].T
    e3 = 0.7 * ((1 - h["hidden4"] ** 2) * e4) @ w[3] + 0.3 * e @ state["hidden3"].T
    carried = ((1 - h["hidden3"] ** 2) * e3) @ w[2]
    e2 = exact.errors["hidden2"] if boundary == "bp" else 0.7 * carried + 0.3 * e @ state["hidden2"].T
    e1 = 0.7 * ((1 - h["hidden2"] ** 2) * e2) @ w[1] + 0.3 * e2 @ state["hidden1"].T
    assert_equal(credit.errors, {"hidden1": e1, "hidden2": e2, "hidden3": e3, "hidden4": e4}, 1e-13)


# --------------------------------------------------------------------------------------------- locality and training


@pytest.mark.parametrize("name", ["mlp", full("mlp, potentials"), full("convolutional"), "recurrent, each step"])
def test_errors_do_not_depend_on_the_weights_above(x64, name):
    """Other weights above and a target moved along with the output: the errors stay, but for backpropagation's."""
    model, graph, x, y = task(name)
    last = (lambda m: m.output_layer) if "recurrent" in name else (lambda m: m.layers[-1])
    other = eqx.tree_at(lambda m: last(m).weight, model, replace_fn=lambda w: jnp.flip(w) - 0.2)
    moved = y + eqx.filter_jit(graph.feedforward)(other, x)[0] - eqx.filter_jit(graph.feedforward)(model, x)[0]

    def distance(rule):
        state = rule.init(graph, model, key=KEY)
        assigned = eqx.filter_jit(rule.credit)
        before, after = (assigned(graph, m, state, x, t)[0].errors for m, t in ((model, y), (other, moved)))
        return furthest(before, after)

    assert distance(rule_of()) < 1e-14
    assert distance(rule_of(hybrid=0.5)) > 1e-3
    assert distance(Backprop(loss=loss_of_all)) > 1e-3


@pytest.mark.parametrize("name", some(MODELS, "recurrent"))
def test_it_learns_on_every_architecture(name):
    model, shape = MODELS[name]()
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    graph, rule, optimizer = vc.capture(model, x[0]), rule_of(), optax.adam(3e-3)
    y = jax.tree.map(
        lambda o: o + jax.random.normal(jax.random.key(2), o.shape), eqx.filter_jit(graph.feedforward)(model, x)[0]
    )
    arrays, static = eqx.partition(model, eqx.is_array)
    projections = rule.init(graph, model, key=KEY)

    def body(carry, _):
        arrays, *states = carry
        model, *states, loss, _ = rule.step(graph, optimizer, eqx.combine(arrays, static), *states, x, y)
        return (eqx.filter(model, eqx.is_array), *states), loss

    start = (arrays, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), projections)
    (ended, _, kept), losses = jax.jit(lambda carry: jax.lax.scan(body, carry, length=400))(start)
    assert losses[-1] < 0.5 * losses[0]
    assert furthest(kept, projections) == 0
    changed = [bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(ended), jax.tree.leaves(arrays), strict=True)]
    assert np.mean(changed) > 0.9


@pytest.mark.full
@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_digits_are_learned_and_the_weights_align(vertex_at):
    data = vc.data.load("digits").flattened()
    model = vc.nn.MLP((64, 64, 64, 10), vertex_at=vertex_at, key=KEY)
    rule, graph = DirectFeedback(), vc.capture(model, data.x_train[0])
    run = vc.train.fit(
        rule, model, optax.adam(1e-3), data, key=jax.random.key(1), epochs=8, batch_size=32, progress=False, graph=graph
    )
    assert run.records[-1]["test_accuracy"] > 0.85  # chance is .1
    x, y = jnp.asarray(data.x_train[:500]), jnp.asarray(data.y_train[:500])
    found = {}
    for when, now in (("before", model), ("after", run.state.model)):
        ours = eqx.filter_jit(rule.value_and_grad)(graph, now, run.state.rule_state, x, y)[1]
        found[when] = eqx.filter_jit(vc.analysis.angles)(
            ours, eqx.filter_jit(Backprop().value_and_grad)(graph, now, (), x, y)[1]
        )
    for layer in ("layers[0].weight", "layers[1].weight"):
        assert found["after"][layer] < 70 < found["before"][layer]


def test_numbers_of_the_recipe():
    rule, _ = vc.recipes.recipe("dfa").make(**{"projector.scale": 0.5, "hybrid": 0.25})
    assert (float(rule.projector.scale), float(rule.hybrid)) == (0.5, 0.25)
    assert vc.recipes.recipe("dfa").make()[0].hybrid is None
    traced = jax.jit(lambda rho: vc.recipes.recipe("dfa").make(hybrid=rho)[0].hybrid * 2)
    assert float(traced(0.25)) == 0.5


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"projector": 3}, TypeError, "expected a projector of vicinal.rules.projectors, or some by name, got 3"),
        ({"projector": {"hidden1": "dense"}}, TypeError, "expected a projector .* got 'dense'"),
        ({"boundary": "exact"}, ValueError, "expected boundary as 'bp' or 'direct', got 'exact'"),
        ({"hybrid": 1.5}, ValueError, r"hybrid, in \[0, 1\], got 1.5"),
        ({"modules": ("hidden1", "hidden2")}, TypeError, "expected modules as groups of names"),
        ({"modules": []}, ValueError, "expected at least one module"),
        ({"modules": [["hidden1"], []]}, ValueError, "a vertex in each"),
        ({"loss": "mse"}, TypeError, "expected a loss as a function"),
    ],
)
def test_wrong_settings_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        DirectFeedback(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modules": [["conv1"], ["hidden1"]]}, "expected every vertex in a module, got none for 'conv2'"),
        ({"modules": [["conv1", "conv2"], ["hidden"]]}, "vertices known among conv1, conv2, hidden1, output, got 'hid"),
        ({"modules": [["conv1", "conv2"], ["conv2", "hidden1"]]}, "that are each named once among .*, got 'conv2'"),
        ({"modules": [["conv2", "conv1"], ["hidden1"]]}, "in the order of the graph, .*, got 'conv2' too early"),
        ({"modules": [["conv1", "output"], ["conv2", "hidden1"]]}, "each named once|order of the graph"),
        (
            {"projector": {"conv3": Dense()}},
            "expected projectors for vertices of conv1, conv2, hidden1, got .* 'conv3'",
        ),
        ({"projector": {"hidden1": Broadcast(3)}}, r"got \[3\] to \[6\], for vertex 'hidden1'; give it another"),
        ({"projector": DilatedConvolution(3)}, "no vertex that DilatedConvolution fits; take Dense, or modules"),
        (
            {"projector": {"conv1": DilatedConvolution(3, groups=2)}, "modules": [["conv1", "conv2"], ["hidden1"]]},
            r"multiples of the groups, 2, got \[4, 3, 3\] to \[3, 7, 7\], for vertex 'conv1'",
        ),
    ],
)
def test_what_does_not_fit_the_graph_is_refused(x64, settings, words):
    model, graph, _, _ = convolutional()
    with pytest.raises(ValueError, match=words):
        rule_of(**settings).init(graph, model, key=KEY)


def test_a_key_and_the_state_are_needed(x64):
    model, graph, x, y = task("mlp")
    with pytest.raises(ValueError, match="expected a key to draw the projections with"):
        rule_of().init(graph, model)
    for state in ((), {"hidden1": jnp.ones((6, 3))}):
        with pytest.raises(ValueError, match="expected the projections of hidden1, hidden2 as state, got"):
            rule_of().value_and_grad(graph, model, state, x, y)
