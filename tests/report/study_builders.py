"""Made-up studies for the tests of the report; no number here was measured."""

import math

import numpy as np

from vicinal.report import Claim, Panel, Section, Series, Study, Table

RATES = (0.01, 0.1, 1.0, 2.5, 10.0, 100.0)
RULES = ("backpropagation", "inference learning", "proximal inference learning (IL-prox)", "implicit SGD, exact")


def make_accuracies(index, seeds=5):
    """Make final accuracies over learning rates; rule 0 diverges first, rule 1 later and only in part."""
    random = np.random.default_rng(index)
    best = (0.3, 1.0, 10.0, 60.0)[index % 4]
    values = 0.95 - 0.09 * np.log10(np.array(RATES) / best) ** 2 + 0.012 * random.standard_normal((seeds, 6))
    values = np.clip(values, 0.1, 1.0)
    if index == 0:
        values[:, 4:] = math.nan
        values[3:, 3] = math.nan
    if index == 1:
        values[1:3, 4] = values[:, 5] = math.nan
    return values


def make_norms(index, seeds=5):
    """Make update norms that grow with the learning rate and level out for implicit rules."""
    random = np.random.default_rng(100 + index)
    rates = np.array(RATES)
    norms = 0.8 * rates if index == 0 else 0.8 * rates / (1 + rates / (2.0 * index))
    return norms * np.exp(0.15 * random.standard_normal((seeds, 6)))


def accuracy_panel(rules=RULES, **changes):
    lines = [Series(name, RATES, make_accuracies(index)) for index, name in enumerate(rules)]
    fields = {
        "title": "Final accuracy against learning rate",
        "x_label": "learning rate",
        "y_label": "test accuracy",
        "series": lines,
        "log_x": True,
    }
    return Panel(**(fields | changes))


def norm_panel(rules=RULES, **changes):
    lines = [Series(name, RATES, make_norms(index)) for index, name in enumerate(rules)]
    fields = {
        "title": "Size of the update",
        "x_label": "learning rate",
        "y_label": "norm of the first update",
        "series": lines,
        "log_x": True,
        "log_y": True,
        "note": "Implicit rules level out: the update cannot exceed the distance to the minimum.",
    }
    return Panel(**(fields | changes))


def accuracy_table():
    rows = []
    for index, name in enumerate(RULES):
        means = [math.nan if np.isnan(column).all() else np.nanmean(column) for column in make_accuracies(index).T]
        rows.append([name, *means])
    return Table("Mean final accuracy", ["rule", *[f"learning rate {rate:g}" for rate in RATES]], rows)


def best_table():
    rows = [
        [0.01, 4, "0.912 ± 0.013", "stable", 1.5e-7],
        [2.5, 0, "0.954 ± 0.004", "stable", 12.3456],
        [100.0, None, None, "diverged on every seed in the first ten steps", math.inf],
    ]
    return Table("Proximal inference learning", ["learning rate", "seeds lost", "accuracy", "course", "norm"], rows)


def make_study(**changes):
    """Make a study with two sections, claims and differences."""
    fields = {
        "title": "Implicit updates do not need a small learning rate",
        "summary": "Four rules were trained on digits with six learning rates and 5 seeds each. Proximal inference "
        "learning reaches 95.1 ± 0.4 % at a learning rate of 10, where backpropagation is lost.",
        "command": "python examples/learning_rates.py --seeds 5 --out runs/rates",
        "settings": {"seeds": 5, "learning rates": list(RATES), "model": {"sizes": [64, 64, 10]}},
        "environment": {"vicinal": "0.1.0", "jax": "0.10.2", "device": "cpu"},
        "sections": [
            Section(
                "Accuracy",
                "Every rule was trained for 1000 steps.\n\nThe best learning rate differs by rule.",
                [accuracy_table(), best_table()],
                [accuracy_panel()],
            ),
            Section("Update norms", panels=[norm_panel(), norm_panel(RULES[:2], title="Two of them", note="")]),
        ],
        "claims": [
            Claim("Implicit SGD is stable at any rate (Author 2022, figure 3).", "No seed lost up to 100.", "holds"),
            Claim("IL is as good as BP (figure 4).", "95.1 ± 0.4 % beside 94.8 ± 0.5 %: intervals overlap.", "open"),
            Claim("IL is faster than BP.", "It takes 4.1 times as long.", "does not hold"),
            Claim("IL-prox is best at high rates.", "Above 1 it is; below, it is not.", "holds in part"),
        ],
        "differences": ["The paper trains on CIFAR-10, we on digits.", "Five seeds in place of one."],
        "numbers": {"accuracy": {name: make_accuracies(i) for i, name in enumerate(RULES)}},
        "data_credit": "Optical recognition of handwritten digits, CC BY 4.0.",
        "when": "2025-01-31 12:00 UTC",
    }
    return Study(**(fields | changes))
