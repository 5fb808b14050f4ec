"""Cells from measured curves: conductance over pulses, and the label that other simulators give such a curve."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np

from vicinal._numbers import check
from vicinal.hardware.cells import Device

_LABEL = 0.099  # the unit of the label NL of DNN+NeuroSim


def nonlinearity(life: float) -> float:
    """The label NL of the curve `f(p) = (1 - exp(-p/life)) / (1 - exp(-1/life))`, p from 0 to 1: its rise above p.

        NL = max [f(p) - p] / .099

    Args:
        life: In units of the range of the pulses, above 0.

    Raises:
        ValueError: If the life is not above 0, or infinite.

    Example:
        >>> round(nonlinearity(1.2517), 3), round(nonlinearity(0.1924), 3)
        (1.0, 5.0)
    """
    check("the life of a curve", life, lambda v: v > 0, "above 0")
    height = -math.expm1(-1 / life)
    p = -life * math.log(life * height)  # where the slope of f is 1
    return (-math.expm1(-p / life) / height - p) / _LABEL


def life_of(label: float) -> float:
    """The life of the curve with a label NL, the inverse of `nonlinearity`; infinite for 0.

    Args:
        label: From 0 to 9.

    Raises:
        ValueError: If the label is out of this range.

    Example:
        >>> [round(life_of(label), 3) for label in (1, 1.75, 5)]
        [1.252, 0.702, 0.192]
    """
    from scipy.optimize import brentq  # here, because the command line need not wait for it

    if not 0 <= label <= 9:
        raise ValueError(f"expected a label of non-linearity from 0 to 9, got {label}")
    found: Any = math.inf if label < 1e-3 else brentq(lambda life: nonlinearity(life) - label, 0.01, 200.0)
    return float(found)


def nonlinear(states: int, up: float = 0.0, down: float = 0.0, **numbers: Any) -> Device:
    """The cells that go through their range in a number of pulses, with labels NL of non-linearity.

    An exponential curve is that of soft bounds: the first pulses change most. A label is that of the curve in its own
    direction, so that two equal labels are a symmetric cell.

    Args:
        states: Pulses from one bound to the other.
        up: The label of the way up, from 0 to 9.
        down: The label of the way down.
        **numbers: Other numbers of the `Device`.

    Returns:
        The device, with bounds of -1 and 1.

    Raises:
        ValueError: If a label is out of its range.

    Example:
        >>> device = nonlinear(32, 1.75, 1.75)
        >>> round(float(device.soft), 3), round(float(device.step), 3)
        (0.612, 0.071)
    """
    for name, label in (("up", up), ("down", down)):
        check(f"{name}, a label of non-linearity,", label, lambda v: (v >= 0) & (v <= 9), "from 0 to 9")
    ways = [_soft(states * life_of(label), states) for label in (up, down)]
    return _device(ways, **numbers)


def measured(path: str | Path, **numbers: Any) -> Device:
    """Fits cells to measured conductances.

    The table has a header and one row for each pulse, in order: `direction` (`up` or `down`) and `conductance`, in any
    unit, after the pulse. Several rounds may follow each other. Each change of direction begins a branch, and the first
    row of a branch is where it starts. The exponential `G(P) = G0 + B (1 - exp(-P/A))` is fitted to the branches of
    each direction; what is left of single steps is noise from pulse to pulse.

    Args:
        path: The table (.csv).
        **numbers: Other numbers of the `Device`, which no table tells: `spread`, `stuck`, ...

    Returns:
        The device; the largest conductance is a weight of 1, the smallest one of -1.

    Raises:
        ValueError: If the table has another form, or lacks a direction.
        FileNotFoundError: If there is no such file.
    """
    branches = _branches(Path(path))
    for way in ("up", "down"):
        if way not in {found for found, _ in branches}:
            raise ValueError(f"expected pulses in both directions in {path}, got none {way}")
    every = np.concatenate([values for _, values in branches])
    low, high = float(every.min()), float(every.max())
    if not low < high:
        raise ValueError(f"expected conductances that differ in {path}, got {low:g} alone")
    ways, noise = [], []
    for direction in ("up", "down"):
        sign = 1 if direction == "up" else -1
        weights = [sign * (2 * (values - low) / (high - low) - 1) for way, values in branches if way == direction]
        way = _fitted(weights)
        ways.append(way)
        noise += [_noise(w, *way) for w in weights]
    step = (ways[0][0] + ways[1][0]) / 2
    left = np.concatenate([*noise, np.zeros(1)])
    cycle = float(np.std(left)) / step
    return _device(ways, **{"cycle": cycle} | numbers)


def _noise(w: np.ndarray, step: float, soft: float) -> np.ndarray:
    """What is left of single steps, but for those that a bound cuts short."""
    change = step * (1 - soft * w[:-1])
    return (np.diff(w) - change)[w[:-1] + change < 1]


Way = tuple[float, float]
"""A step at 0, and how much steps shrink towards the bound at 1."""


def _device(ways: list[Way], **numbers: Any) -> Device:
    (up, soft), (down, soft_down) = ways
    return Device(step=(up + down) / 2, up_down=(up - down) / (up + down), soft=soft, soft_down=soft_down, **numbers)


def _soft(life: float, pulses: float) -> Way:
    """The way from -1 to 1 in a number of pulses, along an exponential with a life in pulses."""
    if math.isinf(life):
        return 2 / pulses, 0.0
    asymptote = 2 / -math.expm1(-pulses / life) - 1
    return asymptote * -math.expm1(-1 / life), 1 / asymptote


def _fitted(branches: list[np.ndarray]) -> Way:
    """The way whose curves from the starts of the branches have the least squared distance from them."""
    from scipy.optimize import minimize_scalar  # as above

    longest = max(map(len, branches))

    def best_step(soft: float) -> tuple[float, float]:
        def misfit(step: float) -> float:
            return sum(float(np.sum((_curve(w[0], len(w), step, soft) - w) ** 2)) for w in branches)

        found = minimize_scalar(misfit, bounds=(1e-3 / longest, min(4.0, 0.999 / max(soft, 1e-9))), method="bounded")
        return float(found.fun), float(found.x)

    grid = [i / 10 for i in range(11)]
    rough = min(grid, key=lambda soft: best_step(soft)[0])
    bounds = max(0.0, rough - 0.1), min(1.0, rough + 0.1)
    soft = float(minimize_scalar(lambda soft: best_step(soft)[0], bounds=bounds, method="bounded").x)
    soft = 0.0 if soft < 1e-3 else soft
    return best_step(soft)[1], soft


def _curve(start: float, length: int, step: float, soft: float) -> np.ndarray:
    """The weights of single pulses up from a start, as far as the bound at 1."""
    pulses = np.arange(length)
    shrink = step * soft
    grown = -np.expm1(pulses * np.log1p(-shrink)) / shrink if shrink > 1e-12 else pulses
    return np.minimum(start + grown * (step - shrink * start), 1.0)


def _branches(path: Path) -> list[tuple[str, np.ndarray]]:
    """The conductances of each run of pulses in one direction, in order."""
    found: list[tuple[str, list[float]]] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        if not {"direction", "conductance"} <= set(table.fieldnames or ()):
            got = ", ".join(table.fieldnames or ()) or "none"
            raise ValueError(f"expected columns direction and conductance in {path}, got {got}; write a header")
        for line, row in enumerate(table, 2):
            way = str(row["direction"]).strip().lower()
            try:
                value = float(row["conductance"])
            except (TypeError, ValueError):
                value = math.nan
            if way not in ("up", "down") or not math.isfinite(value):
                raise ValueError(
                    f"expected up or down and a finite conductance in line {line} of {path}, got "
                    f"{row['direction']!r} and {row['conductance']!r}"
                )
            if not found or found[-1][0] != way:
                found.append((way, []))
            found[-1][1].append(value)
    return [(way, np.array(values)) for way, values in found if len(values) > 1]
