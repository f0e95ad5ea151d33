"""Integers, choices and shares among the parameters, against exact answers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

import mpiabc
from mpiabc import cli
from mpiabc.defended import undefended
from mpiabc.kernels import discrete
from mpiabc.kernels.discrete import MixedMixture
from mpiabc.order import Order, kept, restored
from mpiabc.schedulers import Map
from tests import problems
from tests.cluster import Simulated, random_time
from tests.programs import foreign

MIXED = mpiabc.Prior(
    k=mpiabc.Integer(0, 6), x=mpiabc.Normal(0, 1), c=mpiabc.Choice(["low", "high"], [0.7, 0.3])
)


BOUNDED = mpiabc.Prior(MIXED.parts | {"x": mpiabc.Uniform(-3, 3)})


def simulate(theta, rng):
    """y ~ N(k + x + 2 [c = high], 1), with what of these there is."""
    mean = theta.get("k", 0) + theta.get("x", 0.0) + 2.0 * (np.asarray(theta.get("c", "low")) == "high")
    return {"y": mean + rng.standard_normal(np.shape(mean))}


def sampler(prior, n=2000, observed=2.4, vectorized=True, **options):
    problem = mpiabc.Problem(prior, simulate, {"y": observed}, vectorized=vectorized)
    options = {"threshold": mpiabc.Listed([4, 2, 1]), "seed": 2} | options
    return mpiabc.ABCSMC(problem, n, **options)


def exact(prior, observed=2.4, epsilon=1.0):
    """The probability of each combination of discrete values, and all of them together."""
    log_mass = {"k": range(40), "c": (0, 1)}
    names = [name for name in prior.names if name in log_mass]
    found, spread = {}, np.sqrt(1.0 + ("x" in prior.names))
    for values in product(*(log_mass[name] for name in names)):
        row = dict(zip(names, values, strict=True))
        mass = np.exp(prior.logpdf(np.array([[row.get(name, 0.0) for name in prior.names]], float))[0])
        mass /= stats.norm.pdf(0) if "x" in prior.names else 1.0  # the density of x = 0
        mean = row.get("k", 0) + 2 * row.get("c", 0)
        inside = np.diff(stats.norm.cdf([observed - epsilon, observed + epsilon], mean, spread))[0]
        found[values] = mass * inside
    evidence = sum(found.values())
    return {values: mass / evidence for values, mass in found.items() if mass}, evidence


def p_value(population, expected):
    """Of a chi-square of the weighted counts, cells of few expected ones joined."""
    columns = [population[name] for name in population.names if name in ("k", "c")]
    cells = list(zip(*(column.astype(int).tolist() for column in columns), strict=True))
    n = population.ess / 2  # Kish's is up to twice the true one
    found = dict.fromkeys(expected, 0.0)
    for cell, weight in zip(cells, population.weights, strict=True):
        found[cell] += weight
    pairs = sorted((expected[cell], found[cell]) for cell in expected)
    joined, rest = [], np.zeros(2)
    for pair in pairs:
        rest = rest + pair
        if n * rest[0] >= 5:
            joined.append(rest)
            rest = np.zeros(2)
    joined[-1] = joined[-1] + rest
    p, q = np.array(joined).T
    return stats.chi2.sf(n * np.sum((q - p) ** 2 / p), len(joined) - 1)


PRIORS = {
    "integers": mpiabc.Prior(k=mpiabc.Integer(0, 6)),
    "one of SciPy's": mpiabc.Prior(k=stats.poisson(3)),
    "a geometric one": mpiabc.Prior(k=stats.geom(0.3, loc=-1)),
    "choices": mpiabc.Prior(c=mpiabc.Choice(["low", "high"], [0.7, 0.3])),
    "mixed": MIXED,
}
if hasattr(stats, "Binomial"):
    PRIORS["a new one of SciPy's"] = mpiabc.Prior(k=stats.Binomial(n=8, p=0.4))


@pytest.mark.parametrize("recycle", [False, True], ids=["anew", "recycled"])
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_populations_are_the_enumerated_posterior(prior, recycle, tmp_path):
    expected, evidence = exact(prior)
    last = sampler(prior, recycle=recycle).run(tmp_path / "run.db", scheduler="serial")[-1]
    assert p_value(last, expected) > 1e-3
    assert abs(np.exp(last.log_evidence) / evidence - 1) < 0.12  # three standard errors and more


@pytest.mark.long
@pytest.mark.parametrize("observed", [-1.0, 8.5], ids=["lower", "upper"])
@pytest.mark.parametrize("kernel", [mpiabc.Gaussian(), mpiabc.LocalGaussian()], ids=["gaussian", "local"])
def test_at_a_bound_nothing_is_lost_or_gained(kernel, observed, tmp_path):
    expected, _ = exact(MIXED, observed)
    last = sampler(MIXED, observed=observed, kernel=kernel).run(tmp_path / "run.db", scheduler="serial")[-1]
    assert p_value(last, expected) > 1e-3
    assert last.simulations < last.evaluations  # steps across the bound were ids, and no simulations


def test_real_parameters_beside_discrete_ones_have_their_exact_mean(tmp_path):
    expected, _ = exact(MIXED)
    last = sampler(MIXED, 4000).run(tmp_path / "run.db", scheduler="serial")[-1]
    mean = 0.0
    for (k, c), mass in expected.items():
        y = stats.truncnorm(
            (1.4 - k - 2 * c) / np.sqrt(2), (3.4 - k - 2 * c) / np.sqrt(2), k + 2 * c, np.sqrt(2)
        )
        mean += mass * (y.mean() - k - 2 * c) / 2
    assert abs(last.mean()["x"] - mean) < 4 * last.std()["x"] / np.sqrt(last.ess / 2)


def clipped(self, parents, z):
    """A mutant: a step across the bound ends on it."""
    theta = MOVED(self, parents, z)
    theta[:, 0] = np.clip(theta[:, 0], 0, 6)
    return theta


def wider(offsets, s):
    """A mutant: the mass of longer steps than those that are drawn."""
    return LOG_MASS(offsets, 1.5 * s)


MOVED, LOG_MASS = MixedMixture.moved, discrete.log_mass
MUTANTS = {"none": None, "clipped": (MixedMixture, "moved", clipped), "wider": (discrete, "log_mass", wider)}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_masses_are_noticed(mutant, tmp_path, monkeypatch):
    if MUTANTS[mutant]:
        monkeypatch.setattr(*MUTANTS[mutant])
    prior = mpiabc.Prior(k=mpiabc.Integer(0, 6))
    expected, _ = exact(prior, -0.5)
    chosen = sampler(prior, 6000, observed=-0.5, threshold=mpiabc.Listed([1.5, 1.0]))
    p = p_value(chosen.run(tmp_path / "run.db", scheduler="serial")[-1], expected)
    assert p > 1e-3 if mutant == "none" else p < 1e-6


def parents(prior, n=60, seed=1):
    rng = np.random.default_rng(seed)
    theta = np.asarray(prior.sample(n, rng), float)
    weights = rng.dirichlet(np.full(n, 3.0))
    made = problems.population(theta, weights, rng.random(n), np.zeros((n, 1)))
    return replace(made, names=prior.names)


KERNELS = [
    mpiabc.Gaussian(scale=0.3, defensive=0.2),
    mpiabc.LocalGaussian(shrink=True),
    mpiabc.OLCM(),
    mpiabc.Gaussian(free=True),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_draws_have_the_density_that_is_said_of_them(kernel):
    prior = BOUNDED if kernel.free else MIXED
    proposal = kernel.fit(parents(prior), prior)
    draws = proposal.sample(60_000, np.random.default_rng(3))
    grid = np.linspace(-14, 14, 701)
    grid = 3 * np.tanh(grid) if kernel.free else grid  # much may lie close to a bound
    masses = {}
    for k, c in product(range(-12, 20), (0, 1)):
        rows = np.column_stack([np.full(701, float(k)), grid, np.full(701, float(c))])
        masses[k, c] = np.trapezoid(np.exp(proposal.logpdf(rows)), grid)
    assert abs(sum(masses.values()) - 1) < 1e-3
    cells = [cell for cell in masses if masses[cell] > 1e-3]
    count = np.array([np.sum((draws[:, 0] == k) & (draws[:, 2] == c)) for k, c in cells])
    p = np.array([masses[cell] for cell in cells])
    assert stats.chi2.sf(np.sum((count - 60_000 * p) ** 2 / (60_000 * p)), len(cells) - 1) > 1e-3


def test_choices_jump_as_those_of_pyabc_do():
    """pyABC's test of its discrete jumps: domain 5, 4, 2.5, 0.5, seven particles; moves reach all."""
    prior = mpiabc.Prior(a=mpiabc.Choice([5, 4, 2.5, 0.5]))
    theta = np.array([[0.0], [1.0], [1.0], [1.0], [2.0], [2.0], [3.0]])
    weights = np.array([1e-12, 0.2, 0.2, 0.1, 0.1, 0.1, 0.3])
    jumps = undefended(mpiabc.Gaussian().fit(replace(parents(prior, 7), theta=theta, weights=weights), prior))
    expected = 0.7 * np.array([0.0, 0.5, 0.2, 0.3]) + 0.3 / 4
    assert np.allclose(np.exp(jumps.logpdf(np.arange(4.0)[:, None])), expected, atol=1e-9)
    counts = np.bincount(jumps.sample(10_000, np.random.default_rng(1))[:, 0].astype(int), minlength=4)
    assert stats.chisquare(counts, 10_000 * expected).pvalue > 1e-3


