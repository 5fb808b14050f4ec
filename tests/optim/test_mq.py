"""Matrix update equalisation: its fixed point, its recursion, its memory, and what shares a step size."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc

KEY = jax.random.key(0)


def parameters(model):
    return eqx.filter(model, eqx.is_inexact_array)


def state_of(model, **settings):
    """The state that a model, or a function that makes one, would start with: the shapes only."""
    made = eqx.filter_eval_shape(lambda: parameters(model() if isinstance(model, functools.partial) else model))
    return jax.eval_shape(vc.optim.mq(0.1, **settings).init, made)


def labels_of(model, **settings):
    return set(state_of(model, **settings).scale)


def first_size(gradient, **settings):
    """The sizes of the first gradient: the scales after one update are the mean of these and the learning rate."""
    optimizer = vc.optim.mq(0.1, **settings)
    _, state = jax.jit(lambda: optimizer.update(gradient, optimizer.init(gradient)))()
    return {name: 2 * scale - 0.1 for name, scale in state.scale.items()}


def run(optimizer, params, gradients):
    """The updates along a stack of gradients, compiled as a loop, and the last state."""

    def body(state, gradient):
        update, state = optimizer.update(gradient, state)
        return state, update

    state, updates = jax.lax.scan(body, optimizer.init(params), gradients)
    return updates, state


def test_every_matrix_moves_by_the_learning_rate_whatever_its_gradient(x64):
    rate, steps = 3e-5, 4000
    layers = [{"weight": jnp.ones((20, 30)), "bias": jnp.ones(20)} for _ in range(2)]
    noise = jax.tree.map(lambda leaf: jax.random.normal(KEY, (steps, *leaf.shape)), layers)
    gradients = [jax.tree.map(lambda g, s=s: s * g, layer) for layer, s in zip(noise, (1.0, 1e-4), strict=True)]
    updates, state = run(vc.optim.mq(rate, floor=0.0, eps=0.0), layers, gradients)
    moves = [np.abs(np.asarray(layer["weight"]))[steps // 2 :].mean() for layer in updates]
    np.testing.assert_allclose(moves, rate, rtol=1e-3)
    # The two gradients differ by a factor alone, and so the updates come to be the same.
    np.testing.assert_allclose(updates[0]["bias"][steps // 2 :], updates[1]["bias"][steps // 2 :], rtol=1e-3)
    half_normal = np.sqrt(2 / np.pi)  # the mean absolute value of a standard normal number
    found = [float(state.scale[f"[{i}]"]) for i in range(2)]
    np.testing.assert_allclose(found, [half_normal, 1e-4 * half_normal], rtol=1e-3)


def test_one_number_for_each_matrix_and_a_count():
    for model, matrices in (
        (functools.partial(vc.nn.MLP, (5, 4, 3, 2), key=KEY), 3),
        (functools.partial(vc.nn.MLP, (5, 4, 3), use_bias=False, key=KEY), 2),
        (functools.partial(vc.nn.ConvNet, (1, 6, 6), [(2, 3, 2)], (4, 3), key=KEY), 3),
        (functools.partial(vc.nn.RNN, 3, 4, 2, key=KEY), 3),
    ):
        state = state_of(model)
        assert sum(leaf.size for leaf in jax.tree.leaves(state.scale)) == matrices
        assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.scale))
        assert state.count.dtype == jnp.int32
        assert len(jax.tree.leaves(state)) == matrices + 1


def by_hand(layers, gradients, rate, floor, eps, cap):
    """The equations, in a loop."""
    layers = [{name: leaf.copy() for name, leaf in layer.items()} for layer in layers]
    scales = [rate for _ in layers]
    for n in range(len(gradients[0]["weight"])):
        for i, layer in enumerate(layers):
            step = rate / (scales[i] + eps) + floor
            for name in layer:
                layer[name] -= step * gradients[i][name][n]
            m = min((n + 1) / (n + 2), cap)
            whole = np.concatenate([gradients[i][name][n].ravel() for name in layer])
            scales[i] = m * scales[i] + (1 - m) * np.abs(whole).mean()
    return layers, scales


@pytest.mark.parametrize("settings", [{"floor": 0.01, "eps": 1e-3, "cap": 0.5}, {"floor": 0.001, "eps": 1e-6}])
def test_ten_updates_by_hand(x64, settings):
    rng = np.random.default_rng(0)
    layers = [{"weight": rng.normal(size=shape), "bias": rng.normal(size=shape[0])} for shape in ((4, 3), (2, 4))]
    gradients = [{k: rng.normal(size=(10, *v.shape)) * 10.0**-i for k, v in p.items()} for i, p in enumerate(layers)]
    expected, scales = by_hand(layers, gradients, 0.02, **{"cap": 0.9999} | settings)
    optimizer = vc.optim.mq(0.02, **settings)
    params = jax.tree.map(jnp.asarray, layers)
    state = optimizer.init(params)
    step = jax.jit(optimizer.update)
    for n in range(10):
        update, state = step(jax.tree.map(lambda g, n=n: jnp.asarray(g[n]), gradients), state)
        params = optax.apply_updates(params, update)
    for found, wanted in zip(params, expected, strict=True):
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12)
    np.testing.assert_allclose([state.scale["[0]"], state.scale["[1]"]], scales, rtol=1e-12)
    assert int(state.count) == 10


def test_the_bias_takes_the_step_of_its_matrix_and_counts_in_the_mean(x64):
    gradient = {"weight": jnp.full((2, 3), 0.5), "bias": jnp.full(2, 100.0)}
    optimizer = vc.optim.mq(0.1, floor=0.0, eps=0.0)
    _, state = optimizer.update(gradient, optimizer.init(gradient))
    update, _ = optimizer.update(gradient, state)
    scale = (0.1 + (6 * 0.5 + 2 * 100.0) / 8) / 2
    np.testing.assert_allclose(state.scale[""], scale, rtol=1e-12)
    np.testing.assert_allclose(update["weight"], -0.1 / scale * 0.5, rtol=1e-12)
    np.testing.assert_allclose(update["bias"], -0.1 / scale * 100, rtol=1e-12)


def test_what_shares_a_step_size_by_default():
    make, layers = functools.partial, {f".layers[{i}]" for i in range(2)}
    assert labels_of(make(vc.nn.MLP, (4, 3, 2), key=KEY)) == layers
    assert labels_of(make(vc.nn.MLP, (4, 3, 2), use_bias=False, key=KEY)) == layers
    network = make(vc.nn.ConvNet, (1, 6, 6), [(2, 3, 2)], (3,), key=KEY)
    assert labels_of(network) == {".convolutions[0].convolution", ".layers[0]"}
    stock = eqx.nn.Sequential([eqx.nn.LayerNorm(4), eqx.nn.Lambda(jnp.tanh), eqx.nn.Linear(4, 3, key=KEY)])
    assert labels_of(stock) == {".layers[0]", ".layers[2]"}
    several = {"w1": jnp.ones((3, 4)), "b1": jnp.ones(3), "w2": jnp.ones((2, 3)), "b2": jnp.ones(2)}
    assert labels_of(several) == {f"['{name}']" for name in several}
    assert labels_of([jnp.ones((3, 4)), jnp.ones((2, 3))]) == {"[0]", "[1]"}
    assert labels_of(jnp.ones((3, 4))) == labels_of(make(eqx.nn.Linear, 4, 3, key=KEY)) == {""}
    assert labels_of({}) == set()


def test_labels_as_a_tree_a_prefix_and_a_function():
    gradient = {
        "w1": jnp.full((3, 4), 1.0),
        "b1": jnp.full(3, 10.0),
        "w2": jnp.full((2, 3), 4.0),
        "b2": jnp.full(2, 100.0),
        "nothing": None,
    }
    tree = {"w1": "one", "b1": "one", "w2": "two", "b2": "biases", "nothing": None}
    expected = {"one": (12 * 1.0 + 3 * 10.0) / 15, "two": 4.0, "biases": 100.0}
    assert {k: float(v) for k, v in first_size(gradient, labels=tree).items()} == pytest.approx(expected)
    by_name = functools.partial(jax.tree_util.tree_map_with_path, lambda path, _: path[-1].key[-1])
    sizes = first_size(gradient, labels=by_name)
    assert {k: float(v) for k, v in sizes.items()} == pytest.approx(
        {"1": (12 * 1.0 + 3 * 10.0) / 15, "2": (6 * 4.0 + 2 * 100.0) / 8}
    )
    both = first_size(gradient, labels="all")["all"]
    np.testing.assert_allclose(both, (12 * 1.0 + 3 * 10.0 + 6 * 4.0 + 2 * 100.0) / 23, rtol=1e-6)


def test_labels_as_a_model():
    """A model of labels can be called, but is no function that gives labels."""
    params = parameters(vc.nn.MLP((4, 3, 2), key=KEY))
    labels = jax.tree.map(lambda leaf: "matrices" if leaf.ndim > 1 else "biases", params)
    assert labels_of(params, labels=labels) == {"matrices", "biases"}


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_dtypes(x64, dtype):
    gradient = {"weight": jnp.ones((2, 3), dtype), "bias": jnp.ones(2, dtype)}
    optimizer = vc.optim.mq(0.1)
    state = optimizer.init(gradient)
    assert state.scale[""].dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
    # `scan` demands that the state keeps its dtypes, and that none becomes weak or strong.
    updates, state = run(optimizer, gradient, jax.tree.map(lambda g: jnp.stack([g] * 4), gradient))
    assert updates["weight"].dtype == updates["bias"].dtype == jnp.dtype(dtype)
    scales = (0.1 + np.arange(4)) / (1 + np.arange(4))  # running means of gradients of 1, after the learning rate
    np.testing.assert_allclose(np.asarray(updates["weight"][:, 0, 0], float), -0.1 / scales - 0.001, rtol=4e-3)


def test_half_precision_does_not_stop_the_average():
    """The share of a new gradient, 1e-4, is less than half precision can add to a scale."""
    steps = 3000
    fall = jnp.where(jnp.arange(steps) < 500, 1.0, 0.25)[:, None, None]
    gradients = (fall * jnp.ones((steps, 2, 3))).astype(jnp.bfloat16)
    _, state = run(vc.optim.mq(0.1), gradients[0], gradients)
    np.testing.assert_allclose(state.scale[""], (0.1 + 500 * 1.0 + 2500 * 0.25) / 3001, rtol=1e-3)


def test_a_grid_of_learning_rates_equals_a_loop():
    params = {"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    gradients = jax.tree.map(lambda leaf: jax.random.normal(KEY, (5, *leaf.shape)), params)
    rates = jnp.asarray([0.001, 0.01, 0.1])

    def learn(rate):
        return run(vc.optim.mq(rate, floor=rate / 10), params, gradients)

    together = jax.jit(jax.vmap(learn))(rates)
    alone = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[learn(float(rate)) for rate in rates])
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), together, alone)


def test_a_schedule_gives_the_rate_of_each_update_and_the_first_scale():
    gradient = jnp.full((2, 3), 0.5)
    optimizer = vc.optim.mq(lambda count: 0.2 / (1 + count), floor=0.0, eps=0.0)
    np.testing.assert_allclose(optimizer.init(gradient).scale[""], 0.2, rtol=1e-6)
    updates, _ = run(optimizer, gradient, jnp.stack([gradient] * 4))
    n = np.arange(4)
    scales = (0.2 + 0.5 * n) / (1 + n)  # running means of gradients of .5, after the first rate
    np.testing.assert_allclose(-updates[:, 0, 0], 0.2 / (1 + n) / scales * 0.5, rtol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_no_gradient_is_no_change(rate, eps):
    nothing = {"weight": jnp.zeros((3, 2, 3)), "bias": jnp.zeros((3, 2))}
    updates, state = run(vc.optim.mq(rate, eps=eps), jax.tree.map(lambda leaf: leaf[0], nothing), nothing)
    for update in jax.tree.leaves(updates):
        np.testing.assert_array_equal(update, 0)
    assert float(state.scale[""]) == pytest.approx(rate / 4)
    gradient = {"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)}
    update, _ = vc.optim.mq(rate, eps=eps).update(gradient, state)
    assert np.isfinite(update["weight"]).all()


def stepped(rule, optimizer, model, state, x, y):
    """The gradient, then the model and the optimiser's state after a step."""
    graph = vc.capture(model, x[0])
    _, gradient, _, _ = eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)
    return gradient, *eqx.filter_jit(rule.step)(graph, optimizer, model, state, (), x, y)[:2]


