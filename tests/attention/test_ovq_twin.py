"""The fast implementation against the one to be read: outputs and gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from ovq_inputs import attend, drawn

from vicinal.attention.ovq import Schedule, naive_ovq_attention, ovq_attention

pytestmark = pytest.mark.slow

pytestmark = pytest.mark.usefixtures("x64")
FIELDS = ("keys", "values", "pending_keys", "pending_values")
NAMES = ("key_sums", "value_sums", "pending_keys", "pending_values")  # of the naive function


def weighted(tree):
    """A number that every entry of every array changes, each in its own way."""
    return sum(
        jnp.sum(x * jnp.cos(0.7 * jnp.arange(x.size, dtype=x.dtype) + i).reshape(x.shape)) for i, x in enumerate(tree)
    )


def fast(q, k, v, beta, carried, state, schedule, **settings):
    if state is not None:  # rows that are not in use are passed on, but are not there for the naive one
        used, pending = state.counts > 0, jnp.any(state.pending_keys != 0, axis=-1)
        masks = [x[..., None].astype(float) for x in (used, used, pending, pending)]
        carried = [x * mask for x, mask in zip(carried, masks, strict=True)]
        state = eqx.tree_at(lambda s: [getattr(s, name) for name in FIELDS], state, carried)
    sizes = {"chunk_size": schedule.chunk_size, "num_centroids": schedule.num_centroids, "growth": schedule.growth}
    outputs, state = ovq_attention(q, k, v, beta=beta, initial_state=state, **sizes, **settings)
    return outputs, [getattr(state, name) for name in FIELDS]


def naive(q, k, v, beta, carried, state, schedule, **settings):
    """Every head of every sequence on its own; all have read the same number of tokens."""
    start = {}
    if state is not None:
        counts, tokens = np.asarray(state.counts), int(np.asarray(state.tokens)[0])
        used, pending = int(np.sum(counts[0, 0] > 0)), tokens % schedule.chunk_size
        limits = (used, used, pending, pending)
        start = {name: x[:, :, :n] for name, x, n in zip(NAMES, carried, limits, strict=True)}
        start["counts"] = jnp.asarray(counts[:, :, :used])
        settings["chunks"] = tokens // schedule.chunk_size

    def head(q, k, v, beta, start):
        return naive_ovq_attention(q, k, v, beta=beta, schedule=schedule, **settings, **start)

    heads = jax.vmap(head, in_axes=(1, 1, 1, 0, 0), out_axes=(1, 0))
    outputs, end = jax.vmap(heads, in_axes=(0, 0, 0, None, 0))(q, k, v, beta, start)
    sizes = (schedule.num_centroids,) * 2 + (schedule.chunk_size,) * 2
    ends = [(end[name], n - end[name].shape[2]) for name, n in zip(NAMES, sizes, strict=True)]
    return outputs, [jnp.pad(x, [(0, 0), (0, 0), (0, missing), (0, 0)]) for x, missing in ends]


def check(inputs, state, schedule, memory="lean", **settings):
    carried = None if state is None else [getattr(state, name) for name in FIELDS]
    beta = jnp.asarray([2.0, 4.0])[: inputs[0].shape[2]]

    def results(function, **settings):
        def loss(q, k, v, beta, carried):
            outputs, ends = function(q, k, v, beta, carried, state, schedule, **settings)
            return weighted([outputs, *ends]), (outputs, ends)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4), has_aux=True))

    found = results(fast, memory=memory, **settings)(*inputs, beta, carried)
    expected = results(naive, **settings)(*inputs, beta, carried)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.float64
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    ("time", "chunk_size", "settings"),
    [
        full(1, 2, {}),
        (3, 2, {"join": "old"}),
        (3, 5, {}),
        (5, 2, {"bias": "gmr"}),
        full(9, 4, {"bias": "gmr"}),
        full(13, 4, {}),
        full(11, 3, {"join": "old"}),
        (5, 2, {"bias": "none", "normalize_centroids": True}),
        full(9, 4, {"bias": "none", "normalize_centroids": True}),
        (5, 2, {"learning_rate": 0.2, "memory": "autodiff"}),
        full(7, 3, {"learning_rate": 0.2, "memory": "autodiff"}),
        full(11, 2, {"memory": "autodiff"}),
        pytest.param(63, 5, {}, marks=pytest.mark.full),
        pytest.param(23, 5, {"join": "old"}, marks=pytest.mark.full),
        pytest.param(23, 5, {"bias": "gmr"}, marks=pytest.mark.full),
        pytest.param(23, 5, {"learning_rate": 0.2, "memory": "autodiff"}, marks=pytest.mark.full),
        pytest.param(100, 16, {}, marks=pytest.mark.full),
    ],
)
def test_from_nothing(time, chunk_size, settings):
    check(drawn(time), None, Schedule("plateau", 9, chunk_size), **settings)


@pytest.mark.parametrize(
    ("read", "time", "chunk_size", "settings"),
    [
        (7, 1, 4, {}),  # which finishes a chunk
        full(23, 1, 8, {}),
        full(21, 1, 8, {}),
        (3, 3, 5, {"join": "old"}),
        full(3, 9, 5, {"join": "old"}),
        full(11, 6, 4, {"bias": "gmr", "normalize_centroids": True}),
        full(11, 8, 5, {"learning_rate": 0.2, "memory": "autodiff"}),
        pytest.param(11, 30, 5, {}, marks=pytest.mark.full),
    ],
)
def test_from_a_state(read, time, chunk_size, settings):
    schedule = Schedule("plateau", 9, chunk_size)
    _, state = attend(*drawn(read, seed=3), chunk_size=chunk_size, num_centroids=9)
    check(drawn(time), state, schedule, **settings)


def test_lean_is_autodiff_is_finite_differences():
    """At a point where no similarity is near another, so that no assignment changes within the differences."""
    inputs = drawn(27, batch=1, heads=1, seed=2)

    def loss(memory, *inputs):
        outputs, state = ovq_attention(*inputs, beta=3.0, chunk_size=4, num_centroids=6, memory=memory)
        return weighted([outputs, state.keys, state.values])

    gradients = [
        jax.jit(jax.grad(loss, argnums=(1, 2, 3)), static_argnums=0)(memory, *inputs) for memory in ("lean", "autodiff")
    ]
    rng = np.random.default_rng(0)
    evaluate = jax.jit(loss, static_argnums=0)
    for i, (lean, autodiff) in enumerate(zip(*gradients, strict=True)):
        np.testing.assert_allclose(lean, autodiff, rtol=0, atol=1e-12)
        direction = rng.normal(size=lean.shape)
        moved = [[x + s * 1e-6 * direction if j == i else x for j, x in enumerate(inputs)] for s in (1, -1)]
        slope = (evaluate("lean", *moved[0]) - evaluate("lean", *moved[1])) / 2e-6
        np.testing.assert_allclose(np.sum(lean * direction), slope, rtol=1e-6, atol=1e-7)
