"""Problems with closed-form answers, and the runs that tests make of them."""

import os
import signal
import time
from dataclasses import replace

import numpy as np

import mpiabc
from mpiabc.actions import Done, Open
from mpiabc.evaluate import Level
from mpiabc.records import Failure, failed
from mpiabc.streams import stream_key
from mpiabc.testing import digests
from mpiabc.testing.problems import located as Posterior  # noqa: N812

__all__ = ["Posterior", "digests"]  # and what is below


def gaussian(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal()}


def gaussian_vectorized(theta, rng):
    return {"y": theta["mu"] + rng.standard_normal(theta["mu"].shape)}


def gaussian_slow(theta, rng):
    y = gaussian(theta, rng)
    time.sleep(0.005 * rng.random())
    return y


def gaussian_late(theta, rng):
    """Takes exp(2 mu), up to a bound: who finishes first is no random choice."""
    time.sleep(min(0.01, 2e-4 * np.exp(2 * theta["mu"])))
    return gaussian(theta, rng)


def killed_once(flag, at):
    """A simulator that kills its process in one evaluation, the first time."""

    def simulate(theta, rng, *, id):
        if id == at and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return gaussian(theta, rng)

    return simulate


def problem(simulate=gaussian, *, observed=1.0, **options):
    """mu ~ N(0, 2^2), y ~ N(mu, 1): target 1 of the statistics."""
    return mpiabc.Problem(mpiabc.Prior(mu=mpiabc.Normal(0, 2)), simulate, {"y": observed}, **options)


def population(theta, weights, distances, summaries):
    """A first generation, all of whose evaluations were accepted."""
    n, d = theta.shape
    return mpiabc.Population(
        names=tuple(f"x{i}" for i in range(d)),
        theta=theta,
        weights=weights,
        distances=distances,
        summaries=summaries,
        ids=np.arange(n),
        generation=0,
        epsilon=1.0,
        evaluations=n,
        simulations=n,
        failures=0,
        log_evidence=0.0,
        dispatched=n,
        seconds=1.0,
    )


def sampler(
    n=100,
    thresholds=(3, 1.5, 0.8),
    seed=1,
    simulate=gaussian,
    kernel=None,
    recycle=None,
    weights=None,
    lookahead=None,
    keep="accepted",
    **options,
):
    return mpiabc.ABCSMC(
        problem(simulate, **options),
        n,
        threshold=mpiabc.Listed(thresholds),
        seed=seed,
        kernel=kernel,
        recycle=recycle,
        lookahead=lookahead,
        weights=weights,
        keep=keep,
    )


def generation(n, epsilon=3.0):
    """The order of a first generation."""
    return Level(0, stream_key(1), epsilon, problem().prior, n)


class OneOrder:
    """A job of one order, which is done when its ledger is complete."""

    on_error = "raise"

    def __init__(self, order, ledger):
        self.order, self.ledger, self.is_open = order, ledger, False

    def advance(self, records=()):
        for part in records:
            self.ledger.tell(part)
        if self.ledger.complete:
            return [Done("complete")]
        was_open, self.is_open = self.is_open, True
        return [] if was_open else [Open(self.order, self.ledger)]

    def theta_of(self, order, address):
        return {}


def failed_records(is_exposed):
    """One evaluation, which has failed."""
    failure = Failure(0, 0, {"mu": 0.0}, "the program broke", "")
    return replace(failed(failure, 1, 0), is_exposed=is_exposed)


def committed(store):
    """How many generations a file holds; none, if it is not there or no run has begun in it."""
    try:
        return len(mpiabc.open(store))
    except mpiabc.StoreError:
        return 0


class Flat:
    """A prior of one's own: mu ~ U(-6, 6)."""

    names = ("mu",)

    def sample(self, n, rng):
        return rng.uniform(-6, 6, (n, 1))

    def logpdf(self, theta):
        return np.where(np.abs(theta[:, 0]) < 6, -np.log(12), -np.inf)
