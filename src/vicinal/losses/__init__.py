"""Losses of one example, `loss(output, target) -> scalar`, and what they say of their targets."""

from vicinal.losses.base import Loss, check_loss, loss_and_error, scale_examples
from vicinal.losses.kinds import Declared, Kind, classification, regression
from vicinal.losses.plain import (
    masked_softmax_cross_entropy,
    masked_squared_error,
    sigmoid_cross_entropy,
    sigmoid_divisive_error,
    sigmoid_squared_error,
    softmax_cross_entropy,
    squared_error,
    token_cross_entropy,
)
from vicinal.losses.weighted import Weighted, balanced, kind_of, pair_of_weights, weighted, without_weights

__all__ = [
    "Declared",
    "Kind",
    "Loss",
    "Weighted",
    "balanced",
    "check_loss",
    "classification",
    "kind_of",
    "loss_and_error",
    "masked_softmax_cross_entropy",
    "masked_squared_error",
    "pair_of_weights",
    "regression",
    "scale_examples",
    "sigmoid_cross_entropy",
    "sigmoid_divisive_error",
    "sigmoid_squared_error",
    "softmax_cross_entropy",
    "squared_error",
    "token_cross_entropy",
    "weighted",
    "without_weights",
]
