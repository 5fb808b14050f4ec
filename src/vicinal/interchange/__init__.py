"""Exchange models with other programs: safetensors, PyTorch's state dictionaries, StableHLO."""

from vicinal.interchange.exported import export
from vicinal.interchange.pytorch import from_state_dict, to_state_dict
from vicinal.interchange.tensors import load_safetensors, save_safetensors

__all__ = ["export", "from_state_dict", "load_safetensors", "save_safetensors", "to_state_dict"]
