"""Figures and tables of the papers, run again: each experiment gives a `vicinal.report.Study`."""

from vicinal.reproduce.catalogue import (
    EXPERIMENTS as EXPERIMENTS,
    Experiment as Experiment,
    experiment as experiment,
    reproduce as reproduce,
)
