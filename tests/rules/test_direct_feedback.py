"""Direct feedback alignment: its limits are backpropagation and feedback alignment, its projections what they say."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from precision import double

import vicinal as vc
from vicinal.rules import Backprop, DirectFeedback
from vicinal.rules.projectors import Broadcast, Dense, DilatedConvolution, Projector, Sparse

KEY = jax.random.key(0)
SQUARED = vc.losses.squared_error


def residual(w, x):
    h = vc.vertex(jnp.tanh(w[0] @ x), "h1")
    for i in (1, 2):
        h = vc.vertex(h + jnp.tanh(w[i] @ h), f"h{i + 1}")
    return {"class": w[3] @ h, "value": (w[4] @ h)[0]}


def _weights(*shapes):
    return [jax.random.normal(k, s) / s[-1] ** 0.5 for k, s in zip(jax.random.split(KEY, 9), shapes, strict=False)]


MODELS = {
    "mlp": lambda: (vc.nn.MLP((5, 6, 4, 3), key=KEY), (5,)),
    "mlp, potentials": lambda: (vc.nn.MLP((5, 6, 4, 3), vertex_at="pre", key=KEY), (5,)),
    "convolutional": lambda: (
        vc.nn.ConvNet((2, 9, 9), [(3, 3, 1), (4, 3, 2)], (6, 3), activation="tanh", key=KEY),
        (2, 9, 9),
    ),
    "convolutional, potentials": lambda: (
        vc.nn.ConvNet((2, 8, 8), [(4, 3, 1)], (6, 3), pool=vc.nn.AvgPool2d(2), vertex_at="pre", key=KEY),
        (2, 8, 8),
    ),
    "recurrent, many to one": lambda: (vc.nn.RNN(3, 5, 3, vertex_at="pre", key=KEY), (4, 3)),
    "recurrent, each step": lambda: (vc.nn.RNN(3, 5, 3, every_step=True, key=KEY), (4, 3)),
    "two outputs": lambda: (jax.tree_util.Partial(residual, _weights((6, 5), (6, 6), (6, 6), (3, 6), (1, 6))), (5,)),
    "residual": lambda: (vc.nn.ResidualMLP((5, 8, 3), depth=6, vertex_at="pre", key=KEY), (5,)),
    "transformer": lambda: (vc.nn.Transformer(3, 8, 3, heads=2, length=4, key=KEY), (4, 3)),
}


def loss_of_all(output, target):
    return sum(SQUARED(o, t) for o, t in zip(jax.tree.leaves(output), jax.tree.leaves(target), strict=True))


def task(name, batch=3):
    model, shape = MODELS[name]()
    return task_of(double(model), shape, batch)


def task_of(model, shape, batch=3):
    x = jax.random.normal(jax.random.key(1), (batch, *shape), jnp.float64)
    graph = vc.capture(model, x[0])
    output, _ = graph.feedforward(model, x)
    return model, graph, x, jax.tree.map(lambda o: o + jax.random.normal(jax.random.key(2), o.shape, o.dtype), output)


def rule_of(*arguments, **settings):
    return DirectFeedback(*arguments, loss=loss_of_all, **settings)


def gradient(rule, graph, model, x, y, state=None):
    state = rule.init(graph, model, key=jax.random.key(3)) if state is None else state
    return eqx.filter_jit(lambda model, state: rule.value_and_grad(graph, model, state, x, y)[1])(model, state)


def of_jax(model, x, y):
    """The gradient of the mean loss by jax.grad alone, the model as an ordinary function."""
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(arrays):
        return jnp.mean(jax.vmap(loss_of_all)(jax.vmap(eqx.combine(arrays, static))(x), y))

    return jax.jit(jax.grad(loss))(arrays)


def assert_equal(found, expected, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def furthest(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(one - other))) for one, other in pairs)


# ----------------------------------------------------------------------------------------------- limits of the rule


def test_with_the_jacobian_as_projection_it_is_backpropagation(x64):
    """T-i1, on a linear net, whose Jacobian is the same everywhere."""
    net = vc.nn.MLP((5, 6, 4, 3), activation="identity", key=KEY)
    model, graph, x, y = task_of(double(net), (5,))
    w = [layer.weight for layer in model.layers]
    state = {"hidden1": (w[2] @ w[1]).T, "hidden2": w[2].T}
    assert_equal(gradient(rule_of(), graph, model, x, y, state), of_jax(model, x, y), 1e-13)
    state["hidden1"] = 1.01 * state["hidden1"]
    assert furthest(gradient(rule_of(), graph, model, x, y, state), of_jax(model, x, y)) > 1e-4


@pytest.mark.parametrize("every_step", [False, True])
def test_with_the_jacobians_through_time_it_is_backpropagation_through_time(x64, every_step):
    net = vc.nn.RNN(3, 5, 2, activation="identity", every_step=every_step, key=KEY)
    model, graph, x, y = task_of(double(net), (4, 3))
    out, step = model.output_layer.weight, model.recurrent_layer.weight
    state, nothing = {}, jnp.zeros_like(out.T)
    for t in range(4):
        later = [(out @ jnp.linalg.matrix_power(step, s - t)).T if s >= t else nothing for s in range(4)]
        state[f"hidden[{t}]"] = jnp.concatenate(later, axis=1) if every_step else later[-1]
    assert_equal(gradient(rule_of(shared=False), graph, model, x, y, state), of_jax(model, x, y), 1e-12)


@pytest.mark.parametrize("vertex_at", ["post", "pre"])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_with_one_hidden_layer_it_is_feedback_alignment(x64, vertex_at, activation):
    """T-i2: at rates and at potentials; the derivative of the activation is there once, in both."""
    net = vc.nn.MLP((5, 6, 3), activation=activation, vertex_at=vertex_at, key=KEY)
    model, graph, x, y = task_of(double(net), (5,))
    state = rule_of().init(graph, model, key=KEY)
    fed = vc.feedback.attach(model, vc.feedback.given({"layers[1].weight": state["hidden1"].T}))
    expected = Backprop(loss=loss_of_all).value_and_grad(vc.capture(fed, x[0]), fed, (), x, y)[1]
    found = gradient(rule_of(), graph, model, x, y, state)
    assert_equal(found.layers[0], expected.layers[0], 1e-13)
    assert_equal(found.layers[1], expected.layers[1].layer, 1e-13)


@pytest.mark.parametrize("name", ["mlp", "convolutional"])
def test_rates_and_potentials_are_one_rule(x64, name):
    """An ordinary net is the same function with vertices at either, and Nøkland's rule is the same too."""
    build = {
        "mlp": lambda at: vc.nn.MLP((5, 6, 4, 3), vertex_at=at, key=KEY),
        "convolutional": lambda at: vc.nn.ConvNet((2, 7, 7), [(3, 3, 2)], (4, 3), vertex_at=at, key=KEY),
    }[name]
    shape = (5,) if name == "mlp" else (2, 7, 7)
    found = [
        gradient(rule_of(), *ours[1:2], ours[0], *ours[2:])
        for ours in (task_of(double(build(at)), shape) for at in ("post", "pre"))
    ]
    assert_equal(*found, 1e-13)


