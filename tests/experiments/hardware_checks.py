"""What theory says of the numbers of the experiments on arrays of memory cells."""

import pytest

from vicinal_experiments.hardware.transfer_judge import rest_of


def costs_on_arrays(found):
    for depth, batches in found.numbers["depth"]["BP"].items():
        direct = found.numbers["depth"]["DFA"][depth]["1"]
        assert (batches["1"]["depth"], direct["depth"]) == (2 * int(depth) - 1, int(depth) + 1)
        assert direct["transposed"] == 0
    for label, by in found.numbers["steps"].items():
        counts = [(each["busiest"], sum(each["energies"].values())) for each in by.values()]
        assert counts == sorted(counts), label
    for label, members in found.runs("runs").items():
        assert all(_learns(member) for member in members), label
        assert all(member.records[-1]["pulses"] > 0 for member in members), label


def asymmetric_cells(found):
    for g, by in found.numbers["rest"]["pulsed"].items():
        for noise, rest in by.items():
            assert rest == pytest.approx(rest_of(found.size.target, float(g), float(noise)), rel=0.05)
    for step, rules in found.numbers["runs"].items():
        for label in rules:
            for members in found.runs("runs", step, label).values():
                assert all(_learns(member) for member in members), (step, label)


def _learns(member):
    return member.records[-1]["test_accuracy"] > 0.3  # where guesses have .1


HARDWARE = {"hardware/ledger": costs_on_arrays, "hardware/transfer": asymmetric_cells}
