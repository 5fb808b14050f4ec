"""Made-up results for the tests of the report; no number here was measured."""

import math

import numpy as np

from vicinal.report import CONCATENATED, Comparison, Curve, RuleResult

LABELS = (
    "backpropagation",
    "inference learning",
    "inference learning, proximal (IL-prox)",
    "direct feedback alignment",
    "activation relaxation",
    "phaseless alignment learning",
)
NAMES = ("bp", "il", "il-prox", "dfa", "ar", "pal")


def make_rule(index=0, *, seeds=3, layers=3, diverged=False, **changes):
    """Make one rule's results; `diverged` loses the last seed half way."""
    random = np.random.default_rng(index)
    steps = np.arange(0, 1001, 50)
    final = 0.968 - 0.004 * index - 0.03 * (index > 2) + 0.004 * random.standard_normal(seeds)
    course = 1 - np.exp(-steps / (90 + 40 * index))
    accuracy = 0.1 + (final[:, None] - 0.1) * course + 0.004 * random.standard_normal((seeds, steps.size))
    accuracy = np.round(np.clip(accuracy, 0, 1) * 360) / 360
    loss = (0.45 - 0.42 * course) * np.exp(0.08 * random.standard_normal((seeds, steps.size)))
    train = (0.45 - 0.445 * course) * np.exp(0.08 * random.standard_normal((seeds, steps.size)))
    if diverged:
        accuracy[-1, 8:] = loss[-1, 8:] = train[-1, 8:] = math.nan
    names = [f"layers.{layer}" for layer in range(layers)] + [CONCATENATED]
    base = 0.0 if index == 0 else 12.0 + 11.0 * index
    angles = {
        name: base * (1 + 0.25 * (layers - row) / layers) + (index > 0) * random.normal(0, 1.5, seeds)
        for row, name in enumerate(names)
    }
    sizes = {name: 0.04 ** ((layers - row) / layers) * np.ones(seeds) for row, name in enumerate(names)}
    fields = {
        "name": NAMES[index],
        "label": LABELS[index],
        "paper": "" if index == 0 else f"Author and Author (20{10 + index}), equation {index}",
        "paper_link": None if index == 0 else f"https://example.org/paper-{index}",
        "test_accuracy": accuracy[:, -1],
        "test_loss": loss[:, -1],
        "angles": angles,
        "norm_ratios": sizes if index else {},
        "milliseconds_per_step": 0.412 * (1 + 2.3 * index),
        "steps_to_90": [
            None if math.isnan(a) else int(150 + 50 * index + 50 * s) for s, a in enumerate(accuracy[:, -1])
        ],
        "curve": Curve(steps, accuracy, loss, train),
        "energies": {} if index == 0 else make_energies(layers),
        "stopped": "The loss became infinite at step 400 (vertex hidden1)." if diverged else None,
    }
    return RuleResult(**(fields | changes))


def make_energies(layers, steps=20):
    """Make energies that flow from the output into the hidden vertices."""
    times = np.arange(steps + 1)
    energies = {
        f"hidden{layer + 1}": 0.02 * 0.5 ** (layers - layer) * (1 - np.exp(-times / (3 + 2 * (layers - layer))))
        for layer in range(layers - 1)
    }
    return energies | {"output": 0.05 + 0.4 * np.exp(-times / 4)}


def make_comparison(*rules, **changes):
    """Make a comparison of the given rules, by default of backpropagation and inference learning."""
    fields = {
        "title": "Learning rules on handwritten digits",
        "command": "vicinal compare --rules bp il --seeds 3 --steps 1000 --out runs/digits",
        "settings": {
            "data": "digits",
            "seeds": [0, 1, 2],
            "training steps": 1000,
            "batch": 32,
            "model": {"sizes": [64, 64, 64, 10], "activation": "tanh", "vertex_at": "post"},
            "il": {"inference steps": 20, "step size": 0.1, "learning rate": 0.05},
            "bp": {"learning rate": 0.05},
        },
        "environment": {
            "vicinal": "0.1.0",
            "jax": "0.10.2",
            "equinox": "0.13.2",
            "python": "3.11.9",
            "device": "cpu",
            "cores": 2,
            "machine": "x86_64, Linux",
        },
        "rules": list(rules) or [make_rule(0), make_rule(1)],
        "data_credit": "Optical recognition of handwritten digits, E. Alpaydin and C. Kaynak, UCI Machine "
        "Learning Repository (1998), CC BY 4.0. 1797 images of 8 by 8 pixels, 1437 to train, 360 to test.",
        "when": "2025-01-31 12:00 UTC",
    }
    return Comparison(**(fields | changes))
