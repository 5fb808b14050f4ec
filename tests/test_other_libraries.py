"""Networks of Flax and Haiku, with batch norm and dropout: their parameters learn, their statistics do not."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.tree_util import Partial

import vicinal as vc

KEY = jax.random.key(0)
X, Y = jax.random.normal(jax.random.key(1), (10, 3)), jnp.arange(10) % 2
KEEP = 0.9  # of a running average


def trained(model, steps=2):
    """The model after some steps of an optimiser that would move whatever it is given, and after the first."""
    graph = vc.capture(model, X[0], batch_size=len(X))
    optimizer, rule, models = optax.adamw(0.05, weight_decay=0.5), vc.rules.InferenceLearning(), [model]
    memory, step = optimizer.init(graph.trainable(model)), eqx.filter_jit(rule.step)
    for i in range(steps):
        model, memory, *_ = step(graph, optimizer, models[-1], memory, (), X, Y, key=jax.random.fold_in(KEY, i))
        models.append(model)
    assert graph.vertices == ("hidden",)
    assert graph.needs_key
    assert graph.evaluation(models[-1])[0].batch_size is None
    return graph, models


def averages(inputs, variance=1.0):
    """The running mean and variance of a layer that saw these inputs, from a mean of 0."""
    mean = 0.0
    for a in inputs:
        mean, variance = KEEP * mean + (1 - KEEP) * a.mean(0), KEEP * variance + (1 - KEEP) * a.var(0)
    return mean, variance


def test_linen():
    nn = pytest.importorskip("flax.linen")

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            h = nn.BatchNorm(use_running_average=not train, momentum=KEEP, axis_name="batch")(nn.Dense(8)(x))
            h = nn.Dropout(0.2, deterministic=not train)(vc.vertex(jnp.tanh(h), "hidden"))
            return nn.Dense(2)(h)

    network = Network()
    variables = jax.jit(functools.partial(network.init, train=False))(KEY, X[0])

    def apply(params, x, state, key=None, inference=False):
        given = {"params": params, **state}
        if inference:
            return network.apply(given, x, train=False), state
        return network.apply(given, x, train=True, rngs={"dropout": key}, mutable=list(state))

    state = {name: part for name, part in variables.items() if name != "params"}
    graph, models = trained(vc.with_state(Partial(apply, variables["params"]), state))
    assert sum(role == "state" for role in graph.roles.values()) == 2
    dense = [model.module.args[0]["Dense_0"] for model in models[:-1]]
    mean, variance = averages([np.asarray(X) @ np.asarray(d["kernel"]) + np.asarray(d["bias"]) for d in dense])
    found = models[-1].state["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], variance, rtol=1e-4)
    final = {"params": models[-1].module.args[0], **models[-1].state}
    still, model = graph.evaluation(models[-1])
    expected = jax.jit(functools.partial(network.apply, train=False))(final, X)
    np.testing.assert_allclose(eqx.filter_jit(still.feedforward)(model, X)[0], expected, rtol=1e-4, atol=1e-5)


def test_linen_with_statistics_at_rest():
    """A dictionary of Flax as it comes: what stands beside the parameters is no parameter."""
    nn = pytest.importorskip("flax.linen")

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.BatchNorm(use_running_average=True)(nn.Dense(8)(x)))

    network = Network()
    model = Partial(network.apply, jax.jit(network.init)(KEY, X[0]))
    graph, optimizer, rule = vc.capture(model, X[0]), optax.adamw(0.05, weight_decay=0.5), vc.rules.Backprop()
    memory = optimizer.init(graph.trainable(model))
    after, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, memory, (), X, Y)
    before, after = model.args[0], after.args[0]
    assert eqx.tree_equal(after["batch_stats"], before["batch_stats"])
    assert not np.allclose(after["params"]["Dense_0"]["kernel"], before["params"]["Dense_0"]["kernel"], atol=1e-3)


def test_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.below, self.above = nnx.Linear(3, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
            self.norm = nnx.BatchNorm(8, momentum=KEEP, axis_name="batch", rngs=rngs)
            self.dropout = nnx.Dropout(0.2)

        def __call__(self, x, rngs=None):
            h = vc.vertex(jnp.tanh(self.norm(self.below(x))), "hidden")
            return self.above(self.dropout(h, rngs=rngs))

    form, params, rest = nnx.split(Network(nnx.Rngs(0)), nnx.Param, ...)

    def apply(params, x, state, key=None, inference=False):
        network = nnx.merge(form, params, state)
        network.eval() if inference else network.train()
        output = network(x) if key is None else network(x, nnx.Rngs(dropout=key))
        return output, nnx.split(network, nnx.Param, ...)[2]

    graph, models = trained(vc.with_state(Partial(apply, params), rest))
    assert sorted(role for role in graph.roles.values() if role == "state") == ["state"] * len(jax.tree.leaves(rest))
    below = [model.module.args[0]["below"] for model in models[:-1]]
    inputs = [np.asarray(X) @ np.asarray(b["kernel"][...]) + np.asarray(b["bias"][...]) for b in below]
    mean, variance = averages(inputs)
    found = models[-1].state["norm"]
    np.testing.assert_allclose(found["mean"][...], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"][...], variance, rtol=1e-4)


def test_haiku():
    hk = pytest.importorskip("haiku")

    def forward(x, train):
        h = hk.Linear(8, name="below")(x)
        h = hk.BatchNorm(True, True, KEEP, cross_replica_axis="batch", name="norm")(h[None], train)[0]
        h = vc.vertex(jnp.tanh(h), "hidden")
        return hk.Linear(2)(hk.dropout(hk.next_rng_key(), 0.2, h) if train else h)

    network = hk.transform_with_state(forward)
    first = jax.vmap(lambda x: network.init(KEY, x, True), axis_name="batch", out_axes=None)
    with jax.numpy_dtype_promotion("standard"):
        params, state = jax.jit(first)(X)

    def apply(params, x, state, key=None, inference=False):
        with jax.numpy_dtype_promotion("standard"):  # Haiku multiplies masks with numbers
            return network.apply(params, state, None if inference else key, x, not inference)

    graph, models = trained(vc.with_state(Partial(apply, params), state))
    assert sum(role == "state" for role in graph.roles.values()) == len(jax.tree.leaves(state))
    below = [model.module.args[0]["below"] for model in models[:-1]]
    inputs = [np.asarray(X) @ np.asarray(b["w"]) + np.asarray(b["b"]) for b in below]
    hidden_mean = averages(inputs, variance=0.0)[0]
    np.testing.assert_allclose(
        models[-1].state["norm/~/mean_ema"]["hidden"][0], hidden_mean, rtol=1e-4, atol=1e-5
    )  # Haiku divides by 1 - decay^n only in what it shows
