"""What a kernel, distance, threshold, size or prior of one's own is held against, in a line of a test.

```python
def test_my_parts_keep_what_they_promise():
    testing.check_kernel(Student())
    testing.check_distance(Huber())
    testing.check_threshold(Halfway(0.2))
```

Each raises ProblemError, in the words of a run, for the first thing that is wrong, and lets through what the
part raises. A run looks at some of it, too, and goes on; here all is asked for.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mpiabc import calls, checks, promises, sizes
from mpiabc.defended import undefended
from mpiabc.distances import is_adaptive, measures_rows, of_data
from mpiabc.errors import ProblemError
from mpiabc.particles import Particles
from mpiabc.planner import check_kernel as check_calls_of_kernel
from mpiabc.planner import epsilon_given, fitted, size_given
from mpiabc.population import Population
from mpiabc.priors.prior import Normal, Prior
from mpiabc.streams import BLOCK, Purpose, Stream, stream_key

_KEY = stream_key(1)
_GENERATIONS = 5
_RULE = "it is a function of the generation and the population before"


def check_kernel(kernel: Any, prior: Any = None, *, population: Population | None = None) -> None:
    """Raise ProblemError if a kernel, or what it fits, does not keep what it promises.

    population: what it is fitted to, by default 200 particles of two correlated parameters; prior: theirs.
    Asked are the shapes of `sample` and `logpdf`, whether the density belongs to the draws and is finite
    there, whether draws come of rng alone, whether a second fit gives the same, and, where the proposal says
    `is_rowwise`, whether rows stand alone.
    """
    population = particles() if population is None else population
    prior = Prior({name: Normal(0, 3) for name in population.names}) if prior is None else prior
    what = f"the kernel {calls.name_of(kernel)}"
    check_calls_of_kernel(kernel)
    proposal = fitted(kernel, population, prior, population.epsilon)
    _check_shapes(f"{what}'s proposal", proposal, len(population.names))
    _raise(checks.of_density(what, undefended(proposal), _KEY))
    _raise(promises.of_fit(what, lambda: fitted(kernel, population, prior, population.epsilon), _KEY))


def check_prior(prior: Any) -> None:
    """Raise ProblemError if a prior does not keep what it promises, or one distribution of a parameter.

    prior: what a Problem takes, or what a `Prior` takes for a name. Asked are shapes, whether the density
    belongs to the draws and is finite there, whether draws come of rng alone and lie in the support.
    """
    if isinstance(prior, Mapping):
        prior = Prior(prior)
    elif callable(getattr(prior, "rvs", None)):
        prior = Prior(x=prior)
    what = f"the prior {calls.name_of(prior)}"
    calls.check("prior", prior, "sample", "n, rng")
    calls.check("prior", prior, "logpdf", "theta")
    _check_shapes(what, prior, len(prior.names))
    _raise(checks.of_prior(prior, _KEY))


def check_distance(distance: Any, simulated: Any = None, observed: Any = None) -> None:
    """Raise ProblemError if a distance does not keep what it promises.

    One with `rows` gets simulated (n, k) and observed (k,), by default made-up numbers, k = 3; a callable
    must be given one datum of each, as `simulate` returns them. Asked are the shape of what comes back,
    whether it is no negative number, the same when asked again, of no random numbers, and, where it says
    `is_rowwise`, whether rows stand alone; of one that is fitted, the same of two fits to one sample.
    """
    what = f"the distance {calls.name_of(distance)}"
    if not measures_rows(distance):
        _check_callable(what, distance, simulated, observed)
        return
    calls.check("distance", distance, "rows", "simulated, observed")
    row = np.array([0.5, -1.0, 2.0]) if observed is None else np.asarray(observed, np.float64)
    rows = promises.rows_like(row, _KEY) if simulated is None else np.asarray(simulated, np.float64)
    own = of_data(distance, row)
    _check_rows(f"rows of {what}", own, rows, row)
    if is_adaptive(distance):
        _check_fits(what, own, rows, row)


def check_threshold(threshold: Any) -> None:
    """Raise ProblemError if a threshold rises, gives no number, or not the same when it is asked again."""
    calls.check("threshold", threshold, "epsilon", "generation, previous")
    what, last = f"epsilon of the threshold {calls.name_of(threshold)}", None
    for generation in range(_GENERATIONS):
        epsilon = epsilon_given(threshold, generation, last)
        if epsilon is None and not generation:
            raise ProblemError(f"{what} gives None for generation 0, expected a number, such as np.inf")
        _raise(promises.of_answer(what, partial(threshold.epsilon, generation, last), _RULE))
        if epsilon is None:
            return
        last = particles(generation, epsilon)


def check_size(size: Any) -> None:
    """Raise ProblemError if a rule for sizes gives no size, or not the same when it is asked again."""
    size = sizes.taken(size)
    if isinstance(size, int):
        return
    last = None
    for generation in range(_GENERATIONS):
        size_given(size, generation, last)
        what = f"size of the rule {calls.name_of(size)}"
        _raise(promises.of_answer(what, partial(size.size, generation, last), _RULE))
        last = particles(generation)


def particles(generation: int = 0, epsilon: Any = np.inf, n: int = 200) -> Population:
    """A population of two correlated parameters, x and y, with weights, and distances up to epsilon."""
    rng, narrow = Stream(_KEY, Purpose.CHECK).at(4, generation), 0.8**generation
    weights = rng.uniform(0.5, 1.5, n)
    theta = narrow * rng.standard_normal((n, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]])
    return Population(
        names=("x", "y"),
        ids=2 * np.arange(n),
        theta=theta,
        weights=weights / weights.sum(),
        distances=rng.random((n, *np.shape(epsilon))) * np.minimum(epsilon, 10 * narrow),
        summaries=theta.copy(),
        generation=generation,
        epsilon=epsilon,
        evaluations=2 * n,
        simulations=2 * n,
        dispatched=2 * n,
        failures=0,
        log_evidence=0.0,
        seconds=1.0,
    )


def _check_shapes(what: str, part: Any, d: int) -> None:
    drawn = part.sample(BLOCK, Stream(_KEY, Purpose.CHECK).at(0, 0))
    promises.check_draws(what, drawn, BLOCK, d)
    promises.check_densities(what, part.logpdf(np.array(drawn, np.float64)), BLOCK)


def _check_callable(what: str, distance: Any, simulated: Any, observed: Any) -> None:
    calls.check_function("distance", distance, "simulated, observed")
    if observed is None or simulated is None:
        raise ProblemError(
            f"{what} has no rows(simulated, observed), and what it compares is its own: give "
            "check_distance(distance, simulated, observed), a datum of each"
        )
    _check_distances(what, distance(simulated, observed), 1)
    _raise(promises.of_answer(what, lambda: distance(simulated, observed), _FUNCTION))


def _check_rows(what: str, distance: Any, rows: np.ndarray, observed: np.ndarray) -> None:
    found = np.asarray(distance.rows(rows.copy(), observed.copy()))
    if found.shape[:1] != (len(rows),) or found.ndim > 2:
        raise ProblemError(
            f"{what} gave shape {found.shape} for {len(rows)} rows, expected ({len(rows)},): a number for "
            "each row"
        )
    _check_distances(what, found, len(rows))
    _raise(promises.of_distance(what, distance, rows, observed))


def _check_distances(what: str, found: Any, n: int) -> None:
    values = np.asarray(list(found.values()) if isinstance(found, Mapping) else found)
    if values.dtype.kind not in "biuf":
        raise ProblemError(f"{what} gave {values.dtype}, expected real numbers")
    if (values < -1e-9).any():
        raise ProblemError(f"{what} gave {values.min()}, expected numbers >= 0: the smaller, the nearer")


def _check_fits(what: str, distance: Any, rows: np.ndarray, observed: np.ndarray) -> None:
    """Of a distance that is fitted to a sample of these rows."""
    n, theta = len(rows), Stream(_KEY, Purpose.CHECK).at(5, 0).standard_normal((len(rows), 2))
    sample = Particles(np.arange(n), theta, np.ones(n), np.zeros(n), rows.copy())
    calls.check("distance", distance, "fit", "sample, observed")
    found = distance.fit(sample, observed.copy())
    if found is None:
        raise ProblemError(f"fit of {what} gave None, expected something with rows(simulated, observed)")
    calls.check("fitted distance", found, "rows", "simulated, observed")
    _raise(promises.of_fitted_rows(what, lambda: distance.fit(sample, observed.copy()), rows, observed))
    _check_rows(f"rows of {what}, as fitted,", found, rows, observed)


def _raise(said: str) -> None:
    if said:
        raise ProblemError(said)


_FUNCTION = "a distance is a function of what it compares"
