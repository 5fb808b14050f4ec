"""Optax transformations that turn the local product into a change of the weights."""

from vicinal.optim.mq import MQState, mq
from vicinal.optim.nlms import nlms, scale_by_presynaptic_norm

__all__ = [
    "MQState",
    "mq",
    "nlms",
    "scale_by_presynaptic_norm",
]