def test_densities_of_rows_do_not_depend_on_the_rows_beside_them():
    mixture = undefended(mpiabc.Gaussian().fit(parents(MIXED, 300), MIXED))
    theta = MIXED.sample(57, np.random.default_rng(5))
    together = mixture.logpdf(theta)
    assert together.tobytes() == np.concatenate([mixture.logpdf(row[None]) for row in theta]).tobytes()
    assert together[3:41].tobytes() == mixture.logpdf(theta[3:41]).tobytes()


def test_of_others_the_component_on_the_particle_itself_is_left_out():
    base = parents(MIXED)
    mixture = undefended(mpiabc.Gaussian().fit(base, MIXED))
    rest = np.arange(60) != 7
    others = MixedMixture(
        base.theta[rest],
        base.weights[rest] / base.weights[rest].sum(),
        MIXED.layout,
        mpiabc.kernels.mixture.GaussianMixture(
            base.theta[rest][:, [1]], base.weights[rest], mixture.moves.cholesky
        ),
        mixture.spreads,
    )
    # The inner mixture's weights are those before: what matters of them is their logarithm.
    expected = others.logpdf(base.theta[[7]]) - np.log1p(-base.weights[7])
    scaled = np.log(base.weights[rest]) - np.log(others.weights)
    assert np.allclose(scaled, scaled[0])
    assert np.allclose(mixture.log_others(np.array([7])), expected, rtol=1e-9)


