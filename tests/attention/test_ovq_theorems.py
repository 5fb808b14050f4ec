"""What OVQ-attention is equal to, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ovq_inputs import attend, drawn, softmax_attention, unit, used_rows

from vicinal.attention.ovq.chunked import Chunks, Plan, scan_dictionary
from vicinal.attention.ovq.dictionary import Rule, Sums

pytestmark = pytest.mark.usefixtures("x64")
CLOSE = {"rtol": 0, "atol": 1e-12}


def test_with_a_centroid_for_every_key_it_is_softmax_attention():
    q, k, v = drawn(40)
    outputs, _ = attend(q, k, v, num_centroids=40, growth="min")
    np.testing.assert_allclose(outputs, softmax_attention(q, k, v, 3.0), **CLOSE)
    few, _ = attend(q, k, v, num_centroids=20, growth="min")
    assert np.abs(few - softmax_attention(q, k, v, 3.0)).max() > 0.01


def test_within_the_first_chunk_it_is_softmax_attention():
    q, k, v = drawn(16)
    outputs, _ = attend(q, k, v, chunk_size=16, num_centroids=2)
    np.testing.assert_allclose(outputs, softmax_attention(q, k, v, 3.0), **CLOSE)


def test_without_a_temperature_it_is_the_mean_of_the_values():
    q, k, v = drawn(33)
    mean = np.cumsum(np.asarray(v), axis=1) / np.arange(1, 34)[:, None, None]
    np.testing.assert_allclose(attend(q, k, v, beta=0.0)[0], mean, **CLOSE)
    assert np.abs(attend(q, k, v, beta=0.0, bias="none")[0] - mean).max() > 0.01


def rows_of(q, k, v, **settings):
    """The outputs, and each token's row; beyond the last row if its chunk was not finished."""
    rule, size, most = Rule(**settings), 5, 12
    chunks = Chunks(
        *(jnp.transpose(x.reshape(len(x), -1, size, *x.shape[2:]), (1, 0, 3, 2, 4)) for x in (3.0 * q, k, v))
    )
    number, batch, heads = chunks.keys.shape[:3]
    tokens = np.arange(number + 1) * size
    sizes = tokens * most // (tokens + most)
    plan = Plan(
        jnp.ones((number, batch), bool), jnp.asarray(np.tile(np.diff(sizes)[:, None], batch), jnp.int32), None, None
    )
    zeros = [jnp.zeros((batch, heads, most, *x.shape[4:])) for x in (chunks.keys, chunks.values)]
    zeros = Sums(*zeros, jnp.zeros((batch, heads, most)))
    outputs, sums, z = jax.jit(scan_dictionary, static_argnums=0)(rule, chunks, jnp.full(heads, 3.0), zeros, plan)
    outputs = jnp.transpose(outputs, (1, 0, 3, 2, 4)).reshape(*v.shape)
    return np.asarray(outputs), sums, np.asarray(jnp.transpose(z, (1, 2, 0, 3)).reshape(batch, heads, -1))


@pytest.mark.parametrize("join", ["all", "old"])
def test_centroids_are_the_means_of_their_tokens(join):
    """The rule of 1/count with one scatter per chunk is the running mean, also when a chunk hits a centroid twice."""
    q, k, v = drawn(45)
    outputs, sums, z = rows_of(q, k, v, join=join)
    np.testing.assert_allclose(outputs, attend(q, k, v, join=join)[0], **CLOSE)  # it is the same computation
    used = 45 * 12 // (45 + 12)
    state = attend(q, k, v, join=join)[1]
    assert np.all(np.sum(sums.counts, axis=-1) == 45)
    assert np.all(np.sum(np.asarray(sums.counts) > 0, axis=-1) == used)
    mu, nu, count = np.zeros((12, 4)), np.zeros((12, 3)), np.zeros(12)
    for start in range(0, 45, 5):  # all of a chunk's changes from the same old means
        row = z[0, 0, start : start + 5]
        np.add.at(count, row, 1)
        steps = 1 / count[row][:, None]
        old_mu, old_nu = mu.copy(), nu.copy()
        np.add.at(mu, row, steps * (np.asarray(k)[0, start : start + 5, 0] - old_mu[row]))
        np.add.at(nu, row, steps * (np.asarray(v)[0, start : start + 5, 0] - old_nu[row]))
    assert max(np.bincount(z[0, 0, 40:])) > 1  # so the last chunk did hit one twice
    found_mu, found_nu, found_count = used_rows(state)
    np.testing.assert_allclose(found_mu, mu[:used], **CLOSE)
    np.testing.assert_allclose(found_nu, nu[:used], **CLOSE)
    np.testing.assert_array_equal(found_count, count[:used])
    for n in range(used):
        np.testing.assert_allclose(found_mu[n], np.asarray(k)[0, z[0, 0] == n, 0].mean(0), **CLOSE)


