"""The experiments of all installed packages, found by their entry points."""

import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from vicinal._nearest import did_you_mean
from vicinal.reproduce.experiment import Experiment

GROUP = "vicinal.experiments"
"""The group of entry points; each is a mapping from names to experiments."""


class Installed(NamedTuple):
    """What the entry points offer.

    Attributes:
        experiments: The experiments, by name.
        faults: A sentence for each thing that was left out, so that one broken package does not stop the others.
    """

    experiments: dict[str, Experiment]
    faults: tuple[str, ...]


@functools.cache
def installed() -> Installed:
    """Reads the entry points of all installed packages, in the order of their names."""
    found: dict[str, Experiment] = {}
    faults: list[str] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            for name, chosen in _offered(entry):
                if name in found:
                    faults.append(f"expected names that differ, got the experiment {name!r} again from {entry.value}")
                else:
                    found[name] = chosen
        except Exception as error:  # another package's code may raise anything
            faults.append(f"expected experiments in {entry.value}, got {type(error).__name__}: {error}")
    return Installed(found, tuple(faults))


def _offered(entry: EntryPoint) -> Iterator[tuple[str, Experiment]]:
    offered = entry.load()
    if not isinstance(offered, Mapping):
        raise TypeError(f"expected a mapping from names to experiments, not {type(offered).__name__}")
    for name, chosen in offered.items():
        if not isinstance(chosen, Experiment):
            raise TypeError(f"expected a vicinal.reproduce.Experiment, not {type(chosen).__name__}, for {name!r}")
        if chosen.name != name:
            raise ValueError(f"expected the experiment's own name as its key, {chosen.name!r}, not {name!r}")
        yield name, chosen


def experiments() -> dict[str, Experiment]:
    """All installed experiments by name; what a broken package offers is left out."""
    return installed().experiments


def experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        ValueError: If there is none; the message also names what a broken package offers.
    """
    found, faults = installed()
    if name not in found:
        hint = did_you_mean(name, found, cutoff=0.75)
        broken = "".join(f"; left out: {fault}" for fault in faults)
        raise ValueError(f"expected an experiment of {', '.join(found)}, got {name!r}{hint}{broken}")
    return found[name]
