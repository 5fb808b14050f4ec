"""OVQ-attention: Alonso, Figliolia and Millidge 2026, arXiv 2602.03922."""

from vicinal_experiments.ovq.ablations import ABLATIONS
from vicinal_experiments.ovq.books import BOOKS
from vicinal_experiments.ovq.capacity import CAPACITY
from vicinal_experiments.ovq.cost import COST
from vicinal_experiments.ovq.icl import ICL
from vicinal_experiments.ovq.mqar import MQAR
from vicinal_experiments.ovq.recall import RECALL

__all__ = [
    "ABLATIONS",
    "BOOKS",
    "CAPACITY",
    "COST",
    "ICL",
    "MQAR",
    "RECALL",
]
