"""Several models: what they give is what theory says, on any schedule, after any interruption."""

import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

import mpiabc
from mpiabc.cli import main
from mpiabc.driver.opened import Opened
from mpiabc.evaluate import Evaluator, Level
from mpiabc.ledger import Ledger
from mpiabc.models import of
from mpiabc.order import restored
from mpiabc.priors import joint
from mpiabc.progress import described
from mpiabc.schedulers import Map, Processes
from mpiabc.streams import Purpose, Stream, stream_key
from tests.cluster import Cluster, Simulated, random_time
from tests.conftest import ROOT, environment, imported, jobs_of
from tests.problems import Posterior, digests
from tests.programs import several


def run(sampler, folder, scheduler="serial", name="run.db", **rules):
    return sampler.run(folder / name, scheduler=scheduler, **({"generations": 3} | rules))


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A run of two models that is large enough for theory."""
    return run(several.sampler(4000, vectorized=True), tmp_path_factory.mktemp("wide"))


# What theory says.


def misses(population, prior=several.PRIOR):
    """By how many standard errors the log Bayes factor is wrong."""
    expected = np.log(several.evidence(population.epsilon))
    log, error = population.bayes_factor("near", "far")
    return abs(log - (expected[0] - expected[1])) / error


def test_probabilities_and_evidence_of_two_gaussians_are_the_exact_ones(wide):
    """Target 6 of the statistics: within four standard errors, which are small."""
    for population in wide:
        exact = several.probabilities(population.epsilon)
        assert misses(population) < 4
        assert population.bayes_factor(0, 1).error < 0.05
        assert population.model_probabilities() == pytest.approx(exact, abs=0.03)
        for m, z in enumerate(several.evidence(population.epsilon)):
            log, error = population.evidence(m)
            assert abs(log - np.log(z)) < 4 * error
            assert population.of(m).log_evidence == log


def test_each_model_has_its_own_exact_posterior(wide):
    last = wide[-1]
    for name, prior, parameter in (("near", stats.norm(0, 2), "mu"), ("far", stats.norm(3, 1), "nu")):
        exact, part = Posterior(prior, 1.0, last.epsilon), last.of(name)
        mean, second = exact.expect(lambda x: x), exact.expect(np.square)
        error = np.sqrt((second - mean**2) / part.ess)
        assert abs(part.mean()[parameter] - mean) < 4 * error
        assert part.std()[parameter] == pytest.approx(np.sqrt(second - mean**2), rel=0.08)
    assert last.of("far").quantile(0.5)["unused"] == pytest.approx(0.5, abs=0.05)


WAYS = {
    "recycled": ({"recycle": True}, "serial"),
    "recycled, weighted by levels": ({"recycle": True, "weights": "levels"}, "serial"),
    "local": ({"kernel": mpiabc.LocalGaussian()}, "serial"),
    "static": ({}, Map(map)),
    "batches": ({"batch": 1024}, "serial"),
}


@pytest.mark.parametrize("way", WAYS)
def test_truth_does_not_depend_on_the_way(way, tmp_path):
    options, scheduler = WAYS[way]
    history = run(several.sampler(1500, (3, 1.5), vectorized=True, **options), tmp_path, scheduler)
    assert misses(history[-1]) < 4


@pytest.mark.long
def test_errors_are_as_large_as_they_say(tmp_path):
    """Over seeds: neither a bias, of four standard errors of the mean, nor a spread that is not said."""
    scores = []
    for seed in range(40):
        abc = several.sampler(150, (3, 1.5), vectorized=True, seed=seed)
        log, error = run(abc, tmp_path, name=f"{seed}.db", progress=False)[-1].bayes_factor(0, 1)
        near, far = np.log(several.evidence(1.5))
        scores.append((log - (near - far)) / error)
    assert abs(np.mean(scores)) < 4 / np.sqrt(len(scores))
    assert 0.7 < np.std(scores) < 1.4  # +- 4 of its own errors, 1 / sqrt(80), would be .55 to 1.45


def of_models(values, x):
    """Of each row, the logarithm of its model's value."""
    return np.log(values)[x[:, -1].astype(int)]


