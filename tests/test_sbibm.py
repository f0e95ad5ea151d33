"""The tasks of the benchmark against sbibm: what is known of each exactly, without sbibm's files."""

import bz2
import zipfile

import numpy as np
import pytest
from scipy import integrate, stats

from tests.benchmarks import sbibm
from tests.benchmarks import sbibm_tasks as tasks
from tests.benchmarks.sbibm_tasks import TASKS
from tests.conftest import imported

N = 20_000


def simulated(name, theta, n=N, seed=1):
    """`n` simulations of one theta."""
    return TASKS[name].simulator(np.tile(theta, (n, 1)), np.random.default_rng(seed))


def is_normal(z):
    """Whether so many independent errors, in units of their standard deviation, are what chance gives."""
    return np.abs(z).max() < 4.5


@pytest.mark.parametrize("name", TASKS)
def test_a_task_draws_as_many_parameters_and_rows_as_it_says(name):
    task, rng = TASKS[name], np.random.default_rng(1)
    theta = task.prior().sample(50, rng)
    data = task.simulate(dict(zip(task.names, theta.T, strict=True)), rng)
    widths = {"slcp": 8, "lotka_volterra": 20, "slcp_distractors": 100, "bernoulli_glm_raw": 100}
    assert theta.shape == (50, task.d)
    assert data.shape == (50, widths.get(name, 2 if task.d == 2 and name != "sir" else 10))
    assert np.isfinite(data).all()


def test_the_linear_tasks_have_noise_of_variance_one_tenth():
    theta = np.linspace(-1, 1, 10)
    data = simulated("gaussian_linear", theta)
    assert is_normal((data.mean(axis=0) - theta) / np.sqrt(0.1 / N))
    assert is_normal((data.var(axis=0) / 0.1 - 1) * np.sqrt(N / 2))
    assert np.allclose(
        TASKS["gaussian_linear"].prior().sample(N, np.random.default_rng(2)).var(), 0.1, rtol=0.02
    )


def test_the_posterior_of_gaussian_linear_is_half_the_observation_with_half_the_variance():
    rng = np.random.default_rng(3)
    theta = TASKS["gaussian_linear"].prior().sample(N, rng)
    data = tasks.gaussian_linear(theta, rng)
    slopes = (theta * data).sum(axis=0) / np.square(data).sum(axis=0)
    assert is_normal((slopes - 0.5) / np.sqrt(0.05 / 0.2 / N))
    assert is_normal(((theta - data / 2).var(axis=0) / 0.05 - 1) * np.sqrt(N / 2))


def test_the_noise_of_gaussian_mixture_is_wide_in_half_of_all_rows_and_in_both_columns_at_once():
    data = simulated("gaussian_mixture", [3.0, -2.0]) - [3.0, -2.0]

    def both_within(r):
        return sum(0.5 * np.diff(stats.norm.cdf([-r, r], scale=s))[0] ** 2 for s in (1.0, 0.1))

    for r in (0.1, 0.3, 1.0):
        p = both_within(r)
        found = (np.abs(data) < r).all(axis=1).mean()
        assert is_normal((found - p) / np.sqrt(p * (1 - p) / N))


def test_two_moons_have_the_density_that_sbibm_gives_them():
    theta = np.array([0.4, -0.7])
    x = simulated("two_moons", theta)
    assert np.allclose(tasks.folded(theta[None]), [[-0.3 / np.sqrt(2), -1.1 / np.sqrt(2)]])
    u, v = (x - tasks.folded(theta[None]) - [0.25, 0.0]).T
    assert stats.kstest(np.arctan2(v, u), stats.uniform(-np.pi / 2, np.pi).cdf).pvalue > 1e-3
    assert stats.kstest(np.hypot(u, v), stats.norm(0.1, 0.01).cdf).pvalue > 1e-3
    densities = [tasks.two_moons_density(theta[None], row)[0] for row in x[:5]]
    assert np.allclose(densities, stats.norm(0.1, 0.01).pdf(np.hypot(u, v)[:5]))
    assert np.allclose(densities, [tasks.two_moons_density(-theta[None, ::-1], row)[0] for row in x[:5]])


def test_the_points_of_slcp_have_its_mean_and_covariance():
    theta = np.array([0.7, -2.9, -1.1, 0.6, 0.8])
    points = simulated("slcp", theta).reshape(-1, 2)
    s1, s2 = 1.1**2, 0.6**2
    expected = np.array([[s1**2, np.tanh(0.8) * s1 * s2], [np.tanh(0.8) * s1 * s2, s2**2]])
    white = np.linalg.solve(np.linalg.cholesky(expected), (points - theta[:2]).T)
    assert is_normal(white.mean(axis=1) * np.sqrt(len(points)))
    assert np.allclose(np.cov(white), np.eye(2), atol=4.5 * np.sqrt(2 / len(points)))


def test_distractors_leave_the_eight_numbers_of_slcp_where_sbibm_has_them():
    theta = np.array([0.7, -2.9, 0.01, 0.01, 0.0])  # all but exact
    data = simulated("slcp_distractors", theta, 20)[:, np.argsort(tasks.distractors()[2])]
    assert np.allclose(data[:, :8], np.tile(theta[:2], 4), atol=0.01)
    assert tasks.distractors()[2][:8].tolist() == [87, 47, 39, 9, 25, 21, 26, 94]
    assert np.allclose(tasks.distractors()[0][0, :3], [7.4507123, -2.07396452, 9.71532807])
    assert np.isclose(tasks.distractors()[1][0, 0, 0], 3.42332472)


