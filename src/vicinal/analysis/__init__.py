"""Measurements of any rule: pure functions."""

from vicinal.analysis.alignment import descent_alignment as descent_alignment, target_alignment as target_alignment
from vicinal.analysis.angles import CONCATENATED as CONCATENATED, angle as angle, angles as angles
from vicinal.analysis.feedback import (
    Likeness as Likeness,
    error_angles as error_angles,
    feedback_invariant as feedback_invariant,
    feedback_likeness as feedback_likeness,
)
from vicinal.analysis.inversion import (
    InversionAngles as InversionAngles,
    LoopStability as LoopStability,
    Stabilised as Stabilised,
    inversion_angles as inversion_angles,
    loop_eigenvalues as loop_eigenvalues,
    loop_stability as loop_stability,
    smoothed_abscissa as smoothed_abscissa,
    stabilise as stabilise,
)
from vicinal.analysis.locality import Audit as Audit, audit as audit
from vicinal.analysis.paths import (
    Path as Path,
    displacement as displacement,
    measure_path as measure_path,
    path_length as path_length,
    path_of as path_of,
    straightness as straightness,
)
from vicinal.analysis.phaseless import (
    FeedbackAngles as FeedbackAngles,
    Traces as Traces,
    learned_feedback_angles as learned_feedback_angles,
    phaseless_update_angles as phaseless_update_angles,
    voltage_traces as voltage_traces,
)
from vicinal.analysis.proximal import (
    proximal_activities as proximal_activities,
    proximal_objective as proximal_objective,
    proximal_residual as proximal_residual,
)
from vicinal.analysis.second_order import (
    Sensitivity as Sensitivity,
    second_order_sensitivity as second_order_sensitivity,
)
from vicinal.analysis.settling import (
    Conditioning as Conditioning,
    conditioning as conditioning,
    equilibrium_residual as equilibrium_residual,
)
from vicinal.analysis.stability import StableRate as StableRate, largest_stable_rate as largest_stable_rate
from vicinal.analysis.updates import (
    FunctionChange as FunctionChange,
    function_change as function_change,
    mean_sizes as mean_sizes,
    norms as norms,
    update as update,
)
