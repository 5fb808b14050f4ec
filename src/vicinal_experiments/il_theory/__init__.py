"""A theoretical framework for inference learning: Alonso, Millidge, Krichmar and Neftci, NeurIPS 2022, 2206.00164.

The paper's claims, in our words: inference learning approximates implicit SGD; so it is stable across learning rates;
its weights take a shorter path; it is faster at batch size one; and a change of its weights does more to the output.
"""

from vicinal_experiments.il_theory.curves import AUTOENCODER, MINIBATCH, ONLINE
from vicinal_experiments.il_theory.paths import PATHS
from vicinal_experiments.il_theory.proximal import PROXIMAL
from vicinal_experiments.il_theory.stability import STABILITY

__all__ = [
    "AUTOENCODER",
    "MINIBATCH",
    "ONLINE",
    "PATHS",
    "PROXIMAL",
    "STABILITY",
]
