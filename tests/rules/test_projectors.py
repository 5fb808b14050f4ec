"""Fixed projections of an error: their sizes, what each kind is as a matrix, and which one a vertex gets."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from direct_feedback_builders import (
    KEY,
    convolutional,
    rule_of,
    task,
)
from matrix import full, some
from precision import double

import vicinal as vc
from vicinal.rules import DirectFeedback
from vicinal.rules.projectors import Broadcast, Dense, DilatedConvolution, Projector, Sparse

# ------------------------------------------------------------------------------------------------------- projectors

SHAPES = {
    "dense": (Dense(2.0), (7,), (30,)),
    "dense, to a map": (Dense(), (7,), (3, 4, 5)),
    "sparse": (Sparse(0.3), (40,), (50,)),
    "broadcast": (Broadcast(1, scale=0.5), (7,), (8, 5, 5)),
    "broadcast, with borders": (Broadcast(3), (7,), (8, 6, 4)),
    "dilated": (DilatedConvolution(1), (9, 5, 5), (8, 10, 10)),
    "dilated, with borders": (DilatedConvolution(3), (9, 6, 4), (8, 6, 4)),
    "dilated, grouped": (DilatedConvolution(1, groups=2), (6, 5, 5), (40, 5, 5)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_projected_error_is_as_long_as_through_fresh_weights(name):
    """Its mean square is scale^2 ||error||^2 / 3: over 400 draws, within four standard errors.

    At the borders of a map, three taps lose one of the 3 n along each side of n pixels, at either end.
    """
    kind, source, target = SHAPES[name]
    error = jnp.ones(source)  # all pixels alike: what is lost is counted, whatever the error
    kept = (1 - 2 / (3 * 6)) * (1 - 2 / (3 * 4)) if "borders" in name else 1.0

    def length(key):
        weights = kind.draw(source, target, jnp.float32, key=key)
        return jnp.sum(kind.project(weights, error, target) ** 2)

    found = jax.lax.map(length, jax.random.split(jax.random.key(1), 400))
    expected = kept * float(kind.scale) ** 2 * float(jnp.sum(error**2)) / 3
    assert abs(float(jnp.mean(found)) - expected) < 4 * float(jnp.std(found)) / 20


def test_the_same_length_comes_back_through_a_fresh_layer():
    """What the scale is measured by: a layer with PyTorch's initial weights, its error carried down."""
    error = jax.random.normal(KEY, (7,))

    def length(key):
        return jnp.sum((error @ vc.nn.Linear(30, 7, key=key).weight) ** 2)

    found = jax.lax.map(length, jax.random.split(jax.random.key(1), 400))
    assert abs(float(jnp.mean(found)) - float(jnp.sum(error**2)) / 3) < 4 * float(jnp.std(found)) / 20


def matrix(kind, weights, source, target):
    """The matrix of a projection, by applying it to unit vectors."""
    units = jnp.eye(int(np.prod(source)), dtype=weights.dtype).reshape(-1, *source)
    return jax.vmap(lambda unit: kind.project(weights, unit, target).reshape(-1))(units).T


CONVOLUTIONS = {
    "plain": (DilatedConvolution(3), (2, 4, 4), (3, 4, 4)),
    "valid": (DilatedConvolution(3), (2, 4, 5), (3, 6, 7)),
    "one tap": (DilatedConvolution(1), (2, 4, 4), (3, 4, 4)),
    "strided": (DilatedConvolution(3), (2, 3, 3), (3, 7, 7)),
    "strided, uneven": (DilatedConvolution(3), (2, 3, 2), (3, 8, 7)),
    "dilated": (DilatedConvolution(3, dilation=2), (2, 5, 5), (3, 7, 6)),
    "dilated and strided": (DilatedConvolution(5, dilation=3), (2, 3, 3), (3, 7, 7)),
    "grouped": (DilatedConvolution(3, dilation=2, groups=2), (4, 3, 3), (6, 6, 6)),
    "depthwise": (DilatedConvolution(3, groups=3), (3, 4, 4), (3, 4, 4)),
}


