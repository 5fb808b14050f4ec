"""OVQ-attention: attention to a dictionary of keys and values that is learned online."""

from vicinal.attention.ovq.attention import ovq_attention
from vicinal.attention.ovq.layer import OVQAttention, with_schedule
from vicinal.attention.ovq.naive import naive_ovq_attention
from vicinal.attention.ovq.schedule import Schedule
from vicinal.attention.ovq.state import OVQState, empty_state, grow_state, state_bytes

__all__ = [
    "OVQAttention",
    "OVQState",
    "Schedule",
    "empty_state",
    "grow_state",
    "naive_ovq_attention",
    "ovq_attention",
    "state_bytes",
    "with_schedule",
]
