"""The local product averaged over the last inference steps, against a loop that takes one step after another."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from inference_learning_builders import network
from matrix import full
from precision import double

import vicinal as vc
from vicinal.credit import Credit, Info
from vicinal.inference import Adaptive, ErrorBased, Inference, Proximal, Sequential, Simultaneous
from vicinal.rules import InferenceLearning
from vicinal.testing import cases, check_rule

KEY = jax.random.key(0)


def naive(rule, average, graph, model, x, y):
    """Settles step by step from Python, and averages the gradients at the end of each of the last steps."""
    problem, inference = rule.problem(graph, model, x, y), rule.inference
    state = eqx.filter_jit(inference.begin)(problem, inference.allowed(eqx.filter_jit(graph.feedforward)(model, x)[1]))
    found = []
    for t in range(inference.steps):
        state, _ = eqx.filter_jit(inference.step)(problem, state, jnp.int32(t))
        values = inference.values(problem, state)
        errors = problem.errors(values)
        here = Credit(errors.loss, values, errors.by_vertex, errors.output, Info(None))
        found.append(eqx.filter_jit(vc.local_gradient)(graph, model, here, x))
    last = found[-round(average * inference.steps) :]
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *last)


def gradient(rule, graph, model, x, y):
    return eqx.filter_jit(rule.value_and_grad)(graph, model, (), x, y)[1]


def assert_close(ours, theirs, atol=1e-13):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=atol)


STRATEGIES = {
    "simultaneous": Simultaneous(steps=10, step_size=0.2),
    "simultaneous, options": Simultaneous(steps=10, step_size=0.1, momentum=0.5, decay=True, pull=0.8, trace=True),
    "sequential": Sequential(steps=4, step_size=0.3),
    "sequential, unrolled to one": Sequential(steps=2, step_size=0.3),
    "error-based": ErrorBased(steps=6, step_size=0.2, momentum=0.3),
    "adaptive": Adaptive(steps=8, tolerance=None),
}
SQUARED = vc.losses.squared_error


@pytest.mark.parametrize("average", [0.5, full(1.0)])
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_mean_equals_a_loop_that_settles_step_by_step(x64, name, average):
    model, graph, x, y = network(vertex_at="post" if average == 0.5 else "pre")
    rule = InferenceLearning(STRATEGIES[name], loss=SQUARED, nudge=0.9, precision=1.5)
    averaged = dataclasses.replace(rule, average=average)
    assert_close(gradient(averaged, graph, model, x, y), naive(rule, average, graph, model, x, y))


@pytest.mark.parametrize("kind", [full("convolutional"), full("tied weights"), "recurrent"])
def test_the_mean_is_taken_for_models_of_other_kinds(x64, kind):
    (case,) = (case for case in cases() if case.name == kind)
    model, x, y = double(case.model), double(case.x), case.y
    rule = InferenceLearning(Simultaneous(steps=6, step_size=0.2), proximal=Proximal(2.0, eps=0.1))
    graph = vc.capture(model, x[0])
    averaged = dataclasses.replace(rule, average=0.5)
    assert_close(gradient(averaged, graph, model, x, y), naive(rule, 0.5, graph, model, x, y))


def test_the_last_step_alone_is_the_end(x64):
    model, graph, x, y = network()
    rule = InferenceLearning(Simultaneous(steps=10), loss=SQUARED)
    for average in (0.05, 0.1):
        one = dataclasses.replace(rule, average=average)
        assert_close(gradient(one, graph, model, x, y), gradient(rule, graph, model, x, y))
    still = InferenceLearning(Simultaneous(steps=0), loss=SQUARED)
    assert_close(
        gradient(dataclasses.replace(still, average=1.0), graph, model, x, y), gradient(still, graph, model, x, y)
    )


@pytest.mark.parametrize(("steps", "average", "number"), [(5, 0.5, 3), (30, 0.1, 3), (10, 0.7, 7), (3, 1.0, 3)])
def test_a_part_of_the_steps_is_rounded_up(steps, average, number):
    model = vc.nn.MLP((4, 6, 5, 3), key=KEY)
    x, y = jnp.ones((2, 4)), jnp.zeros((2, 3))
    averaged = dataclasses.replace(InferenceLearning(Simultaneous(steps=steps), loss=SQUARED), average=average)
    found = vc.hardware.ledger(averaged, model, x, y)
    assert {use.outer for use in found.uses} == {number * len(x)}
    plain = vc.hardware.ledger(dataclasses.replace(averaged, average=0.0), model, x, y)
    # The products are of values and errors that the steps have read: no read more.
    assert [(use.forward, use.transposed) for use in found.uses] == [
        (use.forward, use.transposed) for use in plain.uses
    ]
    assert found.depth == plain.depth


def test_credit_and_records_are_those_of_the_end(x64):
    model, graph, x, y = network()
    rule = InferenceLearning(Simultaneous(steps=6, trace=True), loss=SQUARED)
    averaged = dataclasses.replace(rule, average=0.5)
    ends = [eqx.filter_jit(one.assign)(graph, model, (), x, y)[1] for one in (rule, averaged)]
    assert_close(ends[1], ends[0])
    assert ends[1].info.trace["output"].shape == (7, len(x))
    assert_close(eqx.filter_jit(averaged.credit)(graph, model, (), x, y)[0], ends[0])


def test_sums_in_half_precision_keep_their_digits():
    """A hundred equal gradients: their mean is the gradient, which a sum in half precision would lose."""
    model = vc.nn.MLP((4, 6, 5, 3), key=KEY)
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_array(leaf) else leaf, model)
    x, y = jax.random.normal(KEY, (2, 4), jnp.bfloat16), jnp.zeros((2, 3), jnp.bfloat16)
    graph = vc.capture(model, x[0])
    still = InferenceLearning(Simultaneous(steps=100, step_size=0.0), loss=SQUARED)
    assert_close(
        gradient(dataclasses.replace(still, average=1.0), graph, model, x, y),
        gradient(still, graph, model, x, y),
        atol=0,
    )


def placed(read_noise, rounds):
    """A network on arrays with noisy reads, placed with noise of other seeds, and the graph of all."""
    model = vc.nn.MLP((5, 6, 4, 3), key=KEY)
    side = vc.hardware.Periphery(dac=None, adc=None, bound=None, read_noise=read_noise)
    tiled = [vc.hardware.place(model, forward=side, backward="ideal", key=jax.random.key(i)) for i in range(rounds)]
    return tiled, vc.capture(tiled[0], jnp.ones(5))


def deviation_of_gradients(average, tiled, graph):
    """The standard deviation of the gradients of one example above the first layer, by weight."""
    rule = InferenceLearning(Simultaneous(steps=20, step_size=0.1), average=average)
    x, y = jax.random.normal(KEY, (1, 5)), jnp.zeros(1, int)
    found = [gradient(rule, graph, model, x, y).layers[1].layer.weight for model in tiled]
    return np.std(np.stack(found), axis=0)


def test_the_mean_has_less_of_the_noise_of_reads():
    """Each step reads values of its own with draws of its own: above the first layer, which reads a held input."""
    noisy = placed(0.2, rounds=40)
    end, mean = (deviation_of_gradients(average, *noisy).mean() for average in (0.0, 0.5))
    assert mean < 0.7 * end
    assert deviation_of_gradients(0.5, *placed(0.0, rounds=2)).max() == 0


DIGITS = {"key": KEY, "steps": 150, "batch_size": 32, "progress": False}


@pytest.mark.full
def test_a_rule_that_averages_trains():
    model = vc.nn.MLP((64, 16, 10), key=KEY)
    run = vc.train.fit(
        InferenceLearning(average=0.5), model, optax.adam(0.01), vc.data.load("digits").flattened(), **DIGITS
    )
    assert run.records[-1]["test_accuracy"] > 0.8


def test_a_rule_that_averages_gives_no_gradient_of_each_example():
    tiled = vc.hardware.place(vc.nn.MLP((64, 16, 10), key=KEY), "idealized", key=KEY)
    data = vc.data.load("digits").flattened()
    with pytest.raises(ValueError, match="expected a rule that gives `coincident` the gradient of each example"):
        vc.train.fit(InferenceLearning(average=0.5), tiled, vc.hardware.coincident(0.1), data, **DIGITS)


class Exact(Inference):
    """Settles in closed form, say."""

    steps: int = 1
    tolerance: None = None
    trace: bool = False

    def settle(self, problem, values):
        return Simultaneous(steps=1).settle(problem, values)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"average": 1.5}, ValueError, "expected average, a part of the steps, from 0 to 1, got 1.5"),
        ({"average": float("nan")}, ValueError, "expected average, a part of the steps, as a finite number"),
        ({"average": True}, TypeError, "expected average as a Python number from 0 to 1, got True"),
        (
            {"average": 0.5, "inference": Simultaneous(tolerance=1e-3)},
            ValueError,
            "expected inference that takes all its steps, over the last of which is averaged, got a tolerance of 0.001",
        ),
        (
            {"average": 0.5, "inference": Exact()},
            ValueError,
            "expected a strategy that settles step by step, since the local product is averaged, got Exact",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(settings, error, words):
    with pytest.raises(error, match=words):
        InferenceLearning(**settings)


def test_inference_that_is_observed_refuses_a_tolerance(x64):
    model, graph, x, y = network()
    rule = InferenceLearning(Adaptive(), loss=SQUARED)
    problem = rule.problem(graph, model, x, y)
    with pytest.raises(ValueError, match="expected inference that takes all its steps"):
        rule.inference.settle(problem, graph.feedforward(model, x)[1], observe=lambda values: values)


def test_a_recipe_takes_the_part_as_a_number():
    rule, _ = vc.recipes.recipe("il").make(**{"average": 1})
    assert rule.average == 1.0
    with pytest.raises(ValueError, match="expected a number for average, got 'half'"):
        vc.recipes.recipe("il").make(average="half")


def test_without_a_part_the_gradient_has_the_same_bits_as_the_local_product_of_the_credit():
    (case,) = (case for case in cases() if case.name == "mlp")
    rule = InferenceLearning()

    @jax.jit
    def both(x):
        credit, _ = rule.credit(case.graph, case.model, (), x, case.y)
        return vc.local_gradient(case.graph, case.model, credit, x)

    ours = gradient(rule, case.graph, case.model, case.x, case.y)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(both(case.x)), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.full
def test_the_suite_of_rules(x64):
    check_rule(InferenceLearning(Sequential(steps=4, step_size=0.3), average=0.5), only=cases()[:2])
