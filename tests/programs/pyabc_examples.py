"""Examples of pyABC, each with a sampler of its own on the scheduler that is named; a digest on each line."""

import sys

import mpiabc
from mpiabc.adapters.pyabc import Sampler
from tests.pyabc_models import EXAMPLES, analysed, digest


def main(scheduler, *names):
    for name in names or EXAMPLES:
        sampler = Sampler(scheduler, seed=1)
        print("DIGEST", name, digest(analysed(EXAMPLES[name], sampler)), flush=True)
    if scheduler == "mpi":  # the other ranks have been serving in the first line, and never come here
        with mpiabc.Pool("mpi") as pool:
            print("POOL", pool.map(abs, [-1, -2]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
