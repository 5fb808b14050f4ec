"""How activities settle."""

from vicinal.inference.base import Inference as Inference, Settled as Settled
from vicinal.inference.problem import Errors as Errors, Problem as Problem
from vicinal.inference.proximal import Proximal as Proximal
from vicinal.inference.result import Result as Result
from vicinal.inference.simultaneous import Simultaneous as Simultaneous
