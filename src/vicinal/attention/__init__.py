"""Sequence layers of linear time: OVQ-attention and its baselines."""

from vicinal.attention.base import Mixer
from vicinal.attention.gated_delta import GatedDeltaNet, gated_delta_rule, naive_gated_delta_rule
from vicinal.attention.generation import generate
from vicinal.attention.language_model import Block, LanguageModel
from vicinal.attention.linear import LinearAttention, linear_attention, naive_linear_attention
from vicinal.attention.mesa import MesaLayer, mesa_attention, naive_mesa_attention
from vicinal.attention.ovq import (
    OVQAttention,
    OVQState,
    Schedule,
    empty_state,
    grow_state,
    naive_ovq_attention,
    ovq_attention,
    state_bytes,
    with_schedule,
)
from vicinal.attention.sizes import closest_size, parameter_count
from vicinal.attention.sliding_window import (
    SlidingWindowAttention,
    naive_sliding_window_attention,
    sliding_window_attention,
)
from vicinal.attention.softmax import SoftmaxAttention, naive_softmax_attention, softmax_attention
from vicinal.attention.ssd import Mamba2, decayed_linear_attention, naive_decayed_linear_attention
from vicinal.attention.vq import VQAttention, naive_vq_attention, vq_attention

__all__ = [
    "Block",
    "GatedDeltaNet",
    "LanguageModel",
    "LinearAttention",
    "Mamba2",
    "MesaLayer",
    "Mixer",
    "OVQAttention",
    "OVQState",
    "Schedule",
    "SlidingWindowAttention",
    "SoftmaxAttention",
    "VQAttention",
    "closest_size",
    "decayed_linear_attention",
    "empty_state",
    "gated_delta_rule",
    "generate",
    "grow_state",
    "linear_attention",
    "mesa_attention",
    "naive_decayed_linear_attention",
    "naive_gated_delta_rule",
    "naive_linear_attention",
    "naive_mesa_attention",
    "naive_ovq_attention",
    "naive_sliding_window_attention",
    "naive_softmax_attention",
    "naive_vq_attention",
    "ovq_attention",
    "parameter_count",
    "sliding_window_attention",
    "softmax_attention",
    "state_bytes",
    "vq_attention",
    "with_schedule",
]
