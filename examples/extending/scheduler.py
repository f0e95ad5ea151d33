"""A scheduler of one's own: what came last is evaluated first, and the posterior is the same.

Whoever has a `map` gives `schedulers.Map(map)`, whoever has `submit`, an executor, gives
`schedulers.Futures(executor)`. This is for another transport: a scheduler opens an engine, which takes leases
(ranges of ids) and brings their records home, in any order. Where a worker computes, it needs the problem and
the job: `job.evaluator(problem)` is a function (start, stop) -> records. Whether it holds is asked by

    class TestLastFirst(mpiabc.testing.SchedulerTests):
        @pytest.fixture
        def scheduler(self):
            return LastFirst()
"""

import time

from scipy import stats

import mpiabc
from mpiabc.schedulers.base import OneLeads


class LastFirst(OneLeads):
    """This process, last lease first."""

    def open(self, problem):
        return Engine(problem)


class Engine:
    workers = 1

    def __init__(self, problem):
        self.problem, self.leases, self.evaluators = problem, [], {}

    def begin(self, job):
        self.evaluators[job.number] = job.evaluator(self.problem, "here")

    def capacity(self, prefetch):
        return 4 - len(self.leases)

    def submit(self, lease):
        self.leases.append(lease)

    def poll(self, timeout):
        if not self.leases:
            time.sleep(timeout)
            return []
        lease = self.leases.pop()
        return [self.evaluators[lease.job](lease.start, lease.stop)]

    def waiting(self):
        return list(self.leases)

    def cancel(self, cut):
        self.leases = [lease for lease in self.leases if lease.start < cut]

    def busy(self):
        return bool(self.leases)

    def close(self, status):
        self.leases.clear()


def simulate(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal()}


problem = mpiabc.Problem(mpiabc.Prior(mu=stats.norm(0, 2)), simulate, {"y": 1.0})
abc = mpiabc.ABCSMC(problem, 200, seed=1)

if __name__ == "__main__":
    print(abc.run("scheduler.db", generations=3, scheduler=LastFirst())[-1].digest())