def test_it_is_softmax_attention_to_the_centroids_of_the_tokens():
    """The grouping lemma: a token that was learned has the present mean of its centroid as its key, and its value.

    And the bound that follows: with all keys within d of their centroids, logits move by at most beta d.
    """
    q, k, v = drawn(45, batch=1, heads=1)
    outputs, _, z = rows_of(q, k, v)
    full = softmax_attention(q, k, v, 3.0)
    q, k, v, z = np.asarray(q)[0, :, 0], np.asarray(k)[0, :, 0], np.asarray(v)[0, :, 0], z[0, 0]
    for i in range(45):
        learned = i // 5 * 5
        keys = k[: i + 1].copy()
        for n in set(z[:learned]):
            keys[:learned][z[:learned] == n] = k[:learned][z[:learned] == n].mean(0)
        p = np.exp(3.0 * keys @ q[i])
        np.testing.assert_allclose(outputs[0, i, 0], p @ v[: i + 1] / p.sum(), **CLOSE)
        furthest = np.linalg.norm(keys - k[: i + 1], axis=1).max()
        bound = (np.exp(2 * 3.0 * furthest) - 1) * np.abs(v[: i + 1]).max()
        assert np.abs(outputs[0, i, 0] - full[0, i, 0]).max() <= bound + 1e-12


def mixture(query, mu, nu, counts, beta):
    """E[value | key = query] of a Gaussian mixture with covariance I / beta."""
    density = counts * np.exp(-beta / 2 * np.sum((query - mu) ** 2, axis=1))
    return density @ nu / density.sum()


@pytest.mark.parametrize(
    "settings", [{"bias": "gmr"}, {"bias": "count", "normalize_centroids": True}, {"bias": "count"}]
)
def test_gaussian_mixture_regression(settings):
    """The read of one token after 40, with the components of the dictionary and those of the tokens in its chunk."""
    q, k, v = drawn(43, batch=1, heads=1)
    outputs, _ = attend(q, k, v, **settings)
    mu, nu, counts = used_rows(attend(q[:, :40], k[:, :40], v[:, :40], **settings)[1])
    if "normalize_centroids" in settings:
        mu = unit(mu)
    mu = np.concatenate([mu, np.asarray(k)[0, 40:, 0]])
    nu = np.concatenate([nu, np.asarray(v)[0, 40:, 0]])
    counts = np.concatenate([counts, np.ones(3)])
    expected = mixture(np.asarray(q)[0, 42, 0], mu, nu, counts, 3.0)
    difference = np.abs(outputs[0, 42, 0] - expected).max()
    assert (difference < 1e-12) == (settings != {"bias": "count"})  # means of unit vectors have norm below 1
    assert difference < 1e-12 or difference > 1e-3


def test_the_centroids_are_the_m_step():
    """One Newton step on the mixture's complete-data likelihood, with hard assignments, lands on them from anywhere."""
    _, k, _ = q_k_v = drawn(45, batch=1, heads=1)
    _, _, z = rows_of(*q_k_v)
    hot = jnp.asarray(np.eye(9)[z[0, 0]])
    keys = k[0, :, 0]

    def complete(mu):
        return 3.0 / 2 * jnp.sum(hot * jnp.sum((keys[:, None] - mu[None]) ** 2, axis=-1))

    start = jnp.asarray(np.random.default_rng(1).normal(size=(9, 4)))
    hessian, slope = jax.jit(lambda mu: (jax.hessian(complete)(mu), jax.grad(complete)(mu)))(start)
    newton = start.ravel() - np.linalg.solve(hessian.reshape(36, 36), slope.ravel())
    np.testing.assert_allclose(newton.reshape(9, 4), used_rows(attend(*q_k_v)[1])[0], **CLOSE)

    def observed(mu):  # Fisher's identity: at mu, its gradient is that of the likelihood with the responsibilities
        return -jnp.sum(jax.nn.logsumexp(-3.0 / 2 * jnp.sum((keys[:, None] - mu[None]) ** 2, axis=-1), axis=1))

    soft = jax.nn.softmax(-3.0 / 2 * jnp.sum((keys[:, None] - start[None]) ** 2, axis=-1), axis=1)
    of_complete = 3.0 * jnp.einsum("jn,jnd->nd", soft, start[None] - keys[:, None])
    np.testing.assert_allclose(jax.jit(jax.grad(observed))(start), of_complete, **CLOSE)


