"""Reproductions of papers: what an experiment is, the driver that runs it, and how it is found.

The experiments are in other packages, which offer them under the entry point `vicinal.experiments`. Those of the papers
that vicinal implements are in `vicinal_experiments`.
"""

from vicinal.reproduce.driver import judge, reproduce, settings_in
from vicinal.reproduce.experiment import Experiment, Found, Size
from vicinal.reproduce.installed import experiment, experiments
from vicinal.reproduce.members import (
    AHEAD,
    accuracy_gap,
    ahead,
    compared,
    first_step,
    mean,
    members,
    rows,
    supported,
    value,
    verdict,
)
from vicinal.reproduce.rates import by_rate, rate_panel, rate_table
from vicinal.reproduce.tables import (
    accuracy_panel,
    accuracy_table,
    curve_panel,
    curve_section,
    end_table,
    first_and_last_table,
    levels_table,
    mean_words,
    number_words,
    points_words,
)
from vicinal.reproduce.training import Measure, Problem, Run, Variant, captured

__all__ = [
    "AHEAD",
    "Experiment",
    "Found",
    "Measure",
    "Problem",
    "Run",
    "Size",
    "Variant",
    "accuracy_gap",
    "accuracy_panel",
    "accuracy_table",
    "ahead",
    "by_rate",
    "captured",
    "compared",
    "curve_panel",
    "curve_section",
    "end_table",
    "experiment",
    "experiments",
    "first_and_last_table",
    "first_step",
    "judge",
    "levels_table",
    "mean",
    "mean_words",
    "members",
    "number_words",
    "points_words",
    "rate_panel",
    "rate_table",
    "reproduce",
    "rows",
    "settings_in",
    "supported",
    "value",
    "verdict",
]
