"""What the examples of own parts say is so: each gives a posterior, the same on any scheduler."""

import importlib

import pytest

import mpiabc
from mpiabc import schedulers
from tests.problems import digests

PARTS = {"kernel": "abc", "threshold": "abc", "predictor": "abc", "scheduler": "abc"}


def example(name):
    return importlib.import_module(f"examples.extending.{name}")


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_ones_own_gives_the_same_on_any_scheduler(name, tmp_path):
    abc = example(name).abc
    serial = abc.run(tmp_path / "serial.db", generations=3, scheduler="serial")
    others = abc.run(tmp_path / "others.db", generations=3, scheduler=schedulers.Processes(2))
    assert digests(serial) == digests(others)
    assert serial[-1].epsilon < serial[-2].epsilon


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
