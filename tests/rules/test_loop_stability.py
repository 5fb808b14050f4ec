"""Dynamic inversion's loops: whether they are stable, what makes them so, and what is said where they are not."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from inversion_builders import KEY, at_rest, credit, error_of, linear, rule_of

import vicinal as vc
from vicinal.analysis import smoothed_abscissa, stabilise
from vicinal.inference import Result
from vicinal.rules.inversion import Allow, ClosedForm, Dynamic, Refuse, Stabilise, Uniform
from vicinal.rules.inversion._eigenvalues import eigenvalues, grows, loop_matrix, worst
from vicinal.rules.inversion.stability import repaired


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4)])
@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_eigenvalues_are_those_of_the_whole_loop(shape, leak):
    generator = np.random.default_rng(1)
    weight, back = generator.normal(size=shape), generator.normal(size=shape[::-1])
    whole = np.linalg.eigvals(np.block([[-np.eye(shape[1]), back], [weight, -leak * np.eye(shape[0])]]))
    found = eigenvalues(weight, back, leak)
    distances = np.abs(found[:, None] - whole[None, :])
    assert len(found) == len(whole)
    assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 1e-6  # repeated ones split by some 1e-8
    np.testing.assert_allclose(np.sum(found), np.sum(whole), rtol=0, atol=1e-10)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_predicted_stability_is_what_happens(x64, sign):
    """`B = W^T` grows as its eigenvalue says; `B = -W^T` with steps just too long does, just short does not."""
    model, graph, x, y = linear(5, 4, 3)
    weight = np.asarray(model.args[0][1])
    back, errors = sign * 4 * weight.T, error_of(model, x, y)
    state, found = {"h0": jnp.asarray(back)}, eigenvalues(weight, back, 0.1)
    if sign > 0:
        assert np.max(found.real) > 0
        sizes = []
        for steps in (3000, 3001):
            rule = rule_of(leak=0.1, steps=steps, tolerance=None, step_size=0.05)
            done, _ = credit(rule, (model, graph, x, y), state)
            assert np.all(done.info.result == Result.DIVERGED)
            sizes.append(np.asarray(done.errors["h0"]))
        np.testing.assert_allclose(sizes[1] / sizes[0], 1 + 0.05 * worst(found, 0.05)[1], rtol=1e-3)
        return
    longest = np.min(-2 * found.real / np.abs(found) ** 2)  # |1 + h lambda| < 1
    for factor, stable in ((0.98, True), (1.02, False)):
        rule = rule_of(leak=0.1, steps=3000, step_size=factor * longest)
        done, _ = credit(rule, (model, graph, x, y), state)
        assert grows(found, factor * longest) != stable
        if stable:
            rest = at_rest(weight, back, 0.1, errors)
            np.testing.assert_allclose(done.errors["h0"], rest, rtol=0, atol=1e-10)
        else:
            assert np.all(done.info.result >= Result.DIVERGED)


def test_a_loop_that_overflows_says_so(x64):
    model, graph, x, y = linear(5, 4, 3)
    state = {"h0": 100 * model.args[0][1].T}
    done, _ = credit(rule_of(tolerance=None, steps=1000), (model, graph, x, y), state)
    assert np.all(done.info.result == Result.NON_FINITE)


def test_more_units_above_without_a_leak_drift_and_still_answer(x64):
    """No units below can answer all of the error: the controller drifts, what is below comes to rest."""
    task = model, _, x, y = linear(5, 3, 6)
    done, _ = credit(rule_of(leak=0.0, steps=3000), task)
    assert np.all(done.info.result == Result.CONVERGED)
    expected = error_of(model, x, y) @ np.linalg.pinv(np.asarray(model.args[0][1])).T
    np.testing.assert_allclose(done.errors["h0"], expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_the_smoothed_abscissa_is_what_it_says(shape):
    """Its definition as an integral over time; its gradient by finite differences."""
    generator = np.random.default_rng(2)
    weight, back = generator.normal(size=shape), generator.normal(size=shape[::-1])
    found, identity = smoothed_abscissa(weight, back, 0.1, smoothing=0.5), np.eye(sum(shape))
    matrix = loop_matrix(weight, back, 0.1)
    assert found.value >= np.max(np.linalg.eigvals(matrix).real) + 0.25
    size, _ = scipy.integrate.quad(
        lambda t: np.sum(scipy.linalg.expm((matrix - found.value * identity) * t) ** 2), 0, 60, epsabs=1e-9, limit=200
    )
    np.testing.assert_allclose(size, 1 / 0.5, rtol=1e-6)
    for i, j in ((0, 0), (1, 3), (3, 2)):
        change = np.zeros_like(back)
        change[i, j] = 1e-5
        values = [smoothed_abscissa(weight, back + s * change, 0.1, smoothing=0.5).value for s in (1, -1)]
        np.testing.assert_allclose((values[0] - values[1]) / 2e-5, found.gradient[i, j], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("shape", "leak"), [((10, 20), 0.0), ((10, 20), 0.01), ((12, 8), 0.05)])
def test_random_feedback_is_made_stable(shape, leak):
    generator = np.random.default_rng(3)
    weight = generator.normal(size=shape) / shape[1] ** 0.5
    before = generator.uniform(-0.5, 0.5, size=shape[::-1])
    assert np.max(np.linalg.eigvals(loop_matrix(weight, before, leak)).real) > 0
    after, growth, reached = stabilise(weight, before, leak, step_size=0.5)
    ended = np.linalg.eigvals(loop_matrix(weight, after, leak))
    assert np.max(ended.real) < 0
    assert np.max(np.abs(1 + 0.5 * ended)) < 1
    assert stabilise(weight, after, leak, step_size=0.5).feedback is after
    assert reached
    np.testing.assert_allclose(growth, (np.max(np.abs(1 + 0.5 * ended)) - 1) / 0.5, rtol=0, atol=1e-7)
    # It is still no transpose.
    assert float(eqx.filter_jit(vc.analysis.angle)(jnp.asarray(after), jnp.asarray(-weight.T))) > 30


def test_an_unstable_loop_is_refused_by_name(x64):
    model, graph, _, _ = linear(5, 9, 7, 6)
    with pytest.raises(ValueError, match=r"expected a stable loop at vertex 'h1', got the eigenvalue .*Allow"):
        rule_of(feedback=Uniform()).init(graph, model, key=KEY)
    rule_of(feedback=Uniform(), stability=Allow()).init(graph, model, key=KEY)
    rule_of(feedback=Uniform(), inversion=ClosedForm()).init(graph, model, key=KEY)
    rule_of(feedback=Uniform(), stability=Stabilise()).init(graph, model, key=KEY)
    with pytest.raises(ValueError, match=r"'h1', got the eigenvalue -.* take a step_size below"):
        rule_of(step_size=1.9).init(graph, model)


def test_repair_keeps_a_loop_stable_while_weights_change(x64):
    """A weight that turns its sign makes a loop unstable; repaired, it goes on inverting."""
    model, graph, x, y = linear(5, 6, 3)
    rule = rule_of(leak=0.0, stability=Stabilise(repair=True))
    state = rule.init(graph, model)
    turned = eqx.tree_at(lambda m: m.args[0][1], model, replace_fn=jnp.negative)
    step = eqx.filter_jit(rule.credit)
    _, kept = step(graph, model, state, x, y)
    np.testing.assert_array_equal(kept["h0"], state["h0"])
    found, after = step(graph, turned, state, x, y)
    assert np.all(found.info.result == Result.CONVERGED)
    made = np.asarray(found.errors["h0"]) @ np.asarray(turned.args[0][1]).T
    np.testing.assert_allclose(made, error_of(turned, x, y), rtol=0, atol=1e-9)
    assert np.any(np.asarray(after["h0"]) != np.asarray(state["h0"]))
    found, same = eqx.filter_jit(dataclasses.replace(rule, inversion=Dynamic(500, 1e-13), stability=Refuse()).credit)(
        graph, turned, state, x, y
    )
    assert np.all(found.info.result >= Result.DIVERGED)
    np.testing.assert_array_equal(same["h0"], state["h0"])


def test_a_traced_init_is_the_same(x64):
    model, graph, _, _ = linear(5, 9, 7, 6)
    rule = rule_of(feedback=Uniform(), stability=Stabilise())
    eager, traced = rule.init(graph, model, key=KEY), eqx.filter_jit(rule.init)(graph, model, key=KEY)
    for name, back in eager.items():
        np.testing.assert_allclose(traced[name], back, rtol=0, atol=1e-12)


@pytest.mark.parametrize("single", [False, True])
def test_stability_of_the_loops_of_a_model(x64, single):
    model, graph, _, _ = linear(5, 6, 4, 3)
    rule = rule_of(leak=0.1, single_loop=single)
    state = rule.init(graph, model)
    found = vc.analysis.loop_stability(rule, graph, model, state)
    w1, w2 = (np.asarray(weight) for weight in model.args[0][1:])
    expected = {"h0": w2 @ w1} if single else {"h0": w1, "h1": w2}
    assert set(found) == set(expected)
    for name, weight in expected.items():
        values = np.linalg.eigvals(loop_matrix(weight, np.asarray(state[name]), 0.1))
        np.testing.assert_allclose(found[name].abscissa, np.max(values.real), rtol=0, atol=1e-7)
        np.testing.assert_allclose(found[name].amplification, np.max(np.abs(1 + 0.5 * values)), rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="expected a state with the feedback of h"):
        vc.analysis.loop_eigenvalues(rule, graph, model, ())


@pytest.mark.parametrize("leak", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (10, 10)])
@pytest.mark.parametrize("gain", [1.0, 5.0])
def test_with_a_leak_every_loop_is_made_stable(shape, gain, leak):
    """Short enough feedback leaves the leak, which fades: wide, narrow and square, with steps too long at first."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=shape) * gain / shape[1] ** 0.5
    feedback, growth, reached = stabilise(weight, generator.uniform(-0.5, 0.5, shape[::-1]), leak, step_size=0.5)
    ended = np.linalg.eigvals(loop_matrix(weight, feedback, leak))
    assert growth < 0
    assert np.max(np.abs(1 + 0.5 * ended)) < 1
    assert reached
    # More units above: their leak is the margin's double, unless the margin is the default's.
    assert np.max(np.abs(1 + 0.5 * ended)) <= 1 - 0.5 * min(0.01, leak / 2) + 1e-9


