"""A small model, its data and its runs, which tests of `fit` share."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import vicinal as vc
from vicinal.data import epoch_order
from vicinal.train import fit

KEY = jax.random.key(5)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 4)).astype(np.float32)
Y = RANDOM.integers(0, 3, 50).astype(np.int32)
MODEL = vc.nn.MLP((4, 6, 3), key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])
SETTLING = vc.inference.Simultaneous(steps=3, step_size=0.2)

BACKPROP = vc.rules.Backprop()
DIRECT = vc.rules.DirectFeedback()
LEARNING = vc.rules.InferenceLearning(SETTLING, start="random")  # random, so that the keys matter
ADAM, MOMENTUM, SGD = optax.adam(1e-2), optax.sgd(0.05, momentum=0.9), optax.sgd(0.1)


def batch_list(sizes):
    """Batches of these sizes, cut from the data."""
    ends = np.cumsum(sizes)
    return [(X[e - s : e], Y[e - s : e]) for s, e in zip(sizes, ends, strict=True)]


def train(rule=BACKPROP, optimizer=SGD, data=(X, Y), model=MODEL, **settings):
    defaults = {"key": KEY, "batch_size": 8, "graph": GRAPH, "progress": False}
    return fit(rule, model, optimizer, data, **defaults | settings)


def bits(tree):
    """Every array as bytes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    arrays = [np.asarray(jax.random.key_data(a) if k else a) for a, k in zip(leaves, keys, strict=True)]
    return [(array.shape, str(array.dtype), array.tobytes()) for array in arrays]


def is_finite(tree):
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf))


def untimed(records):
    return [{name: value for name, value in record.items() if name != "examples_per_second"} for record in records]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@eqx.filter_jit
def one_step(rule, graph, optimizer, now, x, y, key):
    return rule.step(graph, optimizer, *now, x, y, key=key)


def by_hand(rule, optimizer, steps, batches, model=MODEL):
    """A plain loop of rule.step; the states after 0, 1, ... steps, and the loss of each step."""
    _, rule_key, step_key = jax.random.split(KEY, 3)
    graph = GRAPH if model is MODEL else vc.capture(model, batches(0)[0][0])
    now = model, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), rule.init(graph, model, key=rule_key)
    states, losses = [now], []
    for i in range(steps):
        *now, loss, _ = one_step(rule, graph, optimizer, states[-1], *batches(i), jax.random.fold_in(step_key, i))
        states.append(now)
        losses.append(float(loss))
    return states, losses


def shuffled(x=X, y=Y, batch_size=8):
    """The batches of a run on arrays: whole batches of each epoch's order."""
    order_key, per_epoch = jax.random.split(KEY, 3)[0], len(x) // batch_size

    def batch(step):
        epoch, index = divmod(step, per_epoch)
        rows = np.asarray(epoch_order(order_key, epoch, len(x)))[index * batch_size :][:batch_size]
        return jnp.asarray(x[rows]), jnp.asarray(y[rows])

    return batch


def in_turn(batches):
    return lambda step: jax.tree.map(jnp.asarray, batches[step % len(batches)])


RUNS = {
    "backpropagation, adam, arrays": (BACKPROP, ADAM, (X, Y)),
    "inference learning, momentum, arrays": (LEARNING, MOMENTUM, (X, Y)),
    "inference learning, adam, batches": (LEARNING, ADAM, batch_list([8, 8, 8, 8])),
    "direct feedback, adam, arrays": (DIRECT, ADAM, (X, Y)),  # a state that never changes
    "backpropagation, momentum, ragged batches": (BACKPROP, MOMENTUM, batch_list([8, 8, 8, 3])),
}


def long_run(folder, steps, resume=False):
    settings = {"batch_size": 4, "evaluate_every": 100, "checkpoint_seconds": 0.0}
    return train(LEARNING, ADAM, steps=steps, folder=folder, resume=resume, **settings)
