"""Training, evaluation, logs and checkpoints."""

from vicinal.train import checkpoint, log
from vicinal.train.checkpoint import CheckpointError
from vicinal.train.evaluate import correct, evaluate
from vicinal.train.fit import Run, TrainingState, fit
from vicinal.train.sweep import Member, Sweep, keys_of, sweep

__all__ = [
    "CheckpointError",
    "Member",
    "Run",
    "Sweep",
    "TrainingState",
    "checkpoint",
    "correct",
    "evaluate",
    "fit",
    "keys_of",
    "log",
    "sweep",
]
