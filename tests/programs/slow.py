"""A run of a few seconds on a Dask cluster: its digests on the last line.

python -m tests.programs.slow STORE SCHEDULER_FILE
"""

import json
import sys
import time

from mpiabc import schedulers
from tests import problems


def gaussian(theta, rng):
    time.sleep(0.005)
    return problems.gaussian(theta, rng)


if __name__ == "__main__":
    scheduler = schedulers.Dask(scheduler_file=sys.argv[2], wait=20)
    history = problems.sampler(200, simulate=gaussian).run(sys.argv[1], scheduler=scheduler)
    print("DIGESTS", json.dumps(problems.digests(history)))
