"""What a population says of each parameter, with the Monte-Carlo errors of what is said."""

from dataclasses import dataclass

import numpy as np

from mpiabc.guard import quiet
from mpiabc.population import Population


@dataclass(frozen=True)
class Estimated:
    """One parameter: mean and standard deviation with their standard errors, and quantiles.

    ess: as many independent draws would give a mean as sure as this one.
    """

    name: str
    mean: float
    mean_error: float
    sd: float
    sd_error: float
    low: float  # 5 %
    median: float
    high: float  # 95 %
    ess: float


@quiet
def errors(population: Population) -> tuple[np.ndarray, np.ndarray]:
    """The standard errors (d,) of mean and standard deviation of weighted draws.

    Those of self-normalised sums (delta method): sum_i w_i^2 (f_i - f)^2 of f = theta, and of the square of
    its distance from the mean.
    """
    w, centred = population.weights[:, None], population.theta - np.asarray(population.mean())
    squares = np.square(centred)
    variance = (w * squares).sum(axis=0)
    of_mean = np.sqrt((np.square(w) * squares).sum(axis=0))
    of_variance = np.sqrt((np.square(w) * np.square(squares - variance)).sum(axis=0))
    return of_mean, np.divide(
        of_variance, 2 * np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0
    )


def estimated(population: Population) -> list[Estimated]:
    """Each parameter of a population of one model. Raises ProblemError for several."""
    mean, sd = np.asarray(population.mean()), np.asarray(population.std())
    of_mean, of_sd = errors(population)
    low, median, high = np.asarray(population.quantile([0.05, 0.5, 0.95]))
    ess = np.full(len(mean), population.ess)
    np.divide(np.square(sd), np.square(of_mean), out=ess, where=of_mean > 0)
    columns = (mean, of_mean, sd, of_sd, low, median, high, np.minimum(ess, len(population)))
    rows = zip(population.names, *(column.tolist() for column in columns), strict=True)
    return [Estimated(str(name), *numbers) for name, *numbers in rows]
