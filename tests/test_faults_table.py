"""Faults of what users bring are held, reported, or resumed; wrong in silence is no outcome."""

from dataclasses import replace

import pytest

from tests import faults
from tests.programs.faulty import Expected


@pytest.mark.long
@pytest.mark.parametrize("engine", ["serial", "processes"])
def test_nothing_goes_wrong_in_silence(engine):
    """The first columns of `python -m tests.faults`."""
    found = dict(faults.played(faults.cells(engines=[engine]), at_once=3))
    assert len(found) > 40
    assert {name: str(error) for (name, _), error in found.items() if not isinstance(error, str)} == {}


@pytest.mark.parametrize(
    "expected", [Expected("held", goes_on=True), Expected("reported", "in other words"), Expected("resumed")]
)
def test_what_is_reported_is_not_held_nor_resumed_nor_reported_in_other_words(
    expected, monkeypatch, tmp_path
):
    """The check of the check."""
    name = "None without epsilon"
    monkeypatch.setitem(faults.FAULTS, name, replace(faults.FAULTS[name], expected=(expected,)))
    with pytest.raises(faults.NotSoError, match=f"not {expected.outcome}: "):
        faults.play(name, "serial", tmp_path)
