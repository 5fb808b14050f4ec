"""Every path of feedback under every rule: the contract holds, and what is transported is what is claimed."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matrix import diagonal, full

import vicinal as vc
from vicinal.feedback import attach
from vicinal.inference import ErrorBased, Proximal, Sequential, Simultaneous
from vicinal.testing import CHECKS, Case, cases, check_rule

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)

PATHS = {  # each in the row of the rule that it is always tried with; draws take long to compile in many places
    "weight mirror": vc.feedback.weight_mirror(),
    "random": vc.feedback.random(),
    "sign-symmetric": vc.feedback.sign_symmetric(),
    "tied": vc.feedback.tied(),
    "fixed-random signs": vc.feedback.sign_symmetric("fixed-random"),
    "batch-random signs": vc.feedback.sign_symmetric("batch-random"),
    "Kolen-Pollack": vc.feedback.kolen_pollack(),
    "information alignment": vc.feedback.information_alignment(),
    "symmetric alignment": vc.feedback.symmetric_alignment(),
    "activation alignment": vc.feedback.activation_alignment(),
}
RULES = {
    "backpropagation": vc.rules.Backprop(),
    "inference learning": vc.rules.InferenceLearning(inference=Simultaneous(steps=5)),
    "sequential": vc.rules.InferenceLearning(inference=Sequential()),
    "error-based": vc.rules.InferenceLearning(inference=ErrorBased(steps=3)),
    "incremental": vc.rules.IncrementalPC(steps=3),
    "Z-IL": vc.rules.ZIL(),
    "fixed prediction": vc.rules.FixedPrediction(),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=20, step_size=0.5),
    "relaxed": vc.rules.RelaxedPC(steps=20, step_size=0.5),
    "direct feedback": vc.rules.DirectFeedback(),
    "events": vc.rules.EventInferenceLearning(steps=5),
}
LEARNS_BY_ITSELF = ("weight mirror", "information alignment", "symmetric alignment", "activation alignment")
DRAWN = ("batch-random signs", "weight mirror")


def skipped(path, rule="", kind="mlp"):
    """Checks that do not apply."""
    skip = {"learns"}  # in so few steps; learning has tests of its own
    if path in LEARNS_BY_ITSELF:
        skip |= {"zero error"}  # such feedback learns where the output is right, too
        # Before the first step nothing enters a recurrent layer, and the penalty there counts once for all examples.
        skip |= {"batch"} if kind == "recurrent" else set()
    if path in DRAWN and rule == "incremental":
        skip |= {"step"}  # every inference step moves the weights, and with them the draw
    return skip


def fed(case: Case, path: str) -> Case:
    return dataclasses.replace(case, model=attach(case.model, PATHS[path], key=jax.random.key(3)))


# What does not depend on rule and path together: each rule is checked without feedback, and paths below.
APART = {"jit", "no recompilation", "vmap", "step"}


def check(rule, kind, path, skip):
    (case,) = (case for case in cases() if case.name == kind)
    check_rule(RULES[rule], only=[fed(case, path)], skip=skip | skipped(path, rule, kind))


@pytest.mark.parametrize(("rule", "path"), diagonal(RULES, PATHS))
def test_errors_and_gradients_are_right_on_every_path(rule, path):
    check(rule, "mlp", path, APART)


# On the perceptron above, each path runs always.
@pytest.mark.parametrize(
    ("kind", "path"),
    [("convolutional", "sign-symmetric") if path == "sign-symmetric" else full("convolutional", path) for path in PATHS]
    + [("recurrent", path) if path == "random" else full("recurrent", path) for path in PATHS],
)
def test_errors_and_gradients_are_right_on_maps_and_in_time(kind, path):
    check("backpropagation", kind, path, APART)


MAPPED = [(rule, "mlp", path) for rule in RULES for path in PATHS]
MAPPED += [("backpropagation", kind, path) for kind in ("convolutional", "recurrent") for path in PATHS]
ALWAYS = {
    ("backpropagation", "mlp", "batch-random signs"),  # drawn anew in every step
    ("backpropagation", "mlp", "Kolen-Pollack"),  # learned
}


@pytest.mark.parametrize(("rule", "kind", "path"), [each if each in ALWAYS else full(*each) for each in MAPPED])
def test_compiled_mapped_and_single_steps_agree_on_every_path(rule, kind, path):
    check(rule, kind, path, set(CHECKS) - APART)


@eqx.filter_jit
def errors_of(rule, graph, model, x, output_error):
    """The errors of the vertices for an output error that is given, whatever the output is."""
    output, _ = graph.feedforward(model, x)
    loss_of_error = dataclasses.replace(rule, loss=vc.losses.squared_error)
    state = rule.init(graph, model, key=KEY)
    return loss_of_error.credit(graph, model, state, x, output + output_error, key=KEY)[0].errors


@pytest.mark.parametrize(("path", "rule"), diagonal(PATHS, ["backpropagation", "fixed prediction", "direct feedback"]))
def test_who_reads_the_forward_weights_above(x64, path, rule):
    """Another read-out, the same error of the output: only tied and sign-symmetric paths tell; direct ones never."""
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), vc.nn.MLP((5, 6, 4, 3), key=KEY))
    model = attach(model, PATHS[path], key=jax.random.key(3))
    other = eqx.tree_at(lambda m: m.layers[2].layer.weight, model, -model.layers[2].layer.weight)
    x = jax.random.normal(jax.random.key(1), (4, 5), jnp.float64)
    error = jax.random.normal(jax.random.key(2), (4, 3), jnp.float64)
    graph = vc.capture(model, x[0])
    ours, theirs = (errors_of(RULES[rule], graph, m, x, error) for m in (model, other))
    transported = rule != "direct feedback" and (path == "tied" or "sign" in path)
    for name in graph.vertices:
        same = np.allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-12)
        assert same == (not transported)


@pytest.mark.parametrize("route", [full(vc.feedback.kolen_pollack()), vc.feedback.weight_mirror()])
def test_what_teaches_feedback_is_no_part_of_a_proximal_output(x64, route):
    """A proximal output divides by the norm of what enters its weights: the penalty of feedback must not count."""
    model = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), vc.nn.MLP((5, 6, 4, 3), key=KEY))
    taught = attach(model, route, key=jax.random.key(3))
    same = {f"layers[{i}].weight": layer.path.feedback for i, layer in enumerate(taught.layers)}
    fixed = attach(model, vc.feedback.given(same))
    x, y = jax.random.normal(KEY, (4, 5), jnp.float64), jnp.arange(4) % 3
    rule = vc.rules.InferenceLearning(proximal=Proximal(2.0))
    gradient_of = eqx.filter_jit(lambda graph, m: rule.value_and_grad(graph, m, (), x, y)[1])
    found = [gradient_of(vc.capture(m, x[0]), m) for m in (taught, fixed)]
    for ours, theirs in zip(*(gradient.layers for gradient in found), strict=True):
        np.testing.assert_allclose(ours.layer.weight, theirs.layer.weight, rtol=1e-10)


@pytest.mark.parametrize("path", ["random", "Kolen-Pollack", "weight mirror"])
def test_a_normalised_step_on_a_model_with_feedback(path):
    """NLMS divides the weights' gradients by the norms that it would have without feedback."""
    model = vc.nn.MLP((5, 6, 3), key=KEY)
    x, y = jax.random.normal(KEY, (4, 5)), jnp.arange(4) % 3
    plain, rule = attach(model, vc.feedback.random(), key=KEY), vc.rules.Backprop()
    separate = attach(model, PATHS[path], key=KEY)
    steps = []
    for m in (plain, separate):
        optimizer = vc.feedback.optimizers(vc.optim.nlms(0.5), optax.sgd(0.1))
        state = optimizer.init(eqx.filter(m, eqx.is_inexact_array))
        new, *_ = eqx.filter_jit(rule.step)(vc.capture(m, x[0]), optimizer, m, state, (), x, y)
        steps.append(new.layers[1].layer.weight - m.layers[1].layer.weight)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-5)
