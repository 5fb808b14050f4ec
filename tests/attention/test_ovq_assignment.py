"""Which tokens make centroids, and which centroid the others join."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full

from vicinal.attention.ovq.assignment import assign
from vicinal.attention.ovq.dictionary import scatter_as_product, scatter_one_by_one

JOINS = ["all", "old", "random", "greedy"]


def drawn(seed=0, tokens=7, rows=6, used=3, features=4):
    rng = np.random.default_rng(seed)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, max(tokens, rows), features))]
    priority = rng.random(tokens)
    return unit[0][:tokens], unit[1][:rows] * (np.arange(rows) < used)[:, None], np.arange(rows) < used, priority


def by_hand(keys, centroids, used, new, join, priority):
    """One token at a time, in plain Python."""
    old = [m for m in range(len(used)) if used[m]]
    similarity = [max(keys[j] @ centroids[m] for m in old) if old else keys[j] @ keys[0] for j in range(len(keys))]
    if not old:
        similarity[0] = -np.inf
    makers = []
    for _ in range(new):
        rest = [j for j in range(len(keys)) if j not in makers]
        if join == "random":
            makers.append(min(rest, key=lambda j: priority[j]))
        else:
            makers.append(min(rest, key=lambda j: similarity[j]))
        if join == "greedy":
            similarity = [max(s, keys[j] @ keys[makers[-1]]) for j, s in enumerate(similarity)]
    z = []
    for j in range(len(keys)):
        choices = {m: keys[j] @ centroids[m] for m in old}
        if join != "old":
            choices |= {len(old) + i: keys[j] @ keys[maker] for i, maker in enumerate(makers)}
        z.append(len(old) + makers.index(j) if j in makers else max(choices, key=choices.get, default=0))
    return z


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize(("used", "new"), [(0, 1), (0, 3), (0, 6), (3, 0), (3, 2), (1, 5), (6, 0)])
def test_by_hand(x64, join, used, new):
    for seed in range(5):
        keys, centroids, rows, priority = drawn(seed, used=used)
        expected = by_hand(keys, centroids, rows, new, join, priority)
        given = jnp.asarray(priority) if join == "random" else None
        found = jax.jit(assign, static_argnums=4)(*map(jnp.asarray, (keys, centroids, rows, new)), join, given)
        assert found.tolist() == expected
        assert found.dtype == jnp.int32


@pytest.mark.parametrize("join", [full("all"), "old", "greedy"])
def test_ties_go_to_the_lowest_index(join):
    """Whole numbers, so that equal similarities are equal to the last bit; compiled and not compiled agree."""
    keys = jnp.asarray([[1.0, 0], [0, 1], [1, 0], [0, 1], [1, 1], [-1, 0], [-1, 0]])
    centroids = jnp.asarray([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 0]])
    used = jnp.arange(5) < 4
    compiled = jax.jit(assign, static_argnums=4)
    for rows, new, expected in [
        (used, 0, [0, 2, 0, 2, 0, 2, 2]),  # the last two are at right angles to rows 2 and 3, and nearer to none
        (used, 1, [0, 2, 0, 2, 0, 4, 2 if join == "old" else 4]),
    ]:
        found = [f(keys, centroids, rows, jnp.asarray(new), join).tolist() for f in (compiled, assign)]
        assert found == [expected, expected]


@pytest.mark.parametrize("join", ["all", "greedy"])
def test_a_tie_of_an_old_and_a_new_centroid_goes_to_the_old(join):
    keys, centroids = jnp.asarray([[0.0, 1], [1, 1]]), jnp.asarray([[1.0, 0], [0, 0]])
    compiled = jax.jit(assign, static_argnums=4)
    assert compiled(keys, centroids, jnp.arange(2) < 1, jnp.asarray(1), join).tolist() == [1, 0]


def test_the_new_centroids_are_where_the_dictionary_is_worst(x64):
    keys, centroids, used, _ = drawn()
    z = np.asarray(jax.jit(assign, static_argnums=4)(keys, centroids, used, jnp.asarray(2), "old"))
    nearest = (keys @ centroids[used].T).max(1)
    assert nearest[z >= 3].max() < nearest[z < 3].min()


def test_no_gradient():
    keys, centroids, used, _ = (jnp.asarray(x) for x in drawn())

    def loss(keys, centroids):
        return jnp.sum(keys[assign(keys, centroids, used, jnp.asarray(2))])

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(keys, centroids)
    assert np.all(np.isfinite(gradient[0]))
    assert np.all(np.asarray(gradient[1]) == 0)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("width", [(), (5,)])
def test_scattering_one_by_one_and_as_a_product(x64, dtype, width):
    """The second is what other devices than CPUs run. Whole numbers: no sum is rounded, in the rows' dtype alone."""
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.integers(-1000, 1000, (6, *width)), "float64" if dtype == "float64" else "float32")
    z = jnp.asarray([0, 2, 2, 9, 5, 2, 6], jnp.int32)  # 6 and 9 are beyond the last
    added = jnp.asarray(rng.integers(-200, 200, (7, *width)), dtype)
    expected = np.array(rows)
    for to, x in zip(z.tolist(), np.asarray(added, float), strict=True):
        if to < 6:
            expected[to] += x
    for scattered in (scatter_one_by_one, scatter_as_product):
        found = scattered(rows, z, added)
        assert found.dtype == rows.dtype
        np.testing.assert_array_equal(found, expected)
