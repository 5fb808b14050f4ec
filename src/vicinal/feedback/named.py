"""Routes by their names on the command line."""

from collections.abc import Callable
from typing import Literal

from vicinal.feedback.alignment import (
    activation_alignment,
    information_alignment,
    symmetric_alignment,
    weight_mirror,
)
from vicinal.feedback.paths import Route, kolen_pollack, random, sign_symmetric, tied

FeedbackName = Literal[
    "tied",
    "random",
    "sign-symmetric",
    "kolen-pollack",
    "weight-mirror",
    "information-alignment",
    "symmetric-alignment",
    "activation-alignment",
]

ROUTES: dict[str, Callable[[], Route]] = {
    "tied": tied,
    "random": random,
    "sign-symmetric": sign_symmetric,
    "kolen-pollack": kolen_pollack,
    "weight-mirror": weight_mirror,
    "information-alignment": information_alignment,
    "symmetric-alignment": symmetric_alignment,
    "activation-alignment": activation_alignment,
}
"""Functions that make each route with its default settings."""
