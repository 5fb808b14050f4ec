"""Graphs: what is cut where, that cutting changes nothing, and what is refused."""

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import vicinal as vc

KEY = jax.random.key(0)


def two_layers(weights, x):
    hidden = vc.vertex(jnp.tanh(weights[0] @ x), "hidden")
    return weights[1] @ hidden


def bound(function, *shapes):
    keys = jax.random.split(KEY, len(shapes))
    parameters = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    return jax.tree_util.Partial(function, parameters)


# ------------------------------------------------------------------------------------------------ the primitive


def test_vertex_is_the_identity_under_every_transformation():
    def f(x):
        return jnp.sum(jnp.sin(vc.vertex(x, "a")) ** 2)

    def g(x):
        return jnp.sum(jnp.sin(x) ** 2)

    x = jnp.linspace(-1.0, 1.0, 5)
    assert f(x) == g(x)
    assert jax.jit(f)(x) == jax.jit(g)(x)
    np.testing.assert_array_equal(jax.grad(f)(x), jax.grad(g)(x))
    np.testing.assert_array_equal(jax.jvp(f, (x,), (x,)), jax.jvp(g, (x,), (x,)))
    np.testing.assert_array_equal(jax.hessian(f)(x), jax.hessian(g)(x))
    np.testing.assert_array_equal(jax.vmap(jax.grad(f))(x[None]), jax.vmap(jax.grad(g))(x[None]))
    np.testing.assert_array_equal(jax.vmap(f, in_axes=1)(x[:, None]), jax.vmap(g, in_axes=1)(x[:, None]))
    (transposed,) = jax.linear_transpose(lambda x: vc.vertex(3.0 * x, "a"), x)(x)
    np.testing.assert_array_equal(transposed, 3.0 * x)


def test_vertex_refuses_integers_and_bad_names():
    with pytest.raises(TypeError, match="real floating-point array at vertex 'a', got int32"):
        vc.vertex(jnp.arange(3), "a")
    with pytest.raises(TypeError, match="got complex64"):
        vc.vertex(jnp.ones(3, complex), "a")
    with pytest.raises(TypeError, match="got tuple"):
        vc.vertex((jnp.ones(3), jnp.ones(3)), "a")
    with pytest.raises(TypeError, match="name as a string"):
        vc.vertex("a", jnp.ones(3))
    for name in ("", "output"):
        with pytest.raises(ValueError, match="vertex name other than"):
            vc.vertex(jnp.ones(3), name)


# ----------------------------------------------------------------------------------------- structure of the graph


def test_chain():
    model = vc.nn.MLP((4, 3, 5, 2), key=KEY)
    graph = vc.capture(model, jnp.ones(4))
    assert graph.vertices == ("hidden1", "hidden2")
    assert dict(graph.parents) == {"hidden1": (), "hidden2": ("hidden1",), "output": ("hidden2",)}
    assert dict(graph.children) == {"hidden1": ("hidden2",), "hidden2": ("output",)}


def test_branches_and_skips():
    def network(w, x):
        a = vc.vertex(w[0] @ x, "a")
        b = vc.vertex(jnp.tanh(w[1] @ a), "b")
        c = vc.vertex(a + b, "c")  # residual
        return jnp.concatenate([w[2] @ c, x])  # the input reaches the output too

    graph = vc.capture(bound(network, (3, 4), (3, 3), (2, 3)), jnp.ones(4))
    assert dict(graph.parents) == {"a": (), "b": ("a",), "c": ("a", "b"), "output": ("c",)}
    assert dict(graph.children) == {"a": ("b", "c"), "b": ("c",), "c": ("output",)}


def test_no_vertices():
    graph = vc.capture(vc.nn.Linear(3, 2, key=KEY), jnp.ones(3))
    assert graph.vertices == ()
    assert graph.parents["output"] == ()


def test_vertex_on_the_input_and_as_the_output():
    def network(w, x):
        return vc.vertex(w[0] @ vc.vertex(x, "in"), "out")

    model = bound(network, (2, 3))
    graph = vc.capture(model, jnp.ones(3))
    x, held = jnp.ones((4, 3)), {"in": jnp.zeros((4, 3)), "out": 2 * jnp.ones((4, 2))}
    output, predictions = graph.predict(model, held, x)
    np.testing.assert_array_equal(output, held["out"])
    np.testing.assert_array_equal(predictions["in"], x)
    np.testing.assert_array_equal(predictions["out"], jnp.zeros((4, 2)))


