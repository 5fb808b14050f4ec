"""OVQ-attention: Alonso, Figliolia and Millidge 2026, arXiv 2602.03922."""

from vicinal.reproduce.ovq.ablations import ablations
from vicinal.reproduce.ovq.books import books
from vicinal.reproduce.ovq.capacity import capacity
from vicinal.reproduce.ovq.cost import cost
from vicinal.reproduce.ovq.icl import icl
from vicinal.reproduce.ovq.mqar import mqar
from vicinal.reproduce.ovq.recall import recall

__all__ = [
    "ablations",
    "books",
    "capacity",
    "cost",
    "icl",
    "mqar",
    "recall",
]
