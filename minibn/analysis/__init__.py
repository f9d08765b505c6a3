"""Measurements on any model, at one step of its training; none of them changes the model.

probe                 a probe along the gradient: loss, gradient change, effective beta
covariate_shift       Definition 2.1 of Santurkar et al. 2018, for every layer
distribution_shift    drift of moments and Wasserstein distance: the original notion
Hessian               along the gradient, its largest eigenvalues, its trace
units_at              the units of a BatchNorm on a batch; `units` is the module
theorems              the module of both sides of the paper's theorems about them
"""

from minibn.analysis import theorems, units
from minibn.analysis.curvature import (
    Hessian,
    curvature_along_gradient,
    hessian_eigenvalues,
    hessian_trace,
)
from minibn.analysis.gradient_probe import Probe, probe
from minibn.analysis.internal_covariate_shift import (
    LayerShift,
    UnitShift,
    covariate_shift,
    distribution_shift,
    layers_of,
)
from minibn.analysis.state import snapshot, working_state
from minibn.analysis.units import Units, units_at

__all__ = [
    "Hessian", "LayerShift", "Probe", "UnitShift", "Units", "covariate_shift",
    "curvature_along_gradient", "distribution_shift", "hessian_eigenvalues",
    "hessian_trace", "layers_of", "probe", "snapshot", "theorems", "units", "units_at",
    "working_state",
]  # fmt: skip