def test_shrinking_and_descent_do_not_undo_each_other():
    """A loop that is stable in continuous time is so by any steps if its feedback is short; square and without a leak,
    it had ended with |1 + h lambda| of 1.8."""
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(10, 10)) * 5 / 10**0.5
    found = stabilise(weight, generator.uniform(-0.5, 0.5, (10, 10)), 0.0, step_size=0.5)
    sizes = np.abs(1 + 0.5 * np.linalg.eigvals(loop_matrix(weight, found.feedback, 0.0)))
    assert np.max(sizes) < 1
    np.testing.assert_allclose(found.growth, (np.max(sizes) - 1) / 0.5, rtol=0, atol=1e-7)
    assert found.reached == (found.growth <= -0.01)


def test_what_is_not_reached_is_said():
    """Weights of zero answer nothing: there is no way down, and no need of a thousand steps to see it."""
    weight, before = np.zeros((4, 4)), np.ones((4, 4))
    found = stabilise(weight, before, 0.0, step_size=0.5)
    assert not found.reached
    assert found.growth == 0.0


@pytest.mark.parametrize("shape", [(20, 30), (10, 20), (20, 10)])
@pytest.mark.parametrize("leak", [0.0, 1e-3, 1e-2])
def test_repair_leaves_a_stable_loop_alone(x64, shape, leak):
    """Small weights fade by little more than the leak, whatever their feedback: nothing is to be repaired."""
    weight = np.random.default_rng(0).uniform(-0.01, 0.01, size=shape)
    assert not grows(eigenvalues(weight, -weight.T, leak), 0.5)
    kept = repaired(*(jnp.asarray(item) for item in (weight, -weight.T, leak, 0.5)))
    np.testing.assert_array_equal(kept, -weight.T)