def test_far_integers_have_masses_too_and_the_prior_reaches_where_no_step_does():
    prior = mpiabc.Prior(k=mpiabc.Integer(0, 10_000_000))
    base = parents(mpiabc.Prior(k=mpiabc.Integer(3, 3)))
    proposal = mpiabc.Gaussian().fit(base, prior)
    far = np.array([[9_000_000.0]])
    assert undefended(proposal).spreads.tolist() == [0.5]  # all are 3, which is no error
    assert undefended(proposal).logpdf(far)[0] == -np.inf
    assert prior.logpdf(far) - proposal.logpdf(far) <= np.log(20) + 1e-9
    wide = mpiabc.Gaussian().fit(parents(prior), prior)
    x = np.array([[5_000_000.0]])
    s, centres, weights = undefended(wide).spreads[0], wide.proposal.centres[:, 0], wide.proposal.weights
    density = np.log(np.sum(weights * stats.norm.pdf(5_000_000, centres, s)))
    assert abs(undefended(wide).logpdf(x)[0] - density) < 1e-6


def test_kept_orders_have_discrete_moves_bit_for_bit():
    base = parents(MIXED)
    for kernel in KERNELS:
        proposal = kernel.fit(base, MIXED)
        text, arrays = kept(Order(1, (1, 2), 1.0, proposal, 60), base)
        found = restored(text, arrays, base, MIXED)["proposal"]
        draws = [p.sample(50, np.random.default_rng(1)) for p in (found, proposal)]
        assert draws[0].tobytes() == draws[1].tobytes()
        assert found.logpdf(base.theta).tobytes() == proposal.logpdf(base.theta).tobytes()


