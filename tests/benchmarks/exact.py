"""Posteriors beside exact ones, and how they scatter over seeds, at equal budgets.

    python -m tests.benchmarks.exact [--simulations 6000] [--size 300] [--seeds 8]

For each target and way: how far the density is off, in nats (Kullback and Leibler's divergence from the exact
one), and the mean of |theta|, by its bias and its standard deviation over seeds, in units of |theta|'s own
standard deviation; all parameters together.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import mpiabc
from mpiabc.analysis.gathered import of_population
from mpiabc.analysis.posterior import fit
from tests.posteriors import TARGETS

_DRAWS = 20_000  # of a density, of which its moments are made


def problem_of(target):
    """What a sampler is given."""
    return mpiabc.Problem(
        target.prior,
        lambda theta, rng: {"s": target.simulate(np.stack([theta[n] for n in target.prior.names], 1), rng)},
        {"s": target.observed},
        vectorized=True,
    )


def posteriors(target, simulations, size, seed, folder):
    """Densities by the way they are made."""
    options = {"scheduler": "serial", "progress": False}
    smc = mpiabc.ABCSMC(problem_of(target), size, seed=seed, keep="all")
    amis = mpiabc.ABCAMIS(problem_of(target), simulations, population_size=size, seed=seed)
    run = smc.run(folder / "smc.db", simulations=simulations, **options)
    last = of_population(run, -1, None)
    return {
        "population": fit(replace(last, unadjusted="asked for")),
        "adjusted": fit(last),
        "mixture": run.posterior(),
        "AMIS": amis.run(folder / "amis.db", **options).posterior(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--simulations", type=int, default=6000)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=8)
    given = parser.parse_args()
    print(f"{'':20} {'divergence':>16} {'bias':>8} {'sd':>7}")
    for name, target in TARGETS.items():
        known = np.abs(target.draws(200_000, np.random.default_rng(0)))
        found: dict[str, list[tuple[float, np.ndarray]]] = {}
        for seed in range(1, given.seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                made = posteriors(target, given.simulations, given.size, seed, Path(folder))
            for way, posterior in made.items():
                size = np.abs(posterior.sample(_DRAWS, np.random.default_rng(seed))).mean(axis=0)
                off = (size - known.mean(axis=0)) / known.std(axis=0)
                found.setdefault(way, []).append((target.divergence(posterior), off))
        for way, rows in found.items():
            nats, off = np.array([row[0] for row in rows]), np.stack([row[1] for row in rows])
            bias, sd = off.mean(), np.sqrt(off.var(axis=0, ddof=1).mean())
            print(
                f"{name:9} {way:10} {nats.mean():8.3f} ±{nats.std(ddof=1):6.3f} {bias:8.3f} {sd:7.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
