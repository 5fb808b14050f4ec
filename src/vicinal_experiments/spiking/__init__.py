"""Inference learning in spikes: its limits, what it reaches, when weights may learn, and streams."""

from vicinal_experiments.spiking.any_time import ANY_TIME
from vicinal_experiments.spiking.learning import LEARNING
from vicinal_experiments.spiking.limits import LIMITS
from vicinal_experiments.spiking.streams import STREAMS

__all__ = ["ANY_TIME", "LEARNING", "LIMITS", "STREAMS"]
