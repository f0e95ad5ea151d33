"""The simulated cluster by the names that tests know it by; `mpiabc.testing` has it."""

from mpiabc.testing.cluster import Cluster, random_time
from mpiabc.testing.cluster import SimulatedCluster as Simulated

__all__ = ["Cluster", "Simulated", "random_time"]
