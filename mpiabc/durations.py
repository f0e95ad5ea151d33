"""Durations as text: as users give them, as batch systems write them, as people say them. Else, seconds."""

import logging
import re

from mpiabc.errors import ProblemError

_log = logging.getLogger(__name__)

_LEAST = 60.0  # seconds, of a number without a unit, which batch systems take for minutes
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parsed(text: str, name: str) -> float:
    """Seconds of what a user gives: "90", "30m", "2h", "1:30" (hours and minutes), "1:30:00", "2-00:00".

    Raises ProblemError, which calls it by this name.
    """
    if match := re.fullmatch(r"(\d+(?:\.\d*)?)\s*([smhd]?)", text):
        number, unit = match.groups()
        value = float(number) * _UNITS[unit]
        if not unit and 0 < value < _LEAST:
            _log.warning(
                "%s=%s says no unit and is taken for seconds: give %ss, %sm or %sh", name, *[number] * 4
            )
    elif match := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text):
        value = _seconds(*match.groups())
    else:
        raise ProblemError(
            f"{name}={text!r} is not understood: give seconds, or '30m', '2h', '1:30:00', 'auto'"
        )
    if not value > 0:
        raise ProblemError(f"{name}={text!r} is no time at all")
    return value


def of_clock(text: str) -> float | None:
    """Seconds of what a batch system writes: "1-02:03:04", "02:03:04", "03:04" (minutes and seconds) or "4".

    None for other text.
    """
    found = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text.strip())
    return None if found is None else _seconds(*found.groups())


def _seconds(*parts: str | None) -> float:
    """Of days, hours, minutes and seconds."""
    days, hours, minutes, seconds = (int(part or 0) for part in parts)
    return 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds


def clock(seconds: int, digits: int = 2) -> str:
    """Hours, minutes and seconds, "02:03:04"; digits: of hours, at least."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60:0{digits}}:{minutes % 60:02}:{rest:02}"


def hours(seconds: int) -> str:
    """Hours and minutes, "2:04", for whom seconds are too fine; the last minute is a whole one."""
    minutes = -(-seconds // 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def duration(seconds: float) -> str:
    """As people say it, such as "2.5 s", "3 min 04 s", "2 h 03 min"."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    )
