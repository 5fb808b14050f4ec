"""What a graph refuses, and what the message says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from graph_builders import KEY, bound, scanned, two_layers

import vicinal as vc


def with_custom_derivative(f):
    f = jax.custom_jvp(f)
    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    return f


@pytest.mark.parametrize(
    ("wrap", "word"),
    [
        (lambda f: jax.checkpoint(f), "jax.checkpoint"),
        (lambda f: lambda x: jax.lax.cond(x[0] > 0, f, lambda x: x, x), "branch"),
        (lambda f: lambda x: jax.lax.while_loop(lambda x: x[0] > 9, f, x), "unrolled|loop"),
        (lambda f: with_custom_derivative(f), "custom_jvp_call.*outside"),
    ],
)
def test_what_cannot_be_followed_is_refused(wrap, word):
    def network(x):
        return wrap(lambda x: vc.vertex(2 * x, "hidden"))(x)

    with pytest.raises(ValueError, match=word):
        vc.capture(network, jnp.ones(3))


def test_long_scan_is_refused_with_the_limit():
    with pytest.raises(ValueError, match="at most 1024 iterations around vertex 'hidden', got 1025"):
        vc.capture(bound(scanned, (1025, 1, 1)), jnp.ones(1))


def test_duplicate_name():
    def network(x):
        return vc.vertex(vc.vertex(x, "a") * 2, "a")

    with pytest.raises(ValueError, match="one vertex per name, got 'a' 2 times"):
        vc.capture(network, jnp.ones(3))


def test_a_name_that_a_loop_also_gives():
    def network(w, x):
        start = vc.vertex(w[0] @ x, "h[0]")
        return jax.lax.scan(lambda h, t: (vc.vertex(jnp.tanh(h + t), "h"), None), start, jnp.ones(2))[0]

    with pytest.raises(ValueError, match=r"one vertex per name, got 'h\[0\]' twice"):
        vc.capture(bound(network, (3, 4)), jnp.ones(4))


def test_a_leaf_that_is_no_array_and_changed():
    model = jax.tree_util.Partial(lambda rate, w, x: rate * (w @ x), 0.5, jnp.ones((2, 3)))
    graph = vc.capture(model, jnp.ones(3))
    other = jax.tree_util.Partial(model.func, 0.7, model.args[1])
    with pytest.raises(ValueError, match=r"got 0.7 for one of them; make it an array"):
        graph.feedforward(other, jnp.ones((1, 3)))


def test_ignored_vertex():
    def network(x):
        vc.vertex(x, "forgotten")
        return 2 * x

    with pytest.raises(ValueError, match="'forgotten' to influence the output"):
        vc.capture(network, jnp.ones(3))


def test_not_callable_and_numpy_parameters():
    with pytest.raises(TypeError, match="callable model, got list"):
        vc.capture([jnp.ones(3)], jnp.ones(3))
    with pytest.raises(TypeError, match="NumPy array of shape \\(2, 3\\)"):
        vc.capture(jax.tree_util.Partial(two_layers, [np.ones((2, 3))]), jnp.ones(3))


def test_wrong_input_model_and_values():
    model = vc.nn.MLP((4, 3, 2), key=KEY)
    graph = vc.capture(model, jnp.ones(4))
    x = jnp.ones((5, 4))
    with pytest.raises(ValueError, match=r"batch of inputs float32\[batch, 4\], got float32\[4\]"):
        graph.feedforward(model, jnp.ones(4))
    with pytest.raises(ValueError, match=r"got int32\[5, 4\]"):
        graph.feedforward(model, jnp.ones((5, 4), int))
    with pytest.raises(ValueError, match="input of structure"):
        graph.feedforward(model, (x, x))
    with pytest.raises(ValueError, match="model of the structure that was captured"):
        graph.feedforward(vc.nn.MLP((4, 3, 2), activation="relu", key=KEY), x)
    with pytest.raises(ValueError, match=r"parameter \.layers\[0\]\.weight as float32\[3, 4\], got float32\[6, 4\]"):
        graph.feedforward(vc.nn.MLP((4, 6, 2), key=KEY), x)
    with pytest.raises(ValueError, match=r"missing \['hidden1'\] and unknown \['h'\]"):
        graph.predict(model, {"h": jnp.ones((5, 3))}, x)
    with pytest.raises(ValueError, match="expected a vertex of"):
        graph.prediction("hidden9", model, {}, x)
