"""Recipes: the papers' settings arrive where they should, and every number can be set."""

import dataclasses
import typing

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import some

import vicinal as vc
from vicinal.feedback.named import FeedbackName
from vicinal.recipes import RECIPES, recipe
from vicinal.settings import InferenceSettings, ModelSettings, TaskSettings, assignment
from vicinal.task import Task


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_documented(name):
    chosen = recipe(name)
    assert f"--rule {name}" in chosen.example
    assert chosen.citation.count("@") == len(chosen.references) + 1


# Others learn by the same rule with numbers of another paper, or with the optimiser of another of these.
FIRST = ("bp", "bp-prox", "bp-mq", "il-sgd", "il-prox", "il-prox-adam", "seqil", "epc", "ipc", "z-il")
FIRST += ("fixed-prediction", "ar", "dfa", "di", "pal", "fa", "sign-symmetric", "kolen-pollack", "weight-mirror")
FIRST += ("constrained-pc", "relaxed-pc", "il-events", "bp-events", "il-spikes")


@pytest.mark.parametrize("name", some(RECIPES, *FIRST))
def test_every_recipe_learns(name):
    chosen = recipe(name)
    rule, optimizer = chosen.make(learning_rate=10 * chosen.learning_rate if "adam" in name else None)
    key = jax.random.key(0)
    model = chosen.attach(vc.nn.MLP((4, 8, 3), vertex_at="pre", key=key), key=key)
    x = jax.random.normal(jax.random.key(1), (30, 4))
    y = jnp.argmax(x[:, :3], axis=1)
    run = vc.train.fit(
        rule, model, optimizer, (x, y), key=jax.random.key(2), epochs=30, batch_size=1, progress=False, test=(x, y)
    )
    assert run.stopped is None
    assert run.records[-1]["test_loss"] < run.records[0]["test_loss"]


@pytest.mark.parametrize(
    ("name", "steps", "step_size", "pull", "rate", "eps"),
    [("il-prox", 25, 0.015, 1.0, 5.0, 0.25), ("il-prox-fast", 12, 0.025, 0.0, 3.0, 0.25)],
)
def test_settings_of_the_proximal_recipes(name, steps, step_size, pull, rate, eps):
    rule, _ = recipe(name).make()
    settle = rule.inference
    assert settle.steps == steps
    assert (float(settle.step_size), float(settle.pull)) == pytest.approx((step_size, pull))
    assert (float(rule.proximal.learning_rate), float(rule.proximal.eps)) == pytest.approx((rate, eps))


def test_the_update_of_il_prox_by_hand(x64):
    """The learning rate acts through the output alone, and eps in the output and in the step alike."""
    rate, eps = 0.7, 0.3
    rule, optimizer = recipe("il-prox").make(vc.losses.squared_error, rate, eps=eps)
    model = vc.nn.Linear(3, 2, key=jax.random.key(0))
    x, y = np.array([[1.0, -2.0, 0.5]]), np.array([[0.2, 1.0]])
    graph = vc.capture(model, jnp.asarray(x[0]))
    after, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(model), (), x, y)
    n = float(np.sum(x**2)) + 1 + eps
    weight, bias = np.asarray(model.weight), np.asarray(model.bias)
    prediction = weight @ x[0] + bias
    held = (prediction + rate * n * y[0]) / (1 + rate * n)
    np.testing.assert_allclose(after.weight - weight, np.outer(held - prediction, x[0]) / n, rtol=1e-12)
    np.testing.assert_allclose(after.bias - bias, (held - prediction) / n, rtol=1e-12)


def test_bp_prox_is_backpropagation_of_the_softened_target_over_the_norms(x64):
    rate, eps = 2.0, 0.1
    rule, optimizer = recipe("bp-prox").make(learning_rate=rate, eps=eps)
    model = vc.nn.MLP((3, 4, 2), activation="tanh", vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.array([[1.0, -2.0, 0.5]]), jnp.array([1])
    graph = vc.capture(model, x[0])
    after, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(model), (), x, y)
    (w1, b1), (w2, b2) = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in model.layers]
    rates = np.tanh(w1 @ np.asarray(x[0]) + b1)
    norms = [float(np.sum(np.square(a))) + 1 + eps for a in (x[0], rates)]
    probabilities = np.exp(w2 @ rates + b2) / np.sum(np.exp(w2 @ rates + b2))
    target = (probabilities + rate * norms[1] * np.eye(2)[1]) / (1 + rate * norms[1])
    gradient = jax.jit(jax.grad(lambda m: -jnp.sum(target * jax.nn.log_softmax(m(x[0])))))(model)
    for i, norm in enumerate(norms):
        np.testing.assert_allclose(
            after.layers[i].weight - model.layers[i].weight, -gradient.layers[i].weight / norm, rtol=1e-10
        )


