"""Training, evaluation, logs and checkpoints."""

from vicinal.train import checkpoint, hooks, log
from vicinal.train.checkpoint import CheckpointError
from vicinal.train.evaluate import correct, evaluate
from vicinal.train.fit import Run, TrainingState, fit
from vicinal.train.hooks import Hook, Stop
from vicinal.train.sweep import Member, Sweep, keys_of, sweep

__all__ = [
    "CheckpointError",
    "Hook",
    "Member",
    "Run",
    "Stop",
    "Sweep",
    "TrainingState",
    "checkpoint",
    "correct",
    "evaluate",
    "fit",
    "hooks",
    "keys_of",
    "log",
    "sweep",
]
