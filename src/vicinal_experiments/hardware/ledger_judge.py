"""Judges, tables and figures of `hardware/ledger`, from its numbers alone."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vicinal._records import or_nan
from vicinal.report import ARRAY_COUNTS, Claim, Panel, Section, Series, Table, interval_text
from vicinal.reproduce import AHEAD, Found, mean, supported, value, verdict
from vicinal_experiments.hardware.spending import by_kind, cheaper, joules, mean_cost, neighbours, seconds

if TYPE_CHECKING:
    from vicinal_experiments.hardware.ledger import LedgerSize

BP, DFA = "BP", "DFA"
SETTLING = ("IL", "SeqIL", "iPC", "AR")
"""The rules that settle, of those that are trained."""

_NANO, _MICRO = 1e9, 1e6
_UNSOURCED = ("DAC", "ADC")
"""The kinds of energy whose constants have no source by default."""
_DECIDES = 10.0  # the factor by which such a constant may be wrong


# ---------------------------------------------------------------------------------------------------------- claims


def direct_feedback_is_faster(found: "Found[LedgerSize]") -> Claim:
    """In reads one after another: the part after the forward pass, and a whole step."""
    whole, backward = {}, {}
    for depth in found.size.depths:
        bp, dfa = (_counts(found, label, depth)["depth"] for label in (BP, DFA))
        whole[depth], backward[depth] = bp / dfa, (bp - depth) / (dfa - depth)
    last = found.size.depths[-1]
    busiest = [_counts(found, label, last)["busiest"] for label in (BP, DFA)]
    measured = (
        f"On {last} layers the reads after the forward pass fall by a factor of {backward[last]:.3g} (layers - 1), "
        f"those of a whole step by {whole[last]:.3g}, and never by 2: the forward pass stays. In a pipeline of many "
        f"examples the busiest array decides: {busiest[0]:g} reads of an example against {busiest[1]:g}."
    )
    parts = [
        all(math.isclose(backward[depth], depth - 1) for depth in found.size.depths),
        all(whole[depth] > depth / 2 for depth in found.size.depths),
    ]
    return Claim(
        "Direct feedback cuts training time by a factor that approaches the number of layers (abstract).",
        measured,
        supported(parts),
    )


def direct_feedback_is_cheaper(found: "Found[LedgerSize]") -> Claim:
    """Joules and seconds to an accuracy, seed by seed."""
    return Claim(
        "Ours: to the same accuracy on the same arrays, direct feedback takes less energy and time than "
        "backpropagation.",
        _words(found, (DFA,)),
        verdict([cheaper(found, DFA, BP, what) for what in (joules, seconds)]),
    )


def settling_is_dearer(found: "Found[LedgerSize]") -> Claim:
    """Joules and seconds to an accuracy, seed by seed."""
    labels = [label for label in SETTLING if label in found.size.rules]
    return Claim(
        "Ours: to the same accuracy on the same arrays, every rule that settles takes more energy and time than "
        "backpropagation.",
        _words(found, labels),
        verdict([-cheaper(found, label, BP, what) for label in labels for what in (joules, seconds)]),
    )


def order_is_decided(found: "Found[LedgerSize]") -> Claim:
    """Whether a constant that has no source could change the order of two rules: of reads, and with pulses."""
    said = {depth: each for depth, each in found.numbers["undecided"].items() if each}
    reads = " ".join(f"On {depth} layers: {' '.join(each)}" for depth, each in said.items())
    close = [
        f"{less} before {more} if {kind} takes {factor:.2g} times as much"
        for less, more, factors in neighbours(found)
        for kind, factor in factors.items()
        if kind in _UNSOURCED and 1 / _DECIDES < factor < _DECIDES
    ]
    words = reads or "In the reads alone, no value of such a constant changes the places of two neighbours."
    if close:
        words += f" With the pulses of the trained networks neighbours would change places: {'; '.join(close)}."
    return Claim(
        "Ours: the order of the rules in energy rests on no constant without a source.",
        words,
        supported([not said, not close]),
    )


def _words(found: "Found[LedgerSize]", labels: Any) -> str:
    said = []
    for label in labels:
        parts = [
            f"{AHEAD[cheaper(found, label, BP, what)]} {BP} in {name}"
            for what, name in ((joules, "energy"), (seconds, "time"))
        ]
        said.append(f"{label} is {', '.join(parts)}: {_cost_text(found, label)}")
    return f"To {100 * found.size.level:.0f} %: {'; '.join(said)}; {BP} {_cost_text(found, BP)}."


def _cost_text(found: "Found[LedgerSize]", label: str) -> str:
    spent = [mean_cost(found, label, what) for what in (joules, seconds)]
    if not math.isfinite(spent[0]):
        return "does not reach it with every seed"
    return f"{_MICRO * spent[0]:.3g} µJ and {_MICRO * spent[1]:.3g} µs"


def _counts(found: "Found[LedgerSize]", label: str, depth: int, batch: int | None = None) -> dict[str, Any]:
    return found.numbers["depth"][label][str(depth)][str(found.size.batches[0] if batch is None else batch)]


def _energy(counts: Mapping[str, Any]) -> float:
    return math.fsum(counts["energies"].values())


# --------------------------------------------------------------------------------------------------------- summary


def summary(found: "Found[LedgerSize]") -> str:
    """The counts of the deepest network, and what training cost, in a few sentences."""
    last = found.size.depths[-1]
    said = [f"{label} {_counts(found, label, last)['depth']:.0f}" for label in found.size.rules]
    ends = ", ".join(
        f"{label} {100 * mean(found.members('runs', label), 'test_accuracy'):.1f} %" for label in found.size.rules
    )
    energy = {label: _energy(_counts(found, label, last)) for label in found.numbers["depth"]}
    least, most = min(energy, key=energy.__getitem__), max(energy, key=energy.__getitem__)
    return (
        f"Reads one after another in an update on {last} layers: {', '.join(said)}. The reads of an example take "
        f"{_NANO * energy[least]:.3g} nJ by {least} and {_NANO * energy[most]:.3g} nJ by {most}, as the constants have "
        f"it. Trained on arrays with {found.size.updates} updates: {ends}."
    )


def differences(found: "Found[LedgerSize]") -> list[str]:
    """How this differs from the paper."""
    size = found.size
    said = [
        "The paper compares backpropagation and direct feedback in DNN+NeuroSim; here energies are counts of reads "
        "times constants, whose sources the ledger names, and buffers, wires and digital arithmetic are left out.",
        "We could read the abstract only, so no number of the paper stands here.",
        "Times are those of reads alone: pulses are counted in energy, with 3.3 pJ each as an upper bound.",
    ]
    said.append(
        "Outputs of forward reads have a range of 80 and 10 bits. In the default range of 12, reads of 784 inputs "
        "saturate, and no rule learns well."
    )
    if not found.quick and size.updates < 10_000:
        said.append(f"Runs have {size.updates} updates, for time; the size large has 10 000.")
    return said


# --------------------------------------------------------------------------------------------- tables and figures


def sections(found: "Found[LedgerSize]") -> list[Section]:
    """Counts on layers and on steps, accuracy on joules and seconds, and what decides."""
    return [_layers(found), _steps(found), _accuracy(found), _deciding(found)]


def _layers(found: "Found[LedgerSize]") -> Section:
    size, labels = found.size, list(found.numbers["depth"])
    depths = [float(depth) for depth in size.depths]

    def line(label: str, name: str) -> Series:
        return Series(label, depths, [[_counts(found, label, depth)[name] for depth in size.depths]])

    chain: list[list[Any]] = [
        [label, *(int(_counts(found, label, depth)["depth"]) for depth in size.depths)] for label in labels
    ]
    last, most = size.depths[-1], size.batches[-1]
    names = ("forward", "transposed", "outer", "busiest")
    rows: list[list[Any]] = []
    for label in labels:
        one, many = _counts(found, label, last), _counts(found, label, last, most)
        rows.append(
            [
                label,
                *(f"{one[name]:g}" for name in names),
                f"{_NANO * _energy(one):.4g}",
                f"{_MICRO * one['time']:.3g}",
                f"{_MICRO * many['time'] / most:.3g}",
            ]
        )
    columns = ["rule", *(ARRAY_COUNTS[name] for name in names), "nJ *", "least time (µs)", f"in batches of {most} (µs)"]
    text = (
        f"{28 * 28} inputs, {size.width} units in each hidden layer, 10 outputs, each rule with its own number of "
        "steps. Depth is the longest chain of reads in which each needs the one before; the busiest array does its "
        "reads one after another. An update takes at least as long as either."
    )
    trained = [label for label in labels if label in size.rules]
    return Section(
        "On layers",
        text,
        tables=[
            Table(
                "Depth: reads one after another in an update, by the number of layers",
                ["rule", *map(str, size.depths)],
                chain,
            ),
            Table(
                f"For each example, on {last} layers",
                columns,
                rows,
                note="* Reads alone, by constants two of which have no source: the levels of the converters. "
                "iPC changes its weights at each of its steps, the others once.",
            ),
        ],
        panels=[
            Panel(
                "Depth on layers", "layers", "reads one after another", [line(n, "depth") for n in trained], log_y=True
            ),
            Panel("The busiest array", "layers", "reads of it", [line(n, "busiest") for n in trained], log_y=True),
        ],
    )


def _steps(found: "Found[LedgerSize]") -> Section:
    steps, settling = found.size.steps, found.numbers["steps"]
    each = [float(count) for count in steps]

    def lines(of: Any) -> list[Series]:
        return [Series(label, each, [[of(by[str(count)]) for count in steps]]) for label, by in settling.items()]

    rows: list[list[Any]] = [
        [
            label,
            *(
                f"{by[str(n)]['depth']:.0f}, {by[str(n)]['busiest']:.0f}, {_NANO * _energy(by[str(n)]):.3g}"
                for n in steps
            ),
        ]
        for label, by in settling.items()
    ]
    return Section(
        "On steps of inference",
        "Three layers, one example. A chain may be short where an array is busy all along: a step of activation "
        "relaxation reads the errors of the step before, and layers work side by side.",
        tables=[Table("Depth, reads of the busiest array, and nJ of reads", ["rule", *map(str, steps)], rows)],
        panels=[
            Panel(
                "Depth against steps",
                "steps of inference",
                "reads one after another",
                lines(lambda by: by["depth"]),
                log_x=True,
                log_y=True,
            ),
            Panel(
                "Energy of reads against steps",
                "steps of inference",
                "nJ for each example",
                lines(lambda by: _NANO * _energy(by)),
                log_x=True,
                log_y=True,
            ),
        ],
    )


def _accuracy(found: "Found[LedgerSize]") -> Section:
    size, rows = found.size, []
    for label in size.rules:
        members, update = found.members("runs", label), found.numbers["update"][label]
        pulses = mean(members, "pulses")
        rows.append(
            [
                label,
                f"{found.numbers['rates'][label]['chosen']:g}",
                interval_text([value(member, "test_accuracy") for member in members], 100),
                f"{pulses:.3g}",
                f"{_NANO * _energy(update) / size.batch_size:.3g}",
                f"{_NANO * pulses * found.numbers['pulse']:.3g}",
                f"{update['depth']:.0f}",
                *_to_level(found, label),
            ]
        )
    level = f"to {100 * size.level:.0f} %"
    columns = ["rule", "rate", "test accuracy (%)", "pulses", "nJ of reads", "nJ of pulses", "depth"]
    return Section(
        "Accuracy on energy and time",
        "Every rule on the same arrays: 1250 states, variation .3 from pulse to pulse and from cell to cell, "
        "converters of 7 bits for inputs, of 10 bits forward and 9 back for outputs, and noise .06 in both directions. "
        "Learning rates are chosen on training examples held out, for each rule. Joules are a model estimate: reads, "
        "and 3.3 pJ for each pulse that was given, an upper bound.",
        tables=[
            Table(
                f"After {size.updates} updates of {size.batch_size} examples; numbers for each example",
                [*columns, f"µJ {level}", f"µs {level}"],
                rows,
            )
        ],
        panels=[
            _against(found, "Accuracy on energy", "µJ, reads and pulses", joules),
            _against(found, "Accuracy on time", "µs of reads, at least", seconds),
        ],
    )


def _to_level(found: "Found[LedgerSize]", label: str) -> list[str | None]:
    spent = [_MICRO * mean_cost(found, label, what) for what in (joules, seconds)]
    return [f"{amount:.3g}" if math.isfinite(amount) else None for amount in spent]


def _against(found: "Found[LedgerSize]", title: str, name: str, what: Any) -> Panel:
    lines = []
    for label in found.size.rules:
        members = found.members("runs", label)
        shown = [member.records[1:] for member in members if len(member.records) > 1]
        if not shown:
            continue
        x = [_MICRO * float(np.mean([what(found, label, r) for r in at])) for at in zip(*shown, strict=False)]
        y = [[100 * or_nan(r.get("test_accuracy")) for r in records[: len(x)]] for records in shown]
        lines.append(Series(label, x, y))
    return Panel(title, name, "test accuracy (%)", lines, log_x=True)


def _deciding(found: "Found[LedgerSize]") -> Section:
    """By which factor the energy of a kind would have to change for two rules to take the same."""
    spent = {label: by_kind(found, label) for label in found.size.rules}
    rows: list[list[Any]] = []
    for less, more, factors in neighbours(found):
        shown = [f"{factor:.3g}" if factor > 0 else None for factor in factors.values()]
        rows.append([f"{less} before {more}", f"{_NANO * math.fsum(spent[less].values()):.4g}", *shown])
    kinds = list(spent[found.size.rules[0]])
    said = [
        f"On {depth} layers: {each}" for depth, sentences in found.numbers["undecided"].items() for each in sentences
    ]
    text = (
        "Energy is a sum over kinds of work. For two rules that follow each other, the factor by which one kind alone "
        "would have to become dearer or cheaper for them to change places; none where that cannot happen. Among the "
        "trained rules, reads and pulses of an example."
    )
    note = " ".join(said) or "No constant without a source decides between the reads of two rules."
    return Section(
        "Which constant decides",
        text,
        tables=[
            Table("Factors at which two rules change places", ["order", "nJ of the first", *kinds], rows, note=note)
        ],
    )
