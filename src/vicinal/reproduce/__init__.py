"""Figures and tables of the papers, run again: each experiment gives a `vicinal.report.Study`."""

from vicinal.reproduce.catalogue import EXPERIMENTS, Experiment, experiment, reproduce

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "experiment",
    "reproduce",
]
