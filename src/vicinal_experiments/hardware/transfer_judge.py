"""Judges, tables and figures of `hardware/transfer`, from its numbers alone."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from vicinal.report import Claim, Panel, Section, Series, Table, interval_text
from vicinal.reproduce import AHEAD, Found, ahead, mean, points_words, supported, value, verdict
from vicinal.train import Member

if TYPE_CHECKING:
    from vicinal_experiments.hardware.transfer import TransferSize

PLAIN, TRANSFER, THRESHOLDED = "pulsed", "transfer", "thresholded"
_NAMES = {PLAIN: "plain pulses", TRANSFER: "transfer", THRESHOLDED: "thresholds"}

_NEAR = 0.05  # of the law's rest
_NEARER = 2.5  # times as near to the target as plain pulses
_ACCURACY = "test_accuracy"


def rest_of(target: float, asymmetry: float, noise: float) -> float:
    """Where plain pulses settle by the law, on cells with bounds at 1: `w = t / (1 + g E|w - t + noise xi|)`.

    Example:
        >>> round(rest_of(0.4, 1.0, 0.5), 3), rest_of(0.4, 0.0, 0.5)
        (0.284, 0.4)
    """
    low, high = 0.0, target
    for _ in range(60):  # the right side rises with w, more slowly than w
        w = (low + high) / 2
        gap, z = w - target, (w - target) / (noise * math.sqrt(2))
        size = noise * math.sqrt(2 / math.pi) * math.exp(-z * z) + gap * math.erf(z)
        low, high = (low, w) if w * (1 + asymmetry * size) > target else (w, high)
    return (low + high) / 2


# ---------------------------------------------------------------------------------------------------------- claims


def one_number(found: "Found[TransferSize]") -> Claim:
    """Plain pulses against the law, transfer against the target."""
    size, checks, said = found.size, [], []
    for g in size.asymmetries:
        for noise in size.noises:
            plain, transfer, law = (
                _rest(found, PLAIN, g, noise),
                _rest(found, TRANSFER, g, noise),
                _law(found, g, noise),
            )
            checks.append(abs(plain / law - 1) < _NEAR)
            if g > 0:
                checks.append(abs(transfer - size.target) < abs(plain - size.target) / _NEARER)
                said.append(f"g {g:g}, noise {noise:g}: {plain:.3f} (law {law:.3f}), transfer {transfer:.3f}")
    return Claim(
        "With a noisy gradient g on asymmetric cells, plain pulses settle at t / (1 + E|g|/b) and transfer much nearer "
        "to the target t (derived; Gokmen and Haensch 2020 for transfer).",
        f"Target {size.target:g}. {'; '.join(said)}. Within {100 * _NEAR:.0f} % of the law, and {_NEARER:g} times "
        "nearer, counts.",
        supported(checks),
    )


def asymmetry_costs(found: "Found[TransferSize]") -> Claim:
    """Plain pulses at the largest asymmetry against none, seed by seed."""
    none, most = found.size.asymmetries[0], found.size.asymmetries[-1]
    gaps = {label: float(np.mean(_costs(found, PLAIN, label))) for label in found.size.rules}
    return Claim(
        "Ours: asymmetry costs networks accuracy where cells get plain pulses, by every rule.",
        f"Points of test accuracy that g = {most:g} costs against g = {none:g}: {points_words(gaps)}.",
        verdict([_compared(found, label, (PLAIN, none), (PLAIN, most)) for label in found.size.rules]),
    )


def transfer_wins(found: "Found[TransferSize]") -> Claim:
    """Transfer against plain pulses at the largest asymmetry."""
    return _against_plain(found, TRANSFER, "on asymmetric cells, transfer trains networks better than plain pulses")


def transfer_loses_less(found: "Found[TransferSize]") -> Claim:
    """What the largest asymmetry costs under either step, seed by seed: apart from what transfer gains without it."""
    none, most = found.size.asymmetries[0], found.size.asymmetries[-1]
    costs = {step: {label: _costs(found, step, label) for label in found.size.rules} for step in (PLAIN, TRANSFER)}
    means = {step: {label: float(np.mean(each)) for label, each in by.items()} for step, by in costs.items()}
    return Claim(
        "Ours: asymmetry costs networks less accuracy with transfer than with plain pulses, by every rule.",
        f"Points of test accuracy from g = {none:g} to g = {most:g}: plain pulses {points_words(means[PLAIN])}; "
        f"transfer {points_words(means[TRANSFER])}.",
        verdict([ahead(costs[PLAIN][label], costs[TRANSFER][label]) for label in found.size.rules]),
    )


def _costs(found: "Found[TransferSize]", step: str, label: str) -> list[float]:
    """What the largest asymmetry costs each seed."""
    none, most = (_ends(found, step, label, g) for g in (found.size.asymmetries[0], found.size.asymmetries[-1]))
    return [first - last for first, last in zip(none, most, strict=True)]


def thresholds_win(found: "Found[TransferSize]") -> Claim:
    """Thresholded changes against plain pulses at the largest asymmetry."""
    return _against_plain(
        found, THRESHOLDED, "on asymmetric cells, changes added up digitally train networks better than plain pulses"
    )


def _against_plain(found: "Found[TransferSize]", step: str, words: str) -> Claim:
    most = found.size.asymmetries[-1]
    results = {label: _compared(found, label, (step, most), (PLAIN, most)) for label in found.size.rules}
    gaps = {
        label: _accuracy(found, step, label, most) - _accuracy(found, PLAIN, label, most) for label in found.size.rules
    }
    said = "; ".join(f"{label} {AHEAD[result]} plain pulses" for label, result in results.items())
    return Claim(
        f"Ours, after Gokmen and Haensch 2020 and Nandakumar et al. 2020: {words}.",
        f"Points of test accuracy ahead at g = {most:g}: {points_words(gaps)}. {said}.",
        verdict(list(results.values())),
    )


def _compared(found: "Found[TransferSize]", label: str, ours: tuple[str, float], theirs: tuple[str, float]) -> int:
    """Compares a rule under two steps or asymmetries, seed by seed."""
    return ahead(*(_ends(found, step, label, g) for step, g in (ours, theirs)))


def _members(found: "Found[TransferSize]", step: str, label: str, asymmetry: float) -> list[Member]:
    return found.members("runs", step, label, f"{asymmetry:g}")


def _ends(found: "Found[TransferSize]", step: str, label: str, asymmetry: float) -> list[float]:
    """The test accuracy of each seed at the end."""
    return [value(member, _ACCURACY) for member in _members(found, step, label, asymmetry)]


def _accuracy(found: "Found[TransferSize]", step: str, label: str, asymmetry: float) -> float:
    return mean(_members(found, step, label, asymmetry), _ACCURACY)


def _rest(found: "Found[TransferSize]", step: str, asymmetry: float, noise: float) -> float:
    return found.numbers["rest"][step][f"{asymmetry:g}"][f"{noise:g}"]


def _law(found: "Found[TransferSize]", asymmetry: float, noise: float) -> float:
    return rest_of(found.size.target, asymmetry, noise)


# --------------------------------------------------------------------------------------------- tables and figures


def summary(found: "Found[TransferSize]") -> str:
    """The mean accuracies of each step at the largest asymmetry."""
    most, rules = found.size.asymmetries[-1], found.size.rules
    said = [
        f"{_NAMES[step]} {', '.join(f'{label} {100 * _accuracy(found, step, label, most):.1f} %' for label in rules)}"
        for step in found.numbers["runs"]
    ]
    return f"Test accuracy after {found.size.updates} updates on cells with g = {most:g}: {'; '.join(said)}."


def differences(found: "Found[TransferSize]") -> list[str]:
    """How this differs from the papers."""
    said = [
        "Networks, devices and numbers of updates are ours; no number of the papers stands here.",
        "Symmetry points of the fast arrays are known exactly, and their columns are read without noise.",
        "All cells of an array have the same symmetry point, 0: only soft bounds make steps up and down differ.",
    ]
    if at_end := _at_an_end(found):
        said.append(f"The chosen learning rate is an end of the range that was tried: {', '.join(at_end)}.")
    if not found.quick and found.size.updates < 10_000:
        said.append(
            f"{found.size.updates} updates and {len(found.size.rules)} rules, for time; the size large has 10 000 "
            "updates and eight rules."
        )
    return said


def _at_an_end(found: "Found[TransferSize]") -> list[str]:
    """Rules and steps for which a learning rate outside of the range might have done better."""
    rates = found.numbers["rates"]
    return [
        f"{label} with {_NAMES[step]}"
        for step, by in rates.items()
        for label, each in by.items()
        if each["chosen"] in (min(each["rates"]), max(each["rates"]))
    ]


def sections(found: "Found[TransferSize]") -> list[Section]:
    """One number, then networks."""
    return [_number_section(found), _network_section(found)]


def _number_section(found: "Found[TransferSize]") -> Section:
    size = found.size
    rows: list[list[Any]] = [
        [
            f"{g:g}",
            f"{noise:g}",
            f"{_law(found, g, noise):.3f}",
            *(f"{_rest(found, step, g, noise):.3f}" for step in _NAMES),
        ]
        for g in size.asymmetries
        for noise in size.noises
    ]
    most, noises = size.asymmetries[-1], list(size.noises)
    lines = [
        Series("law of plain pulses", noises, [[_law(found, most, noise) for noise in noises]]),
        *(
            Series(_NAMES[step], noises, [[_rest(found, step, most, noise) for noise in noises]])
            for step in found.numbers["rest"]
        ),
    ]
    text = (
        f"The number w descends (w - {size.target:g})²/2 along gradients with noise. A pulse up at w is smaller than "
        "one down by a factor (1 - g w)/(1 + g w), so that pulses up and down that noise asks for pull w to 0. In the "
        f"fast array they do so as well, around its symmetry point; what is transferred is the rest. Means of "
        f"{size.cells} cells of 1000 steps a side in the last quarter of {size.cell_updates} updates."
    )
    panels = [
        Panel(f"Where the number settles, g = {most:g}", "noise of the gradient", "rest", lines, level=size.target)
    ]
    return Section(
        "One number",
        text,
        tables=[Table("Rest", ["g", "noise", "law of plain pulses", *_NAMES.values()], rows)],
        panels=panels if len(noises) > 1 else [],
    )


def _network_section(found: "Found[TransferSize]") -> Section:
    size, read = found.size, found.numbers["columns"]

    def cell(step: str, label: str, g: float) -> str | None:
        return interval_text(_ends(found, step, label, g), 100)

    accuracy: list[list[Any]] = [
        [label, _NAMES[step], f"{found.numbers['rates'][step][label]['chosen']:g}"]
        + [cell(step, label, g) or "diverged" for g in size.asymmetries]
        for label in size.rules
        for step in _NAMES
    ]
    pulses: list[list[Any]] = [
        [label, *(f"{mean(_members(found, step, label, size.asymmetries[-1]), 'pulses'):.3g}" for step in _NAMES)]
        for label in size.rules
    ]
    text = (
        "The same arrays for all: 1250 states, variation .3 from pulse to pulse and from cell to cell, noise .06 in "
        "both directions, and converters as in `hardware/ledger`. Learning rates are chosen for each rule and step on "
        "training examples held out, at g = 0.5. Transfer reads all columns of its fast arrays after each update, and "
        "a tenth of what is read goes into a digital buffer."
    )
    note = (
        f"Transfer beside them reads {read['read']:.0f} columns in an update: at least {1e6 * read['time']:.3g} µs and "
        f"{1e9 * read['energy']:.3g} nJ by the ledger's constants, where all reads of backpropagation for a batch of "
        f"{size.batch_size} take {1e9 * read['update']:.3g} nJ. Its pulses are those of both arrays."
    )
    steps = list(_NAMES.values())
    return Section(
        "Networks",
        text,
        tables=[
            Table(
                f"Test accuracy (%) after {size.updates} updates, by g (mean over seeds ± half a 95 % interval)",
                ["rule", "step", "rate", *(f"g = {g:g}" for g in size.asymmetries)],
                accuracy,
            ),
            Table(f"Pulses for each example at g = {size.asymmetries[-1]:g}", ["rule", *steps], pulses, note=note),
        ],
        panels=[_panel(found, label) for label in size.rules],
    )


def _panel(found: "Found[TransferSize]", label: str) -> Panel:
    at = list(found.size.asymmetries)

    def line(step: str) -> Series:
        columns = [_ends(found, step, label, g) for g in at]
        return Series(_NAMES[step], at, [[100 * end for end in seed] for seed in zip(*columns, strict=True)])

    return Panel(f"{label} on asymmetry", "asymmetry g", "test accuracy (%)", [line(step) for step in _NAMES])
