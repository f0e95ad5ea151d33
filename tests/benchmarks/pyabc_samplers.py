"""pyABC's samplers and ours under the same analyses: seconds until they are done, and processor time.

    python -m tests.benchmarks.pyabc_samplers [--workers 2] [--models 0 10 50] [--particles 100]

A model sleeps so many milliseconds; three generations of particles with given thresholds. Each figure is
of a process, or a job, of its own, and of its sampling alone: imports and starts are left out.
"""

import argparse
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

_HANGS = 600.0  # seconds


class Model:
    """Sleeps for some milliseconds, or does not."""

    def __init__(self, milliseconds):
        self.seconds = milliseconds / 1000

    def __call__(self, parameters):
        if self.seconds:
            time.sleep(self.seconds)
        return {"data": parameters["mean"] + 0.5 * np.random.randn()}


def distance(x, y):
    return abs(x["data"] - y["data"])


def single(workers):
    import pyabc

    return nullcontext(pyabc.SingleCoreSampler())


def multicore(workers):
    import pyabc

    return nullcontext(pyabc.MulticoreEvalParallelSampler(n_procs=workers))


@contextmanager
def their_redis(workers):
    from pyabc.sampler import RedisEvalParallelSamplerServerStarter

    sampler = RedisEvalParallelSamplerServerStarter(workers=1, processes_per_worker=workers)
    try:
        yield sampler
    finally:
        sampler.shutdown()


@contextmanager
def comm_executor(workers):
    import pyabc
    from mpi4py.futures import MPICommExecutor

    with MPICommExecutor() as executor:
        yield None if executor is None else pyabc.ConcurrentFutureSampler(executor)


def ours(scheduler):
    from mpiabc.adapters.pyabc import open_sampler

    return open_sampler(scheduler, seed=1)


def serial(workers):
    return ours("serial")


def processes(workers):
    from mpiabc import schedulers

    return ours(schedulers.Processes(workers))


def mpi(workers):
    return ours("mpi")


@contextmanager
def redis(workers):
    from tests import bridge

    server = bridge.RedisServer(Path(tempfile.mkdtemp()))
    worker = server.worker("--processes", workers)
    try:
        with ours(server.scheduler()) as sampler:
            yield sampler
    finally:
        worker.kill()
        server.kill()


SAMPLERS = {
    "pyABC SingleCore": (single, 0),
    "pyABC Multicore": (multicore, 0),
    "pyABC Redis": (their_redis, 0),
    "pyABC ConcurrentFuture, MPICommExecutor": (comm_executor, 1),  # one rank more: rank 0 only hands out
    "mpiabc serial": (serial, 0),
    "mpiabc processes": (processes, 0),
    "mpiabc MPI": (mpi, 0),
    "mpiabc Redis": (redis, 0),
}
_ON_RANKS = (comm_executor, mpi)


def _cpu():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(used.ru_utime + used.ru_stime for used in both)


def measure(name, milliseconds, workers, particles):
    """In the process that leads: seconds, evaluations and this process's own processor time, as JSON."""
    warnings.simplefilter("ignore")
    import pyabc

    logging.getLogger("ABC").setLevel("ERROR")
    with SAMPLERS[name][0](workers) as sampler:
        if sampler is None:
            return
        prior = pyabc.Distribution(mean=pyabc.RV("uniform", 0, 5))
        sampler.set_analysis_id("warm")
        _warmed(sampler, workers)
        sampler.stop()
        spent = {"seconds": 0.0, "cpu": 0.0, "evaluations": 0}
        sample = sampler.sample_until_n_accepted

        def timed(*arguments, **options):
            began, used = time.perf_counter(), _cpu()
            found = sample(*arguments, **options)
            spent["seconds"] += time.perf_counter() - began
            spent["cpu"] += _cpu() - used
            spent["evaluations"] += sampler.nr_evaluations_
            return found

        sampler.sample_until_n_accepted = timed
        eps = pyabc.ListEpsilon([2, 1, 0.5])
        abc = pyabc.ABCSMC(
            Model(milliseconds), prior, distance, population_size=particles, eps=eps, sampler=sampler
        )
        abc.new("sqlite://", {"data": 2.5})
        abc.run(max_nr_populations=3)
        print("MEASURED", json.dumps(spent), flush=True)


def _warmed(sampler, workers):
    """Have every worker up, with its imports."""
    import pyabc

    def wait():
        time.sleep(0.05)
        return pyabc.Particle(0, {}, 1.0, {}, 0.0, True)

    sampler.sample_until_n_accepted(4 * workers, wait, 0, all_accepted=True)


def measured(name, milliseconds, workers, particles):
    """The same in a process, or job, of its own; None where it fails."""
    make, extra = SAMPLERS[name]
    program = [sys.executable, "-m", "tests.benchmarks.pyabc_samplers", "--one", name]
    program += ["--models", str(milliseconds), "--workers", str(workers), "--particles", str(particles)]
    return reported(name, program, ranks=workers + extra if make in _ON_RANKS else 0)


def reported(name, program, ranks=0):
    """What a program, on so many ranks or by itself, says that it has measured; None where it fails."""
    if ranks:
        mpirun = Path(sys.executable).with_name("mpirun")
        program = [str(mpirun if mpirun.exists() else "mpirun"), "-n", str(ranks), *program]
    done = subprocess.run(program, capture_output=True, text=True, timeout=_HANGS, env=dict(os.environ))
    lines = [line for line in done.stdout.splitlines() if line.startswith("MEASURED ")]
    if not lines:
        print(f"{name}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}", file=sys.stderr)
        return None
    return json.loads(lines[0].split(" ", 1)[1])


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--particles", type=int, default=100)
    arguments.add_argument("--models", type=float, nargs="+", default=[0, 10, 50], help="milliseconds")
    arguments.add_argument("--one", choices=SAMPLERS, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.one:
        measure(options.one, options.models[0], options.workers, options.particles)
        return
    print(
        f"{options.workers} workers; seconds (milliseconds of processor time an evaluation, where it leads)"
    )
    print(f"{'':42}" + "".join(f"{f'{model:g} ms':>18}" for model in options.models))
    for name in SAMPLERS:
        if "Redis" in name and not shutil.which("redis-server"):
            print(f"{name:42}there is no redis-server")
            continue
        cells = []
        for model in options.models:
            found = measured(name, model, options.workers, options.particles)
            cells.append("failed" if found is None else _described(found))
        print(f"{name:42}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def _described(found):
    return f"{found['seconds']:.2f} ({1000 * found['cpu'] / found['evaluations']:.2f})"


if __name__ == "__main__":
    main()
