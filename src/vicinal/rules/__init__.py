"""Learning rules, one file each."""

from vicinal.rules import projectors as projectors
from vicinal.rules._latent_equilibrium import TimeConstants as TimeConstants
from vicinal.rules._microcircuit import Conductances as Conductances
from vicinal.rules.activation_relaxation import ActivationRelaxation as ActivationRelaxation
from vicinal.rules.backprop import Backprop as Backprop
from vicinal.rules.base import Rule as Rule, State as State
from vicinal.rules.direct_feedback import DirectFeedback as DirectFeedback
from vicinal.rules.dynamic_inversion import DynamicInversion as DynamicInversion
from vicinal.rules.fixed_prediction import FixedPrediction as FixedPrediction
from vicinal.rules.implicit_sgd import ImplicitSGD as ImplicitSGD
from vicinal.rules.incremental_pc import IncrementalPC as IncrementalPC
from vicinal.rules.inference_learning import InferenceLearning as InferenceLearning
from vicinal.rules.microcircuit import Microcircuit as Microcircuit
from vicinal.rules.phaseless_alignment import PhaselessAlignment as PhaselessAlignment
from vicinal.rules.relaxed_pc import RelaxedPC as RelaxedPC
from vicinal.rules.zil import ZIL as ZIL
