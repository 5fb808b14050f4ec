"""Costs of rules, and steps for asymmetric cells: counts against formulas, a law, and judges of made-up numbers."""

import dataclasses

import numpy as np
import pytest

from vicinal.reproduce import Found, experiment
from vicinal_experiments.hardware import ledger, transfer
from vicinal_experiments.hardware.transfer_judge import rest_of

SEEDS = 3


def judged(name, numbers):
    chosen = experiment(name)
    found = Found(chosen.sizes["full"], SEEDS, numbers)
    assert chosen.summary(found)
    assert chosen.differences(found)
    assert [section.heading for section in chosen.sections(found)]
    return [made.verdict for claim in chosen.claims if (made := claim(found)) is not None]


def members(accuracies, **more):
    """A run for each seed, with an accuracy at each of some evaluations."""
    return [
        {
            "numbers": {"learning_rate": 0.1},
            "seed": seed,
            "steps": 100 * len(accuracies),
            "stopped": None,
            "records": [
                {"step": 100 * (i + 1), "test_accuracy": accuracy + 0.001 * seed, **more}
                for i, accuracy in enumerate(accuracies)
            ],
        }
        for seed in range(SEEDS)
    ]


# -------------------------------------------------------------------------------------------------- hardware/ledger

DEPTH = {
    "BP": lambda layers, steps: 2 * layers - 1,
    "DFA": lambda layers, steps: layers + 1,  # its projections are arrays
    "IL": lambda layers, steps: layers + 2 * steps,
    "SeqIL": lambda layers, steps: 2 * layers + 2 * steps - 2,
    "AR": lambda layers, steps: 2 * layers - 1,  # for enough steps
}


@pytest.mark.parametrize("label", DEPTH)
@pytest.mark.parametrize(("layers", "steps"), [(2, 3), (4, 3)])
def test_depths_of_the_measurement_are_those_of_the_formulas(label, layers, steps):
    size = ledger.LedgerSize(width=4, updates=1, rate_updates=1, evaluations=1, level=0.5)
    path = ledger.STEPS.get(label)
    found = ledger._counted(label, layers, 1, size, {path: steps} if path else None)
    assert found.depth == DEPTH[label](layers, steps)


def counts(depth, energy=1e-9, busiest=2.0, time=1e-8):
    return {
        **dict.fromkeys(("forward", "transposed", "outer", "passes", "digital"), 1.0),
        "depth": float(depth),
        "busiest": busiest,
        "energies": {"cells": 0.1 * energy, "ADC": 0.9 * energy},
        "time": time,
    }


def costs(dear=10.0, cheap=0.5, accuracies=None, undecided=()):
    """What training costs: direct feedback takes `cheap` times backpropagation's, rules that settle `dear` times."""
    size = experiment("hardware/ledger").sizes["full"]
    factor = {label: dear if label in ("IL", "SeqIL", "iPC", "AR") else 1.0 for label in size.rules} | {"DFA": cheap}

    def of(label, layers):
        return counts(DEPTH.get(label, DEPTH["BP"])(layers, 20), 1e-9 * factor.get(label, 1.0))

    return {
        "depth": {
            label: {str(n): {str(batch): of(label, n) for batch in size.batches} for n in size.depths}
            for label in ledger.COUNTED
        },
        "steps": {label: {str(n): counts(n) for n in size.steps} for label in ledger.STEPS},
        "undecided": {"2": [], "10": list(undecided)},
        "rates": {label: {"chosen": 0.1} for label in size.rules},
        "runs": {label: members((accuracies or {}).get(label, (0.5, 0.95)), pulses=10.0) for label in size.rules},
        "update": {label: counts(5, 1e-6 * n, time=1e-6 * n) for label, n in factor.items()},
        "pulse": 3.3e-12,
    }


def test_costs_are_judged_by_what_the_runs_spent():
    assert judged("hardware/ledger", costs()) == ["holds in part", "holds", "holds", "holds"]
    assert judged("hardware/ledger", costs(dear=0.2, cheap=2.0))[1:3] == ["does not hold"] * 2
    decided = costs(undecided=["adc_energy has no source, and decides between two rules."])
    assert judged("hardware/ledger", decided)[3] == "holds in part"


