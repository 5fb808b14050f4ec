"""Training, evaluation, logs and checkpoints."""

from vicinal.train import checkpoint, hooks, log
from vicinal.train.checkpoint import CheckpointError
from vicinal.train.evaluate import add, evaluate, evaluate_batches, summary, totals
from vicinal.train.fit import Run, TrainingState, fit
from vicinal.train.hooks import Hook, Stop
from vicinal.train.load import load_model
from vicinal.train.metrics import Metric, metrics_of
from vicinal.train.predict import predict
from vicinal.train.sweep import Member, Sweep, keys_of, sweep

__all__ = [
    "CheckpointError",
    "Hook",
    "Member",
    "Metric",
    "Run",
    "Stop",
    "Sweep",
    "TrainingState",
    "add",
    "checkpoint",
    "evaluate",
    "evaluate_batches",
    "fit",
    "hooks",
    "keys_of",
    "load_model",
    "log",
    "metrics_of",
    "predict",
    "summary",
    "sweep",
    "totals",
]
