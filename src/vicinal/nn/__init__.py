"""Layers and models with vertices."""

from equinox.nn import AvgPool2d as AvgPool2d, MaxPool2d as MaxPool2d

from vicinal.activations import activation_function as activation_function, shifted as shifted
from vicinal.nn.layers import Conv2d as Conv2d, Linear as Linear
from vicinal.nn.models import MLP as MLP, RNN as RNN, Autoencoder as Autoencoder, ConvNet as ConvNet
from vicinal.nn.presets import PRESETS as PRESETS, Preset as Preset, preset as preset
from vicinal.nn.residual import ResidualMLP as ResidualMLP
from vicinal.nn.transformer import (
    SelfAttention as SelfAttention,
    Transformer as Transformer,
    TransformerBlock as TransformerBlock,
)
