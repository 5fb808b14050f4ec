"""The conformance suite over every rule and every kind of model; and rules that must fail it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matrix import full
from rule_table import RULES

import vicinal as vc
from vicinal.testing import CHECKS, cases, check_rule

CASES = cases()
VARIANTS = {name for name in RULES if "," in name or name.endswith(" inference")} - {"inference learning, all options"}


def cases_of(rule):
    """All kinds of model for each rule; two for a rule that differs from another in a setting or strategy alone."""
    return CASES[1:3] if rule in VARIANTS else CASES


ALWAYS = {}  # the one case of a rule that runs always: the rules take turns, so that every kind of model comes up
for count, name in enumerate([rule for rule in RULES if rule in VARIANTS]):
    ALWAYS[name] = cases_of(name)[count % 2].name
for count, name in enumerate([rule for rule in RULES if rule not in VARIANTS]):
    ALWAYS[name] = CASES[count % len(CASES)].name


# What hardly fails for one setting alone: a rule that differs in a setting takes its turn at one of these always.
SELDOM = ("jit", "vmap", "batch", "zero error", "step", "learns")
TURNS = {rule: SELDOM[count % len(SELDOM)] for count, rule in enumerate(rule for rule in RULES if rule in VARIANTS)}


# Backpropagation and inference learning under another loss, which many tests beside this one have.
IN_FULL = {"backpropagation, squared error", "inference learning, squared error"}


def runs_always(rule, case, check):
    if rule in IN_FULL:
        return False
    return case.name == ALWAYS[rule] and (check not in SELDOM or TURNS.get(rule, check) == check)


def marks_of(rule, case, check):
    """The checks of one rule on one case share what is compiled, so they run in one process."""
    group = pytest.mark.xdist_group(f"{rule} {case.name}")
    return [group] if runs_always(rule, case, check) else [group, pytest.mark.full]


GRID = [
    pytest.param(rule, case, check, id=f"{rule}-{case.name}-{check}", marks=marks_of(rule, case, check))
    for rule in RULES
    for case in cases_of(rule)
    for check in CHECKS
]


def test_every_kind_of_model_is_checked_always():
    assert set(ALWAYS.values()) == {case.name for case in CASES}


@pytest.mark.parametrize(("rule", "case", "check"), GRID)
def test_contract(rule, case, check):
    CHECKS[check](RULES[rule], case)


NOT_OF_IMPLICIT_SGD = {
    "credit",  # the local product is taken where the step ends, not where it begins
    "batch",  # the proximal step of a batch is not the mean of its examples' steps
}


@pytest.mark.parametrize(("case", "left_out"), [(0, {"jit", "vmap"}), full(0, set()), full(1, set())])
def test_implicit_sgd(case, left_out):
    """Without compiling, L-BFGS is dear."""
    rule = vc.rules.ImplicitSGD(learning_rate=0.1)
    check_rule(rule, skip=NOT_OF_IMPLICIT_SGD | left_out, only=[CASES[case]])


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


@pytest.mark.parametrize("name", [full(name) if "," in name else name for name in ALWAYS_ON])
def test_always_on(name):
    """Rules for chains of layers with vertices at potentials, which the other cases are not."""
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


def test_a_python_number_is_found_to_compile_again_as_often_as_it_is_checked():
    class Scaled(vc.rules.Backprop):
        scale: float = 1.0

    for _ in range(2):
        with pytest.raises(AssertionError, match="expected one compilation in three calls, got 2"):
            CHECKS["no recompilation"](Scaled(), CASES[0])


def test_unknown_check_is_refused():
    with pytest.raises(ValueError, match="got 'everything'"):
        check_rule(vc.rules.Backprop(), skip=["everything"])