@pytest.mark.parametrize("name", some(CONVOLUTIONS, "valid", "strided, uneven", "dilated and strided", "grouped"))
def test_a_convolution_is_its_toeplitz_matrix(x64, name):
    """The taps laid out by hand, one after another."""
    kind, source, target = CONVOLUTIONS[name]
    weights = kind.draw(source, target, jnp.float64, key=KEY)
    (channels, height, width), (below, rows, columns) = source, target
    size, dilation, groups = kind.kernel_size, kind.dilation, kind.groups
    by_hand = np.zeros((*target, *source))
    strides = rows // height, columns // width
    borders = [
        (ours - 1 - (theirs - 1) * s) // 2 for ours, theirs, s in zip(target[1:], source[1:], strides, strict=True)
    ]
    assert weights.shape == (below, channels // groups, size, size)
    for c, k, i, j, u, v in itertools.product(
        range(below), range(channels), range(height), range(width), range(size), range(size)
    ):
        row = i * strides[0] + borders[0] + (u - size // 2) * dilation
        column = j * strides[1] + borders[1] + (v - size // 2) * dilation
        same = c // (below // groups) == k // (channels // groups)
        if same and 0 <= row < rows and 0 <= column < columns:
            by_hand[c, row, column, k, i, j] += weights[c, k % (channels // groups), u, v]
    np.testing.assert_allclose(
        matrix(kind, weights, source, target), by_hand.reshape(int(np.prod(target)), -1), rtol=1e-13, atol=1e-15
    )


@pytest.mark.parametrize(
    ("height", "size", "stride"), [(7, 3, 2), full(11, 3, 2), full(28, 5, 2), (28, 5, 1), full(9, 3, 3)]
)
def test_a_convolution_is_laid_out_as_the_way_back_through_one(x64, height, size, stride):
    """With its own kernel it is backpropagation through a convolution of this size and stride, without padding."""
    layer = double(vc.nn.Conv2d(2, 3, size, stride, use_bias=False, key=KEY))
    x = jax.random.normal(KEY, (2, height, height), jnp.float64)
    out, back = jax.vjp(layer, x)
    error = jax.random.normal(jax.random.key(1), out.shape, jnp.float64)
    kind = DilatedConvolution(size)
    assert kind.misfit(out.shape, x.shape) is None
    found = kind.project(jnp.swapaxes(layer.weight, 0, 1), error, x.shape)
    np.testing.assert_allclose(found, back(error)[0], rtol=1e-12, atol=1e-14)


def test_a_broadcast_error_by_hand(x64):
    kind, target = Broadcast(3), (2, 4, 5)
    weights = kind.draw((3,), target, jnp.float64, key=KEY)
    error = jnp.array([0.3, -1.0, 2.0])
    found = kind.project(weights, error, target)
    for c, i, j in np.ndindex(*target):
        inside = [(u, v) for u in range(3) for v in range(3) if 0 <= i + u - 1 < 4 and 0 <= j + v - 1 < 5]
        expected = sum(float(weights[c, :, u, v] @ error) for u, v in inside)
        np.testing.assert_allclose(found[c, i, j], expected, rtol=1e-12)


def test_a_sparse_matrix_has_its_density():
    weights = Sparse(0.2).draw((100,), (200,), jnp.float32, key=KEY)
    density = float(jnp.mean(weights != 0))
    assert abs(density - 0.2) < 4 * (0.2 * 0.8 / 20_000) ** 0.5
    assert float(jnp.max(jnp.abs(weights))) <= (0.2 * 200) ** -0.5
    assert bool(jnp.all(Sparse(1.0).draw((10,), (20,), jnp.float32, key=KEY) != 0))


# --------------------------------------------------------------------------------------- which projector goes where


def test_a_projector_for_maps_leaves_vectors_to_a_dense_one(x64):
    model, graph, _, _ = convolutional()
    state = rule_of(Broadcast(3)).init(graph, model, key=KEY)
    assert {name: b.shape for name, b in state.items()} == {
        "conv1": (3, 3, 3, 3),
        "conv2": (4, 3, 3, 3),
        "hidden1": (6, 3),
    }
    modules = [["conv1", "conv2"], ["hidden1"]]
    state = rule_of(DilatedConvolution(3, dilation=2), modules).init(graph, model, key=KEY)
    assert {name: b.shape for name, b in state.items()} == {"conv1": (3, 4, 3, 3), "hidden1": (6, 3)}


def test_projectors_by_name(x64):
    model, graph, _, _ = convolutional()
    state = rule_of({"conv1": Broadcast(1), "hidden1": Sparse(0.5)}).init(graph, model, key=KEY)
    assert {name: b.shape for name, b in state.items()} == {"conv1": (3, 3, 1, 1), "conv2": (36, 3), "hidden1": (6, 3)}
    assert int(jnp.sum(state["hidden1"] == 0)) > 0


def test_a_layer_at_several_times_has_one_projection(x64):
    model, graph, x, y = task("recurrent, many to one")
    state = rule_of().init(graph, model, key=KEY)
    assert {name: b.shape for name, b in state.items()} == {"hidden[0]": (5, 3)}
    credit, _ = eqx.filter_jit(rule_of().credit)(graph, model, state, x, y)
    for name in graph.vertices:
        slope = 1 - jnp.tanh(credit.values[name]) ** 2
        np.testing.assert_allclose(
            credit.errors[name], slope * (credit.output_error @ state["hidden[0]"].T), rtol=1e-11, atol=1e-14
        )
    assert set(rule_of(shared=False).init(graph, model, key=KEY)) == set(graph.vertices)
    state = rule_of({"hidden": Sparse(0.5), "hidden[2]": Dense()}).init(graph, model, key=KEY)
    assert set(state) == {"hidden[0]", "hidden[2]"}
    halves = [["hidden[0]", "hidden[1]"], ["hidden[2]", "hidden[3]"]]
    state = rule_of(modules=halves, boundary="direct").init(graph, model, key=KEY)
    assert {name: b.shape for name, b in state.items()} == {"hidden[0]": (5, 5), "hidden[1]": (5, 3)}


def test_each_step_gets_the_error_of_its_own_output(x64):
    model, graph, x, y = task("recurrent, each step")
    state = rule_of().init(graph, model, key=KEY)
    assert {name: b.shape for name, b in state.items()} == {"hidden[0]": (5, 3)}
    credit, _ = eqx.filter_jit(rule_of().credit)(graph, model, state, x, y)
    for t, name in enumerate(graph.vertices):
        np.testing.assert_allclose(credit.errors[name], credit.output_error[:, t] @ state["hidden[0]"].T, rtol=1e-12)
    assert rule_of(shared=False).init(graph, model, key=KEY)["hidden[0]"].shape == (5, 12)


def test_layers_that_only_have_indices_in_their_names_are_not_one_layer():
    net = eqx.nn.MLP(4, 2, width_size=8, depth=3, key=KEY)
    model = vc.mark(net, lambda net: net.layers[:-1])
    graph = vc.capture(model, jnp.ones(4))
    state = DirectFeedback().init(graph, model, key=KEY)
    assert set(state) == set(graph.vertices)
    assert len({np.asarray(b).tobytes() for b in state.values()}) == 3  # and each is drawn by itself


def test_a_custom_projector(x64):
    class Same(Projector):
        """The mean of the error, everywhere."""

        scale: jax.Array = eqx.field(converter=jnp.asarray, default=1.0)

        def draw(self, source, target, dtype, *, key):
            return self.scale.astype(dtype)

        def project(self, weights, error, target):
            return jnp.broadcast_to(weights * jnp.mean(error), target)

    model, graph, x, y = task("mlp")
    credit, _ = eqx.filter_jit(rule_of(Same(2.0)).credit)(
        graph, model, rule_of(Same(2.0)).init(graph, model, key=KEY), x, y
    )
    expected = jnp.broadcast_to(2 * jnp.mean(credit.output_error, axis=1, keepdims=True), (3, 6))
    np.testing.assert_allclose(credit.errors["hidden1"], expected, rtol=1e-13)


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sparse(0.0), r"expected the density in \(0, 1\], got 0$"),
        (lambda: Broadcast(2), "expected an odd kernel size, got 2"),
        (lambda: DilatedConvolution(3, dilation=0), "expected the dilation as an integer of at least 1, got 0"),
        (lambda: DilatedConvolution(3, groups=1.5), "expected the groups as an integer"),
    ],
)
def test_wrong_projectors_are_refused(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


def test_a_map_is_not_projected_to_a_smaller_one():
    assert "at least as high and wide" in DilatedConvolution(3).misfit((2, 8, 8), (2, 4, 8))
