"""Training, evaluation, logs and checkpoints."""

from vicinal.train import checkpoint, hooks, log
from vicinal.train.advance import TrainingState
from vicinal.train.checkpoint import CheckpointError
from vicinal.train.evaluate import add, evaluate, evaluate_batches, summary, totals
from vicinal.train.fit import fit
from vicinal.train.hooks import Hook, Stop
from vicinal.train.load import load_model
from vicinal.train.metrics import Metric, metrics_of
from vicinal.train.part import keys_of
from vicinal.train.predict import predict
from vicinal.train.results import Member, Run, Sweep
from vicinal.train.sweep import sweep

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
