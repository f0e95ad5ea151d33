"""mpiabc: approximate Bayesian computation by sequential Monte Carlo, on every core you have."""

from mpiabc import cluster, schedulers
from mpiabc.command import Command
from mpiabc.distance import Aggregate, Mahalanobis, PNorm, Predicted, SlicedWasserstein, Wasserstein
from mpiabc.errors import Error, Interrupted, ProblemError, SchedulerError, SimulatorError, StoreError
from mpiabc.kernel import Gaussian, LocalGaussian
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

__all__ = [
    "ABCSMC",
    "REJECT",
    "Aggregate",
    "Command",
    "Constant",
    "Error",
    "Gaussian",
    "History",
    "Interrupted",
    "Listed",
    "LocalGaussian",
    "LogNormal",
    "LogUniform",
    "Mahalanobis",
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
    "open",
    "schedulers",
    "worker",
]
