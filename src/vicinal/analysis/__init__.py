"""Measurements of any rule: pure functions."""

from vicinal.analysis.angles import CONCATENATED as CONCATENATED, angle as angle, angles as angles
from vicinal.analysis.locality import Audit as Audit, audit as audit
from vicinal.analysis.proximal import (
    proximal_activities as proximal_activities,
    proximal_objective as proximal_objective,
    proximal_residual as proximal_residual,
)
