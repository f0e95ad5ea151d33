"""The environment variables that mpiabc obeys, each named and explained once.

Job scripts set them for the scripts that they run. What batch systems and MPIs tell in variables of their own
is known where it is read.
"""

import os

SCHEDULER = "MPIABC_SCHEDULER"
WALLTIME = "MPIABC_WALLTIME"
SIGNALS = "MPIABC_SIGNALS"
RESUMABLE_STATUS = "MPIABC_RESUMABLE_STATUS"
SECRET = "MPIABC_SECRET"
SECRET_FILE = "MPIABC_SECRET_FILE"
REDIS_PASSWORD = "MPIABC_REDIS_PASSWORD"

MEANINGS = {
    SCHEDULER: 'what scheduler="auto" is',
    WALLTIME: "the walltime of a run that is given none",
    SIGNALS: "names of the signals that ask a run to stop",
    RESUMABLE_STATUS: "the exit status, instead of 75, of a run that can be continued",
    SECRET: "what a run and its Redis workers share",
    SECRET_FILE: "a private file that holds it",
    REDIS_PASSWORD: "the Redis server's password",
}


def given(name: str) -> str | None:
    """What one of them says, as it stands there; None where it is not set, or blank."""
    text = os.environ.get(name, "")
    return text if text.strip() else None
