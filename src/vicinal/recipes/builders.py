"""Build the recipes: from a loss and a learning rate, a rule and an optimiser."""

from collections.abc import Callable
from typing import Any

import optax

from vicinal.feedback import optimizers
from vicinal.inference import Inference, Proximal, Sequential, Simultaneous
from vicinal.losses import Loss
from vicinal.optim import mq, nlms, scale_by_presynaptic_norm
from vicinal.recipes.recipe import Made
from vicinal.rules import Backprop, InferenceLearning, Rule

BETA = 100.0
"""Weight of the target over that of the prediction, in the soft target of sequential inference learning."""


def sgd(rule: Callable[[Loss], Rule]) -> Callable[..., Made]:
    return lambda loss, learning_rate: (rule(loss), optax.sgd(learning_rate))


def adam(rule: Callable[[Loss], Rule]) -> Callable[..., Made]:
    def build(loss: Loss, learning_rate: Any, b1: Any = 0.9, b2: Any = 0.999) -> Made:
        return rule(loss), optax.adam(learning_rate, b1=b1, b2=b2)

    return build


def fed(
    rule: Callable[[Loss], Rule], mirror: float | None = None, decay: float = 0.0, momentum: float = 0.0
) -> Callable:
    """Gradient descent for a model with feedback; the feedback descends its penalty, if any, at the rate `mirror`."""

    def build(loss: Loss, learning_rate: Any) -> Made:
        step = optax.sgd(learning_rate, momentum=momentum)
        forward = optax.chain(optax.add_decayed_weights(decay), step) if decay else step
        return rule(loss), optimizers(forward, None if mirror is None else optax.sgd(mirror))

    return build


def fed_adam(rule: Callable[[Loss], Rule], decay: float) -> Callable[..., Made]:
    """Adam with weight decay, for the weights and, on its own, for feedback that learns as the weights do."""
    return lambda loss, learning_rate: (rule(loss), optimizers(optax.adamw(learning_rate, weight_decay=decay)))


def il(steps: int, step_size: float, pull: float = 1.0) -> Callable[..., Rule]:
    """Inference learning with simultaneous inference; the output is clamped or proximal."""

    def rule(loss: Loss, proximal: Proximal | None = None) -> Rule:
        settle = Simultaneous(steps=steps, step_size=step_size, pull=pull)
        return InferenceLearning(inference=settle, loss=loss, proximal=proximal)

    return rule


def seqil(loss: Loss) -> Rule:
    """Sequential inference learning with a soft target."""
    return InferenceLearning(inference=Sequential(), loss=loss, nudge=BETA / (1 + BETA))


def settled(inference: Callable[[], Inference]) -> Callable[[Loss], Rule]:
    """Inference learning with another strategy."""
    return lambda loss: InferenceLearning(inference=inference(), loss=loss)


def bp(loss: Loss, proximal: Proximal | None = None) -> Rule:
    return Backprop(loss=loss, proximal=proximal)


def normalised(rule: Callable[..., Rule], eps: float) -> Callable[..., Made]:
    """The learning rate acts only through the output; the weights take the normalised step of size one."""

    def build(loss: Loss, learning_rate: Any, eps: Any = eps) -> Made:
        return rule(loss, Proximal(learning_rate, eps, norm="mean")), nlms(1.0, eps)

    return build


def normalised_adam(rule: Callable[..., Rule], output_learning_rate: float, eps: float) -> Callable[..., Made]:
    """Adam on the normalised gradient, with a learning rate of its own."""

    def build(loss: Loss, learning_rate: Any, output_learning_rate: Any = output_learning_rate, eps: Any = eps) -> Made:
        step = optax.chain(scale_by_presynaptic_norm(eps), optax.adam(learning_rate))
        return rule(loss, Proximal(output_learning_rate, eps, norm="mean")), step

    return build


def matrix_equalised(rule: Callable[[Loss], Rule]) -> Callable[..., Made]:
    def build(loss: Loss, learning_rate: Any, floor: Any = 0.001, eps: Any = 1e-6, cap: Any = 0.9999) -> Made:
        return rule(loss), mq(learning_rate, floor=floor, eps=eps, cap=cap)

    return build
