"""Exchange models with other programs: safetensors, PyTorch's state dictionaries, StableHLO, NIR."""

from vicinal.interchange.exported import export
from vicinal.interchange.nir import from_nir, save_nir, to_nir
from vicinal.interchange.pytorch import from_state_dict, to_state_dict
from vicinal.interchange.tensors import load_safetensors, save_safetensors

__all__ = [
    "export",
    "from_nir",
    "from_state_dict",
    "load_safetensors",
    "save_nir",
    "save_safetensors",
    "to_nir",
    "to_state_dict",
]
