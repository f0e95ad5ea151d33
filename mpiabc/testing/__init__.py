"""For tests of parts of one's own: what they promise, what schedulers must do, exact answers.

`check_kernel`, `check_distance`, `check_threshold`, `check_size` and `check_prior` ask a part for what it
promises, in one line of a test.
`SchedulerTests` are tests to inherit, and with `DyingWorkerTests` those of workers that are processes;
`SimulatedCluster` is a scheduler in virtual time, with losses, delays and duplicates; `gaussian()`, `edge()`
and `coin()` are problems whose posterior is known at every epsilon. They want pytest only where they are run.
"""

from mpiabc.testing.cluster import SimulatedCluster, random_time
from mpiabc.testing.parts import check_distance, check_kernel, check_prior, check_size, check_threshold
from mpiabc.testing.problems import Posterior, Target, coin, edge, gaussian
from mpiabc.testing.schedulers import DyingWorkerTests, SchedulerTests, digests

__all__ = [
    "DyingWorkerTests",
    "Posterior",
    "SchedulerTests",
    "SimulatedCluster",
    "Target",
    "check_distance",
    "check_kernel",
    "check_prior",
    "check_size",
    "check_threshold",
    "coin",
    "digests",
    "edge",
    "gaussian",
    "random_time",
]
