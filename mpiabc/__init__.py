"""mpiabc: approximate Bayesian computation by sequential Monte Carlo, on every core you have."""

from mpiabc import cluster, noise, schedulers, sizes
from mpiabc.command import Command
from mpiabc.distance import PNorm
from mpiabc.errors import Error, Interrupted, ProblemError, SchedulerError, SimulatorError, StoreError
from mpiabc.kernel import Gaussian, LocalGaussian
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

__all__ = [
    "ABCSMC",
    "REJECT",
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
    "Noise",
    "Normal",
    "PNorm",
    "Pool",
    "Population",
    "Prior",
    "Problem",
    "ProblemError",
    "Quantile",
    "SchedulerError",
    "SimulatorError",
    "StoreError",
    "Uniform",
    "__version__",
    "cluster",
    "noise",
    "open",
    "schedulers",
    "sizes",
    "worker",
]