MODELS = {
    "mlp": (vc.nn.MLP((4, 3, 5, 2), key=KEY), (4,)),
    "mlp pre": (vc.nn.MLP((4, 3, 5, 2), vertex_at="pre", key=KEY), (4,)),
    "convolutional": (
        vc.nn.ConvNet((2, 9, 7), [(3, 3, 2), (4, 3, 1)], (6, 3), pool=None, key=KEY),
        (2, 9, 7),
    ),
    "pooled": (
        vc.nn.ConvNet((1, 8, 8), [(3, 3, 1)], (5,), padding="SAME", pool=vc.nn.MaxPool2d(2, 2), key=KEY),
        (1, 8, 8),
    ),
    "autoencoder": (vc.nn.Autoencoder((6, 4, 2, 4, 6), key=KEY), (6,)),
    "recurrent": (vc.nn.RNN(3, 4, 2, key=KEY), (5, 3)),
    "recurrent, every step": (vc.nn.RNN(3, 4, 2, vertex_at="pre", every_step=True, key=KEY), (5, 3)),
    "function": (bound(two_layers, (3, 4), (2, 3)), (4,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_cutting_changes_nothing(name):
    model, shape = MODELS[name]
    x = jax.random.normal(KEY, (3, *shape))
    graph = vc.capture(model, x[0])
    output, values = graph.feedforward(model, x)
    np.testing.assert_allclose(output, jax.vmap(model)(x), rtol=1e-6, atol=1e-6)
    again, predictions = graph.predict(model, values, x)
    np.testing.assert_allclose(again, output, rtol=1e-6, atol=1e-6)
    moved = {n: v + jax.random.normal(KEY, v.shape) for n, v in values.items()}
    expected = graph.predict(model, moved, x)
    clamped = graph.clamp(model, x)(moved)
    for vertex in graph.vertices:
        np.testing.assert_allclose(predictions[vertex], values[vertex], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(clamped[1][vertex], expected[1][vertex], rtol=1e-6, atol=1e-6)
        local = graph.prediction(vertex, model, {p: moved[p] for p in graph.parents[vertex]}, x)
        np.testing.assert_allclose(local, expected[1][vertex], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(clamped[0], expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(graph.prediction("output", model, moved, x), expected[0], rtol=1e-6, atol=1e-6)


def test_predictions_by_hand():
    model = vc.nn.MLP((4, 3, 5, 2), key=KEY)
    (w1, b1), (w2, b2), (w3, b3) = [(layer.weight, layer.bias) for layer in model.layers]
    x, a1, a2 = jnp.ones((2, 4)), 0.5 * jnp.ones((2, 3)), -jnp.ones((2, 5))
    graph = vc.capture(model, x[0])
    output, predictions = graph.predict(model, {"hidden1": a1, "hidden2": a2}, x)
    np.testing.assert_allclose(predictions["hidden1"], jnp.tanh(x @ w1.T + b1[None]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(predictions["hidden2"], jnp.tanh(a1 @ w2.T + b2[None]), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(output, a2 @ w3.T + b3[None], rtol=1e-5, atol=1e-7)


def test_clamp_computes_what_the_input_fixes_once():
    model = vc.nn.MLP((784, 256, 256, 10), key=KEY)
    x = jnp.ones((2, 784))
    graph = vc.capture(model, x[0])
    _, values = graph.feedforward(model, x)
    clamped = graph.clamp(model, x)
    inside = str(jax.make_jaxpr(lambda values: clamped(values))(values))
    assert inside.count("dot_general") == 2  # the second and third layer; the first is a constant


def test_adjoints_are_the_gradients_at_the_vertices():
    def network(w, x, shift):
        a = vc.vertex(jnp.tanh(w[0] @ x), "a") + shift["a"]
        b = vc.vertex(jnp.tanh(w[1] @ a) * x[:3], "b") + shift["b"]
        c = vc.vertex(a * b, "c") + shift["c"]
        return w[2] @ (c + a)

    zeros, shapes = {name: jnp.zeros(3) for name in "abc"}, [(3, 4), (3, 3), (2, 3)]
    parameters = [jax.random.normal(k, s) for k, s in zip(jax.random.split(KEY, 3), shapes, strict=True)]
    model = jax.tree_util.Partial(lambda w, x: network(w, x, zeros), parameters)
    x = jax.random.normal(KEY, (1, 4))
    graph = vc.capture(model, x[0])
    output, values = graph.feedforward(model, x)
    expected = jax.grad(lambda shift: 0.5 * jnp.sum(network(parameters, x[0], shift) ** 2))(zeros)
    found = graph.adjoints(model, values, x, output)
    for name in "abc":
        np.testing.assert_allclose(found[name][0], expected[name], rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------- vertices inside transformations


def scanned(weights, x):
    def body(h, w):
        return vc.vertex(jnp.tanh(w @ h), "hidden"), None

    return jax.lax.scan(body, x, weights[0])[0]


def test_scan_is_unrolled_and_named():
    model = bound(scanned, (3, 4, 4))
    graph = vc.capture(model, jnp.ones(4))
    assert graph.vertices == ("hidden[0]", "hidden[1]", "hidden[2]")
    assert graph.parents["hidden[2]"] == ("hidden[1]",)
    x = jax.random.normal(KEY, (2, 4))
    np.testing.assert_allclose(graph.feedforward(model, x)[0], jax.vmap(model)(x), rtol=1e-6)


def test_scan_of_one_iteration_is_named_alike():
    assert vc.capture(bound(scanned, (1, 4, 4)), jnp.ones(4)).vertices == ("hidden[0]",)


def test_jit_is_followed():
    graph = vc.capture(bound(jax.jit(two_layers), (3, 4), (2, 3)), jnp.ones(4))
    assert graph.vertices == ("hidden",)


def test_vmap_inside_the_model_makes_one_vertex():
    def network(w, x):  # x: [tokens, in]
        h = jax.vmap(lambda token: vc.vertex(jnp.tanh(w[0] @ token), "tokens"), in_axes=0, out_axes=1)(x)
        return w[1] @ jnp.sum(h, axis=1)

    model = bound(network, (3, 4), (2, 3))
    graph = vc.capture(model, jnp.ones((6, 4)))
    output, values = graph.feedforward(model, jnp.ones((2, 6, 4)))
    assert values["tokens"].shape == (2, 6, 3)
    np.testing.assert_allclose(output, jax.vmap(model)(jnp.ones((2, 6, 4))), rtol=1e-6)


def with_custom_derivative(f):
    f = jax.custom_jvp(f)
    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return f


@pytest.mark.parametrize(
    ("wrap", "word"),
    [
        (lambda f: jax.checkpoint(f), "jax.checkpoint"),
        (lambda f: lambda x: jax.lax.cond(x[0] > 0, f, lambda x: x, x), "branch"),
        (lambda f: lambda x: jax.lax.while_loop(lambda x: x[0] > 9, f, x), "unrolled|loop"),
        (lambda f: with_custom_derivative(f), "custom_jvp_call.*outside"),
    ],
)
def test_what_cannot_be_followed_is_refused(wrap, word):
    def network(x):
        return wrap(lambda x: vc.vertex(2 * x, "hidden"))(x)

    with pytest.raises(ValueError, match=word):
        vc.capture(network, jnp.ones(3))


def test_long_scan_is_refused_with_the_limit():
    with pytest.raises(ValueError, match="at most 1024 iterations around vertex 'hidden', got 1025"):
        vc.capture(bound(scanned, (1025, 1, 1)), jnp.ones(1))


# -------------------------------------------------------------------------------------------------- clear errors


def test_duplicate_name():
    def network(x):
        return vc.vertex(vc.vertex(x, "a") * 2, "a")

    with pytest.raises(ValueError, match="one vertex per name, got 'a' 2 times"):
        vc.capture(network, jnp.ones(3))


def test_a_name_that_a_loop_also_gives():
    def network(w, x):
        start = vc.vertex(w[0] @ x, "h[0]")
        return jax.lax.scan(lambda h, t: (vc.vertex(jnp.tanh(h + t), "h"), None), start, jnp.ones(2))[0]

    with pytest.raises(ValueError, match=r"one vertex per name, got 'h\[0\]' twice"):
        vc.capture(bound(network, (3, 4)), jnp.ones(4))


def test_a_leaf_that_is_no_array_and_changed():
    model = jax.tree_util.Partial(lambda rate, w, x: rate * (w @ x), 0.5, jnp.ones((2, 3)))
    graph = vc.capture(model, jnp.ones(3))
    other = jax.tree_util.Partial(model.func, 0.7, model.args[1])
    with pytest.raises(ValueError, match=r"got 0.7 for one of them; make it an array"):
        graph.feedforward(other, jnp.ones((1, 3)))


def test_importing_starts_no_backend():
    code = "import vicinal, jax; jax.config.update('jax_num_cpu_devices', 3); assert len(jax.devices('cpu')) == 3"
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_ignored_vertex():
    def network(x):
        vc.vertex(x, "forgotten")
        return 2 * x

    with pytest.raises(ValueError, match="'forgotten' to influence the output"):
        vc.capture(network, jnp.ones(3))


def test_not_callable_and_numpy_parameters():
    with pytest.raises(TypeError, match="callable model, got list"):
        vc.capture([jnp.ones(3)], jnp.ones(3))
    with pytest.raises(TypeError, match="NumPy array of shape \\(2, 3\\)"):
        vc.capture(jax.tree_util.Partial(two_layers, [np.ones((2, 3))]), jnp.ones(3))


def test_wrong_input_model_and_values():
    model = vc.nn.MLP((4, 3, 2), key=KEY)
    graph = vc.capture(model, jnp.ones(4))
    x = jnp.ones((5, 4))
    with pytest.raises(ValueError, match=r"batch of inputs float32\[batch, 4\], got float32\[4\]"):
        graph.feedforward(model, jnp.ones(4))
    with pytest.raises(ValueError, match=r"got int32\[5, 4\]"):
        graph.feedforward(model, jnp.ones((5, 4), int))
    with pytest.raises(ValueError, match="input of structure"):
        graph.feedforward(model, (x, x))
    with pytest.raises(ValueError, match="model of the structure that was captured"):
        graph.feedforward(vc.nn.MLP((4, 3, 2), activation="relu", key=KEY), x)
    with pytest.raises(ValueError, match=r"parameter \.layers\[0\]\.weight as float32\[3, 4\], got float32\[6, 4\]"):
        graph.feedforward(vc.nn.MLP((4, 6, 2), key=KEY), x)
    with pytest.raises(ValueError, match=r"missing \['hidden1'\] and unknown \['h'\]"):
        graph.predict(model, {"h": jnp.ones((5, 3))}, x)
    with pytest.raises(ValueError, match="expected a vertex of"):
        graph.prediction("hidden9", model, {}, x)


# ---------------------------------------------------------------------------------------------------------- mark


def test_mark_a_stock_model():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=2, key=KEY)
    marked = vc.mark(model, lambda m: m.layers[:-1])
    graph = vc.capture(marked, jnp.ones(4))
    assert graph.vertices == ("layers[0]", "layers[1]")
    x = jax.random.normal(KEY, (3, 4))
    np.testing.assert_allclose(graph.feedforward(marked, x)[0], jax.vmap(model)(x), rtol=1e-6)
    assert marked.layers[0].weight is model.layers[0].weight


def test_mark_one_submodule_with_a_name():
    model = eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=KEY), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(3, 2, key=KEY)])
    marked = vc.mark(model, lambda m: m.layers[1], names=["rates"])
    assert vc.capture(marked, jnp.ones(4)).vertices == ("rates",)


class Twice(eqx.Module):
    """A network that goes through one layer twice."""

    layer: eqx.nn.Linear
    above: eqx.nn.Linear

    def __call__(self, x):
        return self.above(jnp.tanh(self.layer(jnp.tanh(self.layer(x)))))


def test_a_marked_layer_that_is_called_twice_makes_two_vertices():
    model = Twice(eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Linear(4, 2, key=KEY))
    marked = vc.mark(model, lambda m: m.layer)
    graph = vc.capture(marked, jnp.ones(4))
    assert graph.vertices == ("layer[0]", "layer[1]")
    assert graph.parents == {"layer[0]": (), "layer[1]": ("layer[0]",), "output": ("layer[1]",)}
    x = jax.random.normal(KEY, (3, 4))
    first = x @ model.layer.weight.T + model.layer.bias[None]
    second = jnp.tanh(first) @ model.layer.weight.T + model.layer.bias[None]
    output, values = graph.feedforward(marked, x)
    np.testing.assert_allclose(values["layer[0]"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["layer[1]"], second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output, jax.vmap(model)(x), rtol=1e-5, atol=1e-6)


def test_a_vertex_of_ones_own_does_not_share_its_name_with_a_marked_layer():
    model = vc.mark(Twice(eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Linear(4, 2, key=KEY)), lambda m: m.layer, ["h"])
    with pytest.raises(ValueError, match="expected one vertex per name, got 'h' 3 times"):
        vc.capture(eqx.Partial(lambda model, x: vc.vertex(model(x), "h"), model), jnp.ones(4))


def test_marked_layers_keep_their_state_in_a_sequence():
    layers = [eqx.nn.Linear(4, 3, key=KEY), eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")]
    network, state = eqx.nn.make_with_state(eqx.nn.Sequential)(layers)
    model = vc.with_state(vc.mark(network, lambda m: m.layers[1]), state)
    graph = vc.capture(model, jnp.ones(4), batch_size=5)
    x = jax.random.normal(KEY, (5, 4))
    a = np.asarray(jax.vmap(layers[0])(x))
    values = graph.feedforward(model, x)[1]
    assert list(values) == ["layers[1]"]
    np.testing.assert_allclose(values["layers[1]"], (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5), rtol=1e-4, atol=1e-5)


def test_mark_errors():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=2, key=KEY)
    with pytest.raises(ValueError, match="at least one submodule"):
        vc.mark(model, lambda m: [])
    with pytest.raises(ValueError, match="expected 2 names"):
        vc.mark(model, lambda m: m.layers[:-1], names=["a"])
    with pytest.raises(TypeError, match="callable submodules"):
        vc.mark(model, lambda m: m.layers[0].weight)


# ------------------------------------------------------------------------------------------------- random graphs


@st.composite
def random_networks(draw):
    """A random acyclic network: each vertex reads some earlier ones, and maybe the input."""
    count = draw(st.integers(1, 6))
    width = draw(st.sampled_from([1, 3]))
    reads = [draw(st.lists(st.integers(-1, i - 1), min_size=1, max_size=3, unique=True)) for i in range(count)]
    return count, width, reads


@given(random_networks())
@settings(deadline=None, max_examples=15)
def test_random_graphs_have_the_parents_they_were_built_with(network):
    count, width, reads = network
    used = {i for row in reads for i in row if i >= 0}
    ends = [i for i in range(count) if i not in used]

    def run(w, x):
        nodes = {-1: x}
        for i, row in enumerate(reads):
            nodes[i] = vc.vertex(jnp.tanh(sum(w[i] @ nodes[j] for j in row)), f"v{i}")
        return sum(nodes[i] for i in ends)

    model = bound(run, *[(width, width)] * count)
    x = jax.random.normal(KEY, (2, width))
    graph = vc.capture(model, x[0])
    for i, row in enumerate(reads):
        assert set(graph.parents[f"v{i}"]) == {f"v{j}" for j in row if j >= 0}
    assert set(graph.parents["output"]) == {f"v{i}" for i in ends}
    output, values = graph.feedforward(model, x)
    np.testing.assert_allclose(output, jax.vmap(model)(x), rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda m: jnp.sum(jax.vmap(m)(x)))(model)
    credit = vc.Credit(
        jnp.ones(2),
        values,
        graph.adjoints(model, values, x, jnp.ones_like(output)),
        jnp.ones_like(output),
        None,
    )
    found = vc.local_gradient(graph, model, credit, x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(-2 * a, b, rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------- linearised, propagated, swept


def _branched(w, x):
    a = vc.vertex(jnp.tanh(w["a"] @ x), "a")
    b = vc.vertex(jnp.tanh(w["b"] @ a), "b")
    return w["out"] @ b + w["skip"] @ a


def _branched_model():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"a": (4, 5), "b": (4, 4), "out": (3, 4), "skip": (3, 4)}
    w = {name: jax.random.normal(k, s) for k, (name, s) in zip(keys, shapes.items(), strict=True)}
    model = jax.tree_util.Partial(_branched, w)
    x = jax.random.normal(jax.random.key(1), (6, 5))
    return model, vc.capture(model, x[0]), x


def _anywhere(graph, model, x):
    _, values = graph.feedforward(model, x)
    keys = jax.random.split(jax.random.key(2), len(values))
    return {name: jax.random.normal(k, v.shape) for k, (name, v) in zip(keys, values.items(), strict=True)}


def test_linearised_predictions_and_their_way_back():
    model, graph, x = _branched_model()
    values = _anywhere(graph, model, x)
    linear = graph.clamp(model, x).linearize(values)
    output, predictions = graph.predict(model, values, x)
    np.testing.assert_allclose(linear.output, output, rtol=1e-6)
    for name, prediction in predictions.items():
        np.testing.assert_allclose(linear.predictions[name], prediction, rtol=1e-6)
    errors = _anywhere(graph, model, x)
    _, back = jax.vjp(lambda v: graph.predict(model, v, x), values)
    (expected,) = back((output, errors))
    carried = linear.carry(output, errors)
    for name in values:
        np.testing.assert_allclose(carried[name], expected[name], rtol=1e-5, atol=1e-6)


def test_a_sweep_visits_children_first():
    model, graph, x = _branched_model()
    values = _anywhere(graph, model, x)
    seen = []

    def respond(name, carried):
        seen.append(name)
        return 2 * carried

    linear = graph.clamp(model, x).linearize(values)
    linear.sweep(linear.output, respond)
    assert seen == ["b", "a"]


def test_propagated_deviations_reach_any_values():
    model, graph, x = _branched_model()
    values = _anywhere(graph, model, x)
    clamped = graph.clamp(model, x)
    output, predictions = clamped(values)
    reached, found = clamped.propagate({name: values[name] - predictions[name] for name in values})
    np.testing.assert_allclose(reached, output, rtol=1e-5, atol=1e-4)
    for name in values:
        np.testing.assert_allclose(found[name], values[name], rtol=1e-5, atol=1e-5)
    zero = jax.tree.map(jnp.zeros_like, values)
    np.testing.assert_allclose(clamped.propagate(zero)[0], graph.feedforward(model, x)[0], rtol=1e-6)


@pytest.mark.parametrize("build", [vc.nn.MLP, vc.nn.RNN])
def test_a_deep_program_grows_with_its_depth_alone(build):
    """Twice the vertices, about twice the equations, for a sweep as for a joint step."""

    def size(vertices):
        if build is vc.nn.MLP:
            model, x = vc.nn.MLP([4] * (vertices + 2), key=jax.random.key(0)), jnp.ones((2, 4))
        else:
            model, x = vc.nn.RNN(4, 4, 3, key=jax.random.key(0)), jnp.ones((2, vertices, 4))
        graph, y = vc.capture(model, x[0]), jnp.zeros(2, int)
        rule = vc.rules.InferenceLearning(inference=vc.inference.Sequential(steps=9))
        traced = jax.make_jaxpr(lambda m: rule.value_and_grad(graph, m, (), x, y)[1])(model)
        return len(str(traced))

    assert size(40) < 2.3 * size(20)


def test_a_marked_layer_with_state_has_its_vertex_on_the_output():
    class Counting(eqx.Module):
        def __call__(self, x, state):
            return 2.0 * x, state + 1

    class Net(eqx.Module):
        below: Counting
        weight: jax.Array

        def __call__(self, x, state):
            h, state = self.below(x, state)
            return self.weight @ h, state

    marked = vc.mark(Net(Counting(), jnp.ones((1, 2))), lambda net: net.below)
    model = jax.tree_util.Partial(lambda net, x: net(x, jnp.zeros(()))[0], marked)
    graph = vc.capture(model, jnp.ones(2))
    _, values = graph.feedforward(model, jnp.ones((3, 2)))
    assert graph.vertices == ("below",)
    assert values["below"].tolist() == [[2.0, 2.0]] * 3
