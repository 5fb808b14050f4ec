"""Sequence layers that read in linear time: OVQ-attention and what it is measured against."""

from vicinal.attention.base import Mixer as Mixer
