"""Training, evaluation, logs and checkpoints."""

from vicinal.train import checkpoint as checkpoint, log as log
from vicinal.train.checkpoint import CheckpointError as CheckpointError
from vicinal.train.evaluate import correct as correct, evaluate as evaluate
from vicinal.train.fit import Run as Run, TrainingState as TrainingState, fit as fit
from vicinal.train.sweep import Member as Member, Sweep as Sweep, keys_of as keys_of, sweep as sweep
