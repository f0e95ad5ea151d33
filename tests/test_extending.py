"""What the examples of own parts say is so: each gives a posterior, the same on any scheduler."""

import importlib
import pydoc

import numpy as np
import pytest

import mpiabc
from mpiabc import schedulers, testing
from mpiabc.store import Store
from tests.problems import digests

PARTS = ["kernel", "fitted", "threshold", "size", "prior", "predictor", "scheduler"]
CHECKED = {  # a line of a test of one's own
    "kernel": lambda part: testing.check_kernel(part.Student()),
    "distance": lambda part: testing.check_distance(part.Huber()),
    "fitted": lambda part: testing.check_distance(part.Typical()),
    "threshold": lambda part: testing.check_threshold(part.Halfway(0.2)),
    "size": lambda part: testing.check_size(part.Growing(100)),
    "ring": lambda part: testing.check_prior(example("prior").Ring()),
    "triangle": lambda part: testing.check_prior(example("prior").Triangle(5.0)),
}


def example(name):
    return importlib.import_module(f"examples.extending.{name}")


@pytest.mark.long
@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_ones_own_gives_the_same_on_any_scheduler(name, tmp_path):
    abc = example(name).abc
    serial = abc.run(tmp_path / "serial.db", generations=3, scheduler="serial")
    others = abc.run(tmp_path / "others.db", generations=3, scheduler=schedulers.Processes(2))
    assert digests(serial) == digests(others)
    assert serial[-1].epsilon < serial[-2].epsilon


@pytest.mark.parametrize("name", CHECKED)
def test_a_part_of_ones_own_keeps_its_promises(name):
    CHECKED[name](example(name) if name not in ("ring", "triangle") else None)


@pytest.mark.parametrize("which", ["dissimilarity", "Huber"])
def test_a_distance_of_ones_own_finds_what_is_there(which, tmp_path):
    module = example("distance")
    distance = module.dissimilarity if which == "dissimilarity" else module.Huber()
    history = module.sampler(distance).run(tmp_path / "run.db", generations=4, scheduler="serial")
    assert abs(history[-1].mean()["frequency"] - 1.5) < 0.1


def test_a_kernel_of_ones_own_gives_the_posterior_of_the_default_one(tmp_path):
    module = example("kernel")
    default = mpiabc.ABCSMC(module.problem, 200, seed=1)
    ours = module.abc.run(tmp_path / "ours.db", generations=4, scheduler="serial")[-1]
    theirs = default.run(tmp_path / "theirs.db", generations=4, scheduler="serial")[-1]
    assert abs(ours.mean()[0] - theirs.mean()[0]) < 4 * theirs.std()[0] / theirs.ess**0.5


def test_a_distance_that_is_fitted_sees_a_statistic_of_small_numbers(tmp_path):
    module = example("fitted")
    history = module.abc.run(tmp_path / "run.db", generations=3, scheduler="serial")
    assert history[-1].std()["mu"] < 0.8 * history[0].std()["mu"]


def test_sizes_of_ones_own_grow_to_their_bound(tmp_path):
    module = example("size")
    abc = mpiabc.ABCSMC(module.problem, module.Growing(50, 2.0, 150), seed=1)
    history = abc.run(tmp_path / "run.db", generations=3, scheduler="serial")
    assert [len(population) for population in history] == [50, 100, 150]


def test_a_prior_of_ones_own_has_its_bounds_and_its_shape(tmp_path):
    module = example("prior")
    waiting = mpiabc.ABCSMC(module.waiting, 200, kernel=mpiabc.Gaussian(free=True), seed=1)
    last = waiting.run(tmp_path / "waiting.db", generations=3, scheduler="serial")[-1]
    assert last.simulations == last.evaluations  # no proposal lies beyond a bound
    assert 0.8 < last.mean()["mean"] < 1.3
    ring = module.abc.run(tmp_path / "ring.db", generations=3, scheduler="serial")[-1]
    assert np.average(abs(np.hypot(*ring.theta.T) - 3), weights=ring.weights) < 0.4
    assert ring.mean()["x"] > 1


def test_a_threshold_of_ones_own_comes_near_its_goal_and_ends(tmp_path):
    history = example("threshold").abc.run(tmp_path / "run.db", generations=30, scheduler="serial")
    assert history.reason.startswith("threshold")
    assert 0.2 <= history[-1].distances.max() <= 0.2 * 1.01


def test_a_scheduler_of_ones_own_gives_the_digest_of_the_serial_one(tmp_path):
    module = example("scheduler")
    last_first = module.abc.run(tmp_path / "ours.db", generations=3, scheduler=module.LastFirst())
    assert digests(last_first) == digests(
        module.abc.run(tmp_path / "a.db", generations=3, scheduler="serial")
    )


def test_help_of_what_parts_are_given_shows_names_and_not_how_columns_are_declared():
    text = pydoc.render_doc(mpiabc.Population, renderer=pydoc.plaintext)
    assert "Column(" not in text
    assert max(map(len, text.splitlines())) < 400
    assert "theta (N, d), weights (N,) summing to 1" in text


def test_a_rank_that_leads_a_run_of_its_own_learns_why_the_file_is_in_use(tmp_path, monkeypatch):
    module = example("scheduler")
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setenv("PMI_RANK", "1")
    with (
        Store(tmp_path / "run.db"),
        pytest.raises(mpiabc.StoreError, match=r"rank 1 of 2, each of which leads a run of its own"),
    ):
        module.abc.run(tmp_path / "run.db", generations=1, scheduler=module.LastFirst())
