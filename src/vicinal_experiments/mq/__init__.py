"""Understanding and improving optimization in predictive coding networks: Alonso, Krichmar, Neftci, 2305.13562.

AAAI 2024. The paper's claims, in our words: errors reach the lower layers late and small, so that some matrices hardly
move; inference that goes from the output down carries them in one sweep; a step size for each matrix that makes all
move alike, with one number of memory for each, makes predictive coding rival backpropagation with Adam.
"""

from vicinal_experiments.mq.curves import AUTOENCODER, CLASSIFICATION, CONVOLUTION
from vicinal_experiments.mq.inference import INFERENCE
from vicinal_experiments.mq.proximal import OBJECTIVE
from vicinal_experiments.mq.time import TIME

__all__ = [
    "AUTOENCODER",
    "CLASSIFICATION",
    "CONVOLUTION",
    "INFERENCE",
    "OBJECTIVE",
    "TIME",
]
