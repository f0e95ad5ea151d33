"""Simulations that hang with the interpreter lock in hand, on ranks."""

import sys

from tests import test_timeout

if __name__ == "__main__":
    test_timeout.sampler(test_timeout.locked, timeout=0.5).run(sys.argv[1], scheduler="mpi")
