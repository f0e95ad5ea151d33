"""A simulator that is an MPI program: heat on a ring, whose cells the ranks of a team share.

python examples/mpi_simulator.py                  one process: comm is COMM_SELF
mpirun -n 8 python examples/mpi_simulator.py 4    two teams of four ranks

All ranks of a team are called with the same theta and an rng in the same state; what the first returns
counts. The digest is the same everywhere, because the one sum over ranks is of whole numbers: sums of floats
differ in the last bit with the number of their parts.
"""

import sys

import numpy as np

import mpiabc
from mpiabc import schedulers

CELLS, STEPS, SENSORS = 60, 20, 6
UNIT = 2.0**-30  # of heat, in which it is summed


def simulate(theta, rng, *, comm):
    cells = np.array_split(np.arange(CELLS), comm.size)[comm.rank]
    left, right = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size
    heat = np.where(cells < CELLS // 4, 1.0, 0.0)
    below, above = np.empty(1), np.empty(1)  # the cells next to ours
    for _ in range(STEPS):
        comm.Sendrecv(heat[:1], dest=left, recvbuf=above, source=right)
        comm.Sendrecv(heat[-1:], dest=right, recvbuf=below, source=left)
        around = np.concatenate([below, heat, above])
        flow = around[:-2] - 2 * heat + around[2:]
        heat = heat + theta["diffusion"] * flow - theta["loss"] * heat
    mine = np.zeros(SENSORS, np.int64)
    np.add.at(mine, cells * SENSORS // CELLS, np.rint(heat / UNIT).astype(np.int64))
    total = np.empty_like(mine)
    comm.Allreduce(mine, total)
    return {"heat": total * UNIT + rng.normal(0, 0.05, SENSORS)}


PROBLEM = mpiabc.Problem(
    prior=mpiabc.Prior(diffusion=mpiabc.Uniform(0, 0.5), loss=mpiabc.Uniform(0, 0.1)),
    simulate=simulate,
    observed={"heat": np.array([5.69, 3.38, 0.09, -0.07, 0.05, 0.95])},  # of 0.3 and 0.02
)


def main(size="", store="heat.db"):
    scheduler = schedulers.MPI(team=int(size)) if size else "serial"
    abc = mpiabc.ABCSMC(PROBLEM, population_size=50, seed=1)
    history = abc.run(store, generations=4, scheduler=scheduler, overwrite=True)
    if history is not None:
        diffusion, loss = history[-1].mean()
        print(f"diffusion {diffusion:.3f} loss {loss:.4f} digest {history[-1].digest()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