def test_an_epidemic_is_that_of_the_differential_equations():
    rng = np.random.default_rng(4)
    theta = np.vstack([TASKS["sir"].prior().sample(8, rng), [[3.0, 0.06], [0.05, 0.25]]])

    def slope(y, t, beta, gamma):
        return [-beta * y[0] * y[1] / 1e6, beta * y[0] * y[1] / 1e6 - gamma * y[1]]

    for row, found in zip(theta, tasks.sir_infected(theta), strict=True):
        exact = integrate.odeint(slope, [1e6 - 1, 1], np.arange(10) * 17.0, tuple(row), rtol=1e-10, atol=1e-8)
        assert np.allclose(found, exact[:, 1], rtol=1e-4, atol=1.0)  # of a million: .001 of the 1000 asked


def test_prey_and_predators_are_those_of_the_differential_equations():
    theta = TASKS["lotka_volterra"].prior().sample(12, np.random.default_rng(5))

    def slope(y, t, alpha, beta, gamma, delta):
        return [alpha - beta * np.exp(y[1]), delta * np.exp(y[0]) - gamma]

    start, times = np.log([30.0, 1.0]), np.arange(10) * 2.1
    for row, found in zip(theta, tasks.lotka_volterra_logs(theta), strict=True):
        exact = integrate.odeint(slope, start, times, tuple(row), rtol=1e-10, atol=1e-10)
        assert np.allclose(found, exact.T.ravel(), atol=0.01)  # the noise has .1


def test_spikes_come_as_often_as_the_design_says():
    theta = np.array([0.3, 1.0, -0.5, 0.2, 0.0, 0.7, -0.1, 0.3, 0.0, 0.4])
    p = 1 / (1 + np.exp(-tasks.design() @ theta))
    spikes = simulated("bernoulli_glm_raw", theta, 4000)
    assert is_normal((spikes.mean(axis=0) - p) / np.sqrt(p * (1 - p) / 4000))
    assert np.allclose(spikes @ tasks.design(), simulated("bernoulli_glm", theta, 4000))


def test_what_is_reported_of_spikes_is_the_convolution_that_sbibm_takes():
    spikes = np.zeros(100)
    spikes[[3, 50, 99]] = 1
    stimulus = tasks.design()[:, 1]
    padded = np.concatenate([np.zeros(8), spikes, np.zeros(8)])
    crossed = np.correlate(padded, stimulus, "valid")[-9:]  # as torch's conv1d with a padding of 8
    assert np.allclose(spikes @ tasks.design(), [3, *crossed])


def test_the_prior_of_the_filter_has_the_precision_of_its_differences():
    precision = tasks.filter_precision()
    theta = np.random.default_rng(6).standard_normal(10)
    filtered = theta[1:]
    second = np.array(
        [sum(c * filtered[i - k] for k, c in enumerate([1, -2, 1]) if i >= k) for i in range(9)]
    )
    second += np.sqrt(np.arange(9) / 9) * filtered
    assert np.isclose(theta @ precision @ theta, 0.5 * theta[0] ** 2 + second @ second)


def test_c2st_is_a_half_for_draws_of_the_reference_and_one_for_others():
    imported("sklearn")
    rng = np.random.default_rng(7)
    reference, same = rng.standard_normal((2, 400, 1))
    assert abs(sbibm.c2st(reference, same, folds=1) - 0.5) < 0.12
    assert sbibm.c2st(reference, same + 20, folds=1) == 1.0


def test_results_are_remembered_once_and_shown_beside_what_was_published(tmp_path, capsys):
    result = sbibm.Result("sir", 10_000, 2, 1, "amis", 0.55, "linear, free", 10_000, 200.0, 1.0, 5)
    sbibm.remember(tmp_path / "results.csv", result)
    assert sbibm.remembered(tmp_path / "results.csv") == {result.cell: result}
    sbibm.show([result.cell], {result.cell: result})
    sir = capsys.readouterr().out.splitlines()[-1].split()
    assert sir[:4] == ["sir", "10000", "2", "0.550"]
    published = sbibm.published()
    assert [float(x) for x in sir[4:7]] == [published["sir", 10_000, name, 2] for name in sbibm.PUBLISHED]


def test_observations_and_references_are_read_from_a_folder_as_from_a_wheel(tmp_path):
    task = TASKS["two_moons"]
    folder = tmp_path / task.path / "num_observation_1"
    folder.mkdir(parents=True)
    (folder / "observation.csv").write_text("data_1,data_2\n-0.5,0.25\n")
    rows = bz2.compress(b"parameter_1,parameter_2\n0.1,0.2\n0.3,0.4\n")
    (folder / "reference_posterior_samples.csv.bz2").write_bytes(rows)
    with zipfile.ZipFile(tmp_path / "sbibm.whl", "w") as wheel:
        for file in folder.iterdir():
            wheel.write(file, file.relative_to(tmp_path))
    for files in (sbibm.Files(tmp_path), sbibm.Files(tmp_path / "sbibm.whl")):
        assert files.observed(task, 1).tolist() == [-0.5, 0.25]
        assert files.reference(task, 1).tolist() == [[0.1, 0.2], [0.3, 0.4]]
