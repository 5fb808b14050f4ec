"""Reads of every recipe as formulas in the number of layers `L` and of steps `T`, derived by hand.

A layer's own number is `l`, from 1. With the input clamped and the output's error taken from the target:

- a feedforward pass reads each matrix once, but for the topmost where only the loss would need it;
- a step of inference predicts every vertex above the first and the output, and carries their errors down: each matrix
  but the first is read once in each direction;
- errors at the end take one more prediction each.

Without merging, the prediction of the first layer is taken twice: in the feedforward pass and when the input is
clamped. With merging, the first step of inference, at feedforward values, shares the predictions of the feedforward
pass.
"""

import jax
import pytest
from ledger_builders import data, ledger_of, uses
from matrix import full

import vicinal as vc
from vicinal.inference import Sequential, Simultaneous
from vicinal.recipes import RECIPES
from vicinal.rules import ZIL, ActivationRelaxation, Backprop, FixedPrediction, IncrementalPC, InferenceLearning

WEIGHT = "weight"


def il(steps):
    return InferenceLearning(inference=Simultaneous(steps=steps))


def seqil(steps):
    return InferenceLearning(inference=Sequential(steps=steps))


def each(L, first, between, last):
    """What is read of the first matrix, of those between, and of the last."""
    return [first, *[between] * (L - 2), last]


def as_backprop(L, T):
    del T
    return each(L, (1, 0, 1), (1, 1, 1), (1, 1, 1))


def inference(L, T):
    return each(L, (2, 0, 1), (T + 2, T, 1), (T + 1, T, 1))


def inference_merged(L, T):
    return each(L, (1, 0, 1), (T + 1, T, 1), (T + 1, T, 1))


def incremental(L, T):
    return each(L, (T + 1, 0, T), (T + 1, T, T), (T, T, T))


def incremental_merged(L, T):
    return each(L, (1, 0, T), (T, T, T), (T, T, T))


def relaxation(L, T):
    return each(L, (1, 0, 1), (1, T, 1), (1, T, 1))


def relaxation_merged(L, T):
    """The output's error is held, so that what it sends down is always the same."""
    return each(L, (1, 0, 1), (1, T, 1), (1, 1, 1))


TABLE = {
    "bp": (lambda T: Backprop(), as_backprop, as_backprop),
    "z-il": (lambda T: ZIL(), as_backprop, as_backprop),
    "fixed prediction": (lambda T: FixedPrediction(steps=T), relaxation, relaxation_merged),
    "il": (il, inference, inference_merged),
    "seqil": (seqil, inference, inference_merged),
    "ipc": (lambda T: IncrementalPC(steps=T), incremental, incremental_merged),
    "ar": (lambda T: ActivationRelaxation(steps=T), relaxation, relaxation_merged),
}
ALWAYS = {(2, 1), (3, 4), (3, 5), (5, 3)}
CASES = [
    pytest.param(L, T) if (L, T) in ALWAYS else full(L, T) for L in range(2, 6) for T in (*range(1, 8), 13, 20, 30)
]


@pytest.mark.parametrize(("L", "T"), CASES)
@pytest.mark.parametrize("name", TABLE)
def test_reads_are_those_of_the_table(name, L, T):
    rule, plain, merged = TABLE[name]
    assert uses(ledger_of(rule(T), L, merge=False), WEIGHT) == plain(L, T)
    assert uses(ledger_of(rule(T), L), WEIGHT) == merged(L, T)


@pytest.mark.parametrize("L", [2, 4])
def test_direct_feedback_reads_fixed_projections_and_nothing_transposed(L):
    found = ledger_of(vc.rules.DirectFeedback(), L)
    assert uses(found, WEIGHT) == [(1, 0, 1)] * L
    assert uses(found, "state") == [(1, 0, 0)] * (L - 1)
    assert [(use.inputs, use.outputs) for use in found.uses[L:]] == [
        (found.uses[L - 1].outputs, use.outputs) for use in found.uses[: L - 1]
    ]


def test_multiplications_on_mnist_are_those_of_the_table():
    """In units of the number of weights, `P`."""
    model = vc.nn.MLP((784, 256, 256, 10), vertex_at="pre", key=jax.random.key(0))
    x, y = data(inputs=784)
    weights = 784 * 256 + 256 * 256 + 256 * 10

    def ratio(rule):
        return vc.hardware.ledger(rule, model, x, y, merge=False).macs / weights

    assert round(ratio(Backprop()), 2) == 2.25
    assert round(ratio(il(20)), 1) == 13.1
    assert round(ratio(seqil(3)), 1) == 4.5
    assert round(ratio(IncrementalPC(steps=5)), 1) == 12.3
    assert round(ratio(ActivationRelaxation(steps=50)), 1) == 14.7


# ------------------------------------------------------------------------------------------------------- every recipe


def fed(L, weight, feedback):
    """Matrices, and the separate feedback of all but the first layer."""
    return {"layer.weight": [weight] * L, "path.feedback": [feedback] * (L - 1)}


