"""What is asked of every operator on queries, keys and values."""

import jax
import jax.numpy as jnp
import numpy as np
from matrix import full

SIZES = [full(1, 5), (3, 16), (63, 5), full(63, 16), full(100, 16)]
BATCH, HEADS, FEATURES, VALUES = 2, 2, 4, 3


def inputs(time, *gates, seed=0):
    """Queries and keys of norm 1, values, and gates: `"log_decay"`, `"rate"`."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(size=(BATCH, time, HEADS, n)) for n in (FEATURES, FEATURES, VALUES))
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    drawn = {"log_decay": lambda: -rng.uniform(0, 0.5, q.shape[:3]), "rate": lambda: rng.uniform(0.1, 0.9, q.shape[:3])}
    return [jnp.asarray(x) for x in (q, k, v, *(drawn[name]() for name in gates))]


def weighted(tree):
    """A number that every floating-point entry changes, each in its own way."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum(
        jnp.sum(x * jnp.cos(0.7 * jnp.arange(x.size, dtype=x.dtype) + i).reshape(x.shape)) for i, x in enumerate(leaves)
    )


def same(a, b, tolerance=1e-11):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1, np.max(np.abs(y), initial=0)))


def pieces(arrays, *borders):
    return [[x[:, a:b] for x in arrays] for a, b in zip((0, *borders), (*borders, arrays[0].shape[1]), strict=True)]


def check_twins(fast, naive, arrays, tolerance=1e-11):
    """Outputs, states and the gradients of both."""

    def results(function):
        def loss(*arrays):
            results = function(*arrays)
            return weighted(results), results

        return jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True))(*arrays)

    same(results(fast), results(naive), tolerance)


def check_split(function, arrays, *borders, tolerance=1e-11):
    """Reading in pieces gives the same outputs and state; `function(state, *arrays)`."""
    function = jax.jit(function)
    whole, end = function(None, *arrays)
    outputs, state = [], None
    for piece in pieces(arrays, *borders):
        output, state = function(state, *piece)
        outputs.append(output)
    same((np.concatenate(outputs, axis=1), state), (whole, end), tolerance)


def check_padding(function, arrays, lengths, junk=jnp.nan):
    """Each row is as if alone, whatever follows it; `function(lengths, *arrays)`."""
    spoiled = [np.array(x) for x in arrays]
    for b, n in enumerate(lengths):
        for x in spoiled:
            x[b, n:] = junk

    def loss(*arrays):
        results = function(jnp.asarray(lengths), *arrays)
        return weighted(results), results

    @jax.jit
    def each(*arrays):
        return [function(None, *(x[b : b + 1, :n] for x in arrays)) for b, n in enumerate(lengths)]

    both = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(arrays))), has_aux=True))
    (_, (outputs, state)), gradients = jax.tree.map(np.asarray, both(*spoiled))
    for (b, n), (alone, end) in zip(enumerate(lengths), each(*arrays), strict=True):
        same((outputs[b : b + 1, :n], jax.tree.map(lambda x, b=b: x[b : b + 1], state)), (alone, end))
        assert not np.any(outputs[b, n:])
    for gradient in gradients:
        assert np.all(np.isfinite(gradient))
        for b, n in enumerate(lengths):
            assert not np.any(gradient[b, n:])


def check_causal(function, arrays, at):
    """What comes later changes nothing, not by a bit; what comes now does."""
    later = [
        np.where(np.arange(x.shape[1]).reshape(-1, *[1] * (x.ndim - 2)) < at, x, 0.5 * np.asarray(x)) for x in arrays
    ]
    function = jax.jit(function)
    before, after = (np.asarray(function(*each)[0]) for each in (arrays, later))
    assert np.array_equal(before[:, :at], after[:, :at])
    assert np.all(np.any(before[:, at] != after[:, at], axis=(1, 2)))


def check_bfloat16(function, arrays, ratio=0.02):
    """Outputs in bfloat16 that are near those of the same rounded inputs in float32; `function(*arrays)`."""
    function = jax.jit(function)
    rounded = [np.asarray(x).astype(jnp.bfloat16) for x in arrays]
    got, state = function(*rounded)
    wanted, _ = function(*(x.astype(np.float32) for x in rounded))
    assert got.dtype == jnp.bfloat16
    wanted = np.asarray(wanted)
    error = np.sqrt(np.mean(np.square(np.asarray(got).astype(np.float32) - wanted)))
    assert error < ratio * np.sqrt(np.mean(np.square(wanted)))
    return state