def test_the_longest_step_is_the_bound(x64):
    model, graph, _, _ = linear(5, 9, 7, 6)
    rule = rule_of(leak=0.1)
    state = rule.init(graph, model)
    for name, found in vc.analysis.loop_stability(rule, graph, model, state).items():
        for factor, stable in ((1 - 1e-6, True), (1 + 1e-6, False)):
            other = dataclasses.replace(rule, step_size=factor * found.longest_step)
            assert (vc.analysis.loop_stability(other, graph, model, state)[name].amplification < 1) == stable
    turned = {name: -back for name, back in state.items()}
    assert all(found.longest_step == 0 for found in vc.analysis.loop_stability(rule, graph, model, turned).values())


def test_the_refusal_says_how_long_steps_may_be(x64):
    model, graph, _, _ = linear(5, 4, 3)
    weight = np.asarray(model.args[0][1])
    values = np.linalg.eigvals(loop_matrix(weight, -weight.T, 0.01))
    longest = np.min(-2 * values.real / np.abs(values) ** 2)
    with pytest.raises(ValueError, match=f"grows by .* % in each step of 3; take a step_size below {longest:.3g}, or"):
        rule_of(step_size=3.0).init(graph, model)


def test_feedback_that_was_changed_in_vain_has_other_advice(x64):
    model, graph, _, _ = linear(5, 6, 6, 3)
    flat = eqx.tree_at(lambda m: m.args[0][1], model, replace_fn=lambda w: 1e-3 * w)
    with pytest.raises(ValueError, match=r"at vertex 'h0', got .* take a larger leak \(its feedback was changed"):
        rule_of(feedback=Uniform(), stability=Stabilise(), leak=0.0).init(graph, flat, key=KEY)
    rule_of(feedback=Uniform(), stability=Stabilise(), leak=0.01).init(graph, flat, key=KEY)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_by_name(x64, wrong):
    model, graph, _, _ = linear(5, 4, 3)
    state = rule_of().init(graph, model)
    broken = eqx.tree_at(lambda m: m.args[0][1], model, replace_fn=lambda w: w.at[0, 0].set(wrong))
    for ask in (
        lambda: rule_of(stability=Stabilise(repair=True)).init(graph, broken),
        lambda: vc.analysis.loop_stability(rule_of(), graph, broken, state),
    ):
        with pytest.raises(ValueError, match="expected finite weights in the loop at vertex 'h0', got"):
            ask()
    with pytest.raises(ValueError, match="expected finite feedback in the loop, got 1 numbers that are not"):
        stabilise(np.ones((1, 1)), np.full((1, 1), wrong), 0.1)


