"""OVQ-attention: a dictionary of keys and values that is learned while a sequence is read."""

from vicinal.attention.ovq.attention import ovq_attention as ovq_attention
from vicinal.attention.ovq.layer import OVQAttention as OVQAttention, with_schedule as with_schedule
from vicinal.attention.ovq.naive import naive_ovq_attention as naive_ovq_attention
from vicinal.attention.ovq.schedule import Schedule as Schedule
from vicinal.attention.ovq.state import (
    OVQState as OVQState,
    empty_state as empty_state,
    grow_state as grow_state,
    state_bytes as state_bytes,
)
