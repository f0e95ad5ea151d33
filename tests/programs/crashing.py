"""A run that dies of the signal $CRASHING in evaluation 1:37, if that is one: STORE [alone].

alone: rank 0 leaves all of generation 1 to the other ranks, so that it is one of these that dies.
"""

import os
import signal
import sys

import mpiabc
from tests import problems


def gaussian(theta, rng, *, id):
    if id == (1, 37) and (name := os.getenv("CRASHING")):
        os.kill(os.getpid(), signal.Signals[name])
    return problems.gaussian(theta, rng)


class Leaving(mpiabc.schedulers.MPI):
    """Rank 0 takes no lease of generation 1."""

    def open(self, problem):
        engine = super().open(problem)
        _, home = engine._engines
        begin, capacity, numbers = home.begin, home.capacity, []
        home.begin = lambda job: (numbers.append(job.number), begin(job))
        home.capacity = lambda prefetch: 0 if numbers[-1] == 1 else capacity(prefetch)
        return engine


if __name__ == "__main__":
    problem = problems.problem(gaussian, name="gaussian")
    abc = mpiabc.ABCSMC(problem, 100, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
    is_rank = "PMI_RANK" in os.environ or "OMPI_COMM_WORLD_RANK" in os.environ
    place = Leaving() if "alone" in sys.argv else "mpi" if is_rank else "serial"
    abc.run(sys.argv[1], scheduler=place)
