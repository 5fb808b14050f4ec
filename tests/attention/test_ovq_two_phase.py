"""OVQ-attention in two phases: assign every chunk from the keys alone, then read all chunks at once (spec 6.1, 17)."""

import numpy as np
import pytest
from ovq_inputs import attend, drawn

pytestmark = pytest.mark.usefixtures("x64")
CHUNK, CENTROIDS, BETA = 8, 12, 3.0


def size(tokens):
    """The plateau schedule."""
    return min(tokens * CENTROIDS // (tokens + CENTROIDS), CENTROIDS) if tokens else 0


def assigned(k):
    """Phase one, one chunk after the other: only the sums of keys and the counts are needed. `[tokens]`."""
    sums, counts, rows = np.zeros((CENTROIDS, k.shape[1])), np.zeros(CENTROIDS), []
    for start in range(0, len(k) - CHUNK + 1, CHUNK):
        keys, used = k[start : start + CHUNK], size(start)
        new = size(start + CHUNK) - used
        similarity = np.max(keys @ (sums[:used] / counts[:used, None]).T, axis=1) if used else keys @ keys[0]
        if not used:
            similarity[0] = -np.inf
        chosen = np.argsort(similarity, kind="stable")[:new]
        mu = np.concatenate([sums[:used] / counts[:used, None] if used else sums[:0], keys[chosen]])
        z = np.argmax(keys @ mu.T, axis=1)
        z[chosen] = used + np.arange(new)
        np.add.at(sums, z, keys)
        np.add.at(counts, z, 1)
        rows.append(z)
    return np.concatenate(rows)


def two_phases(q, k, v):
    """Of one head, with a length that chunks divide."""
    z = assigned(k)
    chunks = len(k) // CHUNK
    hot = np.eye(CENTROIDS)[z].reshape(chunks, CHUNK, CENTROIDS)
    q, k, v = (x.reshape(chunks, CHUNK, -1) for x in (q, k, v))

    def before(x):  # the sums of all chunks before each
        of_each = np.einsum("cln,cld->cnd", hot, x)
        return np.cumsum(of_each, axis=0) - of_each

    counts = before(np.ones((chunks, CHUNK, 1)))[..., 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        mu, nu = (before(x) / counts[..., None] for x in (k, v))
        far = BETA * np.einsum("cld,cnd->cln", q, np.nan_to_num(mu)) + np.log(counts)[:, None]
    near = np.where(np.tri(CHUNK, dtype=bool), BETA * np.einsum("cld,cmd->clm", q, k), -np.inf)
    p = np.exp(np.concatenate([far, near], axis=2))
    p /= p.sum(axis=2, keepdims=True)
    outputs = np.einsum("cln,cne->cle", p, np.concatenate([np.nan_to_num(nu), v], axis=1))
    return outputs.reshape(chunks * CHUNK, -1)


@pytest.mark.parametrize("time", [8, 16, 96])
def test_two_phases_are_the_scan(time):
    q, k, v = drawn(time, batch=1, heads=2, features=5)
    outputs, state = attend(q, k, v, beta=BETA, chunk_size=CHUNK, num_centroids=CENTROIDS)
    for head in range(2):
        expected = two_phases(*(np.asarray(x)[0, :, head] for x in (q, k, v)))
        np.testing.assert_allclose(outputs[0, :, head], expected, rtol=1e-11, atol=1e-12)
    assert float(state.counts.sum()) == 2 * time
