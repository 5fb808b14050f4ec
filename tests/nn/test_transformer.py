"""Transformers: what they compute, where their vertices are, and which steps see which."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.settings import ModelSettings

KEY = jax.random.key(0)


def drawn(make):
    """A model of these shapes with random parameters; JAX would compile one random number generator per shape."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(make)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(-0.6, 0.6, leaf.shape), leaf.dtype), shapes)


def make(**settings):
    settings = {"in_features": 3, "features": 8, "out_features": 4, "length": 5} | settings
    return drawn(lambda: vc.nn.Transformer(**settings, key=KEY))


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), float)


def affine(layer, x):
    return x @ np.asarray(layer.weight).T + (0 if layer.bias is None else np.asarray(layer.bias))


def normalised(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def attended(attention, x):
    """One query, head and key at a time."""
    q, k, v = (affine(layer, x) for layer in (attention.query_layer, attention.key_layer, attention.value_layer))
    size = x.shape[1] // attention.heads
    mixed = np.zeros_like(x)
    for h in range(attention.heads):
        own = slice(h * size, (h + 1) * size)
        for t in range(len(x)):
            seen = range(t + 1) if attention.causal else range(len(x))
            weights = np.exp([q[t, own] @ k[s, own] / size**0.5 for s in seen])
            mixed[t, own] = sum(w * v[s, own] for w, s in zip(weights / weights.sum(), seen, strict=True))
    return affine(attention.output_layer, mixed)


def by_hand(model, x):
    """The output and what each vertex holds."""
    x = x @ np.asarray(model.embedding.weight).T + np.asarray(model.positions)[: len(x)]
    held = {"embedding": x}
    for i, block in enumerate(model.blocks, 1):
        held[f"block{i}_attention"] = x = x + attended(block.attention, normalised(x))
        hidden = np.asarray(jax.nn.gelu(jnp.asarray(affine(block.hidden_layer, normalised(x)))))
        held[f"block{i}_mlp"] = x = x + affine(block.output_layer, hidden)
    outputs = affine(model.output_layer, normalised(x))
    return (outputs if model.every_step else outputs.mean(axis=0)), held


@pytest.mark.parametrize(("causal", "every_step", "time"), [(True, True, 5), (False, False, 4)])
def test_by_hand(causal, every_step, time):
    model = make(depth=2, hidden_features=6, causal=causal, every_step=every_step)
    x = normal(2, time, 3)
    graph = vc.capture(model, x[0])
    both = jax.jit(lambda model, x: (graph.feedforward(model, x), jax.vmap(model)(x)))
    (output, values), called = both(model, x)
    assert graph.vertices == ("embedding", "block1_attention", "block1_mlp", "block2_attention", "block2_mlp")
    assert output.shape == ((2, time, 4) if every_step else (2, 4))
    for i in range(2):
        expected, held = by_hand(model, np.asarray(x[i]))
        np.testing.assert_allclose(output[i], expected, rtol=1e-4, atol=1e-5)
        for name in graph.vertices:
            np.testing.assert_allclose(values[name][i], held[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output, called, rtol=1e-5, atol=1e-6)


def test_every_parameter_is_a_weight_or_a_bias():
    model = make(depth=2)
    graph = vc.capture(model, jnp.zeros((4, 3)))  # shorter than the positions
    pairs = {(synapse.weight, synapse.bias) for synapse in graph.synapses()}
    expected = {(".embedding.weight", ".positions"), (".output_layer.weight", ".output_layer.bias")}
    for i in (0, 1):
        block = f".blocks[{i}]"
        layers = ["attention.query_layer", "attention.value_layer", "attention.output_layer"]
        for layer in [*layers, "hidden_layer", "output_layer"]:
            expected.add((f"{block}.{layer}.weight", f"{block}.{layer}.bias"))
        expected.add((f"{block}.attention.key_layer.weight", None))
    assert pairs == expected
    paths = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(model)}
    assert paths == {path for pair in pairs for path in pair if path is not None}
    x = normal(2, 4, 3)
    norms = jax.jit(lambda model, x: graph.presynaptic(model, graph.feedforward(model, x)[1], x))(model, x)
    assert set(norms) == paths
    assert all(np.all(np.isfinite(norm)) for norm in norms.values())


def test_adjoints_are_finite_and_reach_every_step():
    model = make(causal=True)
    graph = vc.capture(model, jnp.zeros((5, 3)))
    x = normal(2, 5, 3)

    @jax.jit
    def adjoints(model, x):
        output, values = graph.feedforward(model, x)
        return graph.adjoints(model, values, x, jnp.ones_like(output))

    errors = {name: np.asarray(error) for name, error in adjoints(model, x).items()}
    for name in graph.vertices:
        assert errors[name].shape == (2, 5, 8)
        assert np.all(np.isfinite(errors[name]))
        assert np.all(np.linalg.norm(errors[name], axis=-1) > 0)


def test_a_causal_output_does_not_depend_on_later_inputs():
    x = normal(5, 3)
    later = np.triu(np.ones((5, 5), bool), 1)
    for causal in (True, False):
        jacobian = jax.jit(jax.jacobian(make(every_step=True, causal=causal)))(x)
        reach = np.linalg.norm(np.asarray(jacobian), axis=(1, 3))  # [time of the output, time of the input]
        assert np.all(reach[~later] > 0)
        assert np.all((reach[later] == 0) if causal else (reach[later] > 0))


@pytest.mark.parametrize("every_step", [False, True])
def test_backprop_is_the_gradient(x64, every_step):
    model = make(every_step=every_step, causal=every_step)
    x = normal(3, 5, 3)
    graph = vc.capture(model, x[0])
    y = normal(*((3, 5, 4) if every_step else (3, 4)))

    def loss(model):
        return jnp.mean(jax.vmap(vc.losses.squared_error)(jax.vmap(model)(x), y))

    rule = vc.rules.Backprop(loss=vc.losses.squared_error)
    both = jax.jit(lambda model: (rule.value_and_grad(graph, model, (), x, y)[1], jax.grad(loss)(model)))
    gradient, expected = both(model)
    for found, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_a_custom_block():
    block = drawn(lambda: vc.nn.TransformerBlock(8, 4, 16, key=KEY))
    assert vc.capture(block, jnp.ones((3, 8))).vertices == ("attention", "mlp")
    assert block.hidden_layer.weight.shape == (16, 8)
    assert make().blocks[0].hidden_layer.weight.shape == (32, 8)


@pytest.mark.parametrize(
    ("make_or_call", "words"),
    [
        (lambda: make(heads=3), "features that heads=3 divides, got 8"),
        (lambda: make(heads=0), "heads as an integer of at least 1, got 0"),
        (lambda: make(depth=0), "depth as an integer of at least 1, got 0"),
        (lambda: make(length=0), "length as an integer of at least 1, got 0"),
        (lambda: make(hidden_features=0), "hidden_features as an integer of at least 1, got 0"),
        (lambda: make()(jnp.ones((6, 3))), r"\[time, 3\] with 1 to 5 time steps, got \[6, 3\]"),
        (lambda: make()(jnp.ones((5, 2))), r"\[time, 3\] with 1 to 5 time steps, got \[5, 2\]"),
        (lambda: make()(jnp.ones(3)), r"with 1 to 5 time steps, got \[3\]"),
        (lambda: make()(jnp.ones((0, 3))), r"with 1 to 5 time steps, got \[0, 3\]"),
    ],
)
def test_clear_errors(make_or_call, words):
    with pytest.raises(ValueError, match=words):
        make_or_call()


def test_settings():
    settings = ModelSettings(kind="transformer", depth=2)
    data = settings.shaped(vc.data.load("digits"))
    model = jax.eval_shape(lambda: settings.build(data, key=KEY))
    assert data.shape == (8, 8)
    assert isinstance(model, vc.nn.Transformer)
    assert len(model.blocks) == 2
    assert model.positions.shape == (8, 32)
    assert jax.eval_shape(lambda model, x: model(x), model, data.x_train[0]).shape == (10,)
    narrow = ModelSettings(kind="transformer", sizes=(12,), depth=1)
    assert jax.eval_shape(lambda: narrow.build(data, key=KEY)).positions.shape == (8, 12)


def test_colour_images_are_read_row_by_row():
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 6, 5, 3), np.float32), np.arange(4) % 2
    data = vc.data.Dataset("colour", x, y, x, y, 2)
    settings = ModelSettings(kind="transformer", depth=1)
    shaped = settings.shaped(data)
    assert shaped.shape == ModelSettings(kind="recurrent").shaped(data).shape == (6, 15)
    assert jax.eval_shape(lambda x: settings.build(shaped, key=KEY)(x), shaped.x_train[0]).shape == (2,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ModelSettings(kind="transformer", activation="relu"), r"\(transformer\) reads, got model.activation"),
        (ModelSettings(kind="transformer", vertex_at="pre"), r"\(transformer\) reads, got model.vertex_at"),
        (ModelSettings(kind="transformer", channels=(3,)), r"\(transformer\) reads, got model.channels"),
        (ModelSettings(kind="transformer", sizes=(32, 10)), "one size, the features, for a transformer network, got"),
        (ModelSettings(kind="transformer", sizes=(33,)), "features that heads=2 divides, got 33"),
        (ModelSettings(kind="transformer", depth=0), "depth as an integer of at least 1, got 0"),
    ],
)
def test_refused_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        settings.build(settings.shaped(vc.data.load("digits")), key=KEY)
