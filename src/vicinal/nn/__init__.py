"""Layers and models with vertices."""

from equinox.nn import AvgPool2d, MaxPool2d

from vicinal.activations import activation_function, shifted
from vicinal.nn.batch_norm import BatchNorm
from vicinal.nn.layers import Conv2d, Linear
from vicinal.nn.models import MLP, RNN, Autoencoder, ConvNet
from vicinal.nn.presets import PRESETS, Preset, preset
from vicinal.nn.residual import ResidualMLP
from vicinal.nn.transformer import SelfAttention, Transformer, TransformerBlock

__all__ = [
    "MLP",
    "PRESETS",
    "RNN",
    "Autoencoder",
    "AvgPool2d",
    "BatchNorm",
    "Conv2d",
    "ConvNet",
    "Linear",
    "MaxPool2d",
    "Preset",
    "ResidualMLP",
    "SelfAttention",
    "Transformer",
    "TransformerBlock",
    "activation_function",
    "preset",
    "shifted",
]
