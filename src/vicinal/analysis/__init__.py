"""Measurements of any rule: pure functions."""

from vicinal.analysis.angles import CONCATENATED as CONCATENATED, angle as angle, angles as angles
from vicinal.analysis.locality import Audit as Audit, audit as audit
