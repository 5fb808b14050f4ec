"""A small model and its runs, which tests of data of every kind share."""

import jax
import numpy as np
import optax

import vicinal as vc
from vicinal.train import fit

KEY = jax.random.key(2)
RANDOM = np.random.default_rng(1)
X = RANDOM.normal(size=(30, 4)).astype(np.float32)
Y = np.repeat(np.arange(3, dtype=np.int32), 10)
MODEL = vc.nn.MLP((4, 5, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])
SGD = optax.sgd(0.1)


def train(data, **options):
    options = {"key": KEY, "graph": GRAPH, "progress": False, "batch_size": 10} | options
    return fit(vc.rules.Backprop(), MODEL, SGD, data, **options)


def batches(size=10, x=X, y=Y):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def same(a, b):
    """Whether two runs are the same, bit for bit, but for what the clock says."""
    for one, other in zip(jax.tree.leaves(a.model), jax.tree.leaves(b.model), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [[{k: v for k, v in row.items() if k != "examples_per_second"} for row in run.records] for run in (a, b)]
    assert rows[0] == rows[1]
