"""Learning rules, one file each."""

from vicinal.rules import inversion, projectors
from vicinal.rules._latent_equilibrium import TimeConstants
from vicinal.rules._microcircuit import Conductances
from vicinal.rules.activation_relaxation import ActivationRelaxation
from vicinal.rules.backprop import Backprop
from vicinal.rules.base import Rule, State
from vicinal.rules.direct_feedback import DirectFeedback
from vicinal.rules.dynamic_inversion import DynamicInversion
from vicinal.rules.event_backprop import EventBackprop
from vicinal.rules.event_inference import EventInferenceLearning
from vicinal.rules.fixed_prediction import FixedPrediction
from vicinal.rules.implicit_sgd import ImplicitSGD
from vicinal.rules.incremental_pc import IncrementalPC
from vicinal.rules.inference_learning import InferenceLearning
from vicinal.rules.microcircuit import Microcircuit
from vicinal.rules.phaseless_alignment import PhaselessAlignment
from vicinal.rules.relaxed_pc import RelaxedPC
from vicinal.rules.spiking_inference import SpikingInferenceLearning
from vicinal.rules.zil import ZIL

__all__ = [
    "ZIL",
    "ActivationRelaxation",
    "Backprop",
    "Conductances",
    "DirectFeedback",
    "DynamicInversion",
    "EventBackprop",
    "EventInferenceLearning",
    "FixedPrediction",
    "ImplicitSGD",
    "IncrementalPC",
    "InferenceLearning",
    "Microcircuit",
    "PhaselessAlignment",
    "RelaxedPC",
    "Rule",
    "SpikingInferenceLearning",
    "State",
    "TimeConstants",
    "inversion",
    "projectors",
]
