"""The conformance suite over every rule and every kind of model; and rules that must fail it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vicinal as vc
from vicinal.inference import Adaptive, ErrorBased, Proximal, Sequential, Simultaneous
from vicinal.rules import projectors
from vicinal.testing import CHECKS, cases, check_rule

RULES = {
    "backpropagation": vc.rules.Backprop(),
    "backpropagation, squared error": vc.rules.Backprop(loss=vc.losses.squared_error),
    "inference learning": vc.rules.InferenceLearning(),
    "inference learning, squared error": vc.rules.InferenceLearning(loss=vc.losses.squared_error),
    "backpropagation, proximal": vc.rules.Backprop(proximal=Proximal(5.0, eps=0.1)),
    "inference learning, proximal": vc.rules.InferenceLearning(proximal=Proximal(5.0, eps=0.1)),
    "inference learning, all options": vc.rules.InferenceLearning(
        inference=Simultaneous(steps=12, step_size=0.2, decay=True, momentum=0.5, pull=0.8, tolerance=1e-2, trace=True),
        loss=vc.losses.sigmoid_cross_entropy,
        nudge=0.9,
        precision=1.5,
        throw=True,
    ),
    "sequential inference": vc.rules.InferenceLearning(inference=Sequential()),
    "sequential inference, all options": vc.rules.InferenceLearning(
        inference=Sequential(steps=6, step_size=0.3, decay=False, pull=0.8, tolerance=1e-2, trace=True),
        nudge=0.9,
        precision=1.5,
        proximal=Proximal(5.0, eps=0.1),
    ),
    "error-based inference": vc.rules.InferenceLearning(inference=ErrorBased()),
    "error-based inference, all options": vc.rules.InferenceLearning(
        inference=ErrorBased(steps=8, step_size=0.2, decay=True, momentum=0.5, tolerance=1e-2, trace=True),
        nudge=0.9,
        precision=1.5,
    ),
    # Few steps: near equilibrium the next step size is a ratio of roundings.
    "adaptive inference": vc.rules.InferenceLearning(inference=Adaptive(steps=8)),
    "fixed prediction": vc.rules.FixedPrediction(),
    "fixed prediction, simultaneous": vc.rules.FixedPrediction(steps=30, step_size=0.3, order="simultaneous"),
    "Z-IL": vc.rules.ZIL(),
    "activation relaxation": vc.rules.ActivationRelaxation(steps=60, step_size=0.4),
    "activation relaxation, without derivatives": vc.rules.ActivationRelaxation(
        steps=60, step_size=0.4, derivatives=False, frozen="product"
    ),
    "relaxed": vc.rules.RelaxedPC(steps=60, step_size=0.4),
    "relaxed, all options": vc.rules.RelaxedPC(
        steps=60, step_size=0.4, order="sequential", derivatives=False, connections="learned"
    ),
    "incremental": vc.rules.IncrementalPC(),
    "incremental, squared error": vc.rules.IncrementalPC(
        steps=3, step_size=0.2, loss=vc.losses.squared_error, nudge=0.9, precision=1.5
    ),
    "direct feedback": vc.rules.DirectFeedback(),
    "direct feedback, all options": vc.rules.DirectFeedback(
        projector=projectors.Sparse(density=0.7, scale=1.5), hybrid=0.6, shared=False, loss=vc.losses.squared_error
    ),
    "dynamic inversion, in chains": vc.rules.DynamicInversion(leak=0.1),
}


CASES = cases()
VARIANTS = {name for name in RULES if "," in name or name.endswith(" inference")} - {"inference learning, all options"}


def cases_of(rule):
    """All kinds of model for each rule; two for a rule that differs from another in a setting or strategy alone."""
    return CASES[1:3] if rule in VARIANTS else CASES


def marks_of(rule, case, check):
    """The checks of one rule on one case share what is compiled, so they run in one process."""
    core = rule in ("backpropagation", "inference learning")
    quick = core or (case.name == "mlp" and check in ("structure", "credit", "jit", "step"))
    return [pytest.mark.xdist_group(f"{rule} {case.name}"), *([] if quick else [pytest.mark.slow])]


GRID = [
    pytest.param(rule, case, check, id=f"{rule}-{case.name}-{check}", marks=marks_of(rule, case, check))
    for rule in RULES
    for case in cases_of(rule)
    for check in CHECKS
]


@pytest.mark.parametrize(("rule", "case", "check"), GRID)
def test_contract(rule, case, check):
    CHECKS[check](RULES[rule], case)


NOT_OF_IMPLICIT_SGD = {
    "credit",  # the local product is taken where the step ends, not where it begins
    "batch",  # the proximal step of a batch is not the mean of its examples' steps
}


@pytest.mark.slow
@pytest.mark.xdist_group("implicit")
@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_implicit_sgd(case):
    check_rule(vc.rules.ImplicitSGD(learning_rate=0.1), skip=NOT_OF_IMPLICIT_SGD, only=[case])


TIMES = vc.rules.TimeConstants(dt=0.5, presentation=5.0, low_pass=10.0)
CROSS_ENTROPY = vc.losses.softmax_cross_entropy
NOISE = ("zero error", "batch")  # noise moves weights where nothing is left to learn, and is drawn for a whole batch
ALWAYS_ON = {
    "phaseless": (vc.rules.PhaselessAlignment(times=TIMES), NOISE),
    "phaseless, without noise": (vc.rules.PhaselessAlignment(times=TIMES, sigma=0.0, nudge=0.1), ()),
    # The circuit's other weights learn within a presentation, from its batch; interneurons do not keep up with forward
    # weights that move .3 in each. That it learns is tested by itself.
    "microcircuit": (vc.rules.Microcircuit(times=TIMES, sigma=0.02, loss=CROSS_ENTROPY), (*NOISE, "learns")),
    "microcircuit, without noise": (
        vc.rules.Microcircuit(times=TIMES, sigma=0.0, loss=CROSS_ENTROPY),
        ("batch", "learns"),
    ),
}


@pytest.mark.slow
@pytest.mark.xdist_group("always on")
@pytest.mark.parametrize("name", ALWAYS_ON)
def test_always_on(name):
    """Rules of chains of layers with vertices at potentials, which the other cases are not."""
    rule, skip = ALWAYS_ON[name]
    check_rule(rule, skip=skip, only=CASES[1:2])


def test_backpropagation_fails_the_locality_check_when_it_claims_to_be_local():
    class Pretender(vc.rules.Backprop):
        local = True

    with pytest.raises(AssertionError, match=r"locality, on mlp: expected a rule that is local.*depends on"):
        check_rule(Pretender(), only=CASES[:1])


def broken(**methods):
    return type("Broken", (vc.rules.Backprop,), methods)()


def wrong_mean(self, graph, model, state, x, y, *, key=None):
    loss, gradient, state, info = vc.rules.Backprop.value_and_grad(self, graph, model, state, x, y, key=key)
    return loss, jax.tree.map(lambda g: g * x.shape[0], gradient), state, info


def wrong_sign(self, graph, model, state, x, y, *, key=None):
    gradient, credit, state = vc.rules.Backprop.assign(self, graph, model, state, x, y, key=key)
    return jax.tree.map(jnp.negative, gradient), credit, state


def missing_leaf(self, graph, model, state, x, y, *, key=None):
    loss, gradient, state, info = vc.rules.Backprop.value_and_grad(self, graph, model, state, x, y, key=key)
    return loss, jax.tree.leaves(gradient), state, info


def hidden_randomness(self, graph, model, state, x, y, *, key=None):
    loss, gradient, state, info = vc.rules.Backprop.value_and_grad(self, graph, model, state, x, y, key=key)
    noise = jax.pure_callback(lambda: np.float32(np.random.default_rng().normal()), jax.ShapeDtypeStruct((), "float32"))
    return loss, jax.tree.map(lambda g: g * (1 + 0.01 * noise), gradient), state, info


def drift(self, graph, model, state, x, y, *, key=None):
    loss, gradient, state, info = vc.rules.Backprop.value_and_grad(self, graph, model, state, x, y, key=key)
    return loss, jax.tree.map(lambda g: g + 0.1, gradient), state, info


@pytest.mark.parametrize(
    ("check", "method"),
    [
        ("batch", wrong_mean),
        ("learns", wrong_sign),
        ("structure", missing_leaf),
        ("deterministic", hidden_randomness),
        ("zero error", drift),
        ("credit", drift),
    ],
)
def test_the_suite_catches_mutations(check, method):
    with pytest.raises(AssertionError):
        CHECKS[check](broken(**{"assign" if method is wrong_sign else "value_and_grad": method}), CASES[0])


def test_unknown_check_is_refused():
    with pytest.raises(ValueError, match="got 'everything'"):
        check_rule(vc.rules.Backprop(), skip=["everything"])
