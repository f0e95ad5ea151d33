"""ABC-SMC: generations one after another, each with a smaller threshold (Toni et al. 2009).

for each generation t:
    epsilon   = threshold.epsilon(t, population[t-1])
    proposal  = prior if t = 0, else kernel.fit(population[t-1]), of each model if there are several
    accepted  = the first N evaluations, in id order, whose distance is at most epsilon
    weights   = prior / proposal, normalised
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from mpiabc import calls, models, recycling, sizes
from mpiabc.adaptive import measure_of
from mpiabc.arguments import refuse_class, refuse_text, whole_of
from mpiabc.distances import PNorm, is_adaptive
from mpiabc.errors import ProblemError
from mpiabc.fingerprint import Fingerprint, fingerprint
from mpiabc.kept import is_narrow
from mpiabc.kernels.gaussian import OLCM, SCALE, Gaussian, Kernel, LocalGaussian, as_before, scale_rule
from mpiabc.layout import layout_of
from mpiabc.models import AnyProblem
from mpiabc.noise import Noise
from mpiabc.order import calibrated
from mpiabc.planner import Planner, check_kernel, takes_prior
from mpiabc.population import Past
from mpiabc.problem import Problem, described, signature
from mpiabc.sampler import INSIDE, MOST_BYTES, Path, Sampler
from mpiabc.simulations import bytes_of_row
from mpiabc.stopping import Stopping
from mpiabc.store import History
from mpiabc.streams import stream_key
from mpiabc.thresholds import Constant, Listed, Quantile, Threshold

_EXAMPLES = {
    "kernel": "mpiabc.Gaussian()",
    "threshold": "mpiabc.Quantile(0.5)",
    "acceptor": "mpiabc.Noise(mpiabc.noise.Normal(sd=1))",
}
_CALLED = {"kernel": ("fit",), "threshold": ("epsilon",)}
_THRESHOLDS = "epsilon(generation, previous), or mpiabc.Quantile(...), Listed or Constant"


class ABCSMC(Sampler):
    """An ABC-SMC sampler.

    population_size: particles in each generation, a list of one size a generation (the last one goes on), or
    a rule, see `mpiabc.sizes`. kernel: how the next proposal is fitted, by default `Gaussian()`. threshold:
    the rule for epsilon, by default `Quantile(0.5)`. acceptor: a noise model,
    `Noise(mpiabc.noise.Normal(sd=1))`, in the place of distance and threshold. seed: a non-negative integer;
    without one it is drawn, and kept in the store. recycle=True: what was accepted before and meets the new
    threshold is kept, so that fewer simulations are needed; the weights of such a population look at the
    proposals of all generations, or, with weights="levels", which is cheaper and for large populations, only
    at how many particles each has brought. lookahead=True: workers that would wait for the end of a
    generation begin simulations of the next ones, whose proposals are those of this one as often as can be,
    and the result is the same whether they do or not; it is another one than without the setting.
    keep="theta": the statistics of accepted particles are kept nowhere, `summaries` is (N, 0), and files of
    large data stay small. keep="all": every simulation below the cuts stays in the file, rejected ones too,
    for `history.simulations`: 8 (2 + d + k) + 1 bytes each, of d parameters and k statistics, so 10^6 with d
    = 4 and k = 10 take 129 MB, and the process that leads has those of one generation in memory, up to three
    times. Of a list of problems, each a model of the same data, the run says how probable they are, from
    `model_prior`, their probabilities before the data, which are equal if none are given. Raises ProblemError
    for bad settings.
    """

    def __init__(
        self,
        problem: Problem | Sequence[Problem],
        population_size: Any,
        *,
        kernel: Kernel | None = None,
        threshold: Threshold | None = None,
        acceptor: Noise | None = None,
        seed: int | None = None,
        model_prior: Any = None,
        recycle: bool | None = None,
        weights: str | None = None,
        keep: str = "accepted",
        lookahead: bool | None = None,
    ) -> None:
        parts = {"kernel": kernel, "threshold": threshold, "acceptor": acceptor}
        for name, part in (parts | {"population_size": population_size}).items():
            refuse_class(name, part, *_CALLED.get(name, ()))
        for name, example in _EXAMPLES.items():
            refuse_text(name, parts[name], example)
        self.problem = models.of(problem, model_prior)
        self.population_size = sizes.taken(population_size)
        self.kernel = Gaussian() if kernel is None else kernel
        self.threshold: Any = Quantile() if threshold is None else threshold
        self.acceptor = acceptor
        self._log_c: float | None = None
        self.seed = None if seed is None else whole_of("seed", seed, 0)
        check_kernel(self.kernel)
        calls.check("threshold", self.threshold, "epsilon", "generation, previous", _THRESHOLDS)
        if acceptor is not None:
            self._listen_through(acceptor, threshold)
        for part in self.problem.models:
            self._check_kernel(part.prior)
        self.weights = self._weights(recycle, weights)
        self.keep = _kept(keep)
        self._check_adaptive()
        self.lookahead = self._looks_ahead(lookahead)
        size = self.population_size
        is_plain = isinstance(size, int | sizes.Listed)
        fitted = {"kernel": self.kernel, "threshold": self.threshold, "size": None if is_plain else size}
        self._parts = fingerprint(**fitted)

    def _check_kernel(self, prior: Any) -> None:
        """Raise ProblemError for a kernel that is not for this prior."""
        if getattr(self.kernel, "defensive", 0.0) and not getattr(prior, "is_normalised", False):
            raise ProblemError(
                f"kernel={described(self.kernel)} with prior={described(prior)}, which does not say that its "
                "densities are normalised: set its is_normalised = True if they are, or leave defensive out"
            )
        if not (layout_of(prior).is_free or takes_prior(self.kernel)):
            raise ProblemError(
                f"kernel={described(self.kernel)} has fit(population), and the prior has integers, choices "
                "or shares, of which its proposals would know nothing: write fit(population, prior), or "
                "leave kernel out"
            )
        if isinstance(self.kernel, Gaussian | LocalGaussian | OLCM):
            self.kernel.check(prior)

    def _listen_through(self, noise: Noise, threshold: Any) -> None:
        """Let a noise model take the place of distance and threshold. Raises ProblemError."""
        problem = self.problem
        if not isinstance(noise, Noise):
            raise ProblemError(f"acceptor={noise!r}: give mpiabc.Noise(model), or leave it out")
        if threshold is not None:
            raise ProblemError(
                f"acceptor=Noise(...) with threshold={described(threshold)}: temperatures take the place of "
                "thresholds, and Noise(steps=) says how they fall; leave threshold out"
            )
        if problem.observed is None:
            raise ProblemError(
                "acceptor=Noise(...) and a problem without observed data, whose density it is: give observed="
            )
        if described(problem.distance) != described(PNorm()):
            raise ProblemError(
                f"acceptor=Noise(...) with distance={described(problem.distance)}: the noise's density takes "
                "the place of a distance; leave distance out of the problem"
            )
        if any("epsilon" in signature(model.simulate).extras for model in problem.models):
            raise ProblemError(
                "acceptor=Noise(...) with a simulator that takes epsilon, to reject by it: whatever is "
                "simulated has a density; leave epsilon out"
            )
        distance = noise.distance()
        if distance.takes_theta and len(problem.models) > 1:
            raise ProblemError(
                f"acceptor={described(noise)}, which looks at theta, with several models, whose parameters "
                "have nothing in common: add the noise in simulators, or give one problem"
            )
        self.problem, self.threshold = problem.measured_by(distance), None
        maxima = [_log_c(noise, model) for model in problem.models]
        known = [maximum for maximum in maxima if maximum is not None]
        self._log_c = max(known) if len(known) == len(maxima) else None

    def _weights(self, recycle: bool | None, weights: str | None) -> str | None:
        """How recycled evaluations are weighted; None if nothing is recycled. Raises ProblemError."""
        if not (recycle is None or isinstance(recycle, bool)):
            raise ProblemError(f"recycle={recycle!r}: give True or False")
        if weights is not None and weights not in recycling.WEIGHTS:
            raise ProblemError(f"weights={weights!r}: give {' or '.join(map(repr, recycling.WEIGHTS))}")
        if not recycle:
            if weights is not None:
                raise ProblemError(f"weights={weights!r} is for recycled evaluations: give recycle=True too")
            return None
        if isinstance(self.threshold, Constant):
            raise ProblemError(
                f"recycle=True with threshold={self.threshold}: all particles would be kept, and nothing "
                "new be simulated; give a threshold that falls, or leave recycle out"
            )
        if self.acceptor is not None and self._log_c is None:
            raise ProblemError(
                f"recycle=True with acceptor={described(self.acceptor)}, whose largest density is a guess "
                "that changes: give Noise(log_maximum=) if you know it, or leave recycle out"
            )
        for name, part in {"prior": self.problem.prior, "kernel": self.kernel}.items():
            if not getattr(part, "is_normalised", False):
                raise ProblemError(
                    f"recycle=True with {name}={described(part)}, which does not say that its densities are "
                    "normalised: set its is_normalised = True if they are, or leave recycle out"
                )
        return weights or recycling.BALANCE

    def _check_adaptive(self) -> None:
        """Raise ProblemError for what does not go together with a distance that is fitted to simulations."""
        if not is_adaptive(self.problem.distance):
            return
        said = f"distance={described(self.problem.distance)} is fitted to the simulations of each generation"
        if isinstance(self.threshold, Constant | Listed):
            raise ProblemError(
                f"{said}, and threshold={described(self.threshold)} is in units of one of them: give "
                "threshold=mpiabc.Quantile(...), or numbers as the scale"
            )
        if self.weights is not None:
            raise ProblemError(
                f"recycle=True, and {said}: what an earlier one has rejected is gone; leave recycle out, or "
                "give numbers as the scale"
            )
        if self.keep == "theta":
            raise ProblemError(
                f'keep="theta", and {said}: particles are measured again by their statistics; leave keep '
                "out, or give numbers as the scale"
            )
        if any("epsilon" in signature(model.simulate).extras for model in self.problem.models):
            raise ProblemError(
                f"the simulator takes epsilon, and {said}: who rejects early leaves holes in them; leave "
                "epsilon out, or give numbers as the scale"
            )

    def _looks_ahead(self, lookahead: bool | None) -> bool:
        """Whether ids beyond a cut are begun early. Raises ProblemError."""
        if not (lookahead is None or isinstance(lookahead, bool)):
            raise ProblemError(f"lookahead={lookahead!r}: give True or False")
        if not lookahead:
            return False
        problem = self.problem
        if problem.vectorized:
            raise ProblemError(
                "lookahead=True with a vectorised simulator: a block would count only if each of its rows "
                "has kept its proposal; give a simulator of one theta, or leave lookahead out"
            )
        if self.keep == "all" and any("epsilon" in signature(m.simulate).extras for m in problem.models):
            raise ProblemError(
                'lookahead=True with keep="all" and a simulator that takes epsilon: what it returns of '
                "simulations that are rejected depends on when they were begun; leave one of the three out"
            )
        if is_adaptive(problem.distance) and not isinstance(self.kernel, Gaussian | LocalGaussian | OLCM):
            raise ProblemError(
                f"lookahead=True with distance={described(problem.distance)}, which is fitted to the "
                f"simulations of each generation, and kernel={described(self.kernel)}, which would have to "
                "be fitted again to all generations when the run goes on: give a kernel of mpiabc's, or "
                "leave lookahead out"
            )
        for name, part in {"prior": problem.prior, "kernel": self.kernel}.items():
            if not getattr(part, "is_normalised", False):
                raise ProblemError(
                    f"lookahead=True with {name}={described(part)}, which does not say that its densities "
                    "are normalised: set its is_normalised = True if they are, or leave lookahead out"
                )
        return True

    def run(
        self,
        store: Path,
        *,
        generations: int | None = None,
        epsilon: float | None = None,
        simulations: int | None = None,
        acceptance_rate: float | None = None,
        min_epsilon_change: float | None = None,
        ess: float | None = None,
        models: int | None = None,
        walltime: float | str | timedelta | None = None,
        scheduler: Any = "auto",
        progress: bool | None = None,
        overwrite: bool = False,
        accept_changes: bool = False,
    ) -> History | None:
        """Start the run in the file `store`, or continue it; returns its History, None on other ranks.

        The first stopping rule that holds ends the run: so many `generations`, an `epsilon` reached, so
        many `simulations`, an `acceptance_rate` that a generation cannot reach, an epsilon that fell by less
        than `min_epsilon_change` (.01: a hundredth), a generation whose effective sample size is below `ess`,
        so many `models` left with particles, or `walltime` (seconds, a timedelta, text such as "2h", or
        "auto": shortly before the batch system ends the job), after which the run can be continued. They
        never change a population. A run goes on with another threshold where nothing is decided yet: with a
        list that begins with the thresholds that were used, or a gentler quantile; with any other, and if
        code or values have changed meanwhile, with `accept_changes` only. Its file notes that. Job scripts
        set MPIABC_SCHEDULER, which scheduler="auto" obeys, and MPIABC_WALLTIME, the walltime of a run that is
        given none.

        Raises ProblemError and StoreError before any work, SimulatorError for failing evaluations,
        Interrupted (exit status 75, or MPIABC_RESUMABLE_STATUS) after a signal or the walltime.
        """
        options = {name: value for name, value in locals().items() if name not in ("self", "store")}
        return self._run(store, options)

    def _is_endless(self) -> bool:
        """Whether there is always another generation."""
        return self.threshold is None or self.threshold.epsilon(10**9, None) is not None

    def _checked(self, place: Any, stopping: Stopping, has_rule: bool) -> None:
        """Raise ProblemError for a scheduler, or rules, that it does not go with."""
        _check_models(self.problem, stopping)
        if place.is_static and self.weights is not None:
            raise ProblemError(
                "recycle=True with static scheduling: each slot tries ids of its own, so there is no "
                "common line of them to go on with; take a dynamic scheduler, or leave recycle out"
            )
        if place.is_static and self.lookahead:
            raise ProblemError(
                "lookahead=True with static scheduling: each slot tries ids of its own until one is "
                "accepted, so nobody can look ahead; take a dynamic scheduler, or leave lookahead out"
            )
        _check_size(self.problem, sizes.largest(self.population_size), self.keep)
        if stopping.min_epsilon_change is not None and is_adaptive(self.problem.distance):
            raise ProblemError(
                f"min_epsilon_change={stopping.min_epsilon_change} with a distance that is fitted to the "
                "simulations of each generation: epsilons of two are in different units; leave it out, "
                "or give numbers as the scale"
            )
        if self.acceptor is not None and stopping.min_epsilon_change is not None:
            raise ProblemError(
                f"min_epsilon_change={stopping.min_epsilon_change} with acceptor=Noise(...), whose "
                "temperatures fall as Noise(steps=) says: end the run by epsilon=1"
            )
        if not has_rule and self._is_endless():
            example = "generations=8 or epsilon=0.1" if self.acceptor is None else "epsilon=1"
            raise ProblemError(f"the run has no end: give a stopping rule, such as {example}")

    def _size_kept(self, stopping: Stopping) -> str:
        """What all simulations will take in the file, in words, if all are kept."""
        return _size_kept(self.problem, stopping.simulations) if self.keep == "all" else ""

    def _own_settings(self) -> dict[str, Any]:
        """What the file says of it, besides the problem."""
        return {
            "population_size": sizes.plain(self.population_size, described(self.population_size)),
            "kernel": described(self.kernel),
            SCALE: scale_rule(self.kernel),
            "threshold": described(self.threshold),
            "acceptor": None if self.acceptor is None else described(self.acceptor),
            "seed": self.seed,
            "recycle": self.weights,
            "keep": None if self.keep == "accepted" else self.keep,
            "lookahead": self.lookahead or None,
        }

    def _own_fingerprint(self) -> Fingerprint:
        """Code and values that tell it from another one, besides the problem's."""
        return self._parts

    def _kept_parts(self) -> dict[str, Any]:
        """What the file holds of it as code, besides the problem."""
        return {"kernel": self.kernel, "threshold": self.threshold}

    def _planner(self, settings: dict[str, Any]) -> Planner:
        """What decides what comes next, for these settings of the file."""
        key, is_static = stream_key(settings["seed"]), settings["scheduling"] == "static"
        prior, size = self.problem.prior, self.population_size
        is_older = SCALE not in settings
        kernel = as_before(self.kernel, len(settings["names"])) if is_older else self.kernel
        parts = kernel, self.threshold
        measure = measure_of(self.problem)
        inside = settings.get(INSIDE, 1.0)
        return Planner(
            prior,
            *parts,
            key,
            size,
            is_static,
            self.weights,
            self.problem.step,
            measure,
            keep=self.keep,
            inside=inside,
            noise=self.acceptor,
            log_c=self._log_c,
            lookahead=self.lookahead,
        )

    def _past(self, planner: Any, history: History) -> Past:
        """What is committed already, with what its last distance was fitted to, and what the next one is."""
        past = planner.past(history, history.order)
        first = history.order(0)
        before = 0 if first is None or not past.level else calibrated(first[0])
        sample = history.sample(past.level - 1)
        return replace(past, simulations=past.simulations + before, sample=sample)


