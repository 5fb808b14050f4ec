"""Dynamic inversion: Podlaski and Machens, NeurIPS 2020, arXiv 2007.05112.

The paper's claims, in our words: the forward weights in a loop with fixed feedback invert themselves, so that errors
come down without the transposed weights; this learns at least as well as backpropagation and feedback alignment, and
holds where feedback alignment slows; the loops must be kept stable.
"""

from vicinal_experiments.inversion.networks import AUTOENCODER, MNIST
from vicinal_experiments.inversion.regression import REGRESSION

__all__ = ["AUTOENCODER", "MNIST", "REGRESSION"]
