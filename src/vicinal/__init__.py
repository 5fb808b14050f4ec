"""vicinal trains neural networks by local learning: each synapse changes only with the activity at its two ends.

Subpackages are imported on first use, so that `vicinal --help` need not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vicinal import (
        analysis,
        attention,
        data,
        energy,
        events,
        feedback,
        hardware,
        inference,
        interchange,
        losses,
        nn,
        optim,
        recipes,
        report,
        rules,
        spikes,
        testing,
        train,
    )
    from vicinal.credit import Credit, Info, local_gradient
    from vicinal.graph import Graph, capture, vertex
    from vicinal.marking import mark
    from vicinal.state import update, with_state

__all__ = [
    "Credit",
    "Graph",
    "Info",
    "analysis",
    "attention",
    "capture",
    "data",
    "energy",
    "events",
    "feedback",
    "hardware",
    "inference",
    "interchange",
    "local_gradient",
    "losses",
    "mark",
    "nn",
    "optim",
    "recipes",
    "report",
    "rules",
    "spikes",
    "testing",
    "train",
    "update",
    "vertex",
    "with_state",
]

__version__ = "0.1.0"

_HOME = {  # the modules of public names that are not subpackages
    "Credit": "credit",
    "Graph": "graph",
    "Info": "credit",
    "capture": "graph",
    "local_gradient": "credit",
    "mark": "marking",
    "update": "state",
    "with_state": "state",
    "vertex": "graph",
}


def __getattr__(name: str) -> Any:
    """Imports a public name: a subpackage, or a name that `_HOME` locates."""
    if name not in __all__:
        raise AttributeError(f"module 'vicinal' has no attribute {name!r}; it has {', '.join(__all__)}", name=name)
    module = importlib.import_module(f"vicinal.{_HOME.get(name, name)}")
    globals()[name] = found = getattr(module, name) if name in _HOME else module
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
