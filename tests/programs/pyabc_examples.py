"""What scripts of pyABC do with our sampler: MODE SCHEDULER ARGUMENTS; rank 0 prints what came of it."""

import os
import resource
import signal
import sys
import time

if packages := os.environ.get("MPIABC_TEST_PACKAGES"):  # where pyABC is; here is another MPI
    sys.path.append(packages)

import numpy as np
import pyabc

import mpiabc
from mpiabc.adapters.pyabc import Sampler, open_sampler
from tests.pyabc_models import EXAMPLES, Killing, analysed, digest, normal, readme, uniform


def examples(scheduler, *names):
    """A sampler for each."""
    for name in names or EXAMPLES:
        print("DIGEST", name, digest(analysed(EXAMPLES[name], Sampler(scheduler, seed=1))), flush=True)


def killed(scheduler, folder):
    """One evaluation kills its process; rank 0, whose death ends a job, is spared."""
    sampler = Sampler(scheduler, seed=1)
    model = Killing(folder, os.getpid())
    print("DIGEST", digest(analysed(lambda sampler: readme(sampler, model), sampler)), flush=True)


class Wrong(Exception):  # noqa: N818
    """A model's own."""


def failing(parameter):
    if parameter["mean"] > 2.5:
        raise Wrong("too large")
    return normal(parameter)


def failures(scheduler):
    """The exception itself, with where it came from; then all is as before."""
    sampler = Sampler(scheduler, seed=1)
    try:
        analysed(lambda sampler: readme(sampler, failing), sampler)
    except Wrong as error:
        print("RAISED", error, "in failing" in str(error.__cause__), flush=True)
    print("DIGEST", digest(analysed(readme, Sampler(scheduler, seed=1))), flush=True)


def _cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Cpu:
    """What the processes that work have used of a core in the last seconds."""

    def __call__(self, item):
        time.sleep(0.05)
        return os.getpid(), _cpu()


def together(scheduler, folder):
    """Samplers, runs and pools take turns; in between nothing happens for a while."""
    first, second = Sampler(scheduler, seed=1), Sampler(scheduler, seed=1)
    found = [digest(analysed(readme, first, generations=1)) for _ in range(1)]
    found.append(digest(analysed(readme, second, generations=1)))
    with mpiabc.Pool(scheduler) as pool:
        before = dict(pool.map(Cpu(), range(40)))
        print("POOL", pool.map(abs, [-1, 2]), flush=True)
    problem = mpiabc.Problem(
        mpiabc.Prior(mu=mpiabc.Normal(0, 2)), lambda theta, rng: theta["mu"] + rng.normal(), 1.0
    )
    abc = mpiabc.ABCSMC(problem, 30, seed=1)
    began = time.monotonic()
    print("RUN", abc.run(f"{folder}/{scheduler}.db", generations=2, scheduler=scheduler)[-1].digest())
    time.sleep(2)
    idle = time.monotonic() - began
    with mpiabc.Pool(scheduler) as pool:
        after = dict(pool.map(Cpu(), range(40)))
    both = before.keys() & after.keys() - {os.getpid()}
    print("IDLE", len(both), *(round((after[pid] - before[pid]) / idle, 2) for pid in both), flush=True)
    for _ in range(6):
        found.append(digest(analysed(readme, Sampler(scheduler, seed=1), generations=1)))
    print("ANALYSES", len(found), len(set(found)), flush=True)


def in_a_with(scheduler):
    """All ranks go on afterwards, and may do so again."""
    for _ in range(2):
        with open_sampler(scheduler, seed=1) as sampler:
            if sampler is not None:
                print("DIGEST", digest(analysed(readme, sampler)), flush=True)
    print("AFTER", flush=True)


def one_script(scheduler, folder):
    """All of these, one after another; only rank 0 comes to the second."""
    in_a_with(scheduler)
    failures(scheduler)
    together(scheduler, folder)


class Slow:
    """Says that it has begun, by a file, and takes its time."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, parameter):
        if not os.path.exists(f"{self.folder}/again"):
            open(f"{self.folder}/began", "w").close()
            time.sleep(0.05)
        return normal(parameter)


class Signalled(pyabc.ListEpsilon):
    """pyABC computes between two generations, in which a signal comes."""

    def update(self, t, *arguments, **options):
        if t == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(2.5)
        super().update(t, *arguments, **options)


def stopped(scheduler, folder, between=""):
    """To be stopped, and started again: then it goes on from what the database has."""
    sampler, database = Sampler(scheduler, seed=1), f"sqlite:///{folder}/run.db"
    is_new = not os.path.exists(f"{folder}/run.db")
    if not is_new:
        open(f"{folder}/again", "w").close()
    eps = (Signalled if between and is_new else pyabc.ListEpsilon)([2, 1, 0.7])
    model = normal if between else Slow(folder)
    distance = readme(sampler)[0].distance_function
    abc = pyabc.ABCSMC(model, uniform(), distance, population_size=30, eps=eps, sampler=sampler)
    if is_new:
        abc.new(database, {"data": 2.5})
    else:
        abc.load(database)
        print("LOADED", abc.history.n_populations, flush=True)
    history = abc.run(max_nr_populations=3 - abc.history.n_populations)
    print("DIGEST", digest(history), flush=True)


MODES = {run.__name__: run for run in (examples, killed, together, one_script, stopped)}

if __name__ == "__main__":
    np.random.seed(5)
    MODES[sys.argv[1]](*sys.argv[2:])
