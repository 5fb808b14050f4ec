"""Feedback: weights that carry errors back in place of the transposed forward weights, and how they learn."""

from vicinal.feedback.activations import without_derivative
from vicinal.feedback.alignment import (
    Aligned,
    Alignment,
    Noise,
    activation_alignment,
    aligned,
    information_alignment,
    symmetric_alignment,
    weight_mirror,
)
from vicinal.feedback.attach import Fed, attach, detach
from vicinal.feedback.paths import (
    KolenPollack,
    Path,
    Route,
    Separate,
    SignSymmetric,
    Tied,
    given,
    kolen_pollack,
    random,
    sign_symmetric,
    tied,
)
from vicinal.feedback.steps import alternating, labels, optimizers

__all__ = [
    "Aligned",
    "Alignment",
    "Fed",
    "KolenPollack",
    "Noise",
    "Path",
    "Route",
    "Separate",
    "SignSymmetric",
    "Tied",
    "activation_alignment",
    "aligned",
    "alternating",
    "attach",
    "detach",
    "given",
    "information_alignment",
    "kolen_pollack",
    "labels",
    "optimizers",
    "random",
    "sign_symmetric",
    "symmetric_alignment",
    "tied",
    "weight_mirror",
    "without_derivative",
]