def test_a_frozen_dictionary_is_vq_attention():
    """Keys that are themselves one of a few codes: the codes do not move, and only counts and mean values are learned.

    Dense VQ-attention: every earlier key is the code nearest to it, the values are kept.
    """
    rng = np.random.default_rng(0)
    codes = unit(rng.normal(size=(6, 4)))
    which = np.concatenate([rng.permutation(6), rng.integers(6, size=39)])
    q, _, v = drawn(45, batch=1, heads=1)
    k = jnp.asarray(codes[which][None, :, None])
    outputs, state = attend(q, k, v, chunk_size=6, num_centroids=6, growth="constant")
    np.testing.assert_allclose(np.sort(used_rows(state)[0], axis=0), np.sort(codes, axis=0), **CLOSE)
    nearest = codes[np.argmax(np.asarray(k)[0, :, 0] @ codes.T, axis=1)]
    np.testing.assert_allclose(outputs, softmax_attention(q, nearest[None, :, None], v, 3.0), **CLOSE)


def test_repeated_keys():
    """With `all`, a repeated key joins the centroid of its twin, so centroids are pure; with `old` it may not."""
    rng = np.random.default_rng(0)
    keys = unit(rng.normal(size=(10, 4)))
    first = [0, 1, 0, 2, 3, 0, 4, 5, 6, 0]  # 7 keys for 7 centroids
    second = [7, 0, 8, 9, 1, 7, 8, 2, 9, 3]  # 3 keys twice for 5 centroids: one of the twins has to join
    q, _, v = drawn(40, batch=1, heads=1)
    k = jnp.asarray(keys[[*first, *second, *rng.integers(10, size=20)]][None, :, None])
    full = softmax_attention(q, k, v, 3.0)
    settings = {"chunk_size": 10, "num_centroids": 12, "growth": (7, 12)}
    np.testing.assert_allclose(attend(q, k, v, **settings)[0], full, **CLOSE)
    assert np.abs(attend(q, k, v, join="old", **settings)[0] - full).max() > 0.01


def test_order_inside_a_chunk_is_forgotten():
    q, k, v = drawn(33)
    order = np.concatenate([[0], 1 + np.random.default_rng(1).permutation(4)])  # the first token is a centroid anyway
    order = np.concatenate([order, 5 + np.random.default_rng(2).permutation(5), np.arange(10, 33)])
    before, after = attend(q, k, v)[0], attend(q[:, order], k[:, order], v[:, order])[0]
    np.testing.assert_allclose(after[:, 10:], before[:, 10:], **CLOSE)
    assert np.abs(after[:, :10] - before[:, :10]).max() > 0.01


def test_rotation_of_the_keys_and_linearity_in_the_values():
    q, k, v = drawn(33)
    outputs, _ = attend(q, k, v)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    np.testing.assert_allclose(attend(q @ turn, k @ turn, v)[0], outputs, **CLOSE)
    other = drawn(33, seed=5)[2]
    mixed = attend(q, k, 2 * v - 3 * other)[0]
    np.testing.assert_allclose(mixed, 2 * outputs - 3 * attend(q, k, other)[0], **CLOSE)


def test_two_reads_merge_by_their_normalisers():
    """The dictionary and the chunk read apart; and the log count as one more feature of the key."""
    q, k, v = drawn(43, batch=1, heads=1)
    mu, nu, counts = used_rows(attend(q[:, :40], k[:, :40], v[:, :40])[1])
    outputs, _ = attend(q, k, v)
    query = np.asarray(q)[0, 42, 0]
    far = np.append(3.0 * query, 1) @ np.concatenate([mu, np.log(counts)[:, None]], axis=1).T
    near = 3.0 * np.asarray(k)[0, 40:, 0] @ query
    share = 1 / (1 + np.exp(np.log(np.exp(near).sum()) - np.log(np.exp(far).sum())))
    of_far, of_near = np.exp(far) @ nu / np.exp(far).sum(), np.exp(near) @ np.asarray(v)[0, 40:, 0] / np.exp(near).sum()
    np.testing.assert_allclose(outputs[0, 42, 0], share * of_far + (1 - share) * of_near, **CLOSE)


def test_more_centroids_quantise_better():
    """The same function with another number of centroids; the mean squared distance to the centroid falls."""
    errors = []
    for most in (6, 12, 48):
        inputs = drawn(120, batch=1, heads=1, features=8)
        mu, _, counts = used_rows(attend(*inputs, num_centroids=most, chunk_size=10)[1])
        # sum |k - mu_z|^2 = sum |k|^2 - sum count |mu|^2, as each centroid is the mean of its tokens
        errors.append((120 - counts @ np.sum(mu**2, axis=1)) / 120)
    assert np.all(np.diff(errors) < -0.01)