def test_any_number_can_be_set_and_traced():
    rule, _ = recipe("il").make(**{"inference.step_size": 0.3, "nudge": 0.5, "inference.momentum": 0.4, "b1": 0.8})
    assert float(rule.inference.step_size) == pytest.approx(0.3)
    assert float(rule.inference.momentum) == pytest.approx(0.4)
    assert float(rule.nudge) == 0.5
    traced = jax.jit(lambda pull: recipe("il").make(**{"inference.pull": pull})[0].inference.pull + 1)
    assert float(traced(0.25)) == 1.25


def test_a_count_is_a_whole_number():
    assert recipe("il-prox").make(**{"inference.steps": 3})[0].inference.steps == 3
    with pytest.raises(ValueError, match=r"expected a whole number for inference.steps, got 1.0"):
        recipe("il-prox").make(**{"inference.steps": 1.0})


@pytest.mark.parametrize("path", ["inference", "nothing", "loss", "proximal.eps", "inference.pull.x"])
def test_what_is_no_number_is_refused(path):
    with pytest.raises(
        ValueError, match=r"expected a number of il-prox among learning_rate, eps, .*inference.step_size"
    ):
        recipe("il-prox").make(**{path: 1.0})


def test_settings_reach_the_recipe():
    settings = TaskSettings(set=("eps=0.5", "inference.step-size=0.1"), inference=InferenceSettings(output_norm="sum"))
    rule, _ = settings.make("il-prox")["il-prox"]
    assert float(rule.proximal.eps) == 0.5
    assert rule.proximal.norm == "sum"
    assert float(rule.inference.step_size) == pytest.approx(0.1)
    rule, _ = TaskSettings().make("il-prox", eps=2.0)["il-prox"]
    assert float(rule.proximal.eps) == 2.0
    with pytest.raises(ValueError, match="expected eps in one place"):
        settings.make("il-prox", eps=2.0)
    softened, _ = TaskSettings(inference=InferenceSettings(output_norm="sum")).make("bp-prox")["bp-prox"]
    assert softened.proximal.norm == "sum"


@pytest.mark.parametrize("word", ["eps", "eps=", "eps=1,,2"])
def test_assignments_must_hold_values(word):
    with pytest.raises(ValueError, match="expected NAME=VALUE"):
        assignment(word)


def test_a_word_is_no_number_of_a_recipe():
    assert assignment("rule=bp,il") == ("rule", ["bp", "il"])  # a sweep may vary it
    with pytest.raises(ValueError, match="expected a number for eps, got 'a'"):
        TaskSettings(set=("eps=a",)).make("il-prox")


def test_one_value_where_one_is_needed():
    with pytest.raises(ValueError, match="expected one value of eps, got 2; `vicinal sweep` varies numbers"):
        TaskSettings(set=("eps=1,2",)).make("il-prox")


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        ({"steps": 7}, "ar", {"steps": 7}),
        ({"steps": 7, "order": "simultaneous"}, "fixed-prediction", {"steps": 7, "order": "simultaneous"}),
        ({"step_size": 0.25, "nudge": 0.5}, "ipc", {"step_size": 0.25, "nudge": 0.5, "steps": 5}),
        ({"step_size": 0.5, "steps": 4}, "z-il", {"step_size": 0.5}),
    ],
)
def test_inference_settings_reach_every_rule_that_reads_them(settings, name, expected):
    rule = InferenceSettings(**settings).apply(recipe(name).make()[0])
    assert {field: getattr(rule, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        ("sequential", vc.inference.Sequential),
        ("error-based", vc.inference.ErrorBased),
        ("adaptive", vc.inference.Adaptive),
        ("simultaneous", vc.inference.Simultaneous),
    ],
)
def test_a_strategy_takes_over_what_it_shares(strategy, kind):
    rule = InferenceSettings(strategy=strategy, steps=9).apply(recipe("il-prox").make()[0])
    assert isinstance(rule.inference, kind)
    assert rule.inference.steps == 9
    assert float(rule.inference.step_size) == pytest.approx(0.015)
    assert rule.proximal is not None


def test_a_strategy_for_a_rule_without_inference_is_refused():
    with pytest.raises(ValueError, match=r"expected a rule that reads inference.strategy, got z-il"):
        TaskSettings(inference=InferenceSettings(strategy="sequential")).make("z-il")


@pytest.mark.parametrize(
    ("rule", "settings", "words"),
    [
        ("seqil", {"momentum": 0.9}, "expected a rule that reads inference.momentum, got seqil; leave it out"),
        ("il", {"strategy": "sequential", "momentum": 0.9}, "reads inference.momentum, got il"),
        ("ipc", {"strategy": "adaptive"}, "reads inference.strategy, got ipc"),
        ("il-prox-fast", {"strategy": "adaptive"}, "expected a strategy that reads pull, which the recipe sets"),
    ],
)
def test_settings_that_no_rule_reads_are_refused(rule, settings, words):
    with pytest.raises(ValueError, match=words):
        TaskSettings(inference=InferenceSettings(**settings)).make(rule)


