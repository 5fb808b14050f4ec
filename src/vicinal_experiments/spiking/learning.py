"""What learning by events and spikes reaches, and how many synaptic operations it takes."""

import dataclasses
from typing import Any

from vicinal.events import Cyclic, Graded, Ternary
from vicinal.inference import Simultaneous
from vicinal.reproduce import Size
from vicinal.rules import Backprop, EventBackprop, EventInferenceLearning, InferenceLearning, Rule

_MARGIN = 0.005  # of the test accuracy
_PART = 0.03  # of the dense products of settling
BP, IL, QUANTISED = "BP", "IL", "BP by events"
GRADED, RELATIVE, TERNARY, CYCLIC = "graded", "graded, relative", "ternary", "cyclic"


def _by_events(code: type, threshold: float = 0.05, error: float = 0.0125, **how: Any) -> EventInferenceLearning:
    settings = {name: how.pop(name) for name in ("relative",) if name in how}
    return EventInferenceLearning(activity=code(threshold, **settings), error=code(error, **settings), **how)


RULES: dict[str, Rule] = {
    BP: Backprop(),
    QUANTISED: EventBackprop(),
    IL: InferenceLearning(Simultaneous(steps=20, step_size=0.1)),
    GRADED: _by_events(Graded),
    RELATIVE: _by_events(Graded, 0.05, 0.05, relative=True),
    TERNARY: _by_events(Ternary, steps=60),
    CYCLIC: _by_events(Cyclic),
}
"""Backpropagation and inference learning, dense and by events of several codes."""

BY_EVENTS = (GRADED, RELATIVE, TERNARY, CYCLIC)
"""Inference learning by events."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningSize(Size):
    """Training and counting.

    Attributes:
        updates: Updates of a run.
        rate_updates: Updates of the runs that choose learning rates.
        batch_size: Examples in a batch.
        counted: Training examples on which operations are counted.
    """

    updates: int
    rate_updates: int
    batch_size: int = 32
    counted: int = 64
