"""Z-IL and fixed prediction are backpropagation, on any architecture; in float64, to 1e-10."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some
from once import once
from precision import double

import vicinal as vc
from vicinal.inference import Simultaneous
from vicinal.rules.zil import distances

KEY = jax.random.key(0)


def plain_function(theta, x):
    """The graph of arXiv 2006.04182: y = tan(sqrt(theta x)) + sin(x^2), with a vertex at every step."""
    root = vc.vertex(jnp.sqrt(vc.vertex(theta * x, "product")), "root")
    tangent, sine = vc.vertex(jnp.tan(root), "tangent"), vc.vertex(jnp.sin(vc.vertex(x**2, "square")), "sine")
    return tangent + sine


def residual(w, x):
    h = vc.vertex(jnp.tanh(w[0] @ x), "h1")
    for i in (1, 2, 3):
        h = vc.vertex(h + jnp.tanh(w[i] @ h), f"h{i + 1}")
    return w[4] @ h


def _weights(*shapes):
    return [jax.random.normal(k, s) / s[-1] ** 0.5 for k, s in zip(jax.random.split(KEY, 9), shapes, strict=False)]


MODELS = {
    "mlp": lambda: (vc.nn.MLP((5, 6, 4, 3), key=KEY), (5,)),
    "convolutional": lambda: (
        vc.nn.ConvNet((2, 9, 9), [(3, 3, 1), (4, 3, 2)], (6, 3), pool=vc.nn.AvgPool2d(2), activation="tanh", key=KEY),
        (2, 9, 9),
    ),
    "autoencoder": lambda: (vc.nn.Autoencoder((6, 5, 3, 5, 6), activation="tanh", key=KEY), (6,)),
    "recurrent, many to one": lambda: (vc.nn.RNN(3, 5, 3, key=KEY), (4, 3)),
    "recurrent, each step": lambda: (vc.nn.RNN(3, 5, 3, every_step=True, key=KEY), (4, 3)),
    "residual": lambda: (jax.tree_util.Partial(residual, _weights((6, 5), (6, 6), (6, 6), (6, 6), (3, 6))), (5,)),
    "residual, 64 layers": lambda: (vc.nn.ResidualMLP((5, 8, 3), depth=64, activation="tanh", key=KEY), (5,)),
    "transformer": lambda: (vc.nn.Transformer(3, 8, 3, heads=2, length=4, key=KEY), (4, 3)),
    "plain function": lambda: (jax.tree_util.Partial(plain_function, jnp.asarray(2.0)), ()),
}


@once
def task(name):
    model, shape = MODELS[name]()
    model = double(model)
    x = jnp.full((3,), 5.0) + jnp.arange(3.0) if shape == () else jax.random.normal(jax.random.key(1), (3, *shape))
    x = x.astype(jnp.float64)
    graph = vc.capture(model, x[0])
    output, _ = eqx.filter_jit(graph.feedforward)(model, x)
    return model, graph, x, jax.random.normal(jax.random.key(2), output.shape, jnp.float64)


@eqx.filter_jit
def gradient(rule, graph, model, x, y):
    return rule.value_and_grad(graph, model, (), x, y)[1]


def of_jax(model, x, y):
    """The gradient of the mean loss by jax.grad alone, the model as an ordinary function."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays):
        outputs = jax.vmap(eqx.combine(arrays, static))(x)
        return jnp.mean(jax.vmap(vc.losses.squared_error)(outputs, y))

    return jax.jit(jax.grad(loss))(arrays)


def assert_equal(found, expected, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.max(np.abs(b))), 1.0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale)


SQUARED = vc.losses.squared_error
EXACT = {
    "Z-IL": lambda graph: vc.rules.ZIL(loss=SQUARED),
    "fixed prediction, one sweep": lambda graph: vc.rules.FixedPrediction(loss=SQUARED),
    "fixed prediction, simultaneous": lambda graph: vc.rules.FixedPrediction(
        steps=max(distances(graph).values()), order="simultaneous", loss=SQUARED
    ),
    "activation relaxation, one sweep": lambda graph: vc.rules.ActivationRelaxation(
        steps=1, step_size=1.0, loss=SQUARED
    ),
}


@pytest.mark.parametrize(
    "name", some(MODELS, "mlp", "convolutional", "recurrent, each step", "residual", "transformer", "plain function")
)
def test_exact_on_every_architecture(x64, name):
    """Fixed prediction, Z-IL and activation relaxation with unit steps all give `jax.grad`."""
    model, graph, x, y = task(name)
    rules = {rule: make(graph) for rule, make in EXACT.items()}
    found = eqx.filter_jit(
        lambda model: {rule: made.value_and_grad(graph, model, (), x, y)[1] for rule, made in rules.items()}
    )(model)
    expected = of_jax(model, x, y)
    for rule in rules:
        assert_equal(found[rule], expected)


def test_simultaneous_steps_are_exact_once_the_wave_has_arrived_and_not_before(x64):
    model, graph, x, y = task("mlp")
    expected = of_jax(model, x, y)
    one = gradient(vc.rules.FixedPrediction(steps=1, order="simultaneous", loss=SQUARED), graph, model, x, y)
    assert float(jnp.max(jnp.abs(one.layers[0].weight))) == 0
    np.testing.assert_allclose(one.layers[1].weight, expected.layers[1].weight, rtol=1e-12)


