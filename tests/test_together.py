"""What goes with what: every setting beside every other one, on one problem that can take them all."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest

import mpiabc
from mpiabc.schedulers import Map
from mpiabc.simulations import COLUMNS
from tests import problems
from tests.cluster import Simulated, random_time
from tests.conftest import quick
from tests.programs import foreign

NORMALISED = "which does not say that its densities are normalised"
FITTED = "is fitted to the simulations of each generation"
CENSORED = "REJECT, and a part of the run is fitted to all simulations"
REFUSED = {  # what does not go together, and how it is said
    ("recycled", "adaptive scale"): f"recycle=True, and distance=PNorm.*{FITTED}",
    ("recycled", "predictor"): f"recycle=True, and distance=Predicted.*{FITTED}",
    ("only theta kept", "adaptive scale"): f'keep="theta", and distance=PNorm.*{FITTED}',
    ("only theta kept", "predictor"): f'keep="theta", and distance=Predicted.*{FITTED}',
    ("several models", "predictor"): "distance=Predicted.* with several models",
    ("may reject", "adaptive scale"): CENSORED,
    ("may reject", "predictor"): CENSORED,
    ("noise of one's own", "several models"): "which looks at theta, with several models",
    ("static", "recycled"): "recycle=True with static scheduling",
    ("may reject", "noise"): "returned mpiabc.REJECT, or None, with acceptor=Noise",
    ("may reject", "noise of one's own"): "returned mpiabc.REJECT, or None, with acceptor=Noise",
    ("recycled", "noise of one's own"): r"recycle=True with acceptor=Noise\(.* a guess",
    ("callable distance", "noise"): r"acceptor=Noise\(\.\.\.\) with distance=far",
    ("callable distance", "noise of one's own"): r"acceptor=Noise\(\.\.\.\) with distance=far",
    ("static", "looking ahead"): "lookahead=True with static scheduling",
    ("vectorised", "looking ahead"): "lookahead=True with a vectorised simulator",
    ("batches", "looking ahead"): "lookahead=True with a vectorised simulator",
    ("looking ahead", "kernel of one's own"): f"lookahead=True with kernel=.*{NORMALISED}",
    ("looking ahead", "prior of one's own"): f"lookahead=True with prior=.*{NORMALISED}",
    ("recycled", "constant"): r"recycle=True with threshold=Constant\(value=2.0\)",
    ("recycled", "kernel of one's own"): f"recycle=True with kernel=.*{NORMALISED}",
    ("recycled", "prior of one's own"): f"recycle=True with prior=.*{NORMALISED}",
    ("kernel of one's own", "integers and choices"): r"has fit\(population\), and the prior has integers",
    ("prior of one's own", "defensive share"): f"defensive=0.1\\) with prior=.*{NORMALISED}",
    (
        "free coordinates",
        "prior of one's own",
    ): "proposes in free coordinates, and the prior, a Flat, does not",
}


def simulator(settings):
    """y ~ N(mu, 1), or N(mu + k, 1), which may reject, break, or see many mu at once."""
    share_rejected = 0.1 if "may reject" in settings else 0.0
    share_broken = 0.1 if "failures rejected" in settings else 0.0

    def simulate(theta, rng):
        y = theta["mu"] + theta.get("k", 0) + rng.standard_normal(np.shape(theta["mu"]))
        if rng.random() < share_broken:
            raise RuntimeError("the pump broke")
        return mpiabc.REJECT if rng.random() < share_rejected else {"y": y}

    return simulate


MIXED = mpiabc.Prior(mu=mpiabc.Normal(0, 2), k=mpiabc.Integer(0, 3), c=mpiabc.Choice(["a", "b"]))


def far(simulated, observed):
    return abs(simulated["y"] - observed["y"])


def log_density(simulated, observed, theta):
    return -20 * float(simulated["y"] - observed["y"]) ** 2 / (1 + abs(theta["mu"]))


SETTINGS = {  # each with what it changes: of the problem, of the sampler
    "static": ({}, {}),
    "vectorised": ({"vectorized": True}, {}),
    "batches": ({"vectorized": True, "batch": 512}, {}),
    "may reject": ({}, {}),
    "recycled": ({}, {"recycle": True}),
    "looking ahead": ({}, {"lookahead": True}),
    "constant": ({}, {"threshold": mpiabc.Constant(2.0)}),
    "callable distance": ({"distance": far}, {}),
    "kernel of one's own": ({}, {"kernel": foreign.Student()}),
    "local kernel": ({}, {"kernel": mpiabc.LocalGaussian()}),
    "optimal local kernel": ({}, {"kernel": mpiabc.OLCM(shrink=True)}),
    "free coordinates": ({}, {"kernel": mpiabc.Gaussian(free=True)}),
    "only theta kept": ({}, {"keep": "theta"}),
    "all kept": ({}, {"keep": "all"}),
    "prior of one's own": ({"prior": problems.Flat()}, {}),
    "integers and choices": ({"prior": MIXED}, {}),
    "constrained prior": ({"prior": mpiabc.Prior(mu=mpiabc.Normal(0, 2), where=lambda t: t["mu"] > 0)}, {}),
    "defensive share": ({}, {"kernel": mpiabc.Gaussian(defensive=0.1)}),
    "sizes that change": ({}, {"population_size": [40, 10, 30]}),
    "failures rejected": ({"on_error": "reject"}, {}),
    "timeout": ({"timeout": 60.0}, {}),
    "noise": ({}, {"threshold": None, "acceptor": mpiabc.Noise(mpiabc.noise.Normal(sd=0.2), steps=2)}),
    "noise of one's own": ({}, {"threshold": None, "acceptor": mpiabc.Noise(log_density, steps=2)}),
    "several models": ({}, {}),
    "adaptive scale": ({"distance": mpiabc.PNorm(scale="mad")}, {"threshold": mpiabc.Quantile()}),
    "predictor": ({"distance": mpiabc.Predicted(foreign.LeastSquares())}, {"threshold": mpiabc.Quantile()}),
}


def sampler(settings):
    of_problem = {"prior": mpiabc.Prior(mu=mpiabc.Normal(0, 2)), "simulate": simulator(settings)}
    of_sampler = {"population_size": 40, "threshold": mpiabc.Listed([3, 2, 1.2]), "seed": 1}
    for setting in settings:
        of_problem |= SETTINGS[setting][0]
        of_sampler |= SETTINGS[setting][1]
    problem = mpiabc.Problem(observed={"y": 1.0}, **of_problem)
    options = {"population_size": 40} | of_sampler
    return mpiabc.ABCSMC(several(problem) if "several models" in settings else problem, **options)


def several(problem):
    """It, and a model with a parameter more."""
    prior = mpiabc.Prior(mu=mpiabc.Normal(1, 1), unused=mpiabc.Uniform(0, 1))
    return [problem, replace(problem, prior=prior, name="another")]


def schedulers(settings):
    """Two that share nothing but what must be the same."""
    is_static = "static" in settings
    yield Map(map) if is_static else "serial"
    yield Simulated(7, random_time, is_static=is_static)


def digests(settings, folder):
    return [
        digest(sampler(settings).run(folder / f"{i}.db", generations=3, scheduler=scheduler))
        for i, scheduler in enumerate(schedulers(settings))
    ]


def digest(history):
    """Of the populations, the last one with all simulations, if the run has kept them."""
    found = problems.digests(history)
    if history.settings["keep"] == "all":
        rows = history.simulations.rows()
        found[-1] += b"".join(getattr(rows, name).tobytes() for name in COLUMNS).hex()
    return found


def together(pair):
    """Whether both can be chosen: there is one threshold, and one kernel."""
    _, first = SETTINGS[pair[0]]
    _, second = SETTINGS[pair[1]]
    return not first.keys() & second.keys()


PAIRS = [pair for pair in combinations(SETTINGS, 2) if together(pair)]
NEIGHBOURS = set(pairwise(SETTINGS)) & set(PAIRS)  # each setting beside two others: the quick ones


@pytest.mark.parametrize("pair", quick(PAIRS, *NEIGHBOURS, *REFUSED), ids=" and ".join)
def test_settings_go_together_or_are_refused_in_a_sentence(pair, tmp_path):
    if pair not in REFUSED:
        one, other = digests(pair, tmp_path)
        assert one == other
        assert len(one) == 3
        return
    with pytest.raises(mpiabc.ProblemError, match=REFUSED[pair]):
        digests(pair, tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_that_goes_together_goes_together_at_once(tmp_path):
    """Of two that exclude each other, the later one."""
    chosen = "vectorised, may reject, recycled, callable distance, local kernel, sizes that change, "
    chosen += "failures rejected, several models"
    noisy = chosen.replace("may reject, ", "").replace("callable distance", "noise")
    for i, settings in enumerate((chosen, noisy)):
        (tmp_path / str(i)).mkdir()
        one, other = digests(settings.split(", "), tmp_path / str(i))
        assert one == other