def test_converters_that_would_change_an_order_with_its_pulses_decide_it():
    """Direct feedback takes half of the microjoule of reads, most of it in converters, and .8 microjoules of pulses."""
    numbers, batch = costs(), experiment("hardware/ledger").sizes["full"].batch_size
    numbers["pulse"] = 1e-6
    for label, members in numbers["runs"].items():
        for record in (record for member in members for record in member["records"]):
            record["pulses"] = (0.8 if label == "DFA" else 0.0) / batch
    assert judged("hardware/ledger", numbers)[3] == "holds in part"


def test_to_fall_short_of_the_level_is_to_take_more():
    low = (0.5, 0.6)
    assert judged("hardware/ledger", costs(accuracies={"DFA": low}))[1] == "does not hold"
    assert judged("hardware/ledger", costs(accuracies={"BP": low, "DFA": low}))[1] == "open"
    slow = dict.fromkeys(("IL", "SeqIL", "iPC"), (0.5, 0.95)) | {"AR": low}
    assert judged("hardware/ledger", costs(dear=0.2, accuracies=slow))[2] == "holds in part"


def test_a_whole_step_does_not_shrink_with_the_layers_though_its_backward_part_does():
    numbers = costs()
    for layers, each in numbers["depth"]["DFA"].items():
        for found in each.values():
            found["depth"] = 0.5 + int(layers) / 2  # as if the forward pass shrank as well
    assert judged("hardware/ledger", numbers)[0] != "holds"


# ------------------------------------------------------------------------------------------------ hardware/transfer


@pytest.mark.parametrize("noise", [0.2, 1.0])
@pytest.mark.parametrize("asymmetry", [0.0, 0.5, 1.0])
def test_at_the_rest_of_the_law_pulses_cancel_on_average(asymmetry, noise):
    """The mean of the step asked for is that of what asymmetry adds to it."""
    rest = rest_of(0.4, asymmetry, noise)
    gradients = rest - 0.4 + noise * np.random.default_rng(0).normal(size=1_000_000)
    change = -gradients * (1 - asymmetry * rest * np.sign(-gradients))
    assert np.mean(change) == pytest.approx(0, abs=5 * np.std(change) / 1000)


def test_cells_settle_where_the_law_says():
    size = dataclasses.replace(
        experiment("hardware/transfer").sizes["quick"],
        cells=40,
        cell_updates=1500,
        noises=(1.0,),
        asymmetries=(0.0, 1.0),
    )
    for g, found in transfer.rests("pulsed", size).items():
        assert found["1"] == pytest.approx(rest_of(0.4, float(g), 1.0), rel=0.07)


def runs(plain, other, none=0.9):
    size = experiment("hardware/transfer").sizes["full"]
    most = {"pulsed": plain, "transfer": other, "thresholded": other}
    rests = {
        step: {
            f"{g:g}": {f"{noise:g}": rest_of(0.4, g, noise) if step != "transfer" else 0.395 for noise in size.noises}
            for g in size.asymmetries
        }
        for step in most
    }
    return {
        "rest": rests,
        "rates": {step: {label: {"chosen": 0.1, "rates": [0.1, 1.0]} for label in size.rules} for step in most},
        "runs": {
            step: {
                label: {f"{g:g}": members((0.3, accuracy if g else none), pulses=1.0) for g in size.asymmetries}
                for label in size.rules
            }
            for step, accuracy in most.items()
        },
        "columns": {"read": 976.0, "energy": 1e-9, "time": 1e-6, "update": 1e-8},
    }


def test_steps_for_cells_are_judged_seed_by_seed():
    assert judged("hardware/transfer", runs(0.8, 0.85)) == ["holds"] * 5
    assert judged("hardware/transfer", runs(0.9, 0.85)) == ["holds", "open", *["does not hold"] * 3]
    also_without = runs(0.8, 0.85)
    for members_of in also_without["runs"]["transfer"].values():
        members_of["0"] = members((0.3, 0.95), pulses=1.0)  # ahead by as much without asymmetry
    assert judged("hardware/transfer", also_without)[2:4] == ["holds", "open"]
    numbers = runs(0.8, 0.85)
    numbers["rest"]["transfer"]["1"]["1"] = numbers["rest"]["pulsed"]["1"]["1"]
    assert judged("hardware/transfer", numbers)[0] == "holds in part"
