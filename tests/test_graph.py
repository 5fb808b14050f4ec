"""Graphs: what is cut where, and that cutting changes nothing."""

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_builders import KEY, bound, scanned, two_layers
from hypothesis import given, settings, strategies as st

import vicinal as vc

# ------------------------------------------------------------------------------------------------ the primitive


def test_vertex_is_the_identity_under_every_transformation():
    def f(x):
        return jnp.sum(jnp.sin(vc.vertex(x, "a")) ** 2)

    def g(x):
        return jnp.sum(jnp.sin(x) ** 2)

    def transformed(h, x):
        return (
            h(x),
            jax.grad(h)(x),
            jax.jvp(h, (x,), (x,)),
            jax.hessian(h)(x),
            jax.vmap(jax.grad(h))(x[None]),
            jax.vmap(h, in_axes=1)(x[:, None]),
        )

    x = jnp.linspace(-1.0, 1.0, 5)
    assert f(x) == g(x)
    ours, theirs = (jax.jit(transformed, static_argnums=0)(h, x) for h in (f, g))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
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

    @eqx.filter_jit
    def every_way(model, x):
        output, values = graph.feedforward(model, x)
        moved = {n: v + jax.random.normal(KEY, v.shape) for n, v in values.items()}
        read = {node: {p: moved[p] for p in graph.parents[node]} for node in graph.vertices} | {"output": moved}
        alone = {node: graph.prediction(node, model, held, x) for node, held in read.items()}
        runs = graph.predict(model, moved, x), graph.clamp(model, x)(moved), (alone.pop("output"), alone)
        return jax.vmap(model)(x), (output, values), graph.predict(model, values, x), runs

    plain, fed, again, (expected, *others) = every_way(model, x)
    np.testing.assert_allclose(fed[0], plain, rtol=1e-6, atol=1e-6)
    for found, wanted in ((again, fed), *((other, expected) for other in others)):
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-6, atol=1e-6)
        for vertex in graph.vertices:
            np.testing.assert_allclose(found[1][vertex], wanted[1][vertex], rtol=1e-6, atol=1e-6)


def test_predictions_by_hand():
    model = vc.nn.MLP((4, 3, 5, 2), key=KEY)
    (w1, b1), (w2, b2), (w3, b3) = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in model.layers]
    x, a1, a2 = (np.full(shape, value, np.float32) for shape, value in (((2, 4), 1), ((2, 3), 0.5), ((2, 5), -1)))
    graph = vc.capture(model, jnp.asarray(x[0]))
    output, predictions = eqx.filter_jit(graph.predict)(model, {"hidden1": a1, "hidden2": a2}, x)
    np.testing.assert_allclose(predictions["hidden1"], np.tanh(x @ w1.T + b1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(predictions["hidden2"], np.tanh(a1 @ w2.T + b2), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(output, a2 @ w3.T + b3, rtol=1e-5, atol=1e-7)


def test_clamp_computes_what_the_input_fixes_once():
    model = vc.nn.MLP((784, 256, 256, 10), key=KEY)
    x = jnp.ones((2, 784))
    graph = vc.capture(model, x[0])
    clamped = graph.clamp(model, x)
    inside = str(jax.make_jaxpr(lambda values: clamped(values))({name: jnp.ones((2, 256)) for name in graph.vertices}))
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
    expected = jax.jit(jax.grad(lambda shift: 0.5 * jnp.sum(network(parameters, x[0], shift) ** 2)))(zeros)

    @eqx.filter_jit
    def adjoints(model, x):
        output, values = graph.feedforward(model, x)
        return graph.adjoints(model, values, x, output)

    found = adjoints(model, x)
    for name in "abc":
        np.testing.assert_allclose(found[name][0], expected[name], rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------- vertices inside transformations


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


def test_importing_starts_no_backend():
    code = "import vicinal, jax; jax.config.update('jax_num_cpu_devices', 3); assert len(jax.devices('cpu')) == 3"
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# ------------------------------------------------------------------------------------------------- random graphs


@st.composite
def random_networks(draw):
    """A random acyclic network: each vertex reads some earlier ones, and maybe the input."""
    count = draw(st.integers(1, 6))
    width = draw(st.sampled_from([1, 3]))
    reads = [draw(st.lists(st.integers(-1, i - 1), min_size=1, max_size=3, unique=True)) for i in range(count)]
    return count, width, reads


@given(random_networks())
@settings(deadline=None, max_examples=10)
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

    @jax.jit
    def plain(model, x):
        return jax.vmap(model)(x), jax.grad(lambda m: jnp.sum(jax.vmap(m)(x)))(model)

    @jax.jit
    def ours(model, x):
        output, values = graph.feedforward(model, x)
        up = jnp.ones_like(output)
        credit = vc.Credit(jnp.ones(2), values, graph.adjoints(model, values, x, up), up, None)
        return output, vc.local_gradient(graph, model, credit, x)

    (output, found), (expected, gradient) = ours(model, x), plain(model, x)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(-2 * np.asarray(a), b, rtol=1e-4, atol=1e-5)
