"""Learning rules, one file each."""

from vicinal.rules.backprop import Backprop as Backprop
from vicinal.rules.base import Rule as Rule, State as State
from vicinal.rules.implicit_sgd import ImplicitSGD as ImplicitSGD
from vicinal.rules.inference_learning import InferenceLearning as InferenceLearning
