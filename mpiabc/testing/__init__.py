"""For tests of parts of one's own: what schedulers must do, a cluster made of code, exact answers.

`SchedulerTests` are tests to inherit, and with `DyingWorkerTests` those of workers that are processes;
`SimulatedCluster` is a scheduler in virtual time, with losses, delays and duplicates; `gaussian()`, `edge()`
and `coin()` are problems whose posterior is known at every epsilon. They want pytest only where they are run.
"""

from mpiabc.testing.cluster import SimulatedCluster, random_time
from mpiabc.testing.problems import Posterior, Target, coin, edge, gaussian
from mpiabc.testing.schedulers import DyingWorkerTests, SchedulerTests, digests

__all__ = [
    "DyingWorkerTests",
    "Posterior",
    "SchedulerTests",
    "SimulatedCluster",
    "Target",
    "coin",
    "digests",
    "edge",
    "gaussian",
    "random_time",
]
