"""A theoretical framework for inference learning: Alonso, Millidge, Krichmar and Neftci, NeurIPS 2022, 2206.00164.

The paper's claims, in our words: inference learning approximates implicit SGD; so it is stable across learning rates;
its weights take a shorter path; it is faster at batch size one; and a change of its weights does more to the output.
"""

from vicinal.reproduce.il_theory.curves import autoencoder, minibatch, online
from vicinal.reproduce.il_theory.paths import paths
from vicinal.reproduce.il_theory.proximal import proximal
from vicinal.reproduce.il_theory.stability import stability

__all__ = [
    "autoencoder",
    "minibatch",
    "online",
    "paths",
    "proximal",
    "stability",
]
