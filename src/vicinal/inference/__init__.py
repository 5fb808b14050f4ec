"""How activities settle."""

from vicinal.inference.adaptive import Adaptive
from vicinal.inference.base import Inference, Settled
from vicinal.inference.error_based import ErrorBased
from vicinal.inference.problem import Errors, Problem
from vicinal.inference.proximal import Proximal
from vicinal.inference.result import Result
from vicinal.inference.sequential import Sequential
from vicinal.inference.simultaneous import Simultaneous

__all__ = [
    "Adaptive",
    "ErrorBased",
    "Errors",
    "Inference",
    "Problem",
    "Proximal",
    "Result",
    "Sequential",
    "Settled",
    "Simultaneous",
]
