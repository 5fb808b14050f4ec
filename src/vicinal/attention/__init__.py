"""Sequence layers that read in linear time: OVQ-attention and what it is measured against."""

from vicinal.attention.base import Mixer as Mixer
from vicinal.attention.gated_delta import (
    GatedDeltaNet as GatedDeltaNet,
    gated_delta_rule as gated_delta_rule,
    naive_gated_delta_rule as naive_gated_delta_rule,
)
from vicinal.attention.generation import generate as generate
from vicinal.attention.language_model import Block as Block, LanguageModel as LanguageModel
from vicinal.attention.linear import (
    LinearAttention as LinearAttention,
    linear_attention as linear_attention,
    naive_linear_attention as naive_linear_attention,
)
from vicinal.attention.mesa import (
    MesaLayer as MesaLayer,
    mesa_attention as mesa_attention,
    naive_mesa_attention as naive_mesa_attention,
)
from vicinal.attention.ovq import (
    OVQAttention as OVQAttention,
    OVQState as OVQState,
    Schedule as Schedule,
    empty_state as empty_state,
    grow_state as grow_state,
    naive_ovq_attention as naive_ovq_attention,
    ovq_attention as ovq_attention,
    state_bytes as state_bytes,
    with_schedule as with_schedule,
)
from vicinal.attention.sizes import closest_size as closest_size, parameter_count as parameter_count
from vicinal.attention.sliding_window import (
    SlidingWindowAttention as SlidingWindowAttention,
    naive_sliding_window_attention as naive_sliding_window_attention,
    sliding_window_attention as sliding_window_attention,
)
from vicinal.attention.softmax import (
    SoftmaxAttention as SoftmaxAttention,
    naive_softmax_attention as naive_softmax_attention,
    softmax_attention as softmax_attention,
)
from vicinal.attention.ssd import (
    Mamba2 as Mamba2,
    decayed_linear_attention as decayed_linear_attention,
    naive_decayed_linear_attention as naive_decayed_linear_attention,
)
from vicinal.attention.vq import (
    VQAttention as VQAttention,
    naive_vq_attention as naive_vq_attention,
    vq_attention as vq_attention,
)
