"""Understanding and improving optimization in predictive coding networks: Alonso, Krichmar, Neftci, 2305.13562.

AAAI 2024. The paper's claims, in our words: errors reach the lower layers late and small, so that some matrices hardly
move; inference that goes from the output down carries them in one sweep; a step size for each matrix that makes all
move alike, with one number of memory for each, makes predictive coding rival backpropagation with Adam.
"""

from vicinal.reproduce.mq.curves import autoencoder, classification, convolution
from vicinal.reproduce.mq.inference import inference
from vicinal.reproduce.mq.proximal import proximal
from vicinal.reproduce.mq.time import timing

__all__ = [
    "autoencoder",
    "classification",
    "convolution",
    "inference",
    "proximal",
    "timing",
]
