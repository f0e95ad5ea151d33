"""A user's module of which rank 1, and a worker that is asked to, have another version."""

import os

import numpy as np

OTHER = "MPIABC_TEST_OTHER_CODE"  # in the environment of such a worker
_RANK = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK")

if OTHER in os.environ or _RANK == "1":

    def simulate(theta, rng):
        return {"y": theta["mu"] + 1.0 + rng.standard_normal(2)}

else:

    def simulate(theta, rng):
        return {"y": np.array(theta["mu"] + rng.standard_normal(2))}
