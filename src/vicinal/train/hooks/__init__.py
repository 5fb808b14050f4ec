"""Hooks are called with each record of a run, and may write it elsewhere or stop the run.

The contract, for `fit(..., hooks=[...])` and `sweep`:

- a hook is a function of `(record, state)`, called after `on_record` and before the record is written; it may add to
  the record, and ends the run by returning `Stop(reason)`, which `Run.stopped` and `Run.stopped_by` then tell;
- a hook with a beginning and an end is a `Hook`. `begin(start)` sees the existing records, and restores from them what
  the hook remembers: a resumed run gives it nothing else, and so ends as an uninterrupted one would;
- if a hook raises, the run ends at the state before, as with any other exception, and can be resumed.
"""

from vicinal.train.hooks.base import Hook, Start, Stop
from vicinal.train.hooks.csv_log import CSVLog
from vicinal.train.hooks.early_stopping import EarlyStopping
from vicinal.train.hooks.tensorboard import TensorBoard
from vicinal.train.hooks.weights_and_biases import WeightsAndBiases

__all__ = ["CSVLog", "EarlyStopping", "Hook", "Start", "Stop", "TensorBoard", "WeightsAndBiases"]
