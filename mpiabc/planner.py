"""What next: from the last population to the next order. The one place that fits anything."""

import inspect
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mpiabc import calls, guard, recycling
from mpiabc.acceptors import Acceptor, Tempered, Uniforms, Within
from mpiabc.adaptive import Measure
from mpiabc.arguments import real, whole
from mpiabc.calls import is_ours, name_of
from mpiabc.defended import mixed, undefended
from mpiabc.errors import ProblemError
from mpiabc.evaluate import Calibration, Level
from mpiabc.kernels.coupling import base_of
from mpiabc.noise import Noise
from mpiabc.order import Arrays, acceptor_of, distance_of, epsilon_of, has_foreign_distance, restored
from mpiabc.particles import Particles
from mpiabc.population import Past, Population
from mpiabc.priors import joint
from mpiabc.priors.joint import ModelPrior
from mpiabc.problem import described
from mpiabc.records import Failure
from mpiabc.sizes import LEAST, Size
from mpiabc.streams import stride_of
from mpiabc.temperatures import begun, cooled
from mpiabc.thresholds import Threshold

_OTHERWISE = 0x5A3C96E1D2B487F0  # in the key of streams of a calibration
LEAST_SAMPLE = 1000  # simulations that parts are fitted to, if there are as many

Kept = tuple[str, Arrays]  # an order as a file has it


@dataclass(frozen=True)
class Asking:
    """Work outside of evaluations: a part of the user's is asked by the process that leads."""

    what: str

    def last_words(self, how: str) -> Failure:
        """The failure of the part."""
        said = how.replace("the simulator", self.what)
        return Failure(0, 0, {}, said, "", f"process {os.getpid()}", "proposal")


class Decided(NamedTuple):
    """An order, and the population that its proposal was fitted to, if there is one."""

    order: Level
    base: Population | None
    doubt: str | None = None  # what the user should know of the fit of its distance


