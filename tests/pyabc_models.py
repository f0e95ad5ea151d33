"""Examples of pyABC, small: its README, and one for each of its adaptive parts. Each gets one sampler."""

import hashlib
import logging
import os
import time
import warnings

import numpy as np
import pyabc

logging.getLogger("ABC").setLevel("ERROR")


def normal(parameter):
    """As in the README of pyABC."""
    return {"data": parameter["mean"] + 0.5 * np.random.randn()}


def late(parameter):
    """Quick where others are slow: whoever counts finish order prefers large means."""
    time.sleep(0.01 if parameter["mean"] < 2.5 else 0.0)
    return normal(parameter)


class Killing:
    """Kills the process of one evaluation, once; `folder` keeps that."""

    def __init__(self, folder, leader):
        self.folder, self.leader = folder, leader

    def __call__(self, parameter):
        if parameter["mean"] > 2.5 and os.getpid() != self.leader:
            try:
                os.close(os.open(f"{self.folder}/killed", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), 9)
        return normal(parameter)


def two_scales(parameter):
    return {"a": parameter["mean"] + 0.3 * np.random.randn(), "b": 100 * np.random.randn(3)}


def shifted(parameter):
    return {"data": parameter["mean"] + 1.0 + 0.5 * np.random.randn()}


def exact(parameter):
    return {"data": parameter["mean"]}


def distance(x, y):
    return abs(x["data"] - y["data"])


class Steps(pyabc.IntegratedModel):
    """Stops in the middle of what cannot be accepted any more."""

    def __init__(self, steps=5):
        super().__init__(name="steps")
        self.steps = steps

    def integrated_simulate(self, pars, eps):
        x, total = pars["mean"], 0.0
        for _ in range(self.steps):
            x += 0.2 * np.random.randn()
            total += abs(x - 2.0)
            if total > eps:
                return pyabc.ModelResult(accepted=False)
        return pyabc.ModelResult(accepted=True, distance=total, sum_stat={"data": total})


def uniform():
    return pyabc.Distribution(mean=pyabc.RV("uniform", 0, 5))


def readme(sampler, model=normal):
    return pyabc.ABCSMC(model, uniform(), distance, population_size=30, sampler=sampler), {"data": 2.5}


def delayed(sampler):
    return readme(sampler, late)


def adaptive_distance(sampler):
    measure = pyabc.AdaptivePNormDistance(p=2)
    abc = pyabc.ABCSMC(two_scales, uniform(), measure, population_size=30, sampler=sampler)
    return abc, {"a": 2.0, "b": np.zeros(3)}


def noise(sampler):
    abc = pyabc.ABCSMC(
        exact,
        uniform(),
        pyabc.IndependentNormalKernel(var=[0.25]),
        population_size=30,
        eps=pyabc.Temperature(),
        acceptor=pyabc.StochasticAcceptor(),
        sampler=sampler,
    )
    return abc, {"data": 2.5}


def two_models(sampler):
    models, priors = [normal, shifted], [uniform(), uniform()]
    return pyabc.ABCSMC(models, priors, distance, population_size=30, sampler=sampler), {"data": 1.5}


def learned(sampler):
    from pyabc.predictor import LinearPredictor
    from pyabc.sumstat import PredictorSumstat

    statistics = PredictorSumstat(LinearPredictor(), fit_ixs={1})
    measure = pyabc.PNormDistance(p=1, sumstat=statistics)
    abc = pyabc.ABCSMC(two_scales, uniform(), measure, population_size=30, sampler=sampler)
    return abc, {"a": 2.0, "b": np.zeros(3)}


def adaptive_size(sampler):
    size = pyabc.AdaptivePopulationSize(30, mean_cv=0.2, max_population_size=60)
    return pyabc.ABCSMC(normal, uniform(), distance, population_size=size, sampler=sampler), {"data": 2.5}


def integrated(sampler):
    abc = pyabc.ABCSMC(
        Steps(),
        uniform(),
        population_size=30,
        acceptor=None,
        eps=pyabc.ListEpsilon([6, 4, 3]),
        distance_function=pyabc.distance.NoDistance(),
        sampler=sampler,
    )
    return abc, {"data": 0}


EXAMPLES = {
    make.__name__: make
    for make in (
        readme,
        delayed,
        adaptive_distance,
        noise,
        two_models,
        learned,
        adaptive_size,
        integrated,
    )
}


def analysed(make, sampler, database="sqlite://", generations=3):
    """The history of an example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyABC's own
        abc, observed = make(sampler)
        abc.new(database, observed)
        return abc.run(max_nr_populations=generations)


def digest(history):
    """Of all that the database has: particles, weights, distances, statistics, thresholds, evaluations."""
    found = hashlib.sha256()
    populations = history.get_all_populations()
    found.update(populations[["t", "samples", "epsilon", "particles"]].to_numpy(float).tobytes())
    for t in range(history.n_populations):
        for m in history.alive_models(t):
            rows, weights = history.get_distribution(m, t)
            found.update(rows.to_numpy(float).tobytes() + np.asarray(weights, float).tobytes())
        found.update(history.get_weighted_distances(t).to_numpy(float).tobytes())
        _, statistics = history.get_weighted_sum_stats(t)
        for one in statistics:
            for name in sorted(one):
                found.update(np.asarray(one[name], float).tobytes())
    return found.hexdigest()[:16]
