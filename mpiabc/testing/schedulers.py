"""What every scheduler must do, as tests to inherit.

```python
class TestMine(SchedulerTests):
    @pytest.fixture
    def scheduler(self):
        return Mine()
```
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mpiabc.distances import PNorm
from mpiabc.errors import SimulatorError
from mpiabc.pool import Pool
from mpiabc.schedulers.base import Scheduler
from mpiabc.smc import ABCSMC
from mpiabc.store import History
from mpiabc.testing.cluster import SimulatedCluster
from mpiabc.testing.problems import edge, gaussian, mixed, seen_with_noise, two_models

Variants = Mapping[str, Callable[[], Any]]

STATIC: Variants = {  # what static scheduling can do, too
    "scalar": lambda: gaussian().sampler(60),
    "vectorised": lambda: gaussian(vectorized=True).sampler(60),
    "at the edge of the prior": lambda: edge().sampler(60),
    "integers, choices and fitted scales": lambda: mixed(distance=PNorm(scale="mad")),
    "several models": two_models,
}
VARIANTS: Variants = {
    **STATIC,
    "recycled": lambda: gaussian().sampler(60, recycle=True),
    "looking ahead": lambda: gaussian().sampler(60, lookahead=True),
}
LENGTHY: Mapping[str, tuple[int, dict[str, Any]]] = {  # sizes, and options, where a simulation takes its time
    "more workers than particles": (4, {}),
    "looking ahead": (12, {"lookahead": True}),
}
_LONG_ENOUGH = 0.006  # seconds of a simulation, from which on workers look ahead
_FOR_EVER = 120  # seconds, of a run of one second


class SchedulerTests:
    """The same populations as in one process, bit for bit, and the same treatment of failures.

    A class that inherits them has a fixture `scheduler`; where it is static, `is_static = True`. Its workers
    must find the module of its problems, as this one is found. variants: samplers by name, whose populations
    are compared.
    """

    is_static = False
    variants: Variants | None = None  # by default those of this module

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Each variant is a test."""
        if "variant" in metafunc.fixturenames:
            metafunc.parametrize("variant", list(self._variants()))
        if "lengthy" in metafunc.fixturenames:
            names = [name for name in LENGTHY if not (self.is_static and name == "looking ahead")]
            metafunc.parametrize("lengthy", names)

    def test_digests_are_those_of_one_process(
        self, variant: str, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        """Three generations."""
        make = self._variants()[variant]
        history = run(make(), scheduler, tmp_path)
        assert digests(history) == expected(make, self.is_static)

    def test_simulations_that_take_their_time_give_the_digests_of_quick_ones(
        self, lengthy: str, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        """Orders change while workers simulate, and, where they look ahead, what they do counts later.

        A run in which leases get lost ends after two minutes.
        """
        size, options = LENGTHY[lengthy]
        slow = replace(gaussian().problem, simulate=Slow())
        rules = {"generations": 2, "walltime": _FOR_EVER}
        history = run(ABCSMC(slow, size, seed=1, **options), scheduler, tmp_path, **rules)
        assert digests(history) == expected(_Quick(lengthy), self.is_static)[:2]

    def test_a_stopped_run_goes_on_to_the_same_digests(self, scheduler: Scheduler, tmp_path: Path) -> None:
        """One scheduler opens an engine for each start."""
        for budget in (30, 150, 10**6):
            history = run(gaussian().sampler(60), scheduler, tmp_path, simulations=budget)
        assert digests(history) == expected(STATIC["scalar"], self.is_static)

    def test_a_failing_evaluation_ends_the_run_and_is_named(
        self, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        """With its address, theta and the error."""
        try:
            run(failing("raise"), scheduler, tmp_path)
        except SimulatorError as error:
            text = str(error)
        assert "evaluation 0:30 failed" in text
        assert "theta: mu=" in text
        assert "the pump broke" in text

    def test_failures_that_are_let_pass_are_rejections(self, scheduler: Scheduler, tmp_path: Path) -> None:
        """They are reported, and count as evaluations."""
        history = run(failing("reject"), scheduler, tmp_path)
        assert [(f.generation, f.index) for f in history.failures] == [(t, 30) for t in range(3)]
        assert digests(history) == expected(_letting_pass, self.is_static)

    def test_a_pool_gives_results_in_order(self, scheduler: Scheduler) -> None:
        """A map is a job as a run is."""
        with Pool(scheduler) as pool:
            assert pool is not None
            assert pool.map(np.square, range(40)) == [i**2 for i in range(40)]

    def _variants(self) -> Variants:
        return self.variants or (STATIC if self.is_static else VARIANTS)


class DyingWorkerTests:
    """Beside `SchedulerTests`, where workers are processes of their own: what becomes of one that dies."""

    is_static = False

    def test_a_worker_that_dies_changes_nothing(self, scheduler: Scheduler, tmp_path: Path) -> None:
        """Its evaluations go out again."""
        dying = replace(gaussian().problem, simulate=KilledOnce(str(tmp_path / "flag")))
        history = run(ABCSMC(dying, 60, seed=1), scheduler, tmp_path)
        assert (tmp_path / "flag").exists()
        assert digests(history) == expected(STATIC["scalar"], self.is_static)


def run(sampler: Any, scheduler: Any, folder: Path, **rules: Any) -> History:
    """Three generations of a run, if no rule says otherwise, in the file run.db of a folder."""
    history = sampler.run(folder / "run.db", scheduler=scheduler, **{"generations": 3} | rules)
    assert history is not None, "this process does not lead the run"
    return history


def digests(history: History) -> list[str]:
    """What two equal runs have in common: a digest of each population."""
    return [population.digest() for population in history]


@cache
def expected(make: Callable[[], Any], is_static: bool) -> list[str]:
    """Of a sampler's three generations in one process, or, for static scheduling, on a simulated cluster."""
    scheduler: Any = SimulatedCluster(2, is_static=True) if is_static else "serial"
    with TemporaryDirectory() as folder:
        return digests(run(make(), scheduler, Path(folder)))


def failing(on_error: str) -> ABCSMC:
    """A sampler of whose evaluations one in each generation raises."""
    return ABCSMC(replace(gaussian().problem, simulate=_breaks, on_error=on_error), 60, seed=1)


def _breaks(theta: Any, rng: np.random.Generator, *, id: Any) -> dict[str, Any]:
    if id.index == 30:
        raise RuntimeError("the pump broke")
    return seen_with_noise(theta, rng)


def _letting_pass() -> ABCSMC:
    return failing("reject")


@dataclass(frozen=True)
class _Quick:
    """The sampler of lengthy simulations, which do not take their time."""

    name: str

    def __call__(self) -> ABCSMC:
        """Make it."""
        size, options = LENGTHY[self.name]
        return gaussian().sampler(size, **options)


@dataclass(frozen=True)
class Slow:
    """A simulator that takes some milliseconds."""

    seconds: float = _LONG_ENOUGH

    def __call__(self, theta: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Wait, and simulate."""
        time.sleep(self.seconds)
        return seen_with_noise(theta, rng)


@dataclass(frozen=True)
class KilledOnce:
    """A simulator that kills its process in one evaluation, the first time; a file says that it has."""

    flag: str

    def __call__(self, theta: Any, rng: np.random.Generator, *, id: Any) -> dict[str, Any]:
        """Simulate, or die."""
        if id == (1, 30) and not Path(self.flag).exists():
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return seen_with_noise(theta, rng)
