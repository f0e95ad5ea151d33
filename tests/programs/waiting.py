"""A run that waits for a Dask scheduler which does not come.

python -m tests.programs.waiting STORE (file FILE | address ADDRESS)
"""

import sys

from mpiabc import schedulers
from tests import problems

if __name__ == "__main__":
    name = {"file": "scheduler_file", "address": "address"}[sys.argv[2]]
    problems.sampler().run(sys.argv[1], scheduler=schedulers.Dask(**{name: sys.argv[3]}))