@dataclass(frozen=True)
class Planner:
    """The adaptive parts of a run, and what they are fitted for."""

    prior: Any
    kernel: Any  # a Kernel, or one whose `fit` takes more
    threshold: Threshold
    key: tuple[int, int]  # of the streams
    size: int | Size  # of all generations, or a rule: see `sizes`
    is_static: bool
    weights: str | None = None  # how recycled evaluations are weighted; None: nothing is recycled
    step: int = 1  # levels begin at multiples of it
    measure: Measure | None = None  # of a distance that is fitted to simulations, accepted or not
    noise: Noise | None = None  # whose temperatures take the place of thresholds
    log_c: float | None = None  # of the largest density that noise can have, if that is known
    keep: str = "accepted"  # of what is accepted: see `Order`
    errors: Mapping[str, Any] = field(default_factory=np.geterr)  # what the user has set, also for workers
    lookahead: bool = False  # proposals are coupled: ids beyond a cut are begun early
    inside: Any = 1.0  # the share of the prior that its constraint leaves, or that of each model's

    def next(self, past: Past) -> Decided | None:
        """The order after this past, None if the threshold has no more."""
        if self.noise is not None:
            is_cold = self.weights and past.last and past.last.epsilon == 1.0
            return None if is_cold else self.decided(past)
        distance = self.distance_after(past)
        past = self.seen_by(past, distance)
        epsilon = self.epsilon_after(past)
        if epsilon is None and past.level == 0:
            raise ProblemError(
                f"the threshold {name_of(self.threshold)} gives None as the epsilon of generation 0, "
                "expected a number, such as np.inf for a sample of the prior: there would be no population"
            )
        if epsilon is None or (self.weights and past.last and np.array_equal(epsilon, past.last.epsilon)):
            return None  # at the same threshold all particles would be recycled
        return self.decided(past, epsilon, distance)

    def calibration(self, past: Past) -> Calibration | None:
        """What comes before a generation 0 of finite epsilon, the units of which must be known first."""
        if self.measure is None or past.level or past.sample is not None:
            return None
        epsilon = self.epsilon_after(past)
        if epsilon is None or np.all(epsilon == math.inf):
            return None
        m, (first, second) = max(self.sized(past), LEAST_SAMPLE), self.key
        key = first ^ _OTHERWISE, second
        order = Calibration(0, key, math.inf, self.prior, m, self.is_static, errors=self.errors)
        return replace(order, sample=m)

    def end(self, past: Past) -> str:
        """Why there is no order after this past."""
        if self.noise is not None:
            return "threshold: the temperature is 1"
        past = self.seen_by(past, self.distance_after(past))
        if self.epsilon_after(past) is not None:
            return "threshold: all particles meet the next one"
        why = getattr(self.threshold, "end", "")
        why = why if isinstance(why, str) else ""  # of others it may be anything
        if not (why or is_ours(self.threshold)):
            why = f"{name_of(self.threshold)} gives None for generation {past.level}"
        return f"threshold: {why}" if why else "threshold"

    def epsilon_after(self, past: Past) -> Any:
        """What the threshold says after this past; None if it has no more. Raises ProblemError."""
        with self.asking("the threshold", self.threshold):
            return epsilon_given(self.threshold, past.level, past.last)

    def decided(self, past: Past, epsilon: Any = math.inf, distance: Any = None) -> Decided:
        """The order after this past with this epsilon, or with the temperature that is next.

        distance: has measured the past.
        """
        acceptor: Acceptor = Within()
        if self.noise is not None:
            acceptor, epsilon = self._cooled(past, self.noise)
        base = self._base(past.last, acceptor, epsilon)
        proposal = self.proposal_for(base, epsilon)
        decided = past.level, self.key, epsilon, proposal, self.sized(past), self.is_static
        options = {"distance": distance, "acceptor": acceptor, "keep": self.keep, "errors": self.errors}
        order = Level(*decided, **options, calibrated=past.calibrated)
        doubt = None if self.measure is None else self.measure.doubts(past)
        return Decided(self._sampling(self._in_line(order, past), past), base, doubt)

    def distance_after(self, past: Past) -> Any:
        """The distance that comes after this past; None is the problem's own."""
        if self.measure is None:
            return None
        with self.asking("the distance", self.measure.distance):
            return self.measure.fitted(past)

    def seen_by(self, past: Past, distance: Any) -> Past:
        """The past as the next generation's distance measures it."""
        if self.measure is None or distance is None:
            return past
        with self.asking("the distance", distance):
            return self.measure.seen(past, distance)

    def _base(self, last: Population | None, acceptor: Acceptor, epsilon: Any) -> Population | None:
        """What the proposal for an epsilon is fitted to."""
        if last is None or self.weights is None:
            return last
        return recycling.base(last, epsilon, acceptor.accept(last, epsilon, Uniforms(self.key)))

    def _cooled(self, past: Past, noise: Noise) -> tuple[Tempered, float]:
        """The acceptor that comes next, and its temperature."""
        last, before = past.last, past.acceptor
        if last is None or before is None:
            return begun(self.log_c), math.inf
        proposal = self.proposal_for(last, math.inf)
        log_weights = recycling.log_weights(last, past.tried, self.weights)

        def log_ratios(rows: np.ndarray) -> np.ndarray:
            log_prior = self.prior.logpdf(joint.drawn(self.prior, last)[rows])
            log_q = log_prior - log_weights[rows] + before.log_weights(last.take(rows), last.epsilon)
            others = recycling.log_others(undefended(proposal), last.theta, rows)
            return mixed(proposal, others, log_prior) - log_q

        ids = last.evaluations if self.weights is None else sum(past.tried)
        with self.asking("the kernel", proposal):
            return cooled(noise, before, last, math.log(len(last) / ids), log_ratios)

    def proposal_for(self, base: Population | None, epsilon: Any) -> Any:
        """The proposal of this population for a threshold; the prior if there is no population."""
        if base is None:
            return self.prior
        most = epsilon if self.noise is None else math.inf  # temperatures are no distances
        with self.asking("the kernel", self.kernel):
            if isinstance(self.prior, ModelPrior):
                return joint.fitted(
                    lambda own, prior: fitted(self.kernel, own, prior, most), base, self.prior
                )
            return fitted(self.kernel, base, self.prior, most)

    def sized(self, past: Past) -> int:
        """How many particles come next. Raises ProblemError for what is no number of them."""
        if isinstance(self.size, int):
            return self.size
        with self.asking("the size", self.size):
            return size_given(self.size, past.level, past.last)

    @contextmanager
    def asking(self, what: str, part: object) -> Iterator[None]:
        """A part is asked: the user's settings hold, unless it is ours; an end of this process is named."""
        with guard.at_work(Asking(what)), guard.errors_of(self.errors, part):
            yield

    def again(self, kept: Kept, past: Past, *, is_over: bool = False) -> Decided:
        """An order that was kept; a proposal or distance that is not ours is fitted once more.

        is_over: nothing will be measured for it any more.
        """
        text, arrays = kept
        is_foreign = has_foreign_distance(text)
        distance: Any = None
        if not (is_foreign and is_over):
            distance = self.distance_after(past) if is_foreign else distance_of(text, arrays)
        past = self.seen_by(past, distance)
        base = self._base(past.last, acceptor_of(text), epsilon_of(text))
        parts = restored(text, arrays, base, self.prior) | {"distance": distance}
        proposal = parts.pop("proposal")
        proposal = self.proposal_for(base, parts["epsilon"]) if proposal is None else proposal
        order = Level(key=self.key, proposal=proposal, errors=self.errors, **parts)
        return Decided(self._in_line(order, past), base)

    def after(
        self, past: Past, order: Level | None, population: Population, sample: Particles | None = None
    ) -> Past:
        """The past with one more generation, which came of this order, None if it is not needed."""
        is_needed = self._needs_proposals and past.last is not None
        proposals = (*past.proposals, order.proposal) if is_needed and order else ()
        acceptor = order.acceptor if order else None
        return past.after(population, proposals, sample, acceptor)

    def past(self, populations: Iterable[Population], kept: Callable[[int], Kept | None]) -> Past:
        """The past that a file has; `kept`: what it has of the order of a level."""
        past = Past()
        for population in populations:
            is_needed = self._needs_proposals or self.noise is not None
            order = self._order_of(past, population, kept) if is_needed else None
            past = self.after(past, order, population)
        return past

    def _order_of(self, past: Past, population: Population, kept: Callable[[int], Kept | None]) -> Level:
        """What a committed population came of, decided again if the file has lost it."""
        order = kept(past.level)
        decided = (
            self.decided(past, population.epsilon) if order is None else self.again(order, past, is_over=True)
        )
        return decided.order

    @property
    def _needs_densities(self) -> bool:
        """Whether weights need those of all levels."""
        return self.weights == recycling.BALANCE

    @property
    def _needs_proposals(self) -> bool:
        """Whether orders need those of earlier levels."""
        return self._needs_densities or self.lookahead

    def _sampling(self, order: Level, past: Past) -> Level:
        """With the sample that parts are fitted to: the first M simulated ids, accepted or not.

        Four times as many are asked for as should be needed, as some fail, and as proposals lie inside of
        the prior's support more or less often than those of the generation before.
        """
        if self.measure is None:
            return order
        m, last = max(order.size, LEAST_SAMPLE), past.last
        share = 1.0 if last is None or not last.evaluations else last.simulations / last.evaluations
        ids, end = math.ceil(4 * m / share), math.inf
        if np.any(order.epsilon < math.inf):  # else what was simulated is accepted
            tries = -(-ids // order.size)
            end = tries * stride_of(order.size, self.step) if self.is_static else order.first + ids
        return replace(order, sample=m, sample_end=end)

    def _in_line(self, order: Level, past: Past) -> Level:
        """With what weights need of the levels before, if their ids are those of one line."""
        if self.weights is None and not self.lookahead:
            return order
        end = 0 if past.last is None else past.last.first + past.last.evaluations
        first = -(-end // self.step) * self.step
        earlier = past.proposals if self._needs_densities else None
        chain = None
        if self.lookahead:
            chain = past.proposals[max(0, base_of(order.level) - 1) :]
        return replace(order, first=first, earlier=earlier, chain=chain)


def fitted(kernel: Any, population: Population, prior: Any, epsilon: Any = None) -> Any:
    """What a kernel gives: by fit(population), or fit(population, prior) if that is how it is written.

    One that declares a keyword-only `epsilon` gets the next threshold.
    """
    more = {"epsilon": epsilon} if _takes_epsilon(kernel) else {}
    found = kernel.fit(population, prior, **more) if takes_prior(kernel) else kernel.fit(population, **more)
    if found is None:
        raise ProblemError(
            f"fit of the kernel {name_of(kernel)} gave None, expected a proposal with sample(n, rng) and "
            "logpdf(theta)"
        )
    if not is_ours(found):
        calls.check("proposal", found, "sample", "n, rng")
        calls.check("proposal", found, "logpdf", "theta")
    return found


def check_kernel(kernel: Any) -> None:
    """Raise ProblemError for what has no `fit` that can be called."""
    form = "population, prior" if takes_prior(kernel) else "population"
    form = f"{form}, epsilon=" if _takes_epsilon(kernel) else form
    calls.check("kernel", kernel, "fit", form, "fit(population) or fit(population, prior)")


def _takes_epsilon(kernel: Any) -> bool:
    if not callable(getattr(kernel, "fit", None)):
        return False
    try:
        parameter = inspect.signature(kernel.fit).parameters.get("epsilon")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind is parameter.KEYWORD_ONLY


def takes_prior(kernel: Any) -> bool:
    """Whether `fit` has a second parameter that must be given, or is called prior."""
    if not callable(getattr(kernel, "fit", None)):
        return False
    try:
        parameters = list(inspect.signature(kernel.fit).parameters.values())
    except (TypeError, ValueError):
        return False  # a builtin that does not tell
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 and (
        positional[1].default is inspect.Parameter.empty or positional[1].name == "prior"
    )


def epsilon_given(threshold: Threshold, level: int, last: Population | None) -> Any:
    """What a threshold says for a level; None if it has no more.

    Raises ProblemError for what is no real number, nor one for each of several distances, and for what lies
    above that of the last population.
    """
    given = threshold.epsilon(level, last)
    if given is None:
        return None
    epsilon = real(given) if np.ndim(given) == 0 else _several(given)
    said = f"{described(threshold)} gives {described(given)} as the epsilon of generation {level}"
    if epsilon is None or np.isnan(epsilon).any():
        raise ProblemError(f"{said}: a threshold gives a real number, or None when it has no more")
    if np.any(np.asarray(epsilon) < 0):
        raise ProblemError(f"{said}: no distance is below 0")
    if last is not None:
        _check_columns(said, epsilon, last)
    if last is not None and np.any(epsilon > np.asarray(last.epsilon)):
        raise ProblemError(f"{said}: it rises from {last.epsilon!r}, and must not")
    return float(epsilon) if np.ndim(epsilon) == 0 else epsilon


def size_given(rule: Any, level: int, last: Population | None) -> int:
    """What a rule for sizes says for a level. Raises ProblemError for what is no number of particles."""
    given = rule.size(level, last)
    size = whole(given)
    if size is None or size < LEAST:
        raise ProblemError(
            f"{described(rule)} gives {described(given)} as the size of generation {level}: a size is a "
            f"whole number of at least {LEAST}"
        )
    return size


def _several(given: Any) -> np.ndarray | None:
    values = [real(value) for value in np.asarray(given).ravel().tolist()] if np.ndim(given) == 1 else []
    found = np.array([value for value in values if value is not None], np.float64)
    return found if len(values) == len(found) > 1 else None


def _check_columns(said: str, epsilon: Any, last: Population) -> None:
    """Raise ProblemError for as many thresholds as there are no distances."""
    if np.ndim(epsilon) and np.shape(epsilon) != last.distances.shape[1:]:
        m = last.distances.shape[1] if last.distances.ndim > 1 else 1
        raise ProblemError(f"{said}: these are {len(epsilon)} numbers for {m} distances")
