"""Dynamic inversion: where it comes to rest, when it does, and what it reads."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from inversion_builders import KEY, at_rest, credit, error_of, layers, linear, rule_of
from matrix import diagonal
from once import once
from precision import double

import vicinal as vc
from vicinal.inference import Result
from vicinal.rules.inversion import Allow, ClosedForm, PseudoInverse, Stabilise, Uniform


@once
def perceptron(place, batch=4):
    model = double(vc.nn.MLP((5, 8, 6, 3), vertex_at=place, key=KEY))
    x = jax.random.normal(jax.random.key(1), (batch, 5), jnp.float64)
    return model, vc.capture(model, x[0]), x, jax.random.normal(jax.random.key(2), (batch, 3), jnp.float64)


# -------------------------------------------------------------------------------------------- where it comes to rest


@pytest.mark.parametrize("place", ["pre", "post"])
@pytest.mark.parametrize(
    "kept", [{}, {"feedback": Uniform(), "stability": Stabilise()}], ids=["transpose", "stabilised"]
)
def test_the_loops_come_to_rest_at_the_closed_form(x64, place, kept):
    """Layer by layer down a network of tanh units, written out in NumPy for both places of a vertex."""
    task = model, _, x, y = perceptron(place)
    settings = {**kept, "leak": 0.05}
    found, state = credit(rule_of(**settings), task)
    assert np.all(found.info.result == Result.CONVERGED)

    (_, b1), (w2, b2), (w3, b3) = [(np.asarray(m.weight), np.asarray(m.bias)) for m in model.layers]
    first = np.asarray(x) @ np.asarray(model.layers[0].weight).T + b1
    second = np.tanh(first) @ w2.T + b2
    delta = at_rest(w3, np.asarray(state["hidden2"]), 0.05, np.asarray(y) - np.tanh(second) @ w3.T - b3)
    product = delta * (1 - np.tanh(second) ** 2)  # the error at the product below
    lower = at_rest(w2, np.asarray(state["hidden1"]), 0.05, product)
    expected = {"hidden2": product, "hidden1": lower * (1 - np.tanh(first) ** 2)}
    if place == "post":  # the local product brings the derivative of a rate
        expected = {"hidden2": delta, "hidden1": lower}
    reference, _ = credit(rule_of(inversion=ClosedForm(), **settings), task, state)
    for name, error in expected.items():
        np.testing.assert_allclose(found.errors[name], error, rtol=0, atol=1e-10)
        np.testing.assert_allclose(reference.errors[name], error, rtol=0, atol=1e-12)


def test_both_places_of_a_vertex_are_one_rule(x64):
    gradients = []
    for place in ("pre", "post"):
        model, graph, x, y = perceptron(place)
        rule = rule_of(inversion=ClosedForm())
        gradients.append(eqx.filter_jit(rule.value_and_grad)(graph, model, rule.init(graph, model), x, y)[1].layers)
    for ours, theirs in zip(jax.tree.leaves(gradients[0]), jax.tree.leaves(gradients[1]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)


def test_the_steps_are_those_of_euler_in_numpy(x64):
    task = model, _, x, y = linear(5, 4, 3)
    found, state = credit(rule_of(steps=17, tolerance=None, step_size=0.3, leak=0.2, activation="tanh"), task)
    weight, back, errors = np.asarray(model.args[0][1]), np.asarray(state["h0"]), error_of(model, x, y)
    for error, ended in zip(errors, np.asarray(found.errors["h0"]), strict=True):
        u, v = np.zeros(3), np.zeros(4)
        for _ in range(17):
            u, v = u + 0.3 * (weight @ np.tanh(v) - 0.2 * u - error), v + 0.3 * (back @ u - v)
        np.testing.assert_allclose(ended, v, rtol=0, atol=1e-13)
    assert np.all(found.info.steps == 17)
    assert np.all(found.info.result == Result.STEP_LIMIT)


@pytest.mark.parametrize(("sizes", "inversion"), diagonal([(5, 7, 3), (5, 3, 7)], [None, ClosedForm()]))
def test_minus_the_transpose_is_levenberg_marquardt(x64, sizes, inversion):
    """The hidden target is the damped least-squares step, and the update its local product."""
    task = model, graph, x, y = linear(*sizes)
    rule = rule_of(inversion, leak=0.3)
    found, state = credit(rule, task)
    weight, errors = np.asarray(model.args[0][1]), error_of(model, x, y)
    damped = np.vstack([weight, 0.3**0.5 * np.eye(sizes[1])])  # min |W d - e|^2 + leak |d|^2
    steps = [np.linalg.lstsq(damped, np.append(error, np.zeros(sizes[1])))[0] for error in errors]
    np.testing.assert_allclose(found.errors["h0"], np.stack(steps), rtol=0, atol=1e-11)
    update = -eqx.filter_jit(rule.value_and_grad)(graph, model, state, x, y)[1].args[0][0]
    expected = np.mean([np.outer(step, row) for step, row in zip(steps, np.asarray(x), strict=True)], axis=0)
    np.testing.assert_allclose(update, expected, rtol=0, atol=1e-11)


def test_without_a_leak_and_wide_it_is_the_gauss_newton_step(x64):
    """As the leak vanishes, the pseudo-inverse, which is the method's own reference."""
    task = linear(5, 7, 3)
    small, none = (credit(rule_of(inversion=ClosedForm(), leak=leak), task)[0].errors["h0"] for leak in (1e-9, 0.0))
    pseudo, state = credit(rule_of(inversion=PseudoInverse()), task)
    model, _, x, y = task
    expected = error_of(model, x, y) @ np.linalg.pinv(np.asarray(model.args[0][1])).T
    assert state == ()
    for found, within in ((small, 1e-7), (none, 1e-12), (pseudo.errors["h0"], 1e-12)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=within)


