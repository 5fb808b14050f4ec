"""Going on from what was read, padding, documents, memory, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from ovq_inputs import SETTINGS, attend, drawn, softmax_attention, used_rows

from vicinal.attention.ovq import empty_state, grow_state, ovq_attention, state_bytes

pytestmark = pytest.mark.slow


def in_pieces(inputs, pieces, state=None, **settings):
    outputs, start = [], 0
    for n in pieces:
        piece, state = attend(*(x[:, start : start + n] for x in inputs), state, **settings)
        outputs.append(piece)
        start += n
    assert start == inputs[0].shape[1]
    return outputs, state


@pytest.mark.parametrize("join", ["all", full("old"), "random", full("greedy")])
def test_splitting_changes_nothing(x64, join):
    inputs = drawn(33)
    settings = {"join": join, "key": jax.random.key(1)}
    whole, end = attend(*inputs, **settings)
    # Few lengths, each of which is compiled; pieces of 7 begin and end inside chunks.
    for pieces in ((1,) * 33, (7, 1, 1, 7, 7, 7, 1, 1, 1), (0, 7, 0, 7, 7, 7, 1, 1, 1, 1, 1)):
        split, split_end = in_pieces(inputs, pieces, **settings)
        np.testing.assert_allclose(np.concatenate(split, axis=1), whole, rtol=0, atol=1e-12)
        for a, b in zip(jax.tree.leaves(split_end), jax.tree.leaves(end), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, full({"learning_rate": 0.1, "memory": "autodiff"}), full({"join": "random"})])
def test_derivatives_through_tokens_are_those_of_the_whole(x64, settings):
    """Backwards and forwards; two chunks of five and two tokens, so that chunks get finished and one does not."""
    inputs, tangents = drawn(12), drawn(12, seed=1)
    settings = settings | {"key": jax.random.key(1)}
    given = np.random.default_rng(2).normal(size=(2, 12, 2, 3))

    def loss(read):
        return lambda *inputs: jnp.sum(jnp.asarray(given) * read(inputs))

    whole = loss(lambda inputs: attend(*inputs, **(settings | {"memory": "autodiff"}))[0])
    tokens = loss(lambda inputs: jnp.concatenate(in_pieces(inputs, (1,) * 12, **settings)[0], axis=1))
    expected = jax.grad(whole, argnums=(0, 1, 2))(*inputs)
    for found, gradient in zip(jax.grad(tokens, argnums=(0, 1, 2))(*inputs), expected, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-11)
    along = sum(np.sum(np.multiply(gradient, tangent)) for gradient, tangent in zip(expected, tangents, strict=True))
    assert float(jax.jvp(tokens, inputs, tangents)[1]) == pytest.approx(along, rel=1e-9)


def test_one_token_under_vmap_is_one_token(x64):
    """Rows at different places of their chunks, of which some get finished."""
    inputs = drawn(24, batch=3)
    _, state = attend(*(x[:, :23] for x in inputs), lengths=jnp.array([19, 21, 14]))
    last = [x[:, 23:] for x in inputs]
    together, end = attend(*last, state)

    def alone(q, k, v, state):
        return ovq_attention(
            q[None], k[None], v[None], initial_state=jax.tree.map(lambda x: x[None], state), **SETTINGS
        )

    mapped, mapped_end = jax.jit(jax.vmap(alone))(*last, state)
    np.testing.assert_allclose(mapped[:, 0], together, rtol=0, atol=1e-12)
    assert end.tokens.tolist() == [20, 22, 15]
    assert np.sum(end.counts[:, 0], axis=-1).tolist() == [20, 20, 15]
    for a, b in zip(jax.tree.leaves(mapped_end), jax.tree.leaves(end), strict=True):
        np.testing.assert_allclose(a[:, 0], b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pieces", [full(1), 2])
def test_padding_is_not_read(x64, pieces):
    """Lengths that end inside the first chunk, at its border, later, at zero and at the end."""
    lengths = np.array([3, 5, 17, 0, 23])
    inputs = drawn(23, batch=5)
    real = np.arange(23) < lengths[:, None]

    def run(inputs):
        if pieces == 1:
            return ovq_attention(*inputs, lengths=jnp.asarray(lengths, jnp.int32), **SETTINGS)
        first, rest = ([x[:, part] for x in inputs] for part in (slice(0, 11), slice(11, 23)))
        a, state = ovq_attention(*first, lengths=jnp.asarray(np.minimum(lengths, 11), jnp.int32), **SETTINGS)
        left = jnp.asarray(np.maximum(lengths - 11, 0), jnp.int32)
        b, state = ovq_attention(*rest, lengths=left, initial_state=state, **SETTINGS)
        return jnp.concatenate([a, b], axis=1), state

    def loss(inputs):
        outputs, state = run(inputs)
        return jnp.sum(jnp.sin(outputs)) + jnp.sum(state.keys**2) + jnp.sum(state.pending_values**2), (outputs, state)

    both = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (outputs, state)), _ = both(inputs)
    assert np.all(np.asarray(outputs)[~real] == 0)
    assert state.tokens.tolist() == lengths.tolist()
    for junk in (1e6, np.nan):
        (_, spoiled), gradients = both([np.where(real[:, :, None, None], x, junk) for x in inputs])
        for a, b in zip(jax.tree.leaves(spoiled), jax.tree.leaves((outputs, state)), strict=True):
            np.testing.assert_array_equal(a, b)
        for gradient in gradients:
            assert np.all(np.isfinite(gradient))
            assert np.all(np.asarray(gradient)[~real] == 0)
    for b, n in enumerate(lengths):
        alone, _ = attend(*(x[b : b + 1, :n] for x in inputs))
        np.testing.assert_allclose(outputs[b : b + 1, :n], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("memory", ["lean", full("autodiff")])
def test_documents_are_read_on_their_own(x64, memory):
    """Rows of three documents and one, of which the last is cut by padding."""
    sizes = [[7, 1, 14], [22]]
    lengths = np.array([22, 20])
    documents = jnp.asarray([np.repeat([2, 3, 8][: len(s)], s) for s in sizes], jnp.int32)
    inputs = drawn(22, batch=2)

    def together(inputs):
        return ovq_attention(
            *inputs, documents=documents, max_documents=4, lengths=jnp.asarray(lengths), memory=memory, **SETTINGS
        )

    def separate(inputs):
        rows = []
        for b, row in enumerate(sizes):
            starts = np.cumsum([0, *row])
            ends = np.minimum(starts[1:], lengths[b])
            pieces = [
                ovq_attention(*(x[b : b + 1, i:j] for x in inputs), **SETTINGS)
                for i, j in zip(starts[:-1], ends, strict=True)
            ]
            outputs = jnp.concatenate([o for o, _ in pieces], axis=1)
            rows.append((jnp.pad(outputs, [(0, 0), (0, 22 - outputs.shape[1]), (0, 0), (0, 0)]), pieces[-1][1]))
        return jax.tree.map(lambda *x: jnp.concatenate(x), *rows)

    def loss(run, inputs):
        outputs, state = run(inputs)
        last = jnp.sum(state.values**2) + jnp.sum(state.pending_keys**3)
        return jnp.sum(outputs * jnp.cos(jnp.arange(outputs.size, dtype=float)).reshape(outputs.shape)) + last, (
            outputs,
            state,
        )

    results = [
        jax.jit(jax.value_and_grad(lambda x, r=r: loss(r, x), has_aux=True))(inputs) for r in (together, separate)
    ]
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_more_documents_than_announced_are_noticed():
    documents = jnp.repeat(jnp.arange(3), 4)[None]
    outputs, _ = attend(*drawn(12, batch=1), documents=documents, max_documents=2)
    assert np.all(np.isfinite(outputs[:, :8]))
    assert np.all(np.isnan(outputs[:, 8:]))


def test_the_schedule_does_not_depend_on_the_length(x64):
    inputs = drawn(63)
    whole, _ = attend(*inputs)
    for time in (3, 41):
        np.testing.assert_allclose(attend(*(x[:, :time] for x in inputs))[0], whole[:, :time], rtol=0, atol=1e-12)


def test_a_state_grows(x64):
    """Rows are added and then filled as fast as chunks allow, until the larger schedule is met."""
    inputs = drawn(103)
    _, state = attend(*(x[:, :43] for x in inputs))
    mean, value, count = used_rows(state)
    grown = grow_state(state, 40)
    assert grown.keys.shape == (2, 2, 40, 4)
    for a, b in zip(used_rows(grown), (mean, value, count), strict=True):
        np.testing.assert_array_equal(a, b)
    used, sizes = 40 * 12 // 52, []
    for chunks in range(9, 21):
        used = max(used, min(used + 5, chunks * 5 * 40 // (chunks * 5 + 40)))
        sizes.append(used)
    state, found = grown, []
    run = jax.jit(lambda q, k, v, s: ovq_attention(q, k, v, initial_state=s, **(SETTINGS | {"num_centroids": 40}))[1])
    for t in range(43, 103):
        state = run(*(x[:, t : t + 1] for x in inputs), state)
        found.append(int(np.sum(state.counts[0, 0] > 0)))
    assert found[1::5] == sizes
    assert sizes[-1] == 28
    _, end = attend(*(x[:, 43:] for x in inputs), grown, num_centroids=40)
    np.testing.assert_allclose(end.keys, state.keys, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="at least 40, the rows of the state, got 12; a state cannot shrink"):
        grow_state(grown, 12)


def test_a_state_is_as_large_after_many_tokens():
    run = jax.jit(lambda q, k, v: ovq_attention(q, k, v, beta=3.0, chunk_size=64, num_centroids=32)[1])
    states = [run(*drawn(time, batch=1, heads=1, dtype=jnp.float32)) for time in (1024, 16384)]
    assert state_bytes(states[0]) == state_bytes(states[1]) == 4 * (32 * (4 + 3 + 1) + 64 * (4 + 3) + 1)
    assert [int(s.tokens[0]) for s in states] == [1024, 16384]
    assert float(jnp.sum(states[1].counts)) == 16384


def gradient_memory(time, memory):
    def loss(q, k, v):
        return jnp.sum(ovq_attention(q, k, v, beta=3.0, chunk_size=16, num_centroids=256, memory=memory)[0] ** 2)

    x = jax.ShapeDtypeStruct((1, time, 1, 32), jnp.float32)
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes


def test_the_gradient_takes_memory_for_one_dictionary():
    inputs = 4 * 32 * 4 * 1024  # q, k, v and an output, of the tokens that are added
    lean = [gradient_memory(time, "lean") for time in (1024, 2048)]
    autodiff = [gradient_memory(time, "autodiff") for time in (1024, 2048)]
    dictionaries = 64 * 256 * 64 * 4  # of the chunks that are added
    assert lean[1] - lean[0] <= 3 * inputs
    assert autodiff[1] - autodiff[0] >= dictionaries
    assert lean[1] < autodiff[1] / 3


def test_bfloat16():
    """The sums and counts stay exact; the outputs are right to the dtype."""
    inputs = drawn(100, features=16, value_features=16, dtype=jnp.float32)
    exact, _ = attend(*inputs, chunk_size=16, num_centroids=24)
    q, k, v = (x.astype(jnp.bfloat16) for x in inputs)
    outputs, state = attend(q, k, v, chunk_size=16, num_centroids=24)
    assert outputs.dtype == state.pending_keys.dtype == jnp.bfloat16
    assert state.keys.dtype == state.values.dtype == state.counts.dtype == jnp.float32
    read = np.asarray(v)[:, :96].astype(float)
    np.testing.assert_allclose(np.sum(np.asarray(state.values), axis=2), np.sum(read, axis=1), atol=1e-4)
    # On the same rounded inputs, so that no token goes elsewhere.
    same, _ = attend(*(x.astype(jnp.float32) for x in (q, k, v)), chunk_size=16, num_centroids=24)
    error = np.asarray(outputs).astype(np.float32) - np.asarray(same)
    assert np.sqrt(np.mean(error**2) / np.mean(np.square(np.asarray(exact)))) < 0.02

    def loss(q, k, v):
        return jnp.sum(ovq_attention(q, k, v, **SETTINGS)[0].astype(float) ** 2)

    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
        assert gradient.dtype == jnp.bfloat16
        assert np.all(np.isfinite(np.asarray(gradient).astype(float)))


def test_the_second_call_does_not_compile_again():
    traces = []

    @jax.jit
    def run(q, k, v, state):
        traces.append(1)
        return ovq_attention(q, k, v, initial_state=state, **SETTINGS)

    q, k, v = drawn(3, dtype=jnp.float32)
    state = empty_state(2, 2, 4, 3, chunk_size=5, num_centroids=12)
    for _ in range(3):
        _, state = run(q, k, v, state)
    assert len(traces) == 1
    assert state.tokens.tolist() == [9, 9]


def test_compiled_is_not_compiled(x64):
    inputs = drawn(23)
    eager, _ = ovq_attention(*inputs, **SETTINGS)
    np.testing.assert_allclose(attend(*inputs)[0], eager, rtol=0, atol=1e-12)
    assert np.abs(eager - softmax_attention(*inputs, 3.0)).max() > 0.01


Q, K, V = drawn(4, dtype=jnp.float32)
STATE = empty_state(2, 2, 4, 3, chunk_size=5, num_centroids=12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": K[:, :3]}, r"q and k of shape .*got \[2, 4, 2, 4\], \[2, 3, 2, 4\] and \[2, 4, 2, 3\]"),
        ({"v": V[0]}, r"v of shape \[batch, time, heads, e\], got"),
        ({"k": K.astype(jnp.bfloat16)}, "one floating dtype, got float32, bfloat16 and float32"),
        ({"beta": jnp.ones(3)}, r"beta as a number or of shape \[2\], got shape \[3\]"),
        ({"join": "new"}, "join as one of all, old, random, greedy, got 'new'"),
        ({"join": "random"}, "key with join='random', got None"),
        ({"bias": "log"}, "bias as one of count, none, gmr, got 'log'"),
        ({"memory": "low"}, "memory as one of lean, autodiff, got 'low'"),
        ({"learning_rate": 0.1}, "memory='autodiff' with learning_rate=0.1, got memory='lean'"),
        ({"learning_rate": 2.0, "memory": "autodiff"}, "learning_rate above 0 and at most 1, or None, got 2"),
        ({"lengths": jnp.ones(3, int)}, r"lengths of shape \[2\], got \[3\]"),
        ({"lengths": jnp.ones(2)}, "integers as lengths, got float32"),
        ({"documents": jnp.zeros(4, int)}, r"documents of shape \[2, 4\], got \[4\]"),
        ({"documents": jnp.zeros((2, 4), int)}, "max_documents of at least 1 with documents, got None"),
        ({"max_documents": 2}, "documents with max_documents, got only max_documents=2"),
        (
            {"documents": jnp.zeros((2, 4), int), "max_documents": 1, "initial_state": STATE},
            "no initial_state with documents",
        ),
        ({"initial_state": STATE, "num_centroids": 20}, "num_centroids=20 rows, got 12; grow it by grow_state"),
        ({"initial_state": STATE, "num_centroids": 6}, "num_centroids=6 rows, got 12; a state cannot shrink"),
        ({"initial_state": STATE, "chunk_size": 6}, "initial_state for chunk_size=6, got one for 5"),
        (
            {"initial_state": empty_state(1, 2, 4, 3, chunk_size=5, num_centroids=12)},
            r"shapes \[\[2, 2, 5, 4\], \[2, 2, 5, 3\]\], got \[1, 2, 5, 4\]",
        ),
        (
            {"initial_state": empty_state(2, 2, 4, 3, chunk_size=5, num_centroids=12, dtype=jnp.bfloat16)},
            "initial_state for float32, got one for bfloat16",
        ),
        ({"chunk_size": 1}, "chunk_size as an integer of at least 2, got 1"),
    ],
)
def test_clear_errors(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ovq_attention(**({"q": Q, "k": K, "v": V} | SETTINGS | arguments))
