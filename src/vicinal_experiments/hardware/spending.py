"""What training on arrays spent in `hardware/ledger`: joules and seconds to an accuracy, and the order of rules."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from vicinal._records import or_nan
from vicinal.reproduce import Found, ahead, mean
from vicinal.train import Member

if TYPE_CHECKING:
    from vicinal_experiments.hardware.ledger import LedgerSize


def joules(found: "Found[LedgerSize]", label: str, record: Mapping[str, Any]) -> float:
    """The energy of all updates until a record: reads, and the pulses that were counted."""
    size, step = found.size, record["step"]
    # Exact: the sums of Python 3.11 and 3.12 differ in their last bits.
    reads = math.fsum(found.numbers["update"][label]["energies"].values())
    return step * (reads + size.batch_size * or_nan(record.get("pulses")) * found.numbers["pulse"])


def seconds(found: "Found[LedgerSize]", label: str, record: Mapping[str, Any]) -> float:
    """The least time of the reads of all updates until a record."""
    return record["step"] * found.numbers["update"][label]["time"]


def costs(found: "Found[LedgerSize]", label: str, what: Any) -> list[float]:
    """What each seed spent until an evaluation first shows the level; infinite if none does."""
    return [
        next(
            (what(found, label, r) for r in member.records if or_nan(r.get("test_accuracy")) >= found.size.level),
            np.inf,
        )
        for member in found.members("runs", label)
    ]


def mean_cost(found: "Found[LedgerSize]", label: str, what: Any) -> float:
    """The mean over seeds of what was spent until the level; infinite if a seed falls short."""
    return float(np.mean(costs(found, label, what)))


def cheaper(found: "Found[LedgerSize]", label: str, other: str, what: Any) -> int:
    """1 if a rule takes less to the level, -1 if more, 0 if that cannot be told; to fall short is to take more."""
    ours, theirs = (np.array(costs(found, name, what)) for name in (label, other))
    if np.all(np.isfinite([ours, theirs])):
        return ahead((-ours).tolist(), (-theirs).tolist())
    if found.seeds < 3 or np.isfinite(ours).all() == np.isfinite(theirs).all():
        return 0
    return 1 if np.isfinite(ours).all() else -1


def by_kind(found: "Found[LedgerSize]", label: str) -> dict[str, float]:
    """The energy of each kind for an example, J, of reads and of pulses."""
    batch, energies = found.size.batch_size, found.numbers["update"][label]["energies"]
    members: list[Member] = found.members("runs", label)
    return {kind: joule / batch for kind, joule in energies.items()} | {
        "pulses": mean(members, "pulses") * found.numbers["pulse"]
    }


def neighbours(found: "Found[LedgerSize]") -> list[tuple[str, str, dict[str, float]]]:
    """Neighbours in energy, and for each kind of energy the factor at which they take the same; 0 if at none."""
    spent = {label: by_kind(found, label) for label in found.size.rules}
    order = sorted(spent, key=lambda label: math.fsum(spent[label].values()))
    return [
        (less, more, {kind: _factor(spent[less], spent[more], kind) for kind in spent[less]})
        for less, more in pairwise(order)
    ]


def _factor(less: Mapping[str, float], more: Mapping[str, float], kind: str) -> float:
    """At which multiple of the energy of a kind two rules take the same; 0 if at none."""
    gap, slope = math.fsum(more.values()) - math.fsum(less.values()), less[kind] - more[kind]
    return 1 + gap / slope if slope and math.isfinite(gap) else 0.0