@pytest.mark.parametrize("sizes", [(5, 7, 3), (5, 3, 7), (5, 4, 4)])
def test_the_smaller_inverse_is_the_same(x64, sizes):
    """The push-through identity: `(B W - leak)^-1 B = B (W B - leak)^-1`."""
    task = model, _, x, y = linear(*sizes)
    found, state = credit(rule_of(inversion=ClosedForm(), feedback=Uniform(), leak=0.2, stability=Allow()), task)
    weight, back = np.asarray(model.args[0][1]), np.asarray(state["h0"])
    np.testing.assert_allclose(
        found.errors["h0"], at_rest(weight, back, 0.2, error_of(model, x, y)), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_stable_feedback_inverts_without_a_leak(x64, seed):
    """`W delta = e` for feedback that is neither the transpose nor the pseudo-inverse."""
    task = model, graph, x, y = linear(5, 9, 4, seed=seed)
    rule = rule_of(leak=0.0, feedback=Uniform(), stability=Stabilise())
    state = rule.init(graph, model, key=jax.random.key(seed))
    found, _ = credit(rule, task, state)
    weight, errors = np.asarray(model.args[0][1]), error_of(model, x, y)
    assert np.all(found.info.result == Result.CONVERGED)
    np.testing.assert_allclose(np.asarray(found.errors["h0"]) @ weight.T, errors, rtol=0, atol=1e-10)
    assert float(eqx.filter_jit(vc.analysis.angle)(state["h0"], -weight.T)) > 40
    assert np.max(np.abs(found.errors["h0"] - errors @ np.linalg.pinv(weight).T)) > 0.01


def test_a_bent_loop_inverts_what_it_bends(x64):
    """At rest without a leak `W tanh(v) = e`."""
    model, graph, x, y = linear(5, 9, 3)
    y = jax.vmap(model)(x) + 0.1 * y  # rates below 1 can do so much
    found, _ = credit(rule_of(leak=0.0, activation="tanh"), (model, graph, x, y))
    made = np.tanh(np.asarray(found.errors["h0"])) @ np.asarray(model.args[0][1]).T
    np.testing.assert_allclose(made, error_of(model, x, y), rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------------- the single loop


def test_a_single_loop_equals_the_layers_where_the_inverse_is_one(x64):
    """Layers of one width: `W^-1 e` at every vertex, whatever the feedback."""
    weights = [scipy.stats.ortho_group.rvs(4, random_state=i) * [0.9, 0.8, 1.0, 1.1] for i in range(4)]
    model = jax.tree_util.Partial(layers, [jnp.asarray(weight) for weight in weights])
    x, y = jax.random.normal(KEY, (2, 3, 4), jnp.float64)
    task = model, vc.capture(model, x[0]), x, y
    one, state = credit(rule_of(single_loop=True, leak=0.0, tolerance=1e-12), task)
    many, states = credit(rule_of(leak=0.0, tolerance=1e-12), task)
    assert (set(state), set(states)) == ({"h0"}, {"h0", "h1", "h2"})
    assert np.all(one.info.result == Result.CONVERGED)
    for name, error in many.errors.items():
        np.testing.assert_allclose(one.errors[name], error, rtol=0, atol=1e-9)


def test_a_single_loop_in_wide_layers(x64):
    """Both invert; they are the same inverse where the feedback is `B1 (W1 B1)^-1 B2`."""
    task = model, _, x, y = linear(5, 8, 6, 3)
    (_, w1, w2), errors = (np.asarray(w) for w in model.args[0]), error_of(model, x, y)
    many, states = credit(rule_of(inversion=ClosedForm(), leak=0.0), task)
    one, state = credit(rule_of(inversion=ClosedForm(), single_loop=True, leak=0.0), task)
    np.testing.assert_allclose(state["h0"], -(w2 @ w1).T, rtol=0, atol=1e-14)
    for found in (one, many):
        lower, upper = (np.asarray(found.errors[name]) for name in ("h0", "h1"))
        np.testing.assert_allclose(lower @ w1.T, upper, rtol=0, atol=1e-11)
        np.testing.assert_allclose(upper @ w2.T, errors, rtol=0, atol=1e-11)
    assert np.max(np.abs(one.errors["h1"] - many.errors["h1"])) > 0.01
    b1, b2 = np.asarray(states["h0"]), np.asarray(states["h1"])
    chosen = {"h0": jnp.asarray(b1 @ np.linalg.solve(w1 @ b1, b2))}
    same, _ = credit(rule_of(single_loop=True, leak=0.0, inversion=ClosedForm()), task, chosen)
    for name, error in many.errors.items():
        np.testing.assert_allclose(same.errors[name], error, rtol=0, atol=1e-11)


def test_a_single_loop_with_a_bend_copies_it(x64):
    task = model, _, _, _ = linear(5, 4, 4, 3)
    found, _ = credit(rule_of(single_loop=True, leak=0.1, activation="tanh"), task)
    copied = np.tanh(np.asarray(found.errors["h0"])) @ np.asarray(model.args[0][1]).T
    np.testing.assert_allclose(found.errors["h1"], copied, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------- along training


def test_angles_to_the_references(x64):
    task = model, graph, x, y = linear(5, 9, 4)
    rule = rule_of(leak=0.0, feedback=Uniform(), stability=Stabilise(), tolerance=1e-12)
    _, state = credit(rule, task)
    found = vc.analysis.inversion_angles(rule, graph, model, state, x, y)
    weight, back = np.asarray(model.args[0][1]), np.asarray(state["h0"])

    def degrees(a, b):
        return np.rad2deg(np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)))

    np.testing.assert_allclose(found.feedback["h0"], degrees(back, -weight.T), rtol=1e-9)
    assert float(found.closed_form["h0"]) < 1e-8
    errors = error_of(model, x, y)
    rest, pseudo = at_rest(weight, back, 0.0, errors), errors @ np.linalg.pinv(weight).T
    expected = np.mean([degrees(a, b) for a, b in zip(rest, pseudo, strict=True)])
    np.testing.assert_allclose(found.pseudo["h0"], expected, rtol=1e-9)
