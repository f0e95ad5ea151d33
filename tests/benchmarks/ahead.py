"""Looking ahead beside plain ABC-SMC at the same N and seeds: bias of the mean, right ways and wrong ones.

    python -m tests.benchmarks.ahead [--replicates 1000] [--sizes 64] [--ways ...] [--targets line]

All is the real run, its lines of ids, chains and weights, driven by its pure loop alone: what is evaluated
beyond a cut is work that was begun early, and counts at the next level if it may. Simulators are vectorised
here, so that thousands of replicates take minutes: what is simulated for an id that has kept its proposal may
be simulated anew, which changes no law. A row for each way: bias of the mean in standard deviations of the
exact posterior, that beside plain, bias of the deviation and of the evidence, each with its standard error.

Wrong ways: "levels" and "masses by ESS" weigh recycled particles by how many, or how many effective ones, a
level has brought; "own kernel kept" leaves the kernel that stands on a particle in its density; "finish
order" takes the first to finish, where what lies high takes long; "latest proposal" lets half of what was
begun early count, whatever became of its proposal, with weights by the newest one.
"""

import argparse
from contextlib import ExitStack
from itertools import product
from unittest import mock

import numpy as np

from mpiabc import recycling
from mpiabc.cli.words import table
from mpiabc.kernels.coupling import Coupled
from mpiabc.ledger import Ledger
from mpiabc.particles import joined
from tests import recycled
from tests.recycled import TARGETS, populations

_TAIL = 60.0  # ids that a worker begins meanwhile, where theta is 0


def _as_finished(self):
    """The first to finish, of those that are known; what lies high takes long."""
    rows = joined([records.rows for records in self._records if len(records.rows)])
    rows = rows.take(np.argsort(rows.ids))
    at = np.argsort(rows.ids + _TAIL * np.exp(rows.theta[:, 0] / 2))[: self.size]
    return rows.take(np.sort(at))


_step = Coupled._step


def _counted_anyway(self, block, number, rows, level):
    """Half of the ids keep their theta, with the density of the next proposal."""
    known = self._log_u.get((number, level))
    log_u = self._decisive(number, level, len(block.theta)) if known is None else known
    is_even = (block.first + np.arange(len(block.theta))) % 2 == 0
    self._log_u[number, level] = np.where(is_even, -np.inf, log_u)
    _step(self, block, number, rows, level)


AHEAD, RECYCLED = {"lookahead": True}, {"weights": "balance"}
WAYS = {  # what is set, and what is patched
    "plain": ({}, []),
    "lookahead": (AHEAD, []),
    "recycle": (RECYCLED, []),
    "recycle + lookahead": (AHEAD | RECYCLED, []),
    "levels": (AHEAD | {"weights": "levels"}, []),
    "masses by ESS": (AHEAD | {"weights": "levels"}, [(recycling, "log_weights", recycled._by_ess)]),
    "own kernel kept": (AHEAD | RECYCLED, [(recycling, "log_others", recycled._own_kept)]),
    "finish order": (AHEAD, [(Ledger, "population", _as_finished)]),
    "latest proposal": (AHEAD, [(Coupled, "_step", _counted_anyway)]),
}


def measured(n, way, replicates, target="line"):
    """Errors of mean, deviation and evidence, (replicates, 3)."""
    options, patches = WAYS[way]
    mean, deviation, evidence = TARGETS[target].exact()
    sampler, found = TARGETS[target].sampler(n, options.get("weights")), []
    with ExitStack() as stack:
        for place, name, wrong in patches:
            stack.enter_context(mock.patch.object(place, name, wrong))
        for seed in range(replicates):
            last = populations(sampler, seed, lookahead=options.get("lookahead", False))[-1]
            errors = [np.mean((last.mean() - mean) / deviation), np.mean(last.std() / deviation) - 1]
            found.append([*errors, np.exp(last.log_evidence) / evidence - 1])
    return np.array(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--targets", choices=TARGETS, nargs="+", default=["line"])
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=[way for way in WAYS if way != "plain"])
    options = parser.parse_args()
    rows = [["target", "N", "way", "mean", "beside plain", "deviation", "evidence"]]
    for target, n in product(options.targets, options.sizes):
        plain = measured(n, "plain", options.replicates, target)
        for way in ("plain", *options.ways):
            found = plain if way == "plain" else measured(n, way, options.replicates, target)
            columns = found[:, 0], found[:, 0] - plain[:, 0], found[:, 1], found[:, 2]
            rows.append([target, str(n), way, *map(recycled._with_error, columns)])
            print("  ".join(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
