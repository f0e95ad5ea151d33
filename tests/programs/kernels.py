"""A run with a kernel that does all at once: kernels.py STORE."""

import sys

from tests.test_kernels import NEW, flat

if __name__ == "__main__":
    flat(NEW["all at once"]).run(sys.argv[1], generations=3, scheduler="mpi")
