"""Cheap looks at parts of others: does a prior draw from its rng, does a density belong to its draws?

What is found is reported, once; it is no proof, and nothing is refused for it. What a part raises goes
through all of them, and is let pass in one place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from mpiabc import promises
from mpiabc.calls import is_ours
from mpiabc.defended import undefended
from mpiabc.kept import Nothing
from mpiabc.population import Population
from mpiabc.priors.joint import ModelProposal
from mpiabc.priors.prior import Prior
from mpiabc.signals import is_asked_to_stop
from mpiabc.streams import BLOCK, Purpose, Stream
from mpiabc.structure import Structure

MANY_FAILED = 0.05  # of the simulations
_MANY_INFINITE = 0.1  # of the distances
_LEAST = 10  # particles, of which it is no chance that they are alike
_LEAST_WHOLE = 50  # of counts, which rare events leave alike
_DRAWS = 8 * BLOCK
_ERRORS = 6.0  # standard errors from which on it is reported
_Answer = TypeVar("_Answer")


def unless_it_raises(ask: Callable[[], _Answer], otherwise: _Answer) -> _Answer:
    """What a part answers; something else where it raises: an evaluation will say so, with its address."""
    try:
        with np.errstate(all="ignore"):  # of made-up numbers; a filter of warnings is one of all threads
            return ask()
    except BaseException as error:
        if is_asked_to_stop(error):
            raise
        return otherwise


def of_prior(prior: Any, key: tuple[int, int]) -> str:
    """What is wrong with a prior, in words; empty if nothing is seen."""
    if not isinstance(prior, Prior):
        return of_density(promises.of_name("the prior", prior), prior, key)
    if ignored := _ignored_rng("the prior", prior, key):
        return ignored
    foreign = {name: _Alone(part) for name, part in prior.parts.items() if _is_foreign(part)}
    return next(filter(None, (_of_marginal(name, part, key) for name, part in foreign.items())), "")


@dataclass(frozen=True)
class _Alone:
    """A marginal by itself, as rows: (n, 1), or (n, width) of several parameters together."""

    marginal: Any

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """As its prior draws it."""
        return np.reshape(self.marginal.rvs(size=n, random_state=rng), (n, -1))

    def logpdf(self, rows: np.ndarray) -> np.ndarray:
        """As its prior asks for it."""
        return self.marginal.logpdf(rows[:, 0] if rows.shape[1] == 1 else rows)


def _of_marginal(name: str, part: _Alone, key: tuple[int, int]) -> str:
    return _outside(name, part, key) or of_density(f"the marginal {name}", part, key)


def of_density(what: str, part: Any, key: tuple[int, int]) -> str:
    """Whether its draws come of rng, its density stays the same, and both belong together."""
    looks = _ignored_rng, promises.of_proposal, _mismatch
    return next(filter(None, (look(what, part, key) for look in looks)), "")


def _is_foreign(marginal: Any) -> bool:
    """Whether its density is somebody else's, and continuous."""
    home = type(marginal).__module__.partition(".")[0]
    return home not in ("mpiabc", "scipy") and callable(getattr(marginal, "logpdf", None))


def _outside(name: str, part: _Alone, key: tuple[int, int]) -> str:
    """Draws must lie in what the marginal says is its support."""
    support = getattr(part.marginal, "support", None)
    draws = part.sample(_DRAWS, Stream(key, Purpose.CHECK).at(1, 0))
    low, high = (-np.inf, np.inf) if support is None else support()
    outside = int(((draws < low) | (draws > high)).sum())
    if not outside:
        return ""
    return (
        f"support() of the marginal {name} is ({low:g}, {high:g}), and {outside} of {draws.size} of its own "
        "draws lie outside: kernels and posteriors keep to the support"
    )


def of_data(observed: np.ndarray, structure: Structure | Nothing) -> str:
    """What is wrong with the observed row, in words; empty if nothing is seen."""
    infinite, missing = np.flatnonzero(np.isinf(observed)), np.flatnonzero(np.isnan(observed))
    if not infinite.size:
        return _of_holes(missing, structure) if missing.size else ""
    which = structure.labels()[infinite[0]]
    more = f", and {len(infinite) - 1} more," if len(infinite) > 1 else ""
    return (
        f"observed data are infinite: {which}{more} is inf; what differs from that is infinitely far, "
        "and accepted at an infinite threshold only; leave it out, or give another number"
    )


def _of_holes(missing: np.ndarray, structure: Structure | Nothing) -> str:
    which = structure.labels()[missing[0]]
    more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
    return f"observed data have holes: {which}{more} nan, and left out of the distance"


def of_population(population: Population, *, has_distances: bool = True) -> dict[str, str]:
    """What casts doubt on what was simulated for a population, in words, by topic.

    has_distances: they are distances, and no densities.
    """
    found = {"failures": _of_failures(population)}
    if has_distances:
        found |= {"infinite": _of_infinite(population), "constant": _of_constant(population)}
    return {topic: note for topic, note in found.items() if note}


