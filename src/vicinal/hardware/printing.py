"""Ledgers side by side: tables, figures, and what an unsourced constant decides."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from vicinal.hardware.costs import bits_of
from vicinal.hardware.ledger import Ledger
from vicinal.report import ARRAY_COUNTS, Section, Study, Table, array_panels, array_table

__all__ = ["ledger_study", "undecided"]

_KINDS = [ARRAY_COUNTS[name] for name in ("forward", "transposed", "outer")]


def ledger_study(ledgers: Sequence[Ledger], command: str = "", settings: dict[str, Any] | None = None) -> Study:
    """Puts ledgers side by side, for `vicinal.report`: counts, then estimates, with every constant and its source.

    Args:
        ledgers: Ledgers of the same model, batch, machine and size of arrays, by different names.
        command: The command line that made them.
        settings: Its settings.

    Returns:
        The study; `vicinal.report.print_study` and `write_study` show it.

    Raises:
        ValueError: If there is no ledger, or they differ in batch, machine or arrays, or share a name.
    """
    _check(ledgers)
    first = ledgers[0]
    rows, columns = first.array
    counts = {item.name: item.array_counts for item in ledgers}
    text = f"On arrays of {rows} x {columns} cells, batches of {first.batch}."
    sections = [
        Section("Counts", text, [array_table(counts), _by_array(ledgers)], array_panels(counts)),
        *_synaptic(ledgers),
        Section("Conversions and arrays", tables=[_conversions(ledgers), _area(ledgers)]),
        Section("Estimates", tables=[_estimates(ledgers), _parts(ledgers), _constants(first)]),
    ]
    names = ", ".join(item.name for item in ledgers)
    return Study(f"What an update costs on arrays: {names}", text, command, settings or {}, {}, sections)


def undecided(ledgers: Sequence[Ledger]) -> list[str]:
    """Says where a constant without a source decides which of two rules takes less energy.

    Energy is linear in each such constant. Where two rules that follow each other in energy would change places at
    another value of one, a sentence names that value.

    Args:
        ledgers: Ledgers by different names, of the same machine.

    Returns:
        A sentence each.
    """
    said, order = [], sorted(ledgers, key=lambda item: item.energy)
    for name in ledgers[0].constants.unsourced if ledgers else ():
        assumed = ledgers[0].constants.all[name]
        for less, more in pairwise(order):
            (a, b), (c, d) = _line(less, name), _line(more, name)
            if b != d and (value := (a - c) / (d - b)) > 0 and less.energy != more.energy:
                where = "below" if value > assumed.value else "above"
                said.append(
                    f"{name} has no source, and decides between {less.name} and {more.name}: {less.name} takes less "
                    f"energy only {where} {value:.2g} {assumed.unit} (assumed: {assumed.value:.2g})."
                )
    return said


def _line(ledger: Ledger, name: str) -> tuple[float, float]:
    """The energy without a constant, and what it adds per unit."""
    without: Any = {name: 0.0}
    nothing = dataclasses.replace(ledger, constants=dataclasses.replace(ledger.constants, **without)).energy
    value = ledger.constants[name]
    return nothing, (ledger.energy - nothing) / value if value else 0.0


def _check(ledgers: Sequence[Ledger]) -> None:
    if not ledgers:
        raise ValueError("expected at least one ledger, got none")
    names = [item.name for item in ledgers]
    if len(set(names)) < len(names):
        raise ValueError(f"expected ledgers by different names, got {', '.join(names)}; give name= to ledger")
    for field in ("batch", "array", "constants", "bit_serial"):
        if any(getattr(item, field) != getattr(ledgers[0], field) for item in ledgers):
            raise ValueError(f"expected ledgers of one machine and batch, got several of {field}; make them alike")


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _by_array(ledgers: Sequence[Ledger]) -> Table:
    rows: list[list[Any]] = [
        [item.name, use.name, f"{use.outputs} x {use.inputs}", *(_number(n / item.batch) for n in each), *bits]
        for item in ledgers
        for use in item.uses
        for each in [(use.forward, use.transposed, use.outer)]
        for bits in [tuple(_bits(*side) for side in bits_of(use, item.converters, item.constants))]
    ]
    columns = ["rule", "array", "size", *_KINDS, "forward bits", "transposed bits"]
    note = "Bits are those of the converters of inputs and outputs: the tile's, or the constants' where it has none."
    return Table("Array by array", columns, rows, folded=len(ledgers) > 1, note=note)


def _bits(dac: float, adc: float) -> str:
    return f"{dac:g} in, {adc:g} out"


def _synaptic(ledgers: Sequence[Ledger]) -> list[Section]:
    """Operations at events, measured, beside the multiplications when every unit sends."""
    found = {item.name: item.synaptic for item in ledgers if item.synaptic is not None}
    if not found:
        return []
    rows: list[list[Any]] = []
    for name, one in found.items():
        sweep, values, errors, weights = (float(np.mean(n)) for n in (one.sweep, one.values, one.errors, one.weights))
        dense = [one.dense[part] for part in ("sweep", "settling", "weights")]
        share = 100 * (values + errors) / dense[1] if dense[1] else None
        update = sweep + values + errors + weights
        rows.append([name, sweep, values, errors, values + errors, share, weights, update])
        rows.append([f"{name}, dense", dense[0], None, None, dense[1], None, dense[2], sum(dense)])
    backprop = next(iter(found.values())).dense["backprop"]
    rows.append(["bp, dense", *[None] * 6, backprop])
    columns = ["rule", "sweep", "values", "errors", "settling", "of dense (%)", "weights", "update"]
    on = "; ".join(dict.fromkeys(one.on for one in found.values() if one.on)) or "the given batch"
    note = (
        f"Measured on {on}; means over examples. An event is an operation at each synapse that it reaches: of values "
        "times fan-out, where what the synapse reads changed, of errors times fan-in, both together those of settling. "
        "Weights: pairs of ends that are not 0, or touches of synapses that keep a mean. The feedforward sweep is that "
        "of every rule. Dense are the multiplications of the traced program, as if every unit sent in each step; bp is "
        "backpropagation."
    )
    return [
        Section("Synaptic operations", tables=[Table("Synaptic operations of an example", columns, rows, note=note)])
    ]


def _conversions(ledgers: Sequence[Ledger]) -> Table:
    columns = ["rule", "activations of arrays", "DAC conversions", "ADC conversions", "digital additions"]
    rows: list[list[Any]] = []
    for item in ledgers:
        found = item.conversions
        each = (found.activations, found.dac, found.adc, found.additions)
        rows.append([item.name, *(_number(n / item.batch) for n in each)])
    return Table("What the reads of an example ask of arrays and converters", columns, rows)


def _area(ledgers: Sequence[Ledger]) -> Table:
    rows, sizes = [], [item.area for item in ledgers]
    for item, size in zip(ledgers, sizes, strict=True):
        done = item.programmed
        columns = None if done is None else _number(sum(use.forward for use in done.fast))
        told = (None,) * 4 if done is None else (done.cells, done.pulses, done.slots, columns)
        rows.append([item.name, *size.values(), *told])
    heads = ["rule", *sizes[0], "programmed cells", "pulses", "pulse times", "columns of fast arrays read"]
    return Table("What it takes in all, and what an update programs", heads, rows)


def _estimates(ledgers: Sequence[Ledger]) -> Table:
    rows: list[list[Any]] = [
        [item.name, 1e9 * item.energy, 1e6 * item.latency, *(1e9 * value for value in item.processor.values())]
        for item in ledgers
    ]
    columns = ["rule", "energy (nJ) *", "least time (µs)", "processor: arithmetic (nJ)", "SRAM (nJ)", "DRAM (nJ) *"]
    unsourced = ", ".join(ledgers[0].constants.unsourced)
    said = [f"Model estimates for an update, by the constants {ledgers[0].constants.name!r}; no measurements."]
    if unsourced:
        said.append(f"* rests on constants without a source: {unsourced}.")
    said += [
        "Beside them the same multiplications on a processor in 32-bit float: arithmetic, a weight loaded from SRAM "
        "for each, and every weight once from DRAM.",
        *undecided(ledgers),
        *_left_out(ledgers),
    ]
    return Table("Energy and time", columns, rows, note=" ".join(said))


def _left_out(ledgers: Sequence[Ledger]) -> list[str]:
    """What is left out of all ledgers, then what is left out of one of them."""
    common = [said for said in ledgers[0].left_out if all(said in item.left_out for item in ledgers)]
    own = [f"{item.name}: {said}" for item in ledgers for said in item.left_out if said not in common]
    return [*common, *own]


def _parts(ledgers: Sequence[Ledger]) -> Table:
    rows: list[list[Any]] = [[item.name, *(1e9 * value for value in item.energies.values())] for item in ledgers]
    kinds = list(max((item.energies for item in ledgers), key=len))
    rows = [row + [None] * (len(kinds) + 1 - len(row)) for row in rows]
    return Table("Energy by kind (nJ)", ["rule", *kinds], rows, folded=True)


def _constants(ledger: Ledger) -> Table:
    rows: list[list[Any]] = [
        [name + " *" * (constant.source is None), constant.value, constant.unit, constant.source or "unsourced"]
        for name, constant in ledger.constants.all.items()
    ]
    title = f"Constants: {ledger.constants.name}"
    return Table(title, ["constant", "value", "unit", "source"], rows, folded=True)
