"""mpiabc: approximate Bayesian computation by sequential Monte Carlo, on every core you have."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpiabc import noise, schedulers, sizes
from mpiabc.abcamis import ABCAMIS
from mpiabc.command import Command
from mpiabc.distance import Aggregate, Mahalanobis, PNorm, Predicted, SlicedWasserstein, Wasserstein
from mpiabc.errors import Error, Interrupted, ProblemError, SchedulerError, SimulatorError, StoreError
from mpiabc.kernel import OLCM, Gaussian, LocalGaussian
from mpiabc.marginals import Choice, Integer
from mpiabc.noise import Noise
from mpiabc.pool import Pool
from mpiabc.population import Population
from mpiabc.prior import LogNormal, LogUniform, Normal, Prior, Uniform
from mpiabc.problem import REJECT, Problem
from mpiabc.smc import ABCSMC
from mpiabc.store import History
from mpiabc.store import History as open  # noqa: N813
from mpiabc.team import worker
from mpiabc.threshold import Constant, Listed, Quantile
from mpiabc.version import __version__

if TYPE_CHECKING:
    from mpiabc import cluster

__all__ = [
    "ABCAMIS",
    "ABCSMC",
    "OLCM",
    "REJECT",
    "Aggregate",
    "Choice",
    "Command",
    "Constant",
    "Error",
    "Gaussian",
    "History",
    "Integer",
    "Interrupted",
    "Listed",
    "LocalGaussian",
    "LogNormal",
    "LogUniform",
    "Mahalanobis",
    "Noise",
    "Normal",
    "PNorm",
    "Pool",
    "Population",
    "Predicted",
    "Prior",
    "Problem",
    "ProblemError",
    "Quantile",
    "SchedulerError",
    "SimulatorError",
    "SlicedWasserstein",
    "StoreError",
    "Uniform",
    "Wasserstein",
    "__version__",
    "cluster",
    "noise",
    "open",
    "schedulers",
    "sizes",
    "worker",
]


def __getattr__(name: str) -> Any:
    """`mpiabc.cluster`, which workers have no use for, is imported when it is asked for."""
    if name == "cluster":
        return import_module("mpiabc.cluster")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