def test_small_steps_near_backpropagation_geometrically(x64):
    """One vertex below the output: the distance shrinks by 1 - step_size at every step, exactly."""
    model, graph, x, y = task("mlp")
    exact = of_jax(model, x, y).layers[1].weight
    for order in ("sequential", "simultaneous"):
        for steps in (1, 5, 20):
            rule = vc.rules.FixedPrediction(steps=steps, step_size=0.3, order=order, loss=SQUARED)
            found = gradient(rule, graph, model, x, y).layers[1].weight
            np.testing.assert_allclose(exact - found, 0.7**steps * exact, rtol=1e-9, atol=1e-14)


def test_zil_with_another_step_size_is_not_backpropagation(x64):
    """What lies k steps from the output is scaled by gamma^k."""
    model, graph, x, y = task("mlp")
    expected = of_jax(model, x, y)
    found = gradient(vc.rules.ZIL(step_size=0.9, loss=SQUARED), graph, model, x, y)
    for layer, k in ((2, 0), (1, 1), (0, 2)):
        np.testing.assert_allclose(found.layers[layer].weight, 0.9**k * expected.layers[layer].weight, rtol=1e-12)


@pytest.mark.parametrize("step_size", [1.0, 0.9])
def test_zil_is_strict_inference_with_a_schedule(x64, step_size):
    """The twin: run inference learning itself, and take from step t the update of what lies t from the output."""
    model = double(vc.nn.MLP((5, 6, 4, 6, 3), vertex_at="pre", key=KEY))
    x = jax.random.normal(jax.random.key(1), (3, 5), jnp.float64)
    graph, y = vc.capture(model, x[0]), jax.random.normal(jax.random.key(2), (3, 3), jnp.float64)
    found = gradient(vc.rules.ZIL(step_size=step_size, loss=SQUARED), graph, model, x, y)
    for t, layer in enumerate(reversed(range(4))):
        strict = vc.rules.InferenceLearning(inference=Simultaneous(steps=t, step_size=step_size), loss=SQUARED)
        at_t = gradient(strict, graph, model, x, y)
        np.testing.assert_allclose(found.layers[layer].weight, at_t.layers[layer].weight, rtol=1e-12, atol=1e-15)


def test_zil_on_branches_is_strict_inference_with_identity_vertices(x64):
    """A short way is padded with identity vertices, so that every error arrives with the wave."""
    w = double(_weights((4, 5), (4, 4), (3, 4), (3, 4)))

    def branched(w, x):
        a = vc.vertex(jnp.tanh(w[0] @ x), "a")
        b = vc.vertex(jnp.tanh(w[1] @ a), "b")
        return w[2] @ b + w[3] @ a

    def padded(w, x):
        a = vc.vertex(jnp.tanh(w[0] @ x), "a")
        b = vc.vertex(jnp.tanh(w[1] @ a), "b")
        return w[2] @ b + w[3] @ vc.vertex(a + 0.0, "copy of a")

    x, y = jax.random.normal(KEY, (3, 5), jnp.float64), jax.random.normal(jax.random.key(2), (3, 3), jnp.float64)
    model, long = jax.tree_util.Partial(branched, w), jax.tree_util.Partial(padded, w)
    graph, longer = vc.capture(model, x[0]), vc.capture(long, x[0])
    found = gradient(vc.rules.ZIL(loss=SQUARED), graph, model, x, y).args[0]
    assert distances(graph) == {"output": 0, "b": 1, "a": 2}
    for t, index in ((0, 2), (0, 3), (1, 1), (2, 0)):
        strict = vc.rules.InferenceLearning(inference=Simultaneous(steps=t, step_size=1.0), loss=SQUARED)
        np.testing.assert_allclose(
            found[index], gradient(strict, longer, long, x, y).args[0][index], rtol=1e-12, atol=1e-15
        )


def test_child_contributions_add(x64):
    """At a fork the error is the sum over the children, here by hand."""
    model, graph, x, y = task("residual")
    w = model.args[0]
    credit, _ = eqx.filter_jit(vc.rules.FixedPrediction(loss=SQUARED).credit)(graph, model, (), x, y)
    h3, e4 = credit.values["h3"], credit.errors["h4"]
    by_hand = e4 + ((1 - jnp.tanh(h3 @ w[3].T) ** 2) * e4) @ w[3]
    np.testing.assert_allclose(credit.errors["h3"], by_hand, rtol=1e-12)


def test_strict_predictive_coding_nears_backpropagation_as_the_output_error_vanishes(x64):
    """At equilibrium the errors are the adjoints of the output's error, but for a part that grows with it."""
    model, graph, x, _ = task("mlp")
    output, feedforward = eqx.filter_jit(graph.feedforward)(model, x)
    settle = Simultaneous(steps=5000, step_size=0.3, tolerance=1e-13)
    strict = vc.rules.InferenceLearning(inference=settle, loss=SQUARED)
    differences = []
    for size in (1.0, 0.1, 0.01):
        y = output + size * jax.random.normal(jax.random.key(2), output.shape, jnp.float64)
        credit, _ = eqx.filter_jit(strict.credit)(graph, model, (), x, y)
        adjoints = eqx.filter_jit(graph.adjoints)(model, feedforward, x, credit.output_error)
        differences.append(
            max(float(jnp.linalg.norm(credit.errors[n] - a) / jnp.linalg.norm(a)) for n, a in adjoints.items())
        )
    assert differences[0] > 1e-2
    for larger, smaller in itertools.pairwise(differences):
        assert 5 < larger / smaller < 20
