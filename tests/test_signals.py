"""Signals to all processes of a job, external programs first: it stops, goes on, and comes to the same."""

import signal

import pytest

from tests import jobs, signals

KINDS = {"processes": ("checked", "reject"), "mpich": ("checked", "raise")}


@pytest.fixture(scope="module")
def expected():
    return signals.expected()


@pytest.mark.long
@pytest.mark.parametrize("engine", jobs.ENGINES)
def test_programs_that_a_signal_ends_leave_no_outcome(engine, expected, tmp_path):
    """A sample of `python -m tests.signals`, which plays 100."""
    kind = KINDS.get(engine, ("unchecked", "raise"))
    case = signals.Case(engine, signal.SIGUSR1, kind, "programs first", seed=1)
    outcome = signals.play(case, tmp_path, expected)
    assert outcome.trouble == ""
    assert outcome.hits
    assert outcome.stopped == outcome.resumed
