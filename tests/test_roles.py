"""Roles: what an optimiser trains of a model, and what it must leave alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vicinal as vc
from vicinal.roles import roles_of

KEY = jax.random.key(0)
X, Y = jax.random.normal(jax.random.key(1), (8, 3)), jnp.arange(8) % 2


def normalised(parameters, x):
    h = vc.vertex(jnp.tanh((parameters["weight"] @ x - parameters["mean"]) / parameters["scale"]), "h")
    return parameters["out"] @ h


def build():
    k1, k2 = jax.random.split(KEY)
    arrays = {
        "weight": jax.random.normal(k1, (4, 3)),
        "mean": jnp.full(4, 0.3),
        "scale": jnp.full(4, 2.0),
        "out": jax.random.normal(k2, (2, 4)),
    }
    return jax.tree_util.Partial(normalised, arrays)


def stepped(graph, model, optimizer, rule=None, steps=3):
    rule = vc.rules.Backprop() if rule is None else rule
    memory, state = optimizer.init(graph.trainable(model)), rule.init(graph, model, key=KEY)
    step = eqx.filter_jit(rule.step)
    for i in range(steps):
        model, memory, state, *_ = step(graph, optimizer, model, memory, state, X, Y, key=jax.random.fold_in(KEY, i))
    return model


def test_roles_of_what_is_chosen():
    graph = vc.capture(build(), X[0], fixed=lambda m: m.args[0]["scale"], state=lambda m: [m.args[0]["mean"]])
    named = {path.split("'")[1]: role for path, role in graph.roles.items()}
    assert named == {"weight": "parameter", "mean": "state", "scale": "fixed", "out": "parameter"}


@pytest.mark.parametrize(
    "rule",
    [vc.rules.Backprop(), vc.rules.InferenceLearning(), vc.rules.IncrementalPC(steps=2), vc.rules.ImplicitSGD()],
    ids=lambda rule: type(rule).__name__,
)
def test_weight_decay_leaves_what_is_no_parameter_alone(rule):
    model = build()
    graph = vc.capture(model, X[0], fixed=lambda m: m.args[0]["scale"], state=lambda m: m.args[0]["mean"])
    after = stepped(graph, model, optax.adamw(0.1, weight_decay=0.5), rule).args[0]
    assert np.array_equal(after["mean"], np.full(4, 0.3, np.float32))
    assert np.array_equal(after["scale"], np.full(4, 2.0, np.float32))
    assert not np.allclose(after["weight"], model.args[0]["weight"], atol=0.05)


def test_the_gradient_of_the_rest_is_that_of_the_whole():
    model = build()
    whole, part = (vc.capture(model, X[0], fixed=fixed) for fixed in (None, lambda m: m.args[0]["mean"]))
    rule = vc.rules.InferenceLearning()
    expected, found = (rule.value_and_grad(graph, model, (), X, Y)[1].args[0] for graph in (whole, part))
    assert found["mean"] is None
    assert float(jnp.max(jnp.abs(expected["mean"]))) > 1e-3
    for name in ("weight", "scale", "out"):
        assert np.array_equal(found[name], expected[name])


def test_a_model_of_parameters_alone_is_as_it_was():
    model = vc.nn.MLP((3, 4, 2), key=KEY)
    graph = vc.capture(model, X[0])
    expected = eqx.filter(model, eqx.is_inexact_array)
    assert jax.tree.structure(graph.trainable(model)) == jax.tree.structure(expected)
    assert set(graph.roles.values()) == {"parameter"}
    whole = eqx.combine(*graph.partition(model))
    assert eqx.tree_equal(whole, model)


def test_fixed_feedback_needs_no_mask():
    model = vc.feedback.attach(vc.nn.MLP((3, 4, 2), key=KEY), vc.feedback.random(), key=KEY)
    graph = vc.capture(model, X[0])
    for optimizer in (vc.optim.nlms(0.1), vc.optim.mq(0.01), optax.adamw(0.01, weight_decay=0.5)):
        after = stepped(graph, model, optimizer, vc.rules.InferenceLearning())
        for layer, before in zip(after.layers, model.layers, strict=True):
            assert np.array_equal(layer.path.feedback, before.path.feedback)
            assert not np.array_equal(layer.layer.weight, before.layer.weight)


def test_feedback_that_learns_is_trained():
    for route, role in ((vc.feedback.kolen_pollack(), "parameter"), (vc.feedback.weight_mirror(), "feedback")):
        model = vc.feedback.attach(vc.nn.MLP((3, 4, 2), key=KEY), route, key=KEY)
        graph = vc.capture(model, X[0])
        assert {r for path, r in graph.roles.items() if path.endswith(".path.feedback")} == {role}
        assert graph.trainable(model).layers[0].path.feedback is not None


def test_states_of_other_libraries_are_recognised():
    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="ema")
    model = eqx.Partial(eqx.nn.inference_mode(layer), state=state)
    roles = [role for role in roles_of(model) if role]
    assert roles.count("parameter") == 2
    assert roles.count("state") == len(jax.tree.leaves(state))
    whole = eqx.nn.BatchNorm(3, "batch", mode="ema")  # its first state still inside
    assert [r for r in roles_of(whole) if r].count("state") == len(jax.tree.leaves(state))
    flax = {"params": {"kernel": jnp.ones(2)}, "batch_stats": {"mean": jnp.ones(2), "var": jnp.ones(2)}}
    assert roles_of(flax) == ("state", "state", "parameter")
    assert roles_of([{"params": {"w": jnp.ones(2)}, "gain": jnp.ones(2)}]) == ("parameter", "parameter")


def test_variables_of_nnx_are_recognised():
    nnx = pytest.importorskip("flax.nnx")
    _, state = nnx.split(nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    flat = jax.tree_util.tree_flatten_with_path(state)[0]
    found = {path[0].key: role for (path, _), role in zip(flat, roles_of(state), strict=True)}
    assert found == {"bias": "parameter", "scale": "parameter", "mean": "state", "var": "state"}


def test_wrong_choices_are_refused():
    model = build()
    with pytest.raises(ValueError, match="`fixed` to choose arrays of the model, got none"):
        vc.capture(model, X[0], fixed=lambda m: [])
    with pytest.raises(ValueError, match="fixed or state, got one that is both"):
        vc.capture(model, X[0], fixed=lambda m: m.args, state=lambda m: m.args[0]["mean"])


def test_a_module_whose_arrays_would_be_hidden_is_refused():
    with pytest.raises(TypeError, match=r"equinox\.Partial"):
        vc.capture(jax.tree_util.Partial(vc.nn.MLP((3, 4, 2), key=KEY)), X[0])


def test_an_optimisers_state_for_other_arrays_is_refused():
    model, optimizer, rule = build(), optax.adam(0.1), vc.rules.Backprop()
    graph = vc.capture(model, X[0], fixed=lambda m: m.args[0]["scale"])
    memory = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    with pytest.raises(ValueError, match=r"optimizer\.init\(graph\.trainable\(model\)\)"):
        eqx.filter_eval_shape(rule.step, graph, optimizer, model, memory, (), X, Y)


def test_the_distance_moved_is_that_of_parameters():
    before = {"norm": vc.nn.BatchNorm(2), "weight": jnp.zeros(2)}
    after = eqx.tree_at(lambda m: (m["norm"].running.mean, m["weight"]), before, (jnp.ones(2), jnp.array([3.0, 4.0])))
    assert float(vc.analysis.displacement(before, after)) == 5.0


def test_what_is_fixed_is_said_by_a_function_that_leaves_something():
    model = vc.nn.MLP((3, 4, 2), key=jax.random.key(0))
    with pytest.raises(TypeError, match="expected `fixed` as a function from the model"):
        vc.capture(model, jnp.ones(3), fixed=["layers"])
    with pytest.raises(ValueError, match="leave something to train"):
        vc.capture(model, jnp.ones(3), fixed=lambda model: model)
