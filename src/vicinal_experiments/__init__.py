"""Figures and tables of the papers that vicinal implements, as experiments for `vicinal.reproduce`."""

from vicinal_experiments.catalogue import EXPERIMENTS

__all__ = ["EXPERIMENTS"]