@pytest.mark.long
@pytest.mark.parametrize("recycle", [False, True], ids=["anew", "recycled"])
def test_populations_are_the_same_on_any_schedule_and_after_a_stop(recycle, tmp_path):
    def made():
        return sampler(MIXED, 60, vectorized=False, recycle=recycle)

    quiet = problems.digests(made().run(tmp_path / "a.db", scheduler="serial"))
    for name, scheduler in {"wild": Simulated(5, random_time), "processes": "processes"}.items():
        assert problems.digests(made().run(tmp_path / f"{name}.db", scheduler=scheduler)) == quiet
    part = made().run(tmp_path / "part.db", scheduler="serial", simulations=170)
    assert 0 < len(part) < 3
    assert problems.digests(made().run(tmp_path / "part.db", scheduler="serial")) == quiet


def test_slots_and_batches_have_integers_too(tmp_path):
    static = [
        problems.digests(sampler(MIXED, 60).run(tmp_path / f"{i}.db", scheduler=place))
        for i, place in enumerate([Map(map), Simulated(3, random_time, is_static=True)])
    ]
    assert static[0] == static[1]
    problem = mpiabc.Problem(MIXED, simulate, {"y": 2.4}, vectorized=True, batch=512)
    batches = [
        problems.digests(
            mpiabc.ABCSMC(problem, 60, seed=1, threshold=mpiabc.Listed([4, 2])).run(
                tmp_path / f"batch{i}.db", scheduler=place
            )
        )
        for i, place in enumerate(["serial", Simulated(3, random_time)])
    ]
    assert batches[0] == batches[1]


def test_simulators_are_given_integers_and_the_values_of_choices(tmp_path):
    def one(theta, rng):
        assert type(theta["k"]) is int
        assert theta["c"] in ("low", "high")
        assert theta["f"] in (np.sin, None)
        return float(theta["x"])

    def many(theta, rng):
        assert theta["k"].dtype == np.int64
        assert theta["c"].dtype.kind == "U"
        assert theta["f"].dtype == object
        assert theta["n"].dtype.kind == "i"
        return theta["x"].copy()

    prior = {
        "k": mpiabc.Integer(-3, 3),
        "c": mpiabc.Choice(["low", "high"]),
        "f": mpiabc.Choice([np.sin, None]),
        "n": mpiabc.Choice([10, 100]),
        "x": mpiabc.Normal(0, 1),
    }
    for i, simulate in enumerate((one, many)):
        problem = mpiabc.Problem(prior, simulate, 0.0, vectorized=bool(i))
        history = mpiabc.ABCSMC(problem, 30, seed=1).run(
            tmp_path / f"{i}.db", scheduler="serial", generations=2
        )
        assert set(history[-1]["c"]) <= {0.0, 1.0}
        assert history[-1].theta.dtype == np.float64


def broken(theta, rng):
    raise RuntimeError("no")


