"""mpiabc: approximate Bayesian computation by sequential Monte Carlo, on every core you have."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mpiabc.moved import find_former

if TYPE_CHECKING:
    from mpiabc import cluster, noise, schedulers, sizes
    from mpiabc.abcamis import ABCAMIS
    from mpiabc.analysis import plots
    from mpiabc.analysis.report import report
    from mpiabc.command import Command
    from mpiabc.distances import Aggregate, Mahalanobis, PNorm, Predicted, SlicedWasserstein, Wasserstein
    from mpiabc.errors import Error, Interrupted, ProblemError, SchedulerError, SimulatorError, StoreError
    from mpiabc.kernels.gaussian import OLCM, Gaussian, LocalGaussian
    from mpiabc.noise import Noise
    from mpiabc.pool import Pool
    from mpiabc.population import Population
    from mpiabc.priors.marginals import Choice, Integer
    from mpiabc.priors.prior import LogNormal, LogUniform, Normal, Prior, Uniform
    from mpiabc.problem import REJECT, Problem
    from mpiabc.smc import ABCSMC
    from mpiabc.store import History
    from mpiabc.store import History as open  # noqa: N813
    from mpiabc.team import worker
    from mpiabc.thresholds import Constant, Listed, Quantile
    from mpiabc.version import __version__

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
    "plots",
    "report",
    "schedulers",
    "sizes",
    "worker",
]


_NAMES = {  # by the module that has them
    "abcamis": "ABCAMIS",
    "analysis.report": "report",
    "command": "Command",
    "distances": "Aggregate Mahalanobis PNorm Predicted SlicedWasserstein Wasserstein",
    "errors": "Error Interrupted ProblemError SchedulerError SimulatorError StoreError",
    "kernels.gaussian": "OLCM Gaussian LocalGaussian",
    "priors.marginals": "Choice Integer",
    "noise": "Noise",
    "pool": "Pool",
    "population": "Population",
    "priors.prior": "LogNormal LogUniform Normal Prior Uniform",
    "problem": "REJECT Problem",
    "smc": "ABCSMC",
    "store": "History",
    "team": "worker",
    "thresholds": "Constant Listed Quantile",
    "version": "__version__",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


find_former()


def __getattr__(name: str) -> Any:
    """What is asked for is imported then: a worker imports what a worker needs."""
    if name == "open":
        value = import_module("mpiabc.store").History
    elif name == "plots":
        value = import_module("mpiabc.analysis.plots")
    elif name in _HOMES:
        value = getattr(import_module(f"mpiabc.{_HOMES[name]}"), name)
    elif not name.startswith("_") and find_spec(f"mpiabc.{name}"):
        value = import_module(f"mpiabc.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All that is public, as far as it was asked for or not."""
    return sorted({*globals(), *__all__})