@pytest.mark.parametrize("rule", [vc.rules.Backprop(), vc.rules.InferenceLearning()], ids=lambda r: type(r).__name__)
def test_a_step_of_a_rule_before_another_transformation(rule):
    rate, floor = 0.25, 0.125
    model = vc.nn.MLP((4, 3, 3), key=KEY)
    x, y = jax.random.normal(KEY, (5, 4)), jnp.arange(5) % 3
    optimizer = optax.chain(vc.optim.mq(rate, floor, eps=0.0), optax.scale(0.5))
    step = eqx.filter_jit(functools.partial(stepped, rule, optimizer))
    gradient, after, state = step(model, optimizer.init(parameters(model)), x, y)
    change = jax.tree.map(jnp.subtract, parameters(after), parameters(model))
    for found, g in zip(jax.tree.leaves(change), jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(found, -0.5 * (rate / rate + floor) * g, rtol=1e-4, atol=1e-6)
    for i in range(2):
        whole = np.concatenate([np.ravel(gradient.layers[i].weight), np.ravel(gradient.layers[i].bias)])
        np.testing.assert_allclose(state[0].scale[f".layers[{i}]"], (rate + np.abs(whole).mean()) / 2, rtol=1e-4)
    assert int(step(after, state, x, y)[-1][0].count) == 2


def test_a_step_of_a_model_with_empty_fields():
    """Without a bias, or pooling, there is None in the trees of parameters and gradients."""
    model = vc.nn.ConvNet((1, 6, 6), [(2, 3, 2)], (3,), use_bias=False, key=KEY)
    optimizer = vc.optim.mq(0.1)
    state = optimizer.init(parameters(model))
    x, y = jnp.ones((2, 1, 6, 6)), jnp.zeros(2, int)
    _, after, state_after = eqx.filter_eval_shape(stepped, vc.rules.Backprop(), optimizer, model, state, x, y)
    assert jax.tree.structure(after) == jax.tree.structure(model)
    assert jax.tree.structure(state_after) == jax.tree.structure(state)


def test_a_program_may_reuse_the_buffers_of_the_state():
    rate, params = jnp.asarray(0.1), [jnp.ones((3, 4)), jnp.ones((2, 3))]
    optimizer = vc.optim.mq(rate)
    _, state = jax.jit(optimizer.update, donate_argnums=1)(params, optimizer.init(params))
    assert not rate.is_deleted()
    assert int(state.count) == 1


def test_it_trains():
    digits = vc.data.load("digits").flattened().subset(200, 50)
    model = vc.nn.MLP((64, 16, 10), vertex_at="pre", key=KEY)
    settings = {"epochs": 6, "batch_size": 10, "progress": False}
    trained = vc.train.fit(vc.rules.Backprop(), model, vc.optim.mq(0.005), digits, key=KEY, **settings)
    assert trained.records[-1]["train_accuracy"] > 0.85


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": -0.1}, "expected the learning rate of at least 0, got -0.1"),
        (
            {"learning_rate": jnp.asarray([0.1, jnp.nan])},
            "expected the learning rate as a finite number of at least 0, got nan",
        ),
        ({"floor": -1.0}, "expected floor of at least 0, got -1"),
        ({"eps": -1.0}, "expected eps of at least 0, got -1"),
        ({"cap": 1.5}, r"expected cap in \[0, 1\], got 1.5"),
        ({"cap": -0.5}, r"expected cap in \[0, 1\], got -0.5"),
    ],
)
def test_numbers_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        vc.optim.mq(**{"learning_rate": 0.1} | settings)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"weight": "a"}, r"labels in a tree like the parameters, got PyTreeDef\(\{'weight': \*\}\); make them"),
        ({"weight": "a", "bias": None}, "labels in a tree like the parameters"),
        ({"weight": "a", "bias": ["b"]}, "labels in a tree like the parameters"),
        ({"weight": "a", "bias": 3}, "a string as the label of each parameter, got 3"),
        (lambda params: params, "a string as the label of each parameter, got "),
    ],
)
def test_labels_that_do_not_fit(labels, message):
    with pytest.raises(ValueError, match=f"expected {message}"):
        vc.optim.mq(0.1, labels=labels).init({"weight": jnp.ones((2, 3)), "bias": jnp.ones(2)})


def test_a_gradient_of_other_parameters():
    optimizer = vc.optim.mq(0.1)
    state = optimizer.init({"a": {"weight": jnp.ones((2, 3))}})
    with pytest.raises(ValueError, match=r"parameters that the state was made for.*'a'.*got.*'b'.*call init"):
        optimizer.update({"b": {"weight": jnp.ones((2, 3))}}, state)


@pytest.mark.parametrize(
    ("shapes", "groups"),
    [
        (((16, 1), (1, 16)), 2),
        (((16, 1), (16,), (1, 16), (1,)), 4),  # of a 1-16-1 network in one list: each its own
        (((16, 1), (16,)), 1),
        (((1, 3, 5, 5), (1, 1, 1)), 1),
        (((8, 3, 5), (8, 1)), 1),
    ],
)
def test_what_counts_as_a_matrix(shapes, groups):
    """A column, a row and a kernel are weights; a bias with axes of length 1 behind is none."""
    assert len(vc.optim.mq(0.1).init([jnp.ones(shape) for shape in shapes]).scale) == groups