def test_failures_and_replay_show_values(tmp_path, capsys):
    prior = {"k": mpiabc.Integer(4, 4), "c": mpiabc.Choice(["low"]), "f": mpiabc.Choice([np.sin])}
    problem = mpiabc.Problem(prior, broken, 0.0)
    with pytest.raises(mpiabc.SimulatorError, match="k=4, c='low', f=\"<ufunc 'sin'>\""):
        mpiabc.ABCSMC(problem, 4, seed=1).run(tmp_path / "run.db", scheduler="serial", generations=1)
    assert cli.main(["replay", str(tmp_path / "run.db"), "0:0", "--trust"]) == 1
    assert "k=4, c='low'" in capsys.readouterr().out
    assert cli.main(["show", str(tmp_path / "run.db")]) == 0
    assert "k=4  c='low'" in capsys.readouterr().out.replace(", ", "  ")


def test_shares_are_conjugate_to_counts(tmp_path):
    """Dirichlet(1, 2, 3) and counts (2, 0, 1), met exactly: Dirichlet(3, 2, 4)."""

    def counts(theta, rng):
        p = np.column_stack([theta["a"], theta["b"], theta["c"]])
        u = rng.random((len(p), 3, 1))
        drawn = (u > np.cumsum(p, axis=1)[:, None, :2]).sum(axis=2)  # (n, 3) of 0, 1, 2
        return np.stack([(drawn == i).sum(axis=1) for i in range(3)], axis=1).astype(float)

    prior = {("a", "b", "c"): stats.dirichlet([1.0, 2.0, 3.0])}
    problem = mpiabc.Problem(prior, counts, np.array([2.0, 0.0, 1.0]), vectorized=True)
    sampler = mpiabc.ABCSMC(problem, 4000, seed=1, threshold=mpiabc.Listed([3, 1.5, 0]))
    last = sampler.run(tmp_path / "run.db", scheduler="serial")[-1]
    assert np.abs(last.theta.sum(axis=1) - 1).max() < 1e-12
    target = stats.dirichlet([3.0, 2.0, 4.0])
    error = np.sqrt(target.var() / (last.ess / 2))
    assert np.all(np.abs(last.mean() - target.mean()) < 4 * error)
    assert np.allclose(last.std(), np.sqrt(target.var()), rtol=0.06)


def test_kernels_that_know_nothing_of_it_are_refused_before_any_work():
    problem = mpiabc.Problem(MIXED, simulate, {"y": 1.0})
    with pytest.raises(mpiabc.ProblemError, match=r"has fit\(population\), and the prior has integers"):
        mpiabc.ABCSMC(problem, 20, kernel=foreign.Student())


class Jump:
    """A kernel of one's own for MIXED: the prior, always."""

    is_normalised = True

    def fit(self, population, prior):
        return prior


def test_kernels_of_ones_own_that_take_the_prior_are_welcome(tmp_path):
    last = sampler(MIXED, kernel=Jump()).run(tmp_path / "run.db", scheduler="serial")[-1]
    assert np.ptp(last.weights) < 1e-12
    assert p_value(last, exact(MIXED)[0]) > 1e-3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: mpiabc.Integer(3, 2), "give whole numbers low <= high"),
        (lambda: mpiabc.Integer(0.5, 2), "give whole numbers low <= high"),
        (lambda: mpiabc.Integer(0, 2**60), "2\\*\\*53"),
        (lambda: mpiabc.Choice([]), "at least one value"),
        (lambda: mpiabc.Choice("abc"), "give a list"),
        (lambda: mpiabc.Choice([1, 2], [0.5, 0.6]), "which add up to 1"),
        (lambda: mpiabc.Choice([1, 2], [1.0, 0.0]), "a probability > 0 for each"),
        (lambda: mpiabc.Prior(k=stats.poisson(3, loc=0.5)), "'k'.*other values than integers; give Choice"),
        (lambda: mpiabc.Prior(k=stats.rv_discrete(values=([1, 2.5], [0.5, 0.5]))), "give Choice"),
    ],
)
def test_what_is_no_discrete_distribution_is_refused(make, said):
    with pytest.raises(mpiabc.ProblemError, match=said):
        make()
