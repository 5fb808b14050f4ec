"""Losses of one example, `loss(output, target) -> scalar`, and what they say of their targets."""

from vicinal.losses.base import (
    Loss as Loss,
    check_loss as check_loss,
    loss_and_error as loss_and_error,
    scale_examples as scale_examples,
)
from vicinal.losses.kinds import (
    Declared as Declared,
    Kind as Kind,
    classification as classification,
    regression as regression,
)
from vicinal.losses.plain import (
    kind_of as kind_of,
    masked_softmax_cross_entropy as masked_softmax_cross_entropy,
    masked_squared_error as masked_squared_error,
    sigmoid_cross_entropy as sigmoid_cross_entropy,
    sigmoid_divisive_error as sigmoid_divisive_error,
    sigmoid_squared_error as sigmoid_squared_error,
    softmax_cross_entropy as softmax_cross_entropy,
    squared_error as squared_error,
    token_cross_entropy as token_cross_entropy,
)