def without_normalisation(proposal, x):
    """Weights of the particles that sum to one over all models, not within each."""
    return of_models(np.bincount(proposal.model, minlength=2) / len(proposal.model), x)


WRONG = {  # what is added to a density
    "proposal without models": (joint.ModelProposal, lambda part, x: -of_models(part.probabilities, x)),
    "prior without models": (joint.ModelPrior, lambda part, x: -of_models(part.probabilities, x)),
    "weights not normalised": (joint.ModelProposal, without_normalisation),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_weight_is_noticed(wrong, monkeypatch, tmp_path):
    """What the exact targets are for: each of these mistakes moves the Bayes factor off."""
    cls, more = WRONG[wrong]
    right = cls.logpdf
    monkeypatch.setattr(cls, "logpdf", lambda part, x: right(part, x) + more(part, x))
    assert misses(run(several.sampler(2000, (3, 1.5), vectorized=True), tmp_path, generations=2)[-1]) > 6


def coin(n, name, a=1.0, b=1.0, observed=2):
    """The number of heads of n coins, p ~ Beta(a, b), which is what is known of them."""

    def simulate(theta, rng):
        return rng.binomial(n, theta["p"]).astype(float)

    prior = mpiabc.Prior(p=stats.beta(a, b))
    return mpiabc.Problem(prior, simulate, float(observed), vectorized=True, name=name)


def evidence_of_coin(n, a, b, k):
    return special.binom(n, k) * special.beta(k + a, n - k + b) / special.beta(a, b)


def off(population, exact):
    """By how much all probabilities are wrong, as pyABC's own tests measure it."""
    return np.abs(population.model_probabilities() - np.array(exact) / np.sum(exact)).sum()


def test_beta_binomial_twins_are_equally_probable(tmp_path):
    """pyABC's test_beta_binomial_two_identical_models, there within .08."""
    twins = [coin(5, "one"), coin(5, "two")]
    abc = mpiabc.ABCSMC(twins, 3000, threshold=mpiabc.Quantile(0.1), seed=3)
    last = run(abc, tmp_path, epsilon=0.1)[-1]
    assert last.epsilon == 0
    assert off(last, [1, 1]) < 0.08
    for m in range(2):
        log, error = last.evidence(m)
        assert abs(log - np.log(evidence_of_coin(5, 1, 1, 2))) < 4 * error


def test_beta_binomial_models_with_different_priors(tmp_path):
    """pyABC's test_beta_binomial_different_priors, there within .08."""
    models = [coin(5, "flat"), coin(5, "sharp", 10, 5)]
    abc = mpiabc.ABCSMC(models, 3000, threshold=mpiabc.Quantile(0.1), seed=1)
    last = run(abc, tmp_path, epsilon=0.1)[-1]
    assert off(last, [evidence_of_coin(5, a, b, 2) for a, b in ((1, 1), (10, 5))]) < 0.08


def jar(share, name):
    """A cookie jar: plain cookies have this share, the parameter means nothing."""

    def simulate(theta, rng):
        return (rng.random(theta["nothing"].shape) < share).astype(float)

    prior = mpiabc.Prior(nothing=mpiabc.Uniform(0, 1))
    return mpiabc.Problem(prior, simulate, 0.0, vectorized=True, name=name)


@pytest.mark.parametrize("shares", [(0.2, 0.6), (0.1, 0.5)])
def test_cookie_jars(shares, tmp_path):
    """pyABC's test_cookie_jar, there within .05, which are four standard errors here."""
    jars = [jar(share, f"jar {i}") for i, share in enumerate(shares)]
    abc = mpiabc.ABCSMC(jars, 6000, threshold=mpiabc.Constant(0.2), seed=1)
    last = run(abc, tmp_path, generations=2)[-1]
    assert off(last, [1 - share for share in shares]) < 0.05


def test_two_competing_gaussians_over_several_generations(tmp_path):
    """pyABC's test_two_competing_gaussians_multiple_population, there within .07."""

    def model(mean, name):
        def simulate(theta, rng):
            return theta["x"] + 0.5 * rng.standard_normal(theta["x"].shape)

        prior = mpiabc.Prior(x=mpiabc.Normal(mean, 0.5))
        return mpiabc.Problem(prior, simulate, 1.0, vectorized=True, name=name)

    models = [model(0, "at 0"), model(1, "at 1")]
    kernel = mpiabc.LocalGaussian()
    abc = mpiabc.ABCSMC(models, 800, threshold=mpiabc.Quantile(0.2), kernel=kernel, seed=1)
    last = run(abc, tmp_path)[-1]
    exact = [
        np.subtract(*stats.norm(mean, np.sqrt(0.5)).cdf([1 + last.epsilon, 1 - last.epsilon]))
        for mean in (0, 1)
    ]
    assert off(last, exact) < 0.07


def test_model_that_has_died_comes_back_from_its_prior(tmp_path):
    """No model is out of reach: with one particle or none, it proposes from its own prior."""
    problem = of(several.problems(), several.PRIOR)
    population = run(several.sampler(), tmp_path)[-1]
    alone = population.with_values(model=np.zeros(len(population), int))
    proposal = joint.fitted(lambda part, prior: mpiabc.Gaussian().fit(part), alone, problem.prior)
    assert proposal.proposals[1] is None
    assert proposal.probabilities == pytest.approx([0.95 * 0.7 + 0.05 * 0.25, 0.95 * 0.3 + 0.05 * 0.75])
    x = proposal.sample(2000, np.random.default_rng(1))
    back = x[x[:, -1] == 1]
    assert len(back) == pytest.approx(2000 * proposal.probabilities[1], rel=0.1)
    assert back[:, 0].mean() == pytest.approx(3, abs=0.2)
    expected = np.log(proposal.probabilities[1]) + problem.models[1].prior.logpdf(back[:, :2])
    assert proposal.logpdf(back) == pytest.approx(expected)


def test_constraint_of_a_model_narrows_its_prior_and_rescales_nothing(tmp_path):
    """What `where` leaves of one model's prior is described by its evidence and its probability."""
    near, far = several.problems(vectorized=True)
    upper = mpiabc.Prior(nu=stats.norm(3, 1), where=lambda theta: theta["nu"] > 3)
    narrowed = replace(far, prior=upper, name="far")
    abc = mpiabc.ABCSMC([near, narrowed], 3000, threshold=mpiabc.Listed([3, 1.5]), seed=1)
    last = run(abc, tmp_path, generations=2)[-1]
    z = several.evidence(1.5)[0], Posterior(stats.truncnorm(0, np.inf, 3, 1), 1.0, 1.5).evidence
    log, error = last.bayes_factor("near", "far")
    assert abs(log - np.log(z[0] / z[1])) < 4 * error
    log, error = last.evidence("far")
    assert abs(log - np.log(z[1])) < 4 * error
    assert np.log(2) > 8 * error  # without the constant it would be wrong


def test_noise_model_weighs_models_by_their_densities(tmp_path):
    """At temperature 1 the evidence of a model is the density of the data, exactly."""
    noise = mpiabc.Noise(mpiabc.noise.Normal(sd=1.0), steps=3)
    models = several.problems(vectorized=True)
    abc = mpiabc.ABCSMC(models, 2500, acceptor=noise, seed=1, model_prior=several.PRIOR)
    last = run(abc, tmp_path, generations=4)[-1]
    exact = stats.norm.logpdf(1.0, [0, 3], np.sqrt([6, 3]))
    assert last.epsilon == 1
    log, error = last.bayes_factor("near", "far")
    assert abs(log - (exact[0] - exact[1])) < 4 * error
    for m in range(2):
        log, error = last.evidence(m)
        assert abs(log - exact[m]) < 4 * error


def test_noise_that_looks_at_theta_needs_one_model():
    noise = mpiabc.Noise(mpiabc.noise.Normal(sd=first_parameter))
    with pytest.raises(mpiabc.ProblemError, match="looks at theta, with several models"):
        mpiabc.ABCSMC(several.problems(), 20, acceptor=noise)


def first_parameter(theta):
    return theta["mu"]


@pytest.mark.long
def test_integers_an_adaptive_distance_and_several_models_go_together(tmp_path):
    """On any schedule, and stopped inside generations."""

    def adaptive():
        return several.mixed(80, distance=mpiabc.PNorm(scale="mad"))

    expected = digests(run(adaptive(), tmp_path, name="whole.db"))
    assert digests(run(adaptive(), tmp_path, Simulated(7, random_time), "many.db")) == expected
    for budget in (60, 150, 400):
        run(adaptive(), tmp_path, Simulated(3, random_time), generations=None, simulations=budget)
    assert digests(run(adaptive(), tmp_path)) == expected


def test_model_with_integers_has_its_exact_probability(tmp_path):
    """By enumeration: y = k + [high] + e, against mu ~ N(0, 2^2)."""

    def y_alone(simulated, observed):
        return abs(simulated["y"] - observed["y"])

    abc = several.mixed(1200, mpiabc.Listed([3, 1.5]), distance=y_alone)
    last = run(abc, tmp_path, generations=2)[-1]
    means = np.add.outer(np.arange(5), np.arange(2)).ravel()
    z = np.mean(stats.norm.cdf(2.5 - means) - stats.norm.cdf(-0.5 - means))
    log, error = last.bayes_factor("counts", "lines")
    assert abs(log - np.log(z / several.evidence(1.5)[0])) < 4 * error


# Populations.


def test_what_is_said_of_parameters_is_said_of_one_model(wide):
    last = wide[-1]
    assert last.theta.shape == (4000, 2)
    assert np.array_equal(np.isnan(last.theta[:, 1]), last.model == 0)
    asked = [last.mean, last.std, lambda: last.quantile(0.5), lambda: last.names, lambda: last["mu"]]
    asked.append(lambda: last.resample(3, np.random.default_rng(1)))
    for ask in asked:
        with pytest.raises(mpiabc.ProblemError, match=r"population\.of\(problem\).*there are 'near', 'far'"):
            ask()
    with pytest.raises(mpiabc.ProblemError, match="no model 'third': there is 'near', 'far'"):
        last.of("third")


def test_model_is_found_by_problem_name_and_index(wide):
    last, problems = wide[-1], several.problems()
    for m, problem in enumerate(problems):
        part = last.of(problem)
        assert part is last.of(problem.name) is last.of(m) is last.of(np.int64(m - 2))
        assert part.names == problem.prior.names
        assert part.theta.shape == (np.count_nonzero(last.model == m), len(part.names))
        assert part.weights.sum() == pytest.approx(1)
        assert last.model_probabilities()[m] == pytest.approx(last.weights[last.model == m].sum())


def test_digest_knows_of_models_only_where_there_are_several(wide):
    last = wide[-1]
    others = last.with_values(model=1 - last.model)
    assert others.digest() != last.digest()
    part = last.of(0)
    assert part.with_values(model=1 - part.model).digest() == part.digest()


def test_data_frame_has_a_column_a_parameter_and_says_which_model(wide):
    imported("pandas")
    frame = wide[-1].to_dataframe()
    assert list(frame.columns) == ["model", "mu", "nu", "unused", "weight", "distance", "id"]
    assert set(frame.model[frame.mu.notna()]) == {"near"}
    assert frame.weight[frame.model == "far"].sum() == pytest.approx(wide[-1].model_probabilities()[1])


def test_one_model_is_asked_as_ever_and_answers_to_the_same_names(tmp_path):
    (problem, _) = several.problems()
    one = mpiabc.ABCSMC([problem], 40, threshold=mpiabc.Listed([3, 2]), seed=1, model_prior=[1.0])
    plain = mpiabc.ABCSMC(problem, 40, threshold=mpiabc.Listed([3, 2]), seed=1)
    listed, alone = (run(abc, tmp_path, name=f"{i}.db", generations=2) for i, abc in enumerate((one, plain)))
    assert digests(listed) == digests(alone)
    last = alone[-1]
    assert last.model_probabilities() == pytest.approx([1])
    assert not last.model.any()
    assert last.of(problem) is last.of(0) is last
    assert last.evidence(0).log == pytest.approx(last.log_evidence)


# Streams and schedules.


def test_models_are_drawn_before_parameters_and_each_model_is_simulated_from_its_own_stream():
    """Other draws would be another run: this is what the stream of a block is used for."""
    problem, key = of(several.problems(), several.PRIOR), stream_key(5)
    rng = Stream(key, Purpose.PROPOSAL).at(0, 3)
    m = np.searchsorted([0.25, 1.0], rng.random(256), side="right")
    mu = rng.normal(0, 2, np.count_nonzero(m == 0))
    block = Evaluator(problem, Level(0, key, np.inf, problem.prior, 9)).propose(3)
    assert np.array_equal(block.theta[:, 2], m)
    assert np.array_equal(block.theta[m == 0, 0], mu)


VARIANTS = {
    "scalar": {},
    "blocks": {"vectorized": True},
    "batches": {"vectorized": True, "batch": 512},
    "recycled": {"recycle": True},
    "local": {"kernel": mpiabc.LocalGaussian()},
}


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_schedules_losses_and_processes_leave_digests_as_they_are(variant, tmp_path):
    places = {
        "serial": "serial",
        "many": Simulated(13, random_time),
        "faulty": Simulated(3, random_time, loss=0.05, duplicate=0.2, latency=0.1),
    }
    if variant == "scalar":
        places |= {"processes": Processes(2)}
    found = [
        digests(run(several.sampler(**VARIANTS[variant]), tmp_path, place, f"{name}.db"))
        for name, place in places.items()
    ]
    assert all(one == found[0] for one in found)


def test_static_schedules_agree(tmp_path):
    places = [Map(map), Simulated(5, random_time, is_static=True)]
    one, other = (
        digests(run(several.sampler(), tmp_path, place, f"{i}.db")) for i, place in enumerate(places)
    )
    assert one == other


def test_calls_are_of_one_model_and_batches_of_one_length(tmp_path):
    calls = []

    def watched(simulate):
        def watching(theta, rng):
            calls.append((tuple(theta), len(next(iter(theta.values())))))
            return simulate(theta, rng)

        return watching

    models = [
        replace(problem, simulate=watched(problem.simulate), name=problem.name)
        for problem in several.problems(vectorized=True, batch=512)
    ]
    abc = mpiabc.ABCSMC(models, 60, threshold=mpiabc.Listed([3, 1]), seed=1)
    run(abc, tmp_path, generations=2)
    assert set(calls) == {(("mu",), 512), (("nu", "unused"), 512)}


# Interruptions.


def test_run_killed_inside_a_generation_goes_on_to_the_same_digests(tmp_path):
    expected = digests(run(several.sampler(), tmp_path, name="whole.db"))
    whole = mpiabc.open(tmp_path / "whole.db")
    victim = next(int(i) for i, m in zip(whole[1].ids, whole[1].model, strict=True) if m == 0 and i > 20)
    store, flag = tmp_path / "run.db", tmp_path / "flag"
    command = [sys.executable, "-m", "tests.programs.several", store, flag, "1", str(victim)]
    for status in (-signal.SIGKILL, 0):
        job = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
        assert job.returncode == status, job.stderr
    assert f"evaluation 1:{victim} on process" in job.stderr
    assert "theta: model='near', mu=" in job.stderr
    assert digests(mpiabc.open(store)) == expected


@pytest.mark.long
@pytest.mark.parametrize("variant", ["scalar", "recycled", "local"])
def test_run_stopped_again_and_again_comes_to_the_uninterrupted_digests(variant, tmp_path):
    """Journal and kept orders have all that models need: nothing is fitted again, nothing is lost."""
    expected = digests(run(several.sampler(**VARIANTS[variant]), tmp_path, name="whole.db"))
    for budget in (50, 130, 230):
        place = Simulated(budget % 7 + 1, random_time)
        run(several.sampler(**VARIANTS[variant]), tmp_path, place, generations=None, simulations=budget)
    assert digests(run(several.sampler(**VARIANTS[variant]), tmp_path, Simulated(4, random_time))) == expected


def test_kept_order_is_the_order_bit_for_bit(tmp_path):
    """What a file has of a proposal of several models is what workers had."""
    history = run(several.sampler(kernel=mpiabc.LocalGaussian()), tmp_path)
    before, problem = history[1], of(several.problems(), several.PRIOR)
    text, arrays = history.order(2)
    kept = restored(text, arrays, before, problem.prior)["proposal"]
    fitted = joint.fitted(lambda part, prior: mpiabc.LocalGaussian().fit(part), before, problem.prior)
    x = fitted.sample(100, np.random.default_rng(1))
    assert np.array_equal(kept.sample(100, np.random.default_rng(1)), x, equal_nan=True)
    assert np.array_equal(kept.logpdf(x), fitted.logpdf(x))
    rows = np.arange(len(before))
    assert np.array_equal(kept.log_others(rows), fitted.log_others(rows))
    assert not any(len(array) == len(before) for array in arrays)  # theta is the population's


def test_run_goes_on_with_the_same_models_only(tmp_path):
    run(several.sampler(), tmp_path, generations=1)
    with pytest.raises(mpiabc.StoreError, match=r"model prior: '0.25, 0.75' there, '0.5, 0.5' here"):
        run(several.sampler(model_prior=None), tmp_path)
    problems = several.problems()
    other = replace(problems[1], prior=mpiabc.Prior(nu=mpiabc.Normal(3, 2)), name="far")
    for models in ([problems[0], other], problems[::-1]):
        abc = mpiabc.ABCSMC(models, 60, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1)
        with pytest.raises(mpiabc.StoreError, match=r"other settings \(models: "):
            run(abc, tmp_path)
    changed = replace(problems[1], simulate=lambda theta, rng: {"y": 0.0}, name="far")
    abc = mpiabc.ABCSMC(
        [problems[0], changed], 60, threshold=mpiabc.Listed([3, 1.5, 0.8]), seed=1, model_prior=several.PRIOR
    )
    with pytest.raises(mpiabc.StoreError, match="simulator of far"):
        run(abc, tmp_path)


def test_run_stops_when_so_many_models_are_left(tmp_path):
    def model(mean, name):
        prior = mpiabc.Prior(mu=mpiabc.Normal(mean, 0.1))
        return mpiabc.Problem(prior, several.near, {"y": 0.0}, vectorized=True, name=name)

    abc = mpiabc.ABCSMC([model(0, "at 0"), model(9, "at 9")], 100, seed=1)
    history = run(abc, tmp_path, generations=9, models=1)
    assert history.reason == "models"
    assert history[-1].model_probabilities()[1] == 0
    assert all(p.model_probabilities()[1] > 0 for p in list(history)[:-1])
    assert history[-1].evidence("at 9").log == -np.inf
    assert history[-1].bayes_factor(0, 1).log == np.inf
    with pytest.raises(mpiabc.ProblemError, match="has no particle of the model 'at 9'"):
        history[-1].of("at 9")


# The example.


EXAMPLE = (ROOT / "examples" / "model_selection.py", "--population", 60, "--acceptance-rate", 0.1, "--store")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the example prints at the end, in one process."""
    command = [sys.executable, *EXAMPLE, tmp_path_factory.mktemp("alone") / "run.db", "--scheduler", "serial"]
    job = subprocess.run(list(map(str, command)), env=environment(), capture_output=True, text=True)
    return job.stdout.splitlines()[-1]


@jobs_of(["mpi"], [], ["mpich"])
def test_example_tells_which_epidemic_it_was_on_ranks_as_in_one_process(mpi, alone, tmp_path):
    job = mpi.run(2, *EXAMPLE, tmp_path / "run.db")
    assert job.returncode == 0, job.stdout
    assert "log10 Bayes factor, SIBC to SIR" in job.stdout
    assert alone.startswith("reason acceptance_rate, digest ")
    assert alone in job.stdout.splitlines()


# What is reported and refused.


def test_failures_replay_and_show_name_the_model(tmp_path, capsys):
    def fails(theta, rng):
        if theta["nu"] > 4:
            raise RuntimeError("the pump broke")
        return several.far(theta, rng)

    first, second = several.problems(on_error="reject")
    models = [first, replace(second, simulate=fails, name="far")]
    abc = mpiabc.ABCSMC(models, 60, threshold=mpiabc.Listed([3, 1]), seed=1)
    history = run(abc, tmp_path, generations=2)
    failure = history.failures[0]
    assert failure.theta["model"] == "far"
    assert list(failure.theta) == ["model", "nu", "unused"]
    store = str(tmp_path / "run.db")
    main(["show", store])
    assert f"near {history[0].model_probabilities()[0]:.3g}, far " in capsys.readouterr().out
    main(["replay", store, f"1:{history[1].ids[0]}", "--trust"])
    output = capsys.readouterr().out
    assert "equal, bit for bit" in output
    assert f"theta       model={models[history[1].model[0]].name!r}, " in output


def test_command_line_takes_a_list_of_problems_and_tells_each_model(tmp_path, capsys):
    file = tmp_path / "which.py"
    file.write_text("from tests.programs.several import problems as make\nproblems = make()\n")
    store = tmp_path / "which.db"
    options = [
        "--population-size",
        40,
        "--generations",
        2,
        "--scheduler",
        "serial",
        "--store",
        store,
        "--seed",
        1,
    ]
    assert main(["run", f"{file}:problems", *map(str, options)]) == 0
    output = capsys.readouterr().out
    assert "parameter of near" in output
    assert "parameter of far" in output
    assert f"models       {mpiabc.open(store)[-1].named_models}" in output
    assert main(["replay", str(store), "1:3", "--problem", f"{file}:problems"]) == 0


def test_live_line_knows_how_probable_models_were(wide):
    order = Level(1, stream_key(1), 1.5, of(several.problems()).prior, 10)
    opened = Opened(order, Ledger(1, 10), None, 0.0, models=wide[0].named_models)
    line = described(opened.progress(1.0, Cluster(3, random_time, None)))
    near, far = wide[0].model_probabilities()
    assert line.endswith(f"0/3 busy; before: near {near:.3g}, far {far:.3g}")


def other(**changes):
    """Of the two problems the second, with something else."""
    second = several.problems()[1]
    return replace(second, **{"name": "far"} | changes)


REFUSED = {
    "structure": (lambda: other(observed=1.0), "observed data of different structure"),
    "observed": (lambda: other(observed={"y": 2.0}), "have other observed data"),
    "distance": (lambda: other(distance=mpiabc.PNorm(p=1)), r"the distances PNorm\(p=2.*PNorm\(p=1"),
    "on_error": (lambda: other(on_error="reject"), "on_error='raise' and on_error='reject'"),
    "timeout": (lambda: other(timeout=3.0), "timeout=None and timeout=3.0"),
    "vectorized": (lambda: other(vectorized=True), "vectorized=False and vectorized=True"),
    "name": (lambda: other(name="near"), "two problems are named 'near'"),
    "no problem": (lambda: "far", "the problem is 'far'"),
    "parameter": (
        lambda: other(prior=mpiabc.Prior(model=mpiabc.Uniform(0, 1))),
        "has a parameter 'model', which is where",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_be_compared_are_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(mpiabc.ProblemError, match=message):
        mpiabc.ABCSMC([several.problems()[0], make()], 10)


@pytest.mark.parametrize("prior", [[1.0], [0.5, 0.6], [0, 1], ["a", 1], 0.5, "ab"])
def test_prior_of_models_that_is_none_is_refused(prior):
    with pytest.raises(mpiabc.ProblemError, match="model_prior="):
        mpiabc.ABCSMC(several.problems(), 10, model_prior=prior)


def test_rule_on_models_that_would_hold_at_once_is_refused(tmp_path):
    with pytest.raises(mpiabc.ProblemError, match="models=2 with 2 problems: give a smaller number"):
        run(several.sampler(), tmp_path, models=2)
    with pytest.raises(mpiabc.ProblemError, match="models=1 with one problem"):
        run(mpiabc.ABCSMC(several.problems()[0], 10), tmp_path, models=1)


def test_models_may_differ_in_their_summary(tmp_path):
    """What is compared is what summaries give."""
    first, second = several.problems()
    raw = replace(second, simulate=lambda theta, rng: [theta["nu"], 0.0], summarize=first_number, name="far")
    history = run(mpiabc.ABCSMC([first, raw], 40, threshold=mpiabc.Listed([3]), seed=1), tmp_path)
    assert history[0].of("far").summaries[:, 0] == pytest.approx(history[0].of("far")["nu"])


def first_number(data):
    return {"y": data[0]}