@pytest.mark.parametrize("measure", [smoothed_abscissa, stabilise])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"feedback": np.ones((3, 2))}, r"feedback \[down, up\] of the loop, got shapes \(3, 2\) and \(3, 2\)"),
        ({"leak": -0.1}, "expected the leak of at least 0"),
        ({"smoothing": 0.0}, "expected the smoothing above 0"),
    ],
)
def test_what_makes_no_loop_is_refused(measure, changed, words):
    with pytest.raises(ValueError, match=words):
        measure(**{"weight": np.ones((3, 2)), "feedback": np.ones((2, 3)), "leak": 0.1, **changed})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"step_size": 0.0}, "the step size above 0"),
        ({"margin": 0.0}, "the margin above 0"),
        ({"learning_rate": 0.0}, "the learning rate above 0"),
        ({"steps": 0}, "steps as an integer of at least 1"),
    ],
)
def test_numbers_of_the_descent_are_checked(changed, words):
    with pytest.raises(ValueError, match=f"expected {words}"):
        stabilise(np.ones((3, 2)), np.ones((2, 3)), 0.1, **changed)


def test_a_closed_form_that_is_none_is_refused(x64):
    """A single loop over a narrower layer has a product of lower rank; its loop drifts, and answers what it can."""
    model, graph, x, y = linear(3, 8, 2, 8, 3)
    with pytest.raises(ValueError, match="expected a leak above 0 at vertex 'h0' with ClosedForm, got 0"):
        rule_of(inversion=ClosedForm(), single_loop=True, leak=0.0).init(graph, model)
    for leak, within in ((1e-6, 1e-4), (0.0, 1e-8)):
        rule = rule_of(ClosedForm() if leak else None, single_loop=True, leak=leak, tolerance=1e-11)
        found, _ = credit(rule, (model, graph, x, y))
        product = np.linalg.multi_dot([np.asarray(weight) for weight in reversed(model.args[0][1:])])
        expected = error_of(model, x, y) @ np.linalg.pinv(product, rcond=1e-9).T
        np.testing.assert_allclose(found.errors["h0"], expected, rtol=0, atol=within * np.max(np.abs(expected)))


@pytest.mark.parametrize("unstable", ["h0", "h1"])
def test_the_result_is_the_worst_of_all_loops(x64, unstable):
    model, graph, x, y = linear(5, 6, 4, 3)
    rule = rule_of(leak=0.1, steps=300, tolerance=1e-2)
    state = rule.init(graph, model)
    for name in state:
        back = -state[name] if name == unstable else state[name]
        state = {**state, name: back}
    assert vc.analysis.loop_stability(rule, graph, model, state)[unstable].abscissa > 0
    done, _ = credit(rule, (model, graph, x, y), state)
    assert np.all(done.info.result >= Result.DIVERGED)
