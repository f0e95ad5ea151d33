"""Modules that have moved: files of before are read, and fingerprints are what they were."""

import pickle
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
