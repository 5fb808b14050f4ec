"""How activities settle."""

from vicinal.inference.adaptive import Adaptive as Adaptive
from vicinal.inference.base import Inference as Inference, Settled as Settled
from vicinal.inference.error_based import ErrorBased as ErrorBased
from vicinal.inference.problem import Errors as Errors, Problem as Problem
from vicinal.inference.proximal import Proximal as Proximal
from vicinal.inference.result import Result as Result
from vicinal.inference.sequential import Sequential as Sequential
from vicinal.inference.simultaneous import Simultaneous as Simultaneous