def test_a_setting_is_refused_only_if_no_rule_of_a_comparison_reads_it():
    made = TaskSettings(inference=InferenceSettings(momentum=0.5)).make("bp", "seqil", "il")
    assert float(made["il"][0].inference.momentum) == 0.5


@pytest.mark.parametrize(("rule", "number"), [("il", "inference.step_size"), ("ipc", "step_size")])
def test_a_number_in_two_places_is_refused(rule, number):
    settings = TaskSettings(inference=InferenceSettings(step_size=0.1), set=(f"{number}=0.2",))
    with pytest.raises(ValueError, match="expected step_size in one place, got it in 2"):
        settings.make(rule)


@pytest.mark.parametrize("name", typing.get_args(FeedbackName))
def test_every_feedback_can_be_set_for_every_model(name):
    settings = TaskSettings(model=ModelSettings(feedback=name, sizes=(64, 8, 10)))
    data = settings.load()
    model = settings.model.build(data, key=jax.random.key(0))
    plain = dataclasses.replace(settings.model, feedback=None).build(data, key=jax.random.key(0))
    np.testing.assert_array_equal(model.layers[0].layer.weight, plain.layers[0].weight)
    _, optimizer = settings.make("bp")["bp"]
    parameters = eqx.filter(model, eqx.is_inexact_array)
    with jax.numpy_dtype_promotion("standard"):
        memory = jax.eval_shape(optimizer.init, parameters)
        changes, _ = jax.eval_shape(optimizer.update, parameters, memory, parameters)
    assert jax.tree.structure(changes) == jax.tree.structure(parameters)


def test_the_phaseless_recipe_learns_feedback_beside_weights():
    rule, optimizer = recipe("pal").make(vc.losses.squared_error, **{"sigma": 0.1, "feedback_rate": 2.0})
    assert (float(rule.sigma), float(rule.feedback_rate)) == (pytest.approx(0.1), 2.0)
    assert (rule.times.steps, rule.times.low_pass, rule.batch_size) == (100, 200.0, None)
    assert "2212.10249" in recipe("pal").citation
    assert "2110.14549" in recipe("pal").citation  # of its neurons
    model = vc.nn.MLP((3, 4, 2), vertex_at="pre", key=jax.random.key(0))
    x, y = jnp.ones((5, 3)), jnp.ones((5, 2))
    graph = vc.capture(model, x[0])
    state = rule.init(graph, model, key=jax.random.key(1))
    new, _, after, _, _ = eqx.filter_jit(rule.step)(graph, optimizer, model, optimizer.init(model), state, x, y)
    assert float(jnp.max(jnp.abs(after.feedback["output"] - state.feedback["output"]))) > 1e-4
    # Gradient descent through a low-pass that begins at zero: the share of it that a presentation of 100 steps sees.
    seen = np.mean(1 - (1 - 0.1 / 200.0) ** np.arange(1, 101))
    error = jnp.mean(jax.vmap(model)(x) - y, axis=0)
    moved = new.layers[1].bias - model.layers[1].bias
    np.testing.assert_allclose(moved, -0.2 * seen * error, atol=0.2 * seen * 0.1)


def test_sequential_recipes_hold_the_papers_soft_target():
    rule, _ = recipe("seqil-mq").make()
    assert (rule.inference.steps, rule.inference.decay) == (3, True)
    assert float(rule.inference.step_size) == pytest.approx(0.05)
    assert float(rule.nudge) == pytest.approx(100 / 101)


def test_a_recipe_brings_its_feedback_unless_another_is_set():
    key = jax.random.key(0)
    for chosen, kind in ((None, vc.feedback.KolenPollack), ("sign-symmetric", vc.feedback.SignSymmetric)):
        settings = TaskSettings(model=ModelSettings(feedback=chosen))
        task = Task(settings)
        model = task.build(key, "kolen-pollack")
        assert isinstance(model.layers[0].path, kind)
        graph = task.graph_for("kolen-pollack")
        rule, optimizer = settings.make("kolen-pollack")["kolen-pollack"]
        x, y = jnp.asarray(task.data.x_train[:4]), jnp.asarray(task.data.y_train[:4])
        state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
        after, *_ = eqx.filter_jit(rule.step)(graph, optimizer, model, state, (), x, y)
        if chosen is None:  # feedback of Kolen and Pollack changes as the weights do
            (old, new) = (m.layers[1] for m in (model, after))
            forward, back = new.layer.weight - old.layer.weight, new.path.feedback - old.path.feedback
            np.testing.assert_allclose(back, forward, atol=1e-7)
            assert float(jnp.max(jnp.abs(forward))) > 1e-4
    assert isinstance(Task(TaskSettings()).build(key, "bp").layers[0], vc.nn.Linear)
    assert Task(TaskSettings()).graph_for("bp").vertices == ("hidden1", "hidden2")
