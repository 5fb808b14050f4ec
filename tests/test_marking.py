"""`mark` makes vertices of the outputs of another library's layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc

KEY = jax.random.key(0)


def test_mark_a_stock_model():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=2, key=KEY)
    marked = vc.mark(model, lambda m: m.layers[:-1])
    graph = vc.capture(marked, jnp.ones(4))
    assert graph.vertices == ("layers[0]", "layers[1]")
    x = jax.random.normal(KEY, (3, 4))
    np.testing.assert_allclose(graph.feedforward(marked, x)[0], jax.vmap(model)(x), rtol=1e-6)
    assert marked.layers[0].weight is model.layers[0].weight


def test_mark_one_submodule_with_a_name():
    model = eqx.nn.Sequential([eqx.nn.Linear(4, 3, key=KEY), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(3, 2, key=KEY)])
    marked = vc.mark(model, lambda m: m.layers[1], names=["rates"])
    assert vc.capture(marked, jnp.ones(4)).vertices == ("rates",)


class Twice(eqx.Module):
    """A network that goes through one layer twice."""

    layer: eqx.nn.Linear
    above: eqx.nn.Linear

    def __call__(self, x):
        return self.above(jnp.tanh(self.layer(jnp.tanh(self.layer(x)))))


def test_a_marked_layer_that_is_called_twice_makes_two_vertices():
    model = Twice(eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Linear(4, 2, key=KEY))
    marked = vc.mark(model, lambda m: m.layer)
    graph = vc.capture(marked, jnp.ones(4))
    assert graph.vertices == ("layer[0]", "layer[1]")
    assert graph.parents == {"layer[0]": (), "layer[1]": ("layer[0]",), "output": ("layer[1]",)}
    x = jax.random.normal(KEY, (3, 4))
    first = x @ model.layer.weight.T + model.layer.bias[None]
    second = jnp.tanh(first) @ model.layer.weight.T + model.layer.bias[None]
    output, values = graph.feedforward(marked, x)
    np.testing.assert_allclose(values["layer[0]"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values["layer[1]"], second, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output, jax.vmap(model)(x), rtol=1e-5, atol=1e-6)


def test_a_users_vertex_does_not_share_its_name_with_a_marked_layer():
    model = vc.mark(Twice(eqx.nn.Linear(4, 4, key=KEY), eqx.nn.Linear(4, 2, key=KEY)), lambda m: m.layer, ["h"])
    with pytest.raises(ValueError, match="expected one vertex per name, got 'h' 3 times"):
        vc.capture(eqx.Partial(lambda model, x: vc.vertex(model(x), "h"), model), jnp.ones(4))


def test_marked_layers_keep_their_state_in_a_sequence():
    layers = [eqx.nn.Linear(4, 3, key=KEY), eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")]
    network, state = eqx.nn.make_with_state(eqx.nn.Sequential)(layers)
    model = vc.with_state(vc.mark(network, lambda m: m.layers[1]), state)
    graph = vc.capture(model, jnp.ones(4), batch_size=5)
    x = jax.random.normal(KEY, (5, 4))
    a = np.asarray(jax.vmap(layers[0])(x))
    values = graph.feedforward(model, x)[1]
    assert list(values) == ["layers[1]"]
    np.testing.assert_allclose(values["layers[1]"], (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-5), rtol=1e-4, atol=1e-5)


def test_mark_errors():
    model = eqx.nn.MLP(4, 2, width_size=8, depth=2, key=KEY)
    with pytest.raises(ValueError, match="at least one submodule"):
        vc.mark(model, lambda m: [])
    with pytest.raises(ValueError, match="expected 2 names"):
        vc.mark(model, lambda m: m.layers[:-1], names=["a"])
    with pytest.raises(TypeError, match="callable submodules"):
        vc.mark(model, lambda m: m.layers[0].weight)


def test_a_marked_layer_with_state_has_its_vertex_on_the_output():
    class Counting(eqx.Module):
        def __call__(self, x, state):
            return 2.0 * x, state + 1

    class Net(eqx.Module):
        below: Counting
        weight: jax.Array

        def __call__(self, x, state):
            h, state = self.below(x, state)
            return self.weight @ h, state

    marked = vc.mark(Net(Counting(), jnp.ones((1, 2))), lambda net: net.below)
    model = jax.tree_util.Partial(lambda net, x: net(x, jnp.zeros(()))[0], marked)
    graph = vc.capture(model, jnp.ones(2))
    _, values = graph.feedforward(model, jnp.ones((3, 2)))
    assert graph.vertices == ("below",)
    assert values["below"].tolist() == [[2.0, 2.0]] * 3
