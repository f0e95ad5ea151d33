"""Does the held-out score prefer what is nearer to the truth? `python -m tests.benchmarks.choice`.

For each target and seed the best variant without adjustment and the best one with it, both by score, are
compared by their divergence from the exact posterior (Kullback and Leibler's, in nats).
"""

from dataclasses import replace

import numpy as np

from mpiabc.analysis import adjust, posterior
from mpiabc.analysis.support import support_of
from tests.posteriors import TARGETS

CASES = [(200, False, 20), (150, True, 20), (800, False, 6)]  # size, whether more are pooled, seeds


def compared(target, weighted, seed):
    """Divergences without and with adjustment, and how much the score prefers the latter."""
    support, rng = support_of(weighted.prior), np.random.default_rng(seed)
    rows, distances, _ = posterior._nearest(weighted, support)
    windows = list(adjust.windows_of(rows, distances, weighted.size, True))
    scores = adjust.scores(windows, support, rng)
    found = []
    for is_moved in (False, True):
        best = max((v for v in scores if v.is_moved is is_moved), key=lambda v: scores[v])
        points = posterior._adjusted(best, windows[best.window], support)
        density = posterior._smoothed(points, support, "", np.random.default_rng(seed))
        found.append((target.divergence(density), scores[best]))
    (plain, one), (adjusted, other) = found
    return plain, adjusted, other - one


def population(target, seed, size, is_pooled):
    if not is_pooled:
        return target.population(seed, size)
    return replace(target.population(seed, 10 * size, 0.25), size=size)


def main():
    right = total = 0
    for size, is_pooled, seeds in CASES:
        for name, target in TARGETS.items():
            rows = [compared(target, population(target, s, size, is_pooled), s) for s in range(seeds)]
            plain, adjusted, preferred = np.array(rows).T
            is_right = (preferred > 0) == (adjusted < plain)
            lost = np.abs(plain - adjusted)[~is_right]
            right, total = right + is_right.sum(), total + seeds
            print(
                f"{name:10} N={size}{' of a pool' if is_pooled else ''}: right {is_right.sum()} of {seeds}, "
                f"divergence {plain.mean():.3f} plain, {adjusted.mean():.3f} adjusted, lost where wrong "
                f"{np.round(lost, 3).tolist()}",
                flush=True,
            )
    print(f"right in {right} of {total} cases")


if __name__ == "__main__":
    main()
