"""Runs with a fault in what users bring: STORE SCHEDULER FAULT; each says what must become of it.

A row of the table is a function that makes the run, with its fault or without, and what is expected of it
with the fault: it is *held*, the run is what it is without the fault; it is *reported*; or the run stops and
is *resumed*. Either of several is good where all of them are named.
"""

import asyncio
import ctypes
import platform
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

import mpiabc
from tests.programs import external, model

AT = "0:17"  # the evaluation that goes wrong, where only one does
OBSERVED = {"y": np.array([1.0, 0.5])}


@dataclass(frozen=True)
class Expected:
    """What may become of a run: an outcome, and the words with which it is reported."""

    outcome: str
    words: str = ""  # a regular expression; where the run goes on, in one line of all that is said
    goes_on: bool | None = None  # to its end with status 0; None if either is good
    kind: str = ""  # of the failure that the file must hold
    committed: int | None = None  # populations that it must hold


def held(words=""):
    """The run is what it is without the fault."""
    return Expected("held", words, True)


def reported(words=r"evaluation \d+:\d+ failed", goes_on=False, **more):
    """It is reported in these words."""
    return Expected("reported", words, goes_on, **more)


def resumed():
    """The run stops with status 75, and the same command comes to what it is without the fault."""
    return Expected("resumed", goes_on=True)


def reported_at(address=AT, **more):
    """The failed evaluation is named."""
    return reported(f"evaluation {address} failed", **more)


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    make: Callable[[bool], mpiabc.ABCSMC]
    expected: tuple[Expected, ...]
    event: str = ""  # what happens to the job from outside
    workers: tuple[dict, ...] = ({},)  # variables of each of them, on Redis
    engines: tuple[str, ...] | None = None  # None for all


FAULTS: dict[str, Fault] = {}


def fault(*expected, name="", **more):
    """The function makes the run of a row; the name is its own unless another one is given."""

    def kept(make):
        FAULTS[name or make.__name__.replace("_", " ").strip()] = Fault(make, expected, **more)
        return make

    return kept


class Wide:
    """The prior of all rows, by hand."""

    names = ("mu",)

    def sample(self, n, rng):
        return rng.normal(0, 2, (n, 1))

    def logpdf(self, theta):
        return -0.5 * np.square(theta[:, 0] / 2)


def run(simulate=None, *, observed=OBSERVED, prior=None, kernel=None, n=30, thresholds=(3, 1.5), **options):
    """A run of half a second."""
    problem = mpiabc.Problem(prior or Wide(), simulate or simulated, observed, name="faulty", **options)
    return mpiabc.ABCSMC(problem, n, kernel=kernel, threshold=mpiabc.Listed(thresholds), seed=1)


def simulated(theta, rng):
    return {"y": noisy(theta, rng)}


def noisy(theta, rng):
    time.sleep(0.002)
    return theta["mu"] + rng.standard_normal(2)


def noisy_block(theta, rng):
    return theta["mu"][:, None] + rng.standard_normal((len(theta["mu"]), 2))


def largest(simulated, observed):
    return float(np.abs(simulated["y"] - observed["y"]).max())


# Callables that write into what they are given: read-only, or a copy of their own.

HARMLESS = (reported(), held())


@fault(*HARMLESS)
def distance_that_normalises_observed_in_place(is_faulty):
    def distance(simulated, observed):
        y = observed["y"] if is_faulty else observed["y"].copy()
        y /= 1 + y.sum()
        return largest(simulated, {"y": y})

    return run(distance=distance)


@fault(*HARMLESS)
def distance_that_replaces_a_part_of_observed(is_faulty):
    def distance(simulated, observed):
        mine = observed if is_faulty else dict(observed)
        mine["y"] = mine["y"] * 0.9
        return largest(simulated, mine)

    return run(distance=distance)


@fault(*HARMLESS)
def distance_that_writes_into_simulated(is_faulty):
    def distance(simulated, observed):
        y = simulated["y"] if is_faulty else simulated["y"].copy()
        y -= observed["y"]
        return float(np.abs(y).max())

    return run(distance=distance)


@fault(*HARMLESS)
def summary_that_writes_into_observed(is_faulty):
    observed = {"y": OBSERVED["y"].copy()}

    def summarize(data):
        (observed["y"] if is_faulty else observed["y"].copy())[:] = 0.0
        return data

    return run(observed=observed, summarize=summarize, distance=largest)