def _of_failures(population: Population) -> str:
    failed, n = population.failures, population.simulations
    if n < _LEAST or failed <= MANY_FAILED * n:
        return ""
    return (
        f"of {n} simulations of generation {population.generation} {failed} failed, and count as rejected: "
        "the posterior leaves out where the simulator fails; `mpiabc show --failures` tells where that is"
    )


def _of_infinite(population: Population) -> str:
    is_infinite = np.isinf(population.distances).reshape(len(population), -1).any(axis=1)
    if len(population) < _LEAST or is_infinite.sum() <= _MANY_INFINITE * len(population):
        return ""
    return (
        f"of {len(population)} particles of generation {population.generation} {is_infinite.sum()} are "
        "infinitely far from the observed data: their threshold is infinite, so that nothing is learnt from "
        "them; return finite distances, or mpiabc.REJECT for what cannot be"
    )


def _of_constant(population: Population) -> str:
    """What all simulations have in common, where whatever was simulated was accepted."""
    distances, data = population.distances, population.summaries
    are_all = bool(np.isinf(population.epsilon).all()) or population.simulations == len(population)
    if population.generation or len(population) < _LEAST or not are_all:
        return ""
    if not np.isfinite(distances[0]).all() or (distances != distances[0]).any():
        return ""
    are_equal = data.shape[1] > 0 and not (data != data[0]).any()
    if len(population) < _LEAST_WHOLE and _are_whole(data if are_equal else distances):
        return ""
    same = "the same data" if are_equal else "the same distance from the observed data"
    return (
        f"all {len(population)} particles of generation 0 have {same}, whatever their theta: nothing can be "
        "learnt from that; let simulate return what depends on theta, and the distance compare it"
    )


def _are_whole(numbers: np.ndarray) -> bool:
    return bool((numbers == np.floor(numbers)).all())


def of_proposal(proposal: Any, key: tuple[int, int], kernel: str = "the kernel") -> str:
    """What is wrong with a proposal of a kernel, in words; empty if nothing is seen."""
    foreign = (part for part in parts_of(proposal) if not is_ours(part))
    return next(filter(None, (of_density(kernel, part, key) for part in foreign)), "")


def parts_of(proposal: Any) -> list[Any]:
    """The proposals that kernels have fitted: one, or one for each of several models, without the prior."""
    if not isinstance(proposal, ModelProposal):
        return [undefended(proposal)]
    return [undefended(part) for part in proposal.proposals if part is not None]


def _ignored_rng(what: str, part: Any, key: tuple[int, int]) -> str:
    """Two draws from one state must be equal."""
    stream = Stream(key, Purpose.CHECK)
    one, two = (np.array(part.sample(BLOCK, stream.at(0, 0))) for _ in range(2))
    if np.array_equal(one, two):
        return ""
    return (
        f"sample(n, rng) of {what} ignores rng: two draws from one state differ, so that the run cannot be "
        "reproduced; draw from rng alone"
    )


def _mismatch(what: str, part: Any, key: tuple[int, int]) -> str:
    """One Metropolis step with target p must leave draws of p as they are, on average.

    Another width, place or shape is seen with that, whatever factor is missing in p: functions f of the
    draws have mean min(1, p(y) / p(x)) (f(y) - f(x)) = 0 over symmetric steps x -> y.
    """
    rng = Stream(key, Purpose.CHECK).at(1, 0)
    x = np.array(part.sample(_DRAWS, rng), np.float64)
    deviation = np.maximum(1e-300, x.std(axis=0))
    y = x + 2.4 / np.sqrt(x.shape[1]) * deviation * rng.standard_normal(x.shape)
    log_x, log_y = (np.asarray(part.logpdf(z.copy()), np.float64) for z in (x, y))
    if log_x.shape != (_DRAWS,):
        return (
            f"logpdf of {what} gives shape {log_x.shape} for {_DRAWS} rows, expected ({_DRAWS},): a number "
            "for each row"
        )
    is_wrong = ~np.isfinite(log_x)
    if is_wrong.any():
        return f"logpdf of {what} is nan or infinite for {is_wrong.sum()} of {_DRAWS} of its own draws"
    before, after = (_features((z - x.mean(axis=0)) / deviation) for z in (x, y))
    gain = np.exp(np.minimum(0.0, log_y - log_x))[:, None] * (after - before)
    scores = gain.mean(axis=0) / np.maximum(1e-300, gain.std(axis=0) / np.sqrt(_DRAWS))
    if not np.nanmax(np.abs(scores)) > _ERRORS:
        return ""
    return (
        f"logpdf of {what} does not seem to belong to its sample: a Metropolis step with it moves its own "
        f"draws by {np.nanmax(np.abs(scores)):.2g} standard errors; weights would be wrong"
    )


def _features(z: np.ndarray) -> np.ndarray:
    """Place and width of standardised draws (n, d), bounded against outliers: (n, d + 1)."""
    return np.column_stack([np.tanh(z), np.log1p(np.square(z).mean(axis=1))])
