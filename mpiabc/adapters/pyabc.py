"""pyABC on our schedulers: its ABCSMC decides, these workers evaluate.

    abc = pyabc.ABCSMC(models, priors, distance, sampler=Sampler("mpi", seed=1))

One line of a script changes. The population is the same on any number of workers of any scheduler: the first
n accepted particles in the order of their ids, each drawn from random numbers of its own address.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from mpiabc import guard
from mpiabc.adapters.carried import carried
from mpiabc.adapters.sampling import Call, Sampling
from mpiabc.adapters.workers import Watch, Workers
from mpiabc.arguments import whole_of
from mpiabc.driver import Ended, Observer
from mpiabc.errors import Interrupted, SchedulerError, SimulatorError
from mpiabc.problem import policy, time_limit
from mpiabc.progress import Line, logged, repeated
from mpiabc.records import order_number
from mpiabc.schedulers import hold, resolve, works_in_threads
from mpiabc.streams import stream_key

try:
    import pyabc.sampler
except ImportError as error:
    raise SchedulerError(f"pyABC is not here ({error}): install `mpiabc[pyabc]`") from None

_log = logging.getLogger(__name__)
_AFTER = 1 << 63  # an address that no evaluation has: the leading process's states after a call


class Sampler(pyabc.sampler.Sampler):
    """pyABC's sampler on a scheduler of ours; where there are other ranks, these end here.

    scheduler: as for `mpiabc.ABCSMC.run`, but no threads: pyABC draws from NumPy's global generator. Under
    MPI every rank makes the sampler; all but rank 0 serve in this line, and their processes end, with status
    0, when rank 0's script does. Where they are to go on, take `open_sampler`.
    seed: of all that is drawn, between generations too; without one it is drawn from `np.random`, so that
    `np.random.seed(1)` alone makes a run repeatable. on_error: "raise" raises what a model has raised;
    "reject" counts such an evaluation as rejected, a number is how many are too many. timeout: seconds for
    one evaluation. walltime: as for `run`, from now on. A signal or the walltime raises Interrupted (exit
    status 75); `abc.load` goes on from the generations in pyABC's database.
    """

    def __init__(
        self,
        scheduler: Any = "auto",
        seed: int | None = None,
        on_error: str | int = "raise",
        timeout: float | None = None,
        walltime: float | str | None = None,
        *,
        check_max_eval: bool = False,
    ) -> None:
        super().__init__()
        self.check_max_eval = check_max_eval
        self._seed = None if seed is None else whole_of("seed", seed, 0)
        self._on_error = policy(on_error)
        timeout = time_limit(timeout)
        self._place = _processes(resolve(scheduler))
        self._watch = Watch(walltime)
        if not hold(self._place):
            sys.exit(0)
        self._workers = Workers.of(self._place, timeout, "pyabc")
        self._workers.join(self)
        self._calls: Counter[int] = Counter()  # of each generation
        self._line = Line()

    def sample_until_n_accepted(
        self,
        n: int,
        simulate_one: Any,
        t: int,
        *,
        max_eval: float = np.inf,
        all_accepted: bool = False,
        ana_vars: Any = None,
    ) -> Any:
        """The first n accepted particles in id order, as pyABC's Sample.

        `nr_evaluations_` becomes the number of evaluations up to the last of them, or, of a calibration, n.
        """
        order = self._order(int(n), simulate_one, t)
        most = n if all_accepted else np.ceil(max_eval) if self.check_max_eval else np.inf
        call = Call(order, most)
        with self._states_kept(order):
            self._evaluate(call)
        sampled = call.sampled()
        sample = self._create_empty_sample()
        for particle in sampled.particles:
            sample.append(particle)
        self.nr_evaluations_ = sampled.evaluations
        sample.ok = sampled.is_complete
        return sample

    def set_analysis_id(self, analysis_id: str) -> None:
        """A run begins: signals that come between its generations are noted, too."""
        super().set_analysis_id(analysis_id)
        self._watch.begin()

    def stop(self) -> None:
        """A run has ended; the workers stay for the next one. Raises Interrupted after a signal."""
        seen = self._watch.seen
        self._watch.end()
        if seen and sys.exception() is None:
            self._workers.close(Interrupted().code)
            raise Interrupted(f"stopped by {seen}")

    def shutdown(self) -> None:
        """End the workers, as the end of the script does, once no other sampler has them.

        The next run starts others, if there can be any: ranks that have gone do not come back.
        """
        self._let_go(0)

    def _let_go(self, status: int) -> None:
        if self._workers.leave(self, status):
            getattr(self._place, "release", lambda status: None)(status)

    def _order(self, n: int, simulate_one: Any, t: int) -> Sampling:
        """What workers are asked for. The seed is drawn where none was given."""
        seed = int(np.random.randint(2**63 - 1)) if self._seed is None else self._seed
        address = order_number(t + 1, self._calls[t])  # a calibration is generation -1
        self._calls[t] += 1
        return Sampling(
            order_number(max(0, t), next(self._workers.numbers)),
            t,
            n,
            stream_key(seed),
            address,
            carried(simulate_one),
            self._create_empty_sample().record_rejected,
            self._on_error,
            np.geterr(),
        )

    def _evaluate(self, call: Call) -> None:
        """Have it evaluated. Raises what a model has raised."""
        observers: list[Observer] = [repeated, logged("pyABC"), *([self._line] if self.show_progress else [])]
        try:
            with self._watch.limits() as limits:
                self._workers.run(call, limits, observers)
        except Interrupted as stopped:
            _log.warning(
                "pyABC's run is %s; abc.load(...) and abc.run(...) go on from its database", stopped.why
            )
            raise
        except SimulatorError as error:
            raised = call.raised.get(error.failure.index) if error.failure else None
            if raised is None or self._on_error != "raise":
                raise
            raised.again()
        finally:
            self._line(Ended())

    @contextmanager
    def _states_kept(self, order: Sampling) -> Iterator[None]:
        """Leave the generators of this process as they were, or with a seed as that says for what follows."""
        generators = guard.GlobalRandom(order.key)
        with generators.restored():
            yield
        if self._seed is not None:
            generators.fill(order.address, _AFTER)


@contextmanager
def open_sampler(scheduler: Any = "auto", **options: Any) -> Iterator[Sampler | None]:
    """A `Sampler`, whose options these are, for a `with`; None on ranks that serve it, and then go on."""
    place = resolve(scheduler)
    if not place.leads():
        hold(place)
        yield None
        return
    sampler, status = Sampler(place, **options), 1
    try:
        yield sampler
        status = 0
    except Interrupted as stopped:
        status = stopped.code
        raise
    finally:
        sampler._let_go(status)


def _processes(place: Any) -> Any:
    """The scheduler. Raises SchedulerError for one whose workers are threads."""
    if works_in_threads(place):
        raise SchedulerError(
            f"{place} evaluates in threads of one process, and pyABC draws from NumPy's global generator, of "
            "which a process has one: give a scheduler with processes"
        )
    return place
