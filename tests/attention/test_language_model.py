"""The stack around mixers: what it computes, reading in pieces, generating, and training by the rules."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.attention.base import Mixer
from vicinal.attention.generation import generate
from vicinal.attention.language_model import LanguageModel
from vicinal.attention.sizes import closest_size, parameter_count
from vicinal.data.sequences import basic_recall, linear_regression, mqar
from vicinal.nn.layers import Linear

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
MASKED = vc.losses.masked_softmax_cross_entropy


class Fading(Mixer):
    """Linear attention that forgets: `S_t = decay S_{t-1} + k_t v_t^T`, `y_t = S_t^T q_t / features`; state `S`."""

    query_layer: Linear
    key_layer: Linear
    value_layer: Linear
    decay: float = eqx.field(static=True)

    def __init__(self, features, decay=0.75, *, key):
        layers = [Linear(features, features, use_bias=False, key=k) for k in jax.random.split(key, 3)]
        self.query_layer, self.key_layer, self.value_layer = layers
        self.decay = decay

    def __call__(self, x, state=None, *, length=None):
        q, k, v = (jax.vmap(layer)(x) for layer in (self.query_layer, self.key_layer, self.value_layer))
        counted = jnp.arange(len(x)) < (len(x) if length is None else length)

        def step(state, row):
            q, k, v, counted = row
            state = jnp.where(counted, self.decay * state + jnp.outer(k, v), state)
            return state, jnp.where(counted, q @ state / len(q), 0.0)

        state, y = jax.lax.scan(step, self.empty() if state is None else state, (q, k, v, counted))
        return y, state

    def empty(self):
        size = self.key_layer.weight.shape[0]
        return jnp.zeros((size, size), self.key_layer.weight.dtype)


class Growing(Mixer):
    """Keeps all it has read."""

    def __call__(self, x, state=None, *, length=None):
        state = x if state is None else jnp.concatenate([state, x])
        return x, state

    def empty(self):
        return None


def make(features=6, mixers=2, vocabulary=11, **settings):
    return LanguageModel(vocabulary, features, [partial(Fading, features)] * mixers, **settings, key=KEY)


def tokens_of(*shape, high=11):
    return jnp.asarray(np.random.default_rng(1).integers(high, size=shape))


def normalised(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def by_hand(model, inputs):
    """The logits and what each vertex holds, one step after the other."""
    weight = np.asarray(model.embedding.weight)
    x = np.array([weight[:, t] if np.ndim(t) == 0 else weight @ t for t in inputs])
    held = {"embedding": x}
    for i, block in enumerate(model.blocks, 1):
        q, k, v = (
            normalised(x) @ np.asarray(layer.weight).T
            for layer in (block.mixer.query_layer, block.mixer.key_layer, block.mixer.value_layer)
        )
        state, mixed = np.zeros((x.shape[1], x.shape[1])), []
        for t in range(len(x)):
            state = block.mixer.decay * state + np.outer(k[t], v[t])
            mixed.append(q[t] @ state / len(state))
        held[f"block{i}_mixer"] = x = x + np.array(mixed)
        if block.hidden_layer is not None:
            hidden = normalised(x) @ np.asarray(block.hidden_layer.weight).T + np.asarray(block.hidden_layer.bias)
            hidden = np.asarray(jax.nn.gelu(jnp.asarray(hidden)))
            x = x + hidden @ np.asarray(block.output_layer.weight).T + np.asarray(block.output_layer.bias)
            held[f"block{i}_mlp"] = x
    if model.output_layer is None:
        return normalised(x) @ weight / np.sqrt(x.shape[1]), held
    return normalised(x) @ np.asarray(model.output_layer.weight).T + np.asarray(model.output_layer.bias), held


@pytest.mark.parametrize("settings", [{}, {"hidden_features": 0}, {"tied": True}, {"in_features": 3}])
def test_by_hand(x64, settings):
    model = make(**settings)
    x = tokens_of(2, 7)
    if "in_features" in settings:
        x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 7, 3)))
    graph = vc.capture(model, x[0])
    names = ["embedding"]
    for i in (1, 2):
        names += [f"block{i}_mixer"] + [f"block{i}_mlp"] * (settings.get("hidden_features") != 0)
    assert graph.vertices == tuple(names)
    (output, values), alone = jax.jit(lambda model, x: (graph.feedforward(model, x), model(x[1])))(model, x)
    assert output.shape == (2, 7, 11)
    for i in range(2):
        expected, held = by_hand(model, np.asarray(x[i]))
        np.testing.assert_allclose(output[i], expected, rtol=1e-10, atol=1e-12)
        for name in graph.vertices:
            np.testing.assert_allclose(values[name][i], held[name], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(alone, output[1], rtol=1e-10, atol=1e-12)


def test_an_embedding_begins_with_rows_of_one_size_for_any_vocabulary():
    for vocabulary in (16, 4096):
        weight = make(features=16, mixers=1, vocabulary=vocabulary).embedding.weight
        assert weight.shape == (16, vocabulary)
        assert 0.9 < float(jnp.max(jnp.abs(weight))) <= 1


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_a_weight_or_a_bias(tied):
    model = make(tied=tied)
    x = tokens_of(3, 5)
    graph = vc.capture(model, x[0])
    norms = jax.jit(lambda model, x: graph.presynaptic(model, graph.feedforward(model, x)[1], x))(model, x)
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(model, eqx.is_inexact_array))
    assert set(norms) == {jax.tree_util.keystr(path) for path, _ in leaves}
    # One input of the embedding is 1 and the others are 0; a normalised vector of 6 has squared norm 6 (less eps).
    output_norm = 1.0 if tied else 0.0
    np.testing.assert_allclose(norms[".embedding.weight"], np.full(3, 1 + output_norm), rtol=1e-3)
    np.testing.assert_allclose(norms[".blocks[0].mixer.key_layer.weight"], np.full(3, 6), rtol=1e-3)


def test_pieces_and_padding_change_nothing(x64):
    model = make()
    x = tokens_of(13)
    read = eqx.filter_jit(model.read)
    whole, last = read(x)
    np.testing.assert_allclose(whole, eqx.filter_jit(model)(x), rtol=1e-10, atol=1e-12)
    for cut in (1, 12):
        first, states = read(x[:cut], model.empty())
        rest, states = read(x[cut:], states)
        np.testing.assert_allclose(jnp.concatenate([first, rest]), whole, rtol=1e-10, atol=1e-12)
        for found, expected in zip(jax.tree.leaves(states), jax.tree.leaves(last), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    short, states = read(x[:12], model.empty())
    for junk in (0, 10):
        padded, after = read(x.at[12:].set(junk), length=jnp.asarray(12))
        np.testing.assert_allclose(padded[:12], short, rtol=1e-10, atol=1e-12)
        np.testing.assert_array_equal(padded[12:], np.zeros((1, 11)))
        for found, expected in zip(jax.tree.leaves(after), jax.tree.leaves(states), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_generating_is_reading_all_again_for_each_token(x64):
    model = make()
    prompt = tokens_of(3)

    @jax.jit
    def again(text, length):
        """Reads the first `length` tokens from the start."""
        logits, states = model.read(text, length=length)
        return jnp.argmax(logits, axis=-1), states

    text = np.zeros(8, int)
    text[:3] = prompt
    likeliest = again(text, 3)[0][:3]
    assert likeliest[0] != likeliest[-1]  # or the first token would not tell which step it follows
    tokens, states = generate(model, prompt, 5, temperature=0)
    for n in range(3, 8):
        text[n] = again(text, n)[0][n - 1]
    np.testing.assert_array_equal(tokens, text[3:])
    assert tokens.dtype == prompt.dtype
    more, _ = generate(model, tokens[-1:], 3, temperature=0, states=states)
    np.testing.assert_array_equal(more, generate(model, prompt, 8, temperature=0)[0][5:])
    for found, expected in zip(jax.tree.leaves(states), jax.tree.leaves(again(text, 7)[1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    assert len(generate(model, prompt, 1, temperature=0)[0]) == 1


def test_draws_follow_the_softmax():
    model = make()
    prompt, temperature, draws = tokens_of(4), 0.7, 4000
    keys = jax.random.split(jax.random.key(3), draws)
    tokens = jax.jit(jax.vmap(lambda key: generate(model, prompt, 2, temperature=temperature, key=key)[0]))(keys)
    first = np.asarray(tokens[:, 0])
    likeliest = int(np.argmax(np.bincount(first)))
    second = np.asarray(tokens[:, 1])[first == likeliest]
    expected = jax.nn.softmax(eqx.filter_jit(model)(jnp.append(prompt, likeliest)) / temperature)
    for drawn, p in zip((first, second), np.asarray(expected)[-2:], strict=True):  # the second token, given the first
        found = np.bincount(drawn, minlength=11) / len(drawn)
        assert np.all(np.abs(found - p) < 4 * np.sqrt(p * (1 - p) / len(drawn)) + 1e-3)
    again = generate(model, prompt, 2, temperature=temperature, key=keys[5])[0]
    np.testing.assert_array_equal(again, tokens[5])


def tiny_mqar(examples):
    return mqar(examples, 16, 2, vocabulary=16, seed=0)


def test_backprop_is_the_gradient_of_the_masked_loss(x64):
    model = make(vocabulary=16, tied=True)
    data = tiny_mqar(3)
    x, y = jnp.asarray(data.inputs), jnp.asarray(data.targets)
    graph = vc.capture(model, x[0])

    def loss(model):
        """Mean over examples of the sum over counted steps, written out."""
        logits = jax.nn.log_softmax(jax.vmap(model)(x))
        rows, steps = np.nonzero(data.mask)
        return -jnp.sum(logits[rows, steps, data.targets[rows, steps]]) / 3

    rule = vc.rules.Backprop(loss=MASKED)
    value, gradient, _, _ = jax.jit(lambda model: rule.value_and_grad(graph, model, (), x, y))(model)
    expected_value, expected = jax.jit(jax.value_and_grad(loss))(model)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    assert len(jax.tree.leaves(gradient)) == len(jax.tree.leaves(expected)) > 10
    for found, wanted in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def train(rule, model, x, y, steps, optimizer):
    graph = vc.capture(model, x[0])

    @jax.jit
    def run(model):
        def step(carry, _):
            model, state, memory = carry
            model, state, memory, loss, _ = rule.step(graph, optimizer, model, state, memory, x, y)
            return (model, state, memory), loss

        start = (model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), rule.init(graph, model, key=KEY))
        return jax.lax.scan(step, start, length=steps)

    (model, _, _), losses = run(model)
    return model, losses


def test_inference_learning_trains_the_stack():
    model = make(features=16, vocabulary=16)
    data = tiny_mqar(8)
    x, y = jnp.asarray(data.inputs), jnp.asarray(data.targets)
    settle = vc.inference.Simultaneous(steps=8, step_size=0.05)
    rule = vc.rules.InferenceLearning(inference=settle, loss=MASKED)
    graph = vc.capture(model, x[0])

    @jax.jit
    def settled(model):
        """Energies before and after, and the losses."""
        problem = rule.problem(graph, model, x, y)
        output, values = graph.feedforward(model, x)
        energies = [sum(problem.energies(v).values()) for v in (values, settle.settle(problem, values).values)]
        return *energies, jax.vmap(rule.loss)(output, y)

    before, after, losses = settled(model)
    np.testing.assert_allclose(before, losses, rtol=1e-5)
    assert np.all(np.asarray(after) < 0.97 * np.asarray(before))
    with jax.numpy_dtype_promotion("standard"):  # optax
        _, losses = train(rule, model, x, y, 40, optax.adam(1e-2))
    assert np.all(np.isfinite(losses))
    assert float(losses[0]) > 2 * np.log(4)  # two counted steps
    assert float(losses[-1]) < 0.5 * float(losses[0])


RULES = {  # the first two always, the others with `-m full`
    "sequential": vc.rules.InferenceLearning(inference=vc.inference.Sequential(step_size=0.1), loss=MASKED),
    "Z-IL": vc.rules.ZIL(loss=MASKED),
    "incremental": vc.rules.IncrementalPC(steps=4, step_size=0.1, loss=MASKED),
    "error-based": vc.rules.InferenceLearning(inference=vc.inference.ErrorBased(), loss=MASKED),
    "fixed prediction": vc.rules.FixedPrediction(loss=MASKED),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=8, step_size=0.5, loss=MASKED),
    "relaxed": vc.rules.RelaxedPC(steps=8, step_size=0.2, loss=MASKED),
    "implicit SGD": vc.rules.ImplicitSGD(learning_rate=0.1, loss=MASKED),
    "direct feedback": vc.rules.DirectFeedback(loss=MASKED),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * (i > 1)) for i, name in enumerate(RULES)]
)
def test_other_rules_train_it_too(name):
    data = tiny_mqar(8)
    model = make(features=16, vocabulary=16, mixers=1, hidden_features=16)
    with jax.numpy_dtype_promotion("standard"):  # optax
        _, losses = train(RULES[name], model, jnp.asarray(data.inputs), jnp.asarray(data.targets), 20, optax.adam(1e-2))
    assert np.all(np.isfinite(losses))
    assert float(losses[-1]) < 0.85 * float(losses[0])


def test_a_rule_that_goes_by_presynaptic_norms_trains_a_tied_stack():
    model = make(features=16, vocabulary=16, tied=True)
    data = tiny_mqar(8)
    rule = vc.rules.Backprop(loss=MASKED)
    _, losses = train(rule, model, jnp.asarray(data.inputs), jnp.asarray(data.targets), 30, vc.optim.nlms(0.05))
    assert float(losses[-1]) < 0.9 * float(losses[0])


def test_vectors_are_learned_by_the_masked_squared_error():
    data = linear_regression(8, 6, 1, features=2, seed=0)
    model = LanguageModel(1, 8, [partial(Fading, 8)], in_features=4, key=KEY)
    rule = vc.rules.Backprop(loss=vc.losses.masked_squared_error)
    x, y = jnp.asarray(data.inputs), jnp.asarray(data.targets)
    _, losses = train(rule, model, x, y, 60, optax.adam(1e-2))
    by_numpy = 0.5 * np.nansum((np.asarray(jax.jit(jax.vmap(model))(x)) - data.targets) ** 2) / 8
    np.testing.assert_allclose(losses[0], by_numpy, rtol=1e-5)
    assert float(losses[-1]) < 0.7 * float(losses[0])


def test_what_does_not_count_carries_no_error():
    data = basic_recall(2, 17, 2, vocabulary=24, seed=0)
    logits = np.random.default_rng(0).normal(size=(17, 24)).astype(np.float32)
    slope = jax.jit(jax.grad(vc.losses.masked_softmax_cross_entropy))(logits, jnp.asarray(data.targets[0]))
    onehot = np.eye(24)[np.maximum(data.targets[0], 0)]
    softmax = np.exp(logits) / np.sum(np.exp(logits), axis=1, keepdims=True)
    expected = (softmax - onehot) * data.mask[0][:, None]
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    assert np.isnan(vc.losses.masked_softmax_cross_entropy(logits, jnp.full(17, 24)))
    assert vc.losses.masked_softmax_cross_entropy(logits, jnp.full(17, -100)) == 0
    output, target = jnp.array([1.0, 2.0]), jnp.array([jnp.nan, 0.0])
    np.testing.assert_array_equal(jax.grad(vc.losses.masked_squared_error)(output, target), [0.0, 2.0])


def test_parameters_are_counted_and_matched():
    model = make(features=6, mixers=2, hidden_features=5)
    block = 3 * 36 + (6 * 5 + 5) + (5 * 6 + 6)
    assert parameter_count(model) == 6 * 11 + 2 * block + (6 * 11 + 11)
    assert parameter_count(make(hidden_features=0, tied=True)) == 6 * 11 + 2 * 3 * 36

    def with_hidden(size):
        return make(mixers=1, hidden_features=size)

    # Each hidden unit takes 6 + 1 + 6.
    wanted = parameter_count(with_hidden(9))
    assert closest_size(with_hidden, wanted, range(30)) == 9
    assert closest_size(with_hidden, wanted + 6, range(30)) == 9
    assert closest_size(with_hidden, wanted + 7, range(30)) == 10
    assert closest_size(with_hidden, wanted, [7, 11]) == 7
    with pytest.raises(ValueError, match="at least one size"):
        closest_size(with_hidden, wanted, [])


def test_a_token_that_there_is_not_is_noticed():
    model = eqx.filter_jit(make())
    for token in (-1, 11):
        logits = model(jnp.array([1, token, 2]))
        assert np.all(np.isfinite(logits[0]))
        assert np.all(np.isnan(logits[1]))


@pytest.mark.parametrize(
    ("make_or_call", "error", "words"),
    [
        (lambda: make(vocabulary=0), ValueError, "vocabulary as an integer of at least 1, got 0"),
        (lambda: make(features=0), ValueError, "features as an integer of at least 1, got 0"),
        (lambda: make(mixers=0), ValueError, "the number of mixers as an integer of at least 1, got 0"),
        (lambda: make(hidden_features=-1), ValueError, "hidden_features as an integer of at least 0, got -1"),
        (lambda: make(tied=True, in_features=3), ValueError, "expected tied=False"),
        (lambda: LanguageModel(4, 4, [partial(Linear, 4, 4)], key=KEY), TypeError, "Mixer, got Linear"),
        (lambda: make()(jnp.ones(3)), ValueError, r"at least one token.*got float32\[3\]"),
        (lambda: make()(jnp.ones((2, 3), int)), ValueError, r"at least one token.*got int32\[2, 3\]"),
        (lambda: make()(jnp.ones(0, int)), ValueError, r"got int32\[0\]"),
        (lambda: make()(jnp.ones((), int)), ValueError, r"got int32\[\]"),
        (lambda: make(in_features=3)(jnp.ones((5, 2))), ValueError, r"\[time, 3\], got float32\[5, 2\]"),
        (lambda: generate(make(), jnp.ones(2, int), 3), ValueError, "expected a key for draws"),
        (lambda: generate(make(), jnp.ones(2, int), 0, temperature=0), ValueError, "steps as an integer of at least 1"),
        (lambda: generate(make(), jnp.ones(2, int), 3, temperature=-1, key=KEY), ValueError, "temperature of at least"),
        (
            lambda: generate(LanguageModel(4, 4, [lambda key: Growing()], key=KEY), jnp.ones(2, int), 3, key=KEY),
            ValueError,
            "keep their shapes",
        ),
        (
            lambda: vc.losses.masked_softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 3))),
            ValueError,
            r"class indices of shape \[2\], got float32\[2, 3\]",
        ),
        (lambda: vc.losses.masked_squared_error(jnp.ones(2), jnp.ones(3)), ValueError, r"shape \[2\], got \[3\]"),
    ],
)
def test_clear_errors(make_or_call, error, words):
    with pytest.raises(error, match=words):
        make_or_call()
