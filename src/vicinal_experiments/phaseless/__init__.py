"""Phaseless alignment learning: Max, Kriener et al., Nature Machine Intelligence 2024, arXiv 2212.10249.

The paper's claims, in our words: noise that every neuron has anyway teaches feedback to carry errors as the transposed
weights would, up to derivatives, while all weights learn and without phases; what is learned with it comes close to
backpropagation, and is better than with random feedback, the more so the more a task depends on its lower layers.
"""

from vicinal_experiments.phaseless.alignment import MICROCIRCUIT, TEACHER
from vicinal_experiments.phaseless.tasks import AUTOENCODER, MNIST, YIN_YANG

__all__ = ["AUTOENCODER", "MICROCIRCUIT", "MNIST", "TEACHER", "YIN_YANG"]
