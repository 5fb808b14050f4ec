"""Strategies of `DynamicInversion`: how a loop is inverted, what feedback it starts with, what keeps it stable."""

from vicinal.rules.inversion.feedback import LoopFeedback, MinusTranspose, Uniform
from vicinal.rules.inversion.stability import Allow, Refuse, Stabilise, Stability
from vicinal.rules.inversion.strategies import ClosedForm, Dynamic, Inversion, PseudoInverse

__all__ = [
    "Allow",
    "ClosedForm",
    "Dynamic",
    "Inversion",
    "LoopFeedback",
    "MinusTranspose",
    "PseudoInverse",
    "Refuse",
    "Stabilise",
    "Stability",
    "Uniform",
]
