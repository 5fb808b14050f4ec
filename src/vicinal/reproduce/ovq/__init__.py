"""OVQ-attention: Alonso, Figliolia and Millidge 2026, arXiv 2602.03922."""

from vicinal.reproduce.ovq.ablations import ablations as ablations
from vicinal.reproduce.ovq.books import books as books
from vicinal.reproduce.ovq.capacity import capacity as capacity
from vicinal.reproduce.ovq.cost import cost as cost
from vicinal.reproduce.ovq.icl import icl as icl
from vicinal.reproduce.ovq.mqar import mqar as mqar
from vicinal.reproduce.ovq.recall import recall as recall