def test_the_published_rule_by_hand(x64):
    model, graph, x, y = task("mlp, potentials")
    state = rule_of().init(graph, model, key=KEY)
    z1 = x @ model.layers[0].weight.T + model.layers[0].bias[None]
    z2 = jnp.tanh(z1) @ model.layers[1].weight.T + model.layers[1].bias[None]
    error = y - jnp.tanh(z2) @ model.layers[2].weight.T - model.layers[2].bias[None]
    d1, d2 = ((1 - jnp.tanh(z) ** 2) * (error @ b.T) for z, b in ((z1, state["hidden1"]), (z2, state["hidden2"])))
    found = gradient(rule_of(), graph, model, x, y, state)
    for layer, d, a in zip(found.layers, (d1, d2, error), (x, jnp.tanh(z1), jnp.tanh(z2)), strict=True):
        np.testing.assert_allclose(layer.weight, -d.T @ a / 3, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(layer.bias, -d.mean(0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", MODELS)
def test_exact_limits_on_every_architecture(x64, name):
    """T-i3, T-i4: modules of one vertex, and mixed errors of weight 0, are backpropagation; of weight 1, plain."""
    model, graph, x, y = task(name)
    single = [[name] for name in (*graph.vertices, "output")]
    rules = {"single": rule_of(modules=single), "zero": rule_of(hybrid=0), "plain": rule_of(), "one": rule_of(hybrid=1)}
    states = {name: rule.init(graph, model, key=KEY) for name, rule in rules.items()}
    assert states["single"] == {}
    found = eqx.filter_jit(
        lambda model: {r: rule.value_and_grad(graph, model, states[r], x, y)[1] for r, rule in rules.items()}
    )(model)
    expected = of_jax(model, x, y)
    assert_equal(found["single"], expected)
    assert_equal(found["zero"], expected)
    assert_equal(found["one"], found["plain"])
    assert furthest(found["plain"], expected) > 1e-3


# ---------------------------------------------------------------------------------------------------------- modules


@pytest.mark.parametrize("boundary", ["bp", "direct"])
def test_one_module_is_plain(x64, boundary):
    model, graph, x, y = task("mlp, potentials")
    plain = gradient(rule_of(), graph, model, x, y)
    for whole in ([graph.vertices], [[*graph.vertices, "output"]]):
        assert_equal(gradient(rule_of(modules=whole, boundary=boundary), graph, model, x, y), plain, 1e-14)


def deep(vertex_at="pre"):
    return task_of(double(vc.nn.MLP((5, 6, 4, 6, 4, 3), vertex_at=vertex_at, key=KEY)), (5,))


@pytest.mark.parametrize("boundary", ["bp", "direct"])
def test_errors_inside_modules_come_from_the_modules_output(x64, boundary):
    model, graph, x, y = deep()
    rule = rule_of(modules=[["hidden1", "hidden2"], ["hidden3"], ["hidden4"]], boundary=boundary)
    state = rule.init(graph, model, key=KEY)
    boundaries = {} if boundary == "bp" else {"hidden2": (4, 6), "hidden3": (6, 3)}
    assert {name: b.shape for name, b in state.items()} == {"hidden1": (6, 4), "hidden4": (4, 3)} | boundaries
    credit, _ = rule.credit(graph, model, state, x, y)
    exact, _ = Backprop(loss=loss_of_all).credit(graph, model, (), x, y)

    def projected(name, error):
        return (1 - jnp.tanh(credit.values[name]) ** 2) * (error @ state[name].T)

    e4 = projected("hidden4", credit.output_error)
    e3 = exact.errors["hidden3"] if boundary == "bp" else projected("hidden3", credit.output_error)
    e2 = exact.errors["hidden2"] if boundary == "bp" else projected("hidden2", e3)
    expected = {"hidden1": projected("hidden1", e2), "hidden2": e2, "hidden3": e3, "hidden4": e4}
    assert_equal(credit.errors, expected, 1e-13)


# ----------------------------------------------------------------------------------------------------------- hybrid


@pytest.mark.parametrize("boundary", ["bp", "direct"])
def test_mixed_errors_by_hand(x64, boundary):
    model, graph, x, y = deep("post")
    rule = rule_of(modules=[["hidden1", "hidden2"], ["hidden3", "hidden4"]], boundary=boundary, hybrid=0.3)
    state = rule.init(graph, model, key=KEY)
    credit, _ = rule.credit(graph, model, state, x, y)
    exact, _ = Backprop(loss=loss_of_all).credit(graph, model, (), x, y)
    h, w, e = credit.values, [layer.weight for layer in model.layers], credit.output_error
    e4 = 0.7 * e @ w[4] + 0.3 * e @ state["hidden4"].T
    e3 = 0.7 * ((1 - h["hidden4"] ** 2) * e4) @ w[3] + 0.3 * e @ state["hidden3"].T
    carried = ((1 - h["hidden3"] ** 2) * e3) @ w[2]
    e2 = exact.errors["hidden2"] if boundary == "bp" else 0.7 * carried + 0.3 * e @ state["hidden2"].T
    e1 = 0.7 * ((1 - h["hidden2"] ** 2) * e2) @ w[1] + 0.3 * e2 @ state["hidden1"].T
    assert_equal(credit.errors, {"hidden1": e1, "hidden2": e2, "hidden3": e3, "hidden4": e4}, 1e-13)


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


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_is_its_toeplitz_matrix(x64, name):
    """T-i5: the taps laid out by hand, one after another."""
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


@pytest.mark.parametrize(("height", "size", "stride"), [(7, 3, 2), (11, 3, 2), (28, 5, 2), (28, 5, 1), (9, 3, 3)])
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


def convolutional():
    return task("convolutional")


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
    credit, _ = rule_of().credit(graph, model, state, x, y)
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
    credit, _ = rule_of().credit(graph, model, state, x, y)
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


# --------------------------------------------------------------------------------------------- locality and training


@pytest.mark.parametrize("name", ["mlp", "mlp, potentials", "convolutional", "recurrent, each step"])
def test_errors_do_not_depend_on_the_weights_above(x64, name):
    """Other weights above and a target moved along with the output: the errors stay, but for backpropagation's."""
    model, graph, x, y = task(name)
    last = (lambda m: m.output_layer) if "recurrent" in name else (lambda m: m.layers[-1])
    other = eqx.tree_at(lambda m: last(m).weight, model, replace_fn=lambda w: jnp.flip(w) - 0.2)
    moved = y + graph.feedforward(other, x)[0] - graph.feedforward(model, x)[0]

    def distance(rule):
        state = rule.init(graph, model, key=KEY)
        before, after = (rule.credit(graph, m, state, x, t)[0].errors for m, t in ((model, y), (other, moved)))
        return furthest(before, after)

    assert distance(rule_of()) < 1e-14
    assert distance(rule_of(hybrid=0.5)) > 1e-3
    assert distance(Backprop(loss=loss_of_all)) > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_on_every_architecture(name):
    model, shape = MODELS[name]()
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    graph, rule, optimizer = vc.capture(model, x[0]), rule_of(), optax.adam(3e-3)
    y = jax.tree.map(lambda o: o + jax.random.normal(jax.random.key(2), o.shape), graph.feedforward(model, x)[0])
    arrays, static = eqx.partition(model, eqx.is_array)
    projections = rule.init(graph, model, key=KEY)

    def body(carry, _):
        arrays, *states = carry
        model, *states, loss, _ = rule.step(graph, optimizer, eqx.combine(arrays, static), *states, x, y)
        return (eqx.filter(model, eqx.is_array), *states), loss

    start = (arrays, optimizer.init(eqx.filter(model, eqx.is_inexact_array)), projections)
    (ended, _, kept), losses = jax.jit(lambda carry: jax.lax.scan(body, carry, length=400))(start)
    assert losses[-1] < 0.5 * losses[0]
    assert furthest(kept, projections) == 0
    changed = [bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(ended), jax.tree.leaves(arrays), strict=True)]
    assert np.mean(changed) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("vertex_at", ["post", "pre"])
def test_digits_are_learned_and_the_weights_align(vertex_at):
    data = vc.data.load("digits").flattened()
    model = vc.nn.MLP((64, 64, 64, 10), vertex_at=vertex_at, key=KEY)
    rule, graph = DirectFeedback(), vc.capture(model, data.x_train[0])
    run = vc.train.fit(
        rule, model, optax.adam(1e-3), data, key=jax.random.key(1), epochs=8, batch_size=32, progress=False, graph=graph
    )
    assert run.records[-1]["test_accuracy"] > 0.85  # chance is .1
    x, y = jnp.asarray(data.x_train[:500]), jnp.asarray(data.y_train[:500])
    found = {}
    for when, now in (("before", model), ("after", run.state.model)):
        ours = rule.value_and_grad(graph, now, run.state.rule_state, x, y)[1]
        found[when] = vc.analysis.angles(ours, Backprop().value_and_grad(graph, now, (), x, y)[1])
    for layer in ("layers[0].weight", "layers[1].weight"):
        assert found["after"][layer] < 70 < found["before"][layer]


def test_numbers_of_the_recipe():
    rule, _ = vc.recipes.recipe("dfa").make(**{"projector.scale": 0.5, "hybrid": 0.25})
    assert (float(rule.projector.scale), float(rule.hybrid)) == (0.5, 0.25)
    assert vc.recipes.recipe("dfa").make()[0].hybrid is None
    traced = jax.jit(lambda rho: vc.recipes.recipe("dfa").make(hybrid=rho)[0].hybrid * 2)
    assert float(traced(0.25)) == 0.5


# ---------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"projector": 3}, TypeError, "expected a projector of vicinal.rules.projectors, or some by name, got 3"),
        ({"projector": {"hidden1": "dense"}}, TypeError, "expected a projector .* got 'dense'"),
        ({"boundary": "exact"}, ValueError, "expected boundary as 'bp' or 'direct', got 'exact'"),
        ({"hybrid": 1.5}, ValueError, r"hybrid, in \[0, 1\], got 1.5"),
        ({"modules": ("hidden1", "hidden2")}, TypeError, "expected modules as groups of names"),
        ({"modules": []}, ValueError, "expected at least one module"),
        ({"modules": [["hidden1"], []]}, ValueError, "a vertex in each"),
        ({"loss": "mse"}, TypeError, "expected a loss as a function"),
    ],
)
def test_wrong_settings_are_refused(settings, error, words):
    with pytest.raises(error, match=words):
        DirectFeedback(**settings)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Sparse(0.0), r"expected the density in \(0, 1\], got 0.0"),
        (lambda: Broadcast(2), "expected an odd kernel size, got 2"),
        (lambda: DilatedConvolution(3, dilation=0), "expected the dilation as an integer of at least 1, got 0"),
        (lambda: DilatedConvolution(3, groups=1.5), "expected the groups as an integer"),
    ],
)
def test_wrong_projectors_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"modules": [["conv1"], ["hidden1"]]}, "expected every vertex in a module, got none for 'conv2'"),
        ({"modules": [["conv1", "conv2"], ["hidden"]]}, "vertices known among conv1, conv2, hidden1, output, got 'hid"),
        ({"modules": [["conv1", "conv2"], ["conv2", "hidden1"]]}, "that are each named once among .*, got 'conv2'"),
        ({"modules": [["conv2", "conv1"], ["hidden1"]]}, "in the order of the graph, .*, got 'conv2' too early"),
        ({"modules": [["conv1", "output"], ["conv2", "hidden1"]]}, "each named once|order of the graph"),
        (
            {"projector": {"conv3": Dense()}},
            "expected projectors for vertices of conv1, conv2, hidden1, got .* 'conv3'",
        ),
        ({"projector": {"hidden1": Broadcast(3)}}, r"got \[3\] to \[6\], for vertex 'hidden1'; give it another"),
        ({"projector": DilatedConvolution(3)}, "no vertex that DilatedConvolution fits; take Dense, or modules"),
        (
            {"projector": {"conv1": DilatedConvolution(3, groups=2)}, "modules": [["conv1", "conv2"], ["hidden1"]]},
            r"multiples of the groups, 2, got \[4, 3, 3\] to \[3, 7, 7\], for vertex 'conv1'",
        ),
    ],
)
def test_what_does_not_fit_the_graph_is_refused(x64, settings, words):
    model, graph, _, _ = convolutional()
    with pytest.raises(ValueError, match=words):
        rule_of(**settings).init(graph, model, key=KEY)