def errors(L, T):
    """Every step runs the network from the errors it holds, and the end once more; the first errors are computed."""
    return {WEIGHT: each(L, (1, 0, 1), (T + 2, T, 1), (T + 1, T, 1))}


def changing_feedback(of_layers, feedback):
    return {"layer.weight": of_layers, "path.feedback": [(0, 0, 1), *feedback]}


L, T = 4, 6
STEPS = {"inference.steps": T}
RECIPE = {
    "bp": ({}, {WEIGHT: as_backprop(L, T)}),
    "bp-sgd": ({}, {WEIGHT: as_backprop(L, T)}),
    "bp-adam": ({}, {WEIGHT: as_backprop(L, T)}),
    "bp-prox": ({}, {WEIGHT: as_backprop(L, T)}),
    "bp-mq": ({}, {WEIGHT: as_backprop(L, T)}),
    "z-il": ({}, {WEIGHT: as_backprop(L, T)}),
    **{
        name: (STEPS, {WEIGHT: inference_merged(L, T)})
        for name in ("il", "il-sgd", "il-adam", "il-prox", "il-prox-fast", "il-prox-adam")
    },
    **{name: (STEPS, {WEIGHT: inference_merged(L, T)}) for name in ("seqil", "seqil-mq", "seqil-adam")},
    "epc": (STEPS, errors(L, T)),
    "ipc": ({"steps": T}, {WEIGHT: incremental_merged(L, T)}),
    # The sweep reads what is sent from the input up; the first step, which sends nothing new upwards, reads the same.
    "il-events": ({"steps": T}, {WEIGHT: inference_merged(L, T)}),
    "bp-events": ({}, {WEIGHT: as_backprop(L, T)}),
    # The mean over the last half of the steps: a product in each of them, none at the end, which then needs no errors.
    "il-spikes": ({"steps": T}, {WEIGHT: each(L, (1, 0, -(-T // 2)), (T + 1, T, -(-T // 2)), (T, T, -(-T // 2)))}),
    "fixed-prediction": ({"steps": T}, {WEIGHT: relaxation_merged(L, T)}),
    "ar": ({"steps": T}, {WEIGHT: relaxation_merged(L, T)}),
    "dfa": ({}, {WEIGHT: [(1, 0, 1)] * L, "state": [(1, 0, 0)] * (L - 1)}),
    "fa": ({}, fed(L, (1, 0, 1), (0, 1, 0))),
    # The array of the signs is another one than that of the weights.
    "sign-symmetric": ({}, {"sign(": [(0, 1, 0)] * (L - 1)}),
    "kolen-pollack": ({}, changing_feedback([(1, 0, 1)] * L, [(0, 1, 1)] * (L - 1))),
    # Noise is read through every matrix, and its product with what it was teaches the mirror.
    "weight-mirror": ({}, changing_feedback([(2, 0, 1)] * L, [(0, 1, 1)] * (L - 1))),
    # Rates are kept positive before the first step, so that its values are no longer those of the feedforward pass.
    "constrained-pc": (
        STEPS,
        changing_feedback(each(L, (1, 0, 1), (T + 2, 0, 1), (T + 1, 0, 1)), [(0, T, 1)] * (L - 1)),
    ),
    # Learned connections carry every settled error once.
    "relaxed-pc": (
        {"steps": T},
        changing_feedback([(1, 0, 1)] * L, [*[(0, T, 1)] * (L - 2), (0, 1, 1)]) | {"state": [(1, 0, 0)] * (L - 1)},
    ),
    # A feedforward pass, then in each of 100 steps a forward read of all matrices but the first, whose input is held,
    # and a read of all feedback; both kinds of weights learn in every step.
    "pal": (
        {},
        {".layers": each(L, (1, 0, 100), (101, 0, 100), (101, 0, 100)), "state": [(0, 100, 100)] * (L - 1)},
    ),
    "di": None,
}


def test_the_table_has_every_recipe():
    assert RECIPE.keys() == RECIPES.keys()


@pytest.mark.parametrize("name", [name for name in RECIPE if name != "di"])
def test_reads_of_every_recipe(name):
    numbers, expected = RECIPE[name]
    rule, _ = RECIPES[name].make(**numbers)
    route = None if RECIPES[name].feedback is None else name
    found = ledger_of(rule, L, route=route)
    assert {ending: uses(found, ending) for ending in expected} == expected


def test_dynamic_inversion_needs_the_turns_of_its_loop():
    rule, _ = RECIPES["di"].make()
    with pytest.raises(vc.hardware.UnknownTurns, match="expected loops of known length"):
        ledger_of(rule, 3)
    one, two, three = (uses(ledger_of(rule, 3, turns=turns), "state") for turns in (1, 2, 3))
    assert [b[0] - a[0] for a, b in zip(one, two, strict=True)] == [
        b[0] - a[0] for a, b in zip(two, three, strict=True)
    ]
    assert all(b[0] > a[0] for a, b in zip(one, two, strict=True))
