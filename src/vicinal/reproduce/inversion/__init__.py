"""Dynamic inversion: Podlaski and Machens, NeurIPS 2020, arXiv 2007.05112.

The paper's claims, in our words: the forward weights in a loop with fixed feedback invert themselves, so that errors
come down without the transposed weights; this learns at least as well as backpropagation and feedback alignment, and
holds where feedback alignment slows; the loops must be kept stable.
"""

from vicinal.reproduce.inversion.networks import autoencoder, mnist
from vicinal.reproduce.inversion.regression import regression

__all__ = [
    "autoencoder",
    "mnist",
    "regression",
]