def test_a_map_is_not_projected_to_a_smaller_one():
    assert "at least as high and wide" in DilatedConvolution(3).misfit((2, 8, 8), (2, 4, 8))


def test_a_key_and_the_state_are_needed(x64):
    model, graph, x, y = task("mlp")
    with pytest.raises(ValueError, match="expected a key to draw the projections with"):
        rule_of().init(graph, model)
    for state in ((), {"hidden1": jnp.ones((6, 3))}):
        with pytest.raises(ValueError, match="expected the projections of hidden1, hidden2 as state, got"):
            rule_of().value_and_grad(graph, model, state, x, y)


def test_a_projector_of_ones_own(x64):
    class Same(Projector):
        """The mean of the error, everywhere."""

        scale: jax.Array = eqx.field(converter=jnp.asarray, default=1.0)

        def draw(self, source, target, dtype, *, key):
            return self.scale.astype(dtype)

        def project(self, weights, error, target):
            return jnp.broadcast_to(weights * jnp.mean(error), target)

    model, graph, x, y = task("mlp")
    credit, _ = rule_of(Same(2.0)).credit(graph, model, rule_of(Same(2.0)).init(graph, model, key=KEY), x, y)
    expected = jnp.broadcast_to(2 * jnp.mean(credit.output_error, axis=1, keepdims=True), (3, 6))
    np.testing.assert_allclose(credit.errors["hidden1"], expected, rtol=1e-13)
