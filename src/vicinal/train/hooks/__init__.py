"""Hooks: what is called with each record of a run, writes it elsewhere, or stops the run."""

from vicinal.train.hooks.base import Hook, Start, Stop
from vicinal.train.hooks.csv_log import CSVLog
from vicinal.train.hooks.early_stopping import EarlyStopping
from vicinal.train.hooks.tensorboard import TensorBoard
from vicinal.train.hooks.weights_and_biases import WeightsAndBiases

__all__ = ["CSVLog", "EarlyStopping", "Hook", "Start", "Stop", "TensorBoard", "WeightsAndBiases"]