def _log_c(noise: Noise, problem: Problem) -> float | None:
    """The log of the largest density of a problem's noise, if that is known. Raises ProblemError."""
    prior = problem.prior
    noise.check(prior.names)
    bounds = getattr(prior, "bounds", lambda: [None] * len(prior.names))()
    return noise.log_c(problem.observed_row, dict(zip(prior.names, bounds, strict=True)))


def _check_models(problem: AnyProblem, stopping: Stopping) -> None:
    """Raise ProblemError for a rule on the number of models that would hold from the start."""
    n = len(problem.models)
    if stopping.models is not None and stopping.models >= n:
        counted = f"{n} problems" if n > 1 else "one problem"
        raise ProblemError(f"models={stopping.models} with {counted}: give a smaller number, or leave it out")


def _check_size(problem: AnyProblem, n: int | None, keep: str) -> None:
    """Raise ProblemError if a generation would not fit into a blob of the store."""
    k = 0 if keep == "theta" else problem.structure.size
    if n is not None and 8 * n * k >= MOST_BYTES:
        raise ProblemError(
            f"{n} particles with {k} numbers each are more than the {MOST_BYTES:.0e} bytes that the store "
            'takes: reduce the data by summarize=, or the population, or give keep="theta"'
        )


def _size_kept(problem: AnyProblem, simulations: int | None) -> str:
    """What all simulations of a run will take in its file, in words."""
    k = 0 if problem.observed is None else problem.structure.size
    narrow = is_narrow(problem.example if problem.is_raw else problem.observed)
    size = bytes_of_row(problem.width, k, narrow=narrow, models=len(problem.models))
    n = 1_000_000 if simulations is None else simulations
    return f'keep="all" takes {size} bytes a simulation: {n} of them {size * n / 1e6:.3g} MB'


def _kept(keep: Any) -> str:
    if keep not in ("accepted", "theta", "all"):
        raise ProblemError(
            f"keep={keep!r}: give 'accepted', for the statistics of accepted particles, 'theta', for none, "
            "or 'all', for those of rejected simulations, too"
        )
    return str(keep)
