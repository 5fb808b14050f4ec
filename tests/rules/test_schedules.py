"""Rules that call the optimiser several times for a batch: schedules count batches, the optimiser its calls."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc

X, Y = np.random.default_rng(6).normal(size=(4, 3)).astype(np.float32), jnp.array([0, 1, 1, 0])
MODEL = vc.nn.MLP((3, 4, 2), vertex_at="pre", key=jax.random.key(0))
GRAPH = vc.capture(MODEL, X[0])


def trained(rule, optimizer, batches, model=MODEL):
    memory, state = optimizer.init(GRAPH.trainable(model)), rule.init(GRAPH, model, key=jax.random.key(1))
    step, models = eqx.filter_jit(rule.step), [model]
    for i in range(batches):
        model, memory, state, *_ = step(GRAPH, optimizer, model, memory, state, X, Y, key=jax.random.key(i))
        models.append(model)
    return models, memory


def distance(a, b):
    return max(float(jnp.abs(p - q).max()) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def ends_after(batches):
    """A rate of 0.1 for so many counts, and 0 from then on."""
    return lambda count: jnp.where(count < batches, 0.1, 0.0)


def everywhere(parameters):
    return jax.tree.map(lambda leaf: True, parameters)


OPTIMIZERS = {
    "sgd": lambda rate: optax.sgd(rate),
    "adam": lambda rate: optax.adam(rate),
    "injected": lambda rate: optax.inject_hyperparams(optax.sgd)(learning_rate=rate),
    "nested": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.masked(optax.sgd(rate), everywhere)),
    "mq": lambda rate: vc.optim.mq(rate, floor=0.0),
}


def rules():
    times = vc.rules.TimeConstants(presentation=2.0, dt=0.5)
    return {
        "iPC": (vc.rules.IncrementalPC(steps=3), 3),
        "phaseless": (vc.rules.PhaselessAlignment(times=times), 4),
    }


@pytest.mark.parametrize(("rule", "name"), [*(("iPC", name) for name in OPTIMIZERS), ("phaseless", "sgd")])
def test_a_schedule_counts_batches(rule, name):
    made, calls = rules()[rule]
    models, memory = trained(made, OPTIMIZERS[name](ends_after(2)), 4)
    moves = [distance(a, b) for a, b in itertools.pairwise(models)]
    assert min(moves[:2]) > 0
    assert max(moves[2:]) == 0
    counts = {int(leaf) for leaf in jax.tree.leaves(memory) if leaf.dtype == jnp.int32}
    assert counts == ({4, 4 * calls} if name in ("adam", "mq") else {4})


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_constant_rate_keeps_its_bits(name):
    rule = rules()["iPC"][0]
    constant = trained(rule, OPTIMIZERS[name](0.1), 3)[0][-1]
    scheduled = trained(rule, OPTIMIZERS[name](ends_after(100)), 3)[0][-1]
    assert distance(constant, scheduled) < 1e-7  # a schedule that stays where it is


def test_a_schedule_of_the_weight_decay_counts_batches():
    def decayed(decay):
        return optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.1))

    def schedule(count):
        return jnp.maximum(1.0 - count / 4, 0.0)

    rule, batches = vc.rules.IncrementalPC(steps=3), 4
    found, _ = trained(rule, decayed(schedule), batches)
    model = MODEL
    for i in range(batches):  # the decay of each batch, as a constant
        optimizer = decayed(1.0 - i / 4)
        model, *_ = eqx.filter_jit(rule.step)(
            GRAPH, optimizer, model, optimizer.init(GRAPH.trainable(model)), (), X, Y, key=jax.random.key(i)
        )
    assert distance(found[-1], model) < 1e-6
