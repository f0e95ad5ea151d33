"""Modules that have moved: files of before are read, and fingerprints are what they were."""

import pickle
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mpiabc
from mpiabc import moved
from mpiabc.fingerprint.places import class_label
from mpiabc.store.parts import rebuilt


@pytest.mark.parametrize(
    "part", [mpiabc.Normal(0, 2), mpiabc.PNorm(p=1), mpiabc.Gaussian(), mpiabc.Quantile(0.5)]
)
def test_a_part_that_was_kept_before_its_module_moved_is_rebuilt(part):
    cls = type(part)
    before = moved.former(cls.__module__)
    assert before != cls.__module__
    body = pickle.dumps(part, 2).replace(f"c{cls.__module__}\n".encode(), f"c{before}\n".encode())
    assert before.encode() in body
    assert type(rebuilt(pickle.dumps(([], body)), "part", Path("run.db"))) is cls


def test_a_class_of_a_module_that_has_moved_has_the_name_in_fingerprints_that_it_had():
    assert class_label(mpiabc.Prior) == "mpiabc.prior.Prior"
    assert class_label(mpiabc.PNorm) == "mpiabc.distance.norm.PNorm"
    assert class_label(mpiabc.Noise) == "mpiabc.noise.Noise"


@pytest.mark.parametrize("name", moved.FORMER)
def test_what_has_moved_is_found_by_either_name(name):
    assert moved.present(moved.former(name)) == import_module(name).__name__


@pytest.mark.parametrize("name", [*moved.FORMER.values(), "mpiabc.distance", "mpiabc.distance.norm"])
def test_an_import_by_the_first_name_is_the_same_module_and_says_its_new_name(name, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{name} is {moved.present(name)} now"):
        assert import_module(name) is import_module(moved.present(name))


def test_a_pickle_of_before_is_loaded_as_any_other(monkeypatch):
    monkeypatch.delitem(sys.modules, "mpiabc.threshold", raising=False)
    body = pickle.dumps(mpiabc.Quantile(0.3), 2).replace(b"cmpiabc.thresholds\n", b"cmpiabc.threshold\n")
    with pytest.warns(DeprecationWarning, match="is mpiabc.thresholds now"):
        assert pickle.loads(body) == mpiabc.Quantile(0.3)
