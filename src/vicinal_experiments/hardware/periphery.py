"""Which rule survives which reads: accuracy on bits of the converters and on noise, in either direction."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vicinal.hardware import Periphery
from vicinal.report import Claim, Panel, Section, Series, Table, interval_text
from vicinal.reproduce import Experiment, Found, Run, Size, ahead, verdict
from vicinal.task import Task
from vicinal_experiments.hardware.grids import (
    DECIDED,
    LEARNS,
    NOMINAL,
    Factor,
    accuracies,
    accuracy_panel,
    accuracy_table,
    early_words,
    ends,
    gap_words,
    grid_of,
    growing_lead,
    learns,
    most_accurate,
    percent,
    rate_table,
    within,
)
from vicinal_experiments.hardware.networks import (
    RULES,
    Arrays,
    Points,
    accuracy_of,
    choose_rates,
    held_out,
    network,
    trained,
)
from vicinal_experiments.papers import NEUROMORPHIC

_BITS = 10.0  # of the nominal output converters
_WIDE = {"forward": 80.0, "backward": 12.0}
RANGES = {"forward": (15.0, 30.0, 80.0), "backward": (3.0, 12.0)}
"""The ranges of the output converters that are tried for each rule and number of bits."""
_SIDES = {"both": ("forward", "backward"), "forward": ("forward",), "backward": ("backward",)}
_IN_WORDS = {"both": "in both directions", "forward": "in forward reads alone", "backward": "in reads back alone"}


def _bits(side: str, *values: float) -> Factor:
    points = {bits: {} if bits == _BITS else {f"{own}.adc": bits for own in _SIDES[side]} for bits in (*values, _BITS)}
    return Factor(f"{side} bits", f"bits of the output converters, {_IN_WORDS[side]}", points)


def _noise(side: str) -> Factor:
    points = {
        noise: {f"{own}.read_noise": noise for own in _SIDES[side]} if noise else {} for noise in (0.0, 0.06, 0.2, 0.5)
    }
    return Factor(f"{side} noise", f"noise of an output, {_IN_WORDS[side]}", points)


BITS = {"both": _bits("both", 2.0, 3.0, 4.0, 6.0), **{s: _bits(s, 3.0, 4.0, 6.0) for s in ("forward", "backward")}}
NOISE = {side: _noise(side) for side in _SIDES}
FACTORS = [*BITS.values(), *NOISE.values()]
"""What is varied."""

_AVERAGED = "IL, averaged"
HELP: dict[str, tuple[Mapping[str, Any], int]] = {
    "IL": ({}, 1),
    _AVERAGED: ({"average": 0.5}, 1),
    "IL, 4 reads": ({}, 4),
}
"""Numbers of inference learning, and reads of each input, against the noise."""

_HELPED_AT = [NOISE["both"].point(noise) for noise in (0.06, 0.2, 0.5)]
_BEHIND = 0.01  # of the test accuracy


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeripherySize(Size):
    """Reads and training.

    Attributes:
        rules: The rules that are trained.
        updates: Updates of a run.
        choice_updates: Updates of the runs that choose learning rates.
        batch_size: Examples in a batch.
    """

    rules: tuple[str, ...] = tuple(RULES)
    updates: int
    choice_updates: int
    batch_size: int = 32


# ---------------------------------------------------------------------------------------------------- measurement


def _arrays(ranges: Mapping[str, float], reads: int = 1) -> Arrays:
    """Arrays that take any weight, behind fine converters without noise."""
    sides = {side: Periphery(adc=_BITS, bound=bound, read_noise=0.0, repeats=reads) for side, bound in ranges.items()}
    return Arrays(None, sides["forward"], sides["backward"])


def _measure(run: Run[PeripherySize]) -> dict[str, Any]:
    size, task, change = run.size, network(run.size.data[0]), HELP[_AVERAGED][0]
    long = {"steps": size.updates, "evaluate_every": size.updates, "batch_size": size.batch_size}
    few: dict[str, Any] = {"updates": size.choice_updates, "batch_size": size.batch_size}
    rates = choose_rates(run, task, _arrays(_WIDE), size.rules, **few)
    averaged = choose_rates(run, task, _arrays(_WIDE), ["IL"], change=change, part="rate, averaged", **few)
    rates |= {_AVERAGED: averaged["IL"]}
    ranges = {label: _chosen_ranges(run, label, task, rates[label]["chosen"], long) for label in size.rules}
    runs = {}
    for label in size.rules:
        rate, arrays = rates[label]["chosen"], _arrays(_range_at(ranges[label], _BITS))
        runs[label] = trained(run, label, task, Points(arrays, rate, _grid(ranges[label])), part="on arrays", **long)
    grid = {NOMINAL: {}} | {point: dict(grid_of(FACTORS)[point]) for point in _HELPED_AT}
    helped = {"IL": {point: runs["IL"][point] for point in grid}}
    for name, (change, reads) in list(HELP.items())[1:]:
        rate, arrays = rates.get(name, rates["IL"])["chosen"], _arrays(_range_at(ranges["IL"], _BITS), reads)
        helped[name] = trained(run, "IL", task, Points(arrays, rate, grid), part=name, change=change, **long)
    return {"rates": rates, "ranges": ranges, "runs": runs, "helped": helped}


def _chosen_ranges(run: Run[Any], label: str, task: Task, rate: float, how: Mapping[str, Any]) -> dict[str, Any]:
    """The ranges that do best with each number of bits on held-out training examples, by two seeds."""
    tried = [{"forward": up, "backward": back} for up in RANGES["forward"] for back in RANGES["backward"]]
    grid = {
        f"{bits:g} bits, {i}": _at_both(adc=bits) | {f"{side}.bound": bound for side, bound in ranges.items()}
        for bits in BITS["both"].points
        for i, ranges in enumerate(tried)
    }
    few = dataclasses.replace(run, seeds=min(2, run.seeds))
    points = Points(_arrays(_WIDE), rate, grid)
    found = trained(few, label, task, points, part="choice of the range", data=held_out(task.data), **how)
    chosen = {}
    for bits in BITS["both"].points:
        accuracy = [accuracy_of(found[f"{bits:g} bits, {i}"]) for i in range(len(tried))]
        chosen[f"{bits:g}"] = {"tried": tried, "accuracy": accuracy, "chosen": tried[int(np.argmax(accuracy))]}
    return chosen


def _at_both(**numbers: float) -> dict[str, float]:
    return {f"{side}.{name}": value for side in RANGES for name, value in numbers.items()}


def _range_at(ranges: Mapping[str, Any], bits: float) -> dict[str, float]:
    """The chosen range of each direction with a number of bits."""
    return ranges[f"{bits:g}"]["chosen"]


def _grid(ranges: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """All points, with the range of each direction that was chosen with its number of bits."""
    grid = {}
    for name, point in grid_of(FACTORS).items():
        bits = {side: point.get(f"{side}.adc", _BITS) for side in RANGES}
        grid[name] = point | {f"{side}.bound": _range_at(ranges, bits[side])[side] for side in RANGES}
    return grid


# ---------------------------------------------------------------------------------------------------------- judge


def _summary(found: Found[PeripherySize]) -> str:
    noisy = NOISE["both"].point(0.2)
    parts = [
        f"{label} {percent(found, label, NOMINAL):.1f}, {percent(found, label, BITS['both'].point(4.0)):.1f} and "
        f"{percent(found, label, noisy):.1f}"
        for label in found.size.rules
    ]
    return (
        f"Test accuracy in % after {found.size.updates} updates through fine converters, through 4 bits, and with "
        f"noise of 0.2: {'; '.join(parts)}."
    )


def _most_accurate(found: Found[PeripherySize]) -> Claim:
    signs, words = most_accurate(found, "BP", list(grid_of(FACTORS)))
    return Claim("Backpropagation is the most accurate rule through imperfect reads (abstract).", words, verdict(signs))


def _notably(found: Found[PeripherySize]) -> Claim:
    return growing_lead(found, [BITS["both"].point(3.0), NOISE["both"].point(0.5)], NOMINAL)


def _three_bits(found: Found[PeripherySize]) -> Claim:
    at = {bits: BITS["both"].point(bits) for bits in (2.0, 3.0)}
    words = ", ".join(f"{percent(found, 'DFA', point):.1f} % with {bits:g} bits" for bits, point in at.items())
    return Claim(
        "Direct feedback needs at least 3 bits of the output converters (second hand).",
        f"{words}, {percent(found, 'DFA', NOMINAL):.1f} % with {_BITS:g}. Learning: more than {100 * LEARNS:g} % of "
        f"the accuracy with {_BITS:g} bits, beyond the 95 % interval.",
        verdict([-learns(found, "DFA", at[2.0], NOMINAL), learns(found, "DFA", at[3.0], NOMINAL)]),
    )


def _noise_of_errors(found: Found[PeripherySize]) -> Claim:
    names = {f"noise {noise:g}": point for noise, point in NOISE["both"].named.items() if noise}
    signs = {words: -within(found, "IL", "BP", point, _BEHIND) for words, point in names.items()}
    return Claim(
        f"Ours: with noise of 0.06 or more, inference learning is more than {100 * _BEHIND:g} point worse than "
        "backpropagation.",
        f"Its lead in points: {gap_words(found, 'IL', 'BP', {'no noise': NOMINAL} | names)}. Worse by more, beyond the "
        f"95 % interval: {', '.join(f'{words} {DECIDED[sign]}' for words, sign in signs.items())}.",
        verdict(list(signs.values())),
    )


def _averaging(found: Found[PeripherySize]) -> Claim:
    """Of what noise costs IL against BP, seed by seed; where IL is not behind there is nothing to win back."""
    signs, words = [], []
    for point in _HELPED_AT:
        bp, il = (np.array(accuracies(found, label, point)) for label in ("BP", "IL"))
        won = {name: np.array(_helped(found, name, point)) - il for name in list(HELP)[1:]}
        behind = ahead(bp.tolist(), il.tolist()) > 0
        signs.append(ahead(won[_AVERAGED].tolist(), ((bp - il) / 2).tolist()) if behind else 0)
        gains = ", ".join(f"{name} {100 * np.mean(each):+.1f}" for name, each in won.items())
        words.append(f"{point}: IL {100 * np.mean(il - bp):+.1f} to BP; {gains}")
    return Claim(
        "Ours: averaging the local product over the last half of inference wins half of what noise costs inference "
        "learning back.",
        "In points: "
        + "; ".join(words)
        + ". At least half, beyond the 95 % interval: "
        + ", ".join(f"{point} {DECIDED[sign]}" for point, sign in zip(_HELPED_AT, signs, strict=True))
        + ".",
        verdict(signs),
    )


def _helped(found: Found[PeripherySize], name: str, point: str) -> list[float]:
    return ends(found.members("helped", name, point))


def _differences(found: Found[PeripherySize]) -> list[str]:
    size = found.size
    return [
        early_words(size.updates, size.batch_size),
        "Weights are programmed exactly, and are not bounded: what cells do is in `hardware/devices`. Our model of "
        "reads (`vicinal.hardware`), not DNN+NeuroSim's; we could not read the paper's tables.",
        "The projections of DFA, the activities and the biases are digital: DFA has no reads back.",
        "Each rule has a learning rate of its own, chosen with fine converters, and ranges of the converters of its "
        "own in either direction, chosen for each number of bits (the same in both directions); all of them on "
        "held-out training examples, by two seeds.",
        "The test examples are read through the same converters and noise.",
    ]


# --------------------------------------------------------------------------------------------- tables and figures


def _sections(found: Found[PeripherySize]) -> list[Section]:
    labels = found.size.rules
    first = Section(
        "Ranges",
        "Outputs are in units of the scale of an array and the largest input; beyond the range they saturate. A range "
        "that is too narrow stops learning at any number of bits, and one that is too wide wastes bits.",
        tables=[_range_table(found), rate_table(found.numbers["rates"])],
    )
    sections = [first]
    for heading, factors in (("Bits of the converters", BITS), ("Noise of reads", NOISE)):
        titles = {side: f"{heading} {_IN_WORDS[side]}" for side in factors}
        tables = [accuracy_table(found, titles[side], factor, labels) for side, factor in factors.items()]
        panels = [accuracy_panel(found, titles[side], factor, labels) for side, factor in factors.items()]
        sections.append(Section(heading, tables=tables, panels=panels))
    note = (
        "Averaged: the local product is the mean over the last half of the inference steps. 4 reads: each input is "
        "read four times, and the mean taken. Noise is in both directions."
    )
    return [*sections, Section("Against the noise", note, tables=[_help_table(found)], panels=[_help_panel(found)])]


def _range_table(found: Found[PeripherySize]) -> Table:
    table: list[list[Any]] = []
    for label in found.size.rules:
        at = {bits: _range_at(found.numbers["ranges"][label], bits) for bits in BITS["both"].points}
        ranges = [" and ".join(f"{chosen[side]:g}" for side in RANGES) for chosen in at.values()]
        table.append([label, *ranges, interval_text(accuracies(found, label, NOMINAL), 100.0)])
    title = "Chosen ranges, forward and back, by bits; and test accuracy (%, mean over seeds ± half a 95 % interval)"
    return Table(title, ["rule", *(f"{bits:g}" for bits in BITS["both"].points), f"through {_BITS:g} bits"], table)


def _help_table(found: Found[PeripherySize]) -> Table:
    table: list[list[Any]] = [
        [name, *(interval_text(_helped(found, name, point), 100.0) for point in (NOMINAL, *_HELPED_AT))]
        for name in HELP
    ]
    bp = [interval_text(accuracies(found, "BP", point), 100.0) for point in (NOMINAL, *_HELPED_AT)]
    title = "Test accuracy (%, mean over seeds ± half a 95 % interval), by noise of an output in both directions"
    return Table(title, ["rule", *(f"{noise:g}" for noise in NOISE["both"].points)], [["BP", *bp], *table])


def _help_panel(found: Found[PeripherySize]) -> Panel:
    points = (NOMINAL, *_HELPED_AT)
    found_at = {"BP": [accuracies(found, "BP", point) for point in points]}
    found_at |= {name: [_helped(found, name, point) for point in points] for name in HELP}
    lines = [
        Series(name, list(NOISE["both"].points), (100 * np.transpose(columns)).tolist())
        for name, columns in found_at.items()
    ]
    return Panel("Averaging and repeated reads", NOISE["both"].heading, "test accuracy (%)", lines)


PERIPHERY = Experiment(
    name="hardware/periphery",
    title="Learning rules through coarse and noisy reads",
    topic="accuracy of eight rules on bits of converters and noise of reads, forward and back",
    paper=NEUROMORPHIC,
    sizes={
        "quick": PeripherySize(data=("digits",), rules=("BP", "DFA", "IL"), updates=60, choice_updates=30),
        "full": PeripherySize(data=("mnist",), updates=400, choice_updates=200),
        "large": PeripherySize(data=("mnist",), updates=10_000, choice_updates=2_000),
    },
    time={"full": "twenty minutes", "large": "six hours"},
    measure=_measure,
    summary=_summary,
    claims=[_most_accurate, _notably, _three_bits, _noise_of_errors, _averaging],
    sections=_sections,
    differences=_differences,
)
"""Which rule survives which reads: bits and noise, forward, back and both; IL with averaging and repeated reads."""