class Writing:
    """A prior, proposal or kernel that writes into an argument, or into a copy of it."""

    def __init__(self, is_faulty, inner=None):
        self.names, self.sample = Wide.names, (inner or Wide()).sample
        self._is_faulty, self._inner = is_faulty, inner or Wide()

    def _mine(self, array):
        return array if self._is_faulty else array.copy()

    def logpdf(self, theta):
        theta = self._mine(theta)
        found = self._inner.logpdf(theta)
        theta += 1.0
        return found


@fault(reported("Error: .*(logpdf|read-only)"), held())
def prior_whose_logpdf_writes_into_theta(is_faulty):
    return run(prior=Writing(is_faulty))


@fault(reported("Error: .*(logpdf|read-only)"), held())
def kernel_whose_logpdf_writes_into_theta(is_faulty):
    return run(kernel=SimpleNamespace(fit=lambda p: Writing(is_faulty, mpiabc.Gaussian().fit(p))))


@fault(reported("Error: .*(kernel|population|read-only)"), held())
def kernel_that_writes_into_the_population(is_faulty):
    def fit(population):
        proposal = mpiabc.Gaussian().fit(population)
        Writing(is_faulty)._mine(population.weights)[:] = 0.0
        return proposal

    return run(kernel=SimpleNamespace(fit=fit))


@fault(held())
def simulator_that_returns_a_view_of_its_buffer(is_faulty):
    buffer = np.zeros(4)

    def simulate(theta, rng):
        buffer[::2] = noisy(theta, rng)
        return {"y": buffer[::2] if is_faulty else buffer[::2].copy()}

    return run(simulate)


@fault(held())
def simulator_that_returns_its_buffer(is_faulty):
    buffer = np.zeros(2)

    def simulate(theta, rng):
        buffer[:] = noisy(theta, rng)
        return buffer if is_faulty else buffer.copy()

    return run(simulate, observed=OBSERVED["y"])


@fault(held())
def vectorised_simulator_that_returns_its_buffer(is_faulty):
    buffer = np.zeros((256, 2))

    def simulate(theta, rng):
        mine = (buffer if is_faulty else buffer.copy())[: len(theta["mu"])]
        mine[:] = noisy_block(theta, rng)
        return {"y": mine}

    return run(simulate, vectorized=True)


@fault(*HARMLESS)
def theta_changed_in_place(is_faulty):
    def simulate(theta, rng):
        mine = theta if is_faulty else dict(theta)
        mine["mu"] += 0.1
        return simulated(mine, rng)

    return run(simulate)


@fault(*HARMLESS)
def theta_changed_in_place_vectorised(is_faulty):
    def simulate(theta, rng):
        mine = theta if is_faulty else {"mu": theta["mu"].copy()}
        mine["mu"] += 0.1
        return {"y": noisy_block(mine, rng)}

    return run(simulate, vectorized=True)


# Conversions that lose.

SCALARS = {
    "complex number": 1.0 + 1.0j,
    "date": np.datetime64("1970-01-02"),
    "2**60 + 1": 2**60 + 1,
    "text 1.0": "1.0",
    "None without epsilon": None,
    "masked number": np.ma.masked,
}
ARRAYS = {
    "masked array": np.ma.array([1.0, 0.5], mask=[False, True]),
    "array of complex numbers": np.array([1.0 + 1.0j, 0.5]),
    "array of dates": np.array(["1970-01-02", "1970-01-01"], "datetime64[D]"),
    "array with 2**60 + 1": np.array([2**60 + 1, 0]),
    "array of text": np.array(["1.0", "0.5"]),
}


def _lossy(value, observed):
    def simulate(theta, rng, *, id):
        y = noisy(theta, rng)
        return {"y": value if id == (0, 17) else y if np.ndim(observed) else y[0]}

    return run(simulate, observed={"y": observed})


def _lossy_block(value):
    def simulate(theta, rng, *, id):
        y = noisy_block(theta, rng)
        stack = np.ma.stack if np.ma.isMaskedArray(value) else np.stack
        return {"y": stack([value] * len(y)) if id.generation else y}

    return run(simulate, vectorized=True)


for _observed, _values in ((1.0, SCALARS), (OBSERVED["y"], ARRAYS)):
    for _name, _value in _values.items():
        fault(reported_at(kind="structure"), name=_name)(lambda _, v=_value, o=_observed: _lossy(v, o))
for _name, _value in ARRAYS.items():
    _row = fault(reported_at(r"1:\d+", kind="structure", committed=1), name=f"{_name}, vectorised")
    _row(lambda _, v=_value: _lossy_block(v))


@fault(reported("ProblemError: .*(masked|observed)"))
def observed_data_that_are_masked(_):
    return run(observed={"y": ARRAYS["masked array"]})


