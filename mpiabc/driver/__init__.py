"""When what is sent, taken in, kept and cancelled: one loop for every job and every engine."""

from mpiabc.driver.events import AtWork, Committed, Ended, Event, Noted, Observer, Progressed, Waited
from mpiabc.driver.limits import Limits
from mpiabc.driver.loop import Driver, Keeper
from mpiabc.driver.pace import Pace
from mpiabc.schedulers.base import Said

__all__ = [
    "AtWork",
    "Committed",
    "Driver",
    "Ended",
    "Event",
    "Keeper",
    "Limits",
    "Noted",
    "Observer",
    "Pace",
    "Progressed",
    "Said",
    "Waited",
]
