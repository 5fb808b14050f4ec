"""Measurements of any rule: pure functions."""

from vicinal.analysis.alignment import descent_alignment, target_alignment
from vicinal.analysis.angles import CONCATENATED, angle, angles, norm_ratios
from vicinal.analysis.feedback import Likeness, error_angles, feedback_invariant, feedback_likeness
from vicinal.analysis.inversion import (
    InversionAngles,
    LoopStability,
    Stabilised,
    inversion_angles,
    loop_eigenvalues,
    loop_stability,
    smoothed_abscissa,
    stabilise,
)
from vicinal.analysis.locality import Audit, audit
from vicinal.analysis.paths import Path, displacement, measure_path, path_length, path_of, straightness
from vicinal.analysis.phaseless import (
    FeedbackAngles,
    Traces,
    learned_feedback_angles,
    phaseless_update_angles,
    voltage_traces,
)
from vicinal.analysis.proximal import proximal_activities, proximal_objective, proximal_residual
from vicinal.analysis.second_order import Sensitivity, second_order_sensitivity
from vicinal.analysis.settling import Conditioning, conditioning, equilibrium_residual
from vicinal.analysis.stability import StableRate, largest_stable_rate
from vicinal.analysis.updates import FunctionChange, function_change, mean_sizes, norms, update

__all__ = [
    "CONCATENATED",
    "Audit",
    "Conditioning",
    "FeedbackAngles",
    "FunctionChange",
    "InversionAngles",
    "Likeness",
    "LoopStability",
    "Path",
    "Sensitivity",
    "Stabilised",
    "StableRate",
    "Traces",
    "angle",
    "angles",
    "audit",
    "conditioning",
    "descent_alignment",
    "displacement",
    "equilibrium_residual",
    "error_angles",
    "feedback_invariant",
    "feedback_likeness",
    "function_change",
    "inversion_angles",
    "largest_stable_rate",
    "learned_feedback_angles",
    "loop_eigenvalues",
    "loop_stability",
    "mean_sizes",
    "measure_path",
    "norm_ratios",
    "norms",
    "path_length",
    "path_of",
    "phaseless_update_angles",
    "proximal_activities",
    "proximal_objective",
    "proximal_residual",
    "second_order_sensitivity",
    "smoothed_abscissa",
    "stabilise",
    "straightness",
    "target_alignment",
    "update",
    "voltage_traces",
]
