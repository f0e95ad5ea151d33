"""Durations as text, there and back: of users, of batch systems, of people."""

import pytest

import mpiabc
from mpiabc import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5 m", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1:30", 5400),  # as job scripts have it: hours and minutes
        ("1:30:05", 5405),
        ("2-01:00", 176400),
    ],
)
def test_what_users_give_is_read(text, seconds):
    assert durations.parsed(text, "walltime") == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [("soon", "not understood: give seconds, or '30m'"), ("-1", "not understood"), ("0:00", "no time")],
)
def test_what_is_no_duration_is_refused_by_the_name_of_its_setting(text, message):
    with pytest.raises(mpiabc.ProblemError, match=f"runtime='{text}' is .*{message}"):
        durations.parsed(text, "runtime")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4", 4), ("2:05", 125), ("1:02:05", 3725), ("2-01:02:05 ", 176525), ("UNLIMITED", None), ("", None)],
)
def test_what_batch_systems_write_is_read(text, seconds):
    """Two numbers are minutes and seconds there."""
    assert durations.of_clock(text) == seconds


def test_clocks_of_batch_systems_are_written():
    assert durations.clock(3725) == "01:02:05"
    assert durations.clock(360000) == "100:00:00"
    assert durations.clock(65, digits=1) == "0:01:05"
    for seconds in (59, 3599, 7201, 86399):
        assert durations.of_clock(durations.clock(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "0:01"), (61, "0:02"), (3599, "1:00"), (7200, "2:00"), (7201, "2:01")]
)
def test_where_seconds_are_too_fine_the_last_minute_is_whole(seconds, text):
    assert durations.hours(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (59.4, "59 s"),
        (61, "1 min 01 s"),
        (3600, "1 h 00 min"),
        (9e4, "25 h 00 min"),
    ],
)
def test_people_read_them_as_they_say_them(seconds, text):
    assert durations.duration(seconds) == text