@fault(reported("ProblemError: .*observed"))
def observed_data_without_a_number(_):
    return run(lambda theta, rng: {"y": np.empty(0)}, observed={"y": np.empty(0)})


# Exceptions of every kind, from everywhere: each is a failure with an address.


class Panic(BaseException):
    """As those of extensions in Rust are, no Exception."""


class SpeechlessError(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise RuntimeError("no text")


class BoundError(Exception):
    """It cannot be pickled."""

    def __init__(self, *values):
        super().__init__(*values)
        self.lock = threading.Lock()


RAISED = {
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "what is no Exception": Panic,
    "what has no text": SpeechlessError,
    "what cannot be pickled": BoundError,
    "a text of 50 MB": lambda: RuntimeError("x" * 50_000_000),
}


def _raising(made):
    def simulate(theta, rng, *, id):
        if id == (0, 17):
            raise made()
        return simulated(theta, rng)

    return run(simulate)


for _name, _made in RAISED.items():
    fault(reported_at(kind="exception"), name=f"simulator raises {_name}")(lambda _, m=_made: _raising(m))


def interrupts(*_):
    """Somebody's function that raises what Ctrl-C does."""
    raise KeyboardInterrupt


@fault(reported(kind="exception"))
def summary_that_raises_KeyboardInterrupt(_):
    return run(summarize=interrupts)


@fault(reported(kind="exception"))
def distance_that_raises_KeyboardInterrupt(_):
    return run(distance=interrupts)


@fault(reported(kind="exception"))
def distance_of_rows_that_raises_KeyboardInterrupt(_):
    return run(distance=SimpleNamespace(rows=interrupts))


@fault(reported(kind="proposal"))
def prior_whose_logpdf_raises_KeyboardInterrupt(_):
    prior = Wide()
    prior.logpdf = lambda theta: interrupts() if len(theta) == 256 else Wide.logpdf(prior, theta)
    return run(prior=prior)


@fault(reported(r"evaluation 1:\d+ failed", kind="proposal", committed=1))
def kernel_whose_logpdf_raises_KeyboardInterrupt(_):
    def fit(population):
        inner = mpiabc.Gaussian().fit(population)
        return SimpleNamespace(sample=inner.sample, logpdf=interrupts)

    return run(kernel=SimpleNamespace(fit=fit))


@fault(reported("KeyboardInterrupt", committed=1))
def kernel_whose_fit_raises_KeyboardInterrupt(_):
    return run(kernel=SimpleNamespace(fit=interrupts))


# Rejections.


@fault(held())
def rejection_by_REJECT(is_faulty):
    def simulate(theta, rng):
        y = noisy(theta, rng)
        return mpiabc.REJECT if is_faulty and y[0] > 2 else {"y": np.where(y[0] > 2, np.inf, y)}

    return run(simulate)


@fault(reported("(it is|returned|is) None"))
def forgotten_return(_):
    def simulate(theta, rng):
        noisy(theta, rng)

    return run(simulate)


# Randomness.


@fault(held())
def numpys_global_generator_beside_rng(_):
    return run(lambda theta, rng: {"y": noisy(theta, rng) + np.random.standard_normal(2)})


@fault(held())
def global_generators_without_rng(_):
    def simulate(theta):
        time.sleep(0.002)
        return {"y": theta["mu"] + np.array([np.random.standard_normal(), random.gauss(0, 1)])}

    return run(simulate)


class Own:
    """A simulator with a generator of its own."""

    def __init__(self):
        self.generator = np.random.default_rng(1)

    def __call__(self, theta, rng):
        return simulated(theta, self.generator)


@fault(reported(r"\brng\b", goes_on=True))
def generator_of_the_simulators_own(_):
    return run(Own())


class Unseeded(Wide):
    def sample(self, n, rng):
        return Wide.sample(self, n, np.random.default_rng())


@fault(reported("prior.*sample|sample.*prior", goes_on=None))
def prior_that_ignores_rng(_):
    return run(prior=Unseeded())


# Kernels.


class Mixture:
    """What a kernel fits, with another density; it may not be a method of a class of ours."""

    def __init__(self, proposal, density):
        self.sample, self._inner, self._density = proposal.sample, proposal, density

    def logpdf(self, theta):
        return self._density(self._inner.logpdf, theta)


def _kernel(density):
    return run(kernel=SimpleNamespace(fit=lambda p: Mixture(mpiabc.Gaussian().fit(p), density)))


@fault(reported("Error: .*(logpdf|weight)", committed=1))
def kernel_that_gives_nan_weights(_):
    return _kernel(lambda logpdf, theta: np.full(len(theta), np.nan))


@fault(reported("Error: .*(logpdf|weight)", committed=1))
def kernel_that_gives_infinite_weights(_):
    return _kernel(lambda logpdf, theta: np.full(len(theta), -np.inf))


@fault(reported("logpdf", goes_on=None))
def kernel_whose_logpdf_is_of_another_place(_):
    return _kernel(lambda logpdf, theta: logpdf(theta + 100.0))


@fault(reported("ESS|effective sample size", goes_on=True))
def collapse_of_the_effective_sample_size(_):
    def simulate(theta, rng):
        time.sleep(0.0005)
        return {"y": np.array(list(theta.values())) + 0.3 * rng.standard_normal(12)}

    prior = mpiabc.Prior(**{f"x{i}": mpiabc.Normal(0, 1) for i in range(12)})
    return run(simulate, observed={"y": np.zeros(12)}, prior=prior, n=20, thresholds=(4, 3.3, 2.8))


# What the script, or a library, does to the process.


@fault(held())
def errors_of_NumPy_and_warnings_that_the_script_raises(is_faulty):
    if is_faulty:
        np.seterr(all="raise")
        warnings.simplefilter("error")

    def simulate(theta, rng):
        return {"y": [theta["mu"] + rng.standard_normal(), 1e-200 * rng.random()]}  # too small to be squared

    prior = mpiabc.Prior(mu=mpiabc.Uniform(-1000, 1000))
    kernel = mpiabc.LocalGaussian()
    return run(simulate, observed={"y": [1.0, 0.0]}, prior=prior, thresholds=(300, 100), kernel=kernel)


@fault(reported_at())
def exit_of_C(_):
    def simulate(theta, rng, *, id):
        if id == (0, 17):
            ctypes.CDLL(None).exit(0)
        return simulated(theta, rng)

    return run(simulate)


def _left_behind(is_faulty, change):
    def simulate(theta, rng):
        tiny = theta["mu"] * 1e-310  # 0 if numbers that are not normal are flushed to it
        y = noisy({"mu": tiny * 1e300 * 1e10}, rng) / 3
        if is_faulty:
            change()
        return {"y": y}

    return run(simulate)


_IS_X86 = platform.machine() == "x86_64"


def _round_down():
    downward = 0x400 if _IS_X86 else 0x800000  # of ARM
    ctypes.CDLL("libm.so.6").fesetround(downward)


def _flush_to_zero():
    environment, libm = (ctypes.c_uint32 * 16)(), ctypes.CDLL("libm.so.6")
    libm.fegetenv(environment)
    environment[7] |= 0x8040  # of the control and status register of SSE
    libm.fesetenv(environment)


@fault(held("rounding|floating-point"))
def another_rounding_mode_left_behind(is_faulty):
    return _left_behind(is_faulty, _round_down)


@fault(held("flush|floating-point"), engines=None if _IS_X86 else ())
def flush_to_zero_left_behind(is_faulty):
    return _left_behind(is_faulty, _flush_to_zero)


# Output.


@fault(held(r"RuntimeWarning: careless"))
def simulator_that_warns_and_prints_what_cannot_be_shown(is_faulty):
    def simulate(theta, rng, *, id):
        if is_faulty and id == (0, 17):
            print("\ud800")
            warnings.warn("careless", RuntimeWarning, stacklevel=1)
        return simulated(theta, rng)

    return run(simulate)


# What happens to the job.


@fault(held(), event="suspended")
def suspended_for_longer_than_the_timeout(is_faulty):
    def simulate(theta, rng):
        time.sleep(0.02 if is_faulty else 0)
        return simulated(theta, rng)

    return run(simulate, timeout=1.0)


@fault(resumed(), event="signalled")
def signal_to_all_processes_and_external_programs(is_faulty):
    return external.sampler(external.simulator(is_checked=False) if is_faulty else external.arithmetic)


@fault(reported(r"\bcode\b(?!:)"), engines=("mpich", "openmpi"))
def other_code_on_a_rank(_):
    return run(model.simulate)


@fault(held(r"\bcode\b(?!:)"), engines=("redis",), workers=({}, {model.OTHER: "1"}))
def other_code_on_a_worker(_):
    return run(model.simulate)


if __name__ == "__main__":
    from tests.programs import faulty  # what is sent to workers is of a module that they have too

    store, scheduler, name = sys.argv[1:]
    with external.place(scheduler) as engine:
        faulty.FAULTS[name].make(True).run(store, scheduler=engine)
