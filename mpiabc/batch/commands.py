"""The commands of batch systems: each of them is started here."""

import os
import subprocess
import time
from collections.abc import Sequence

from mpiabc.errors import SchedulerError

_PATIENCE = 60.0  # seconds that a command may take
_MOST_LINES = 3  # of what a failed command says: the reason may stand above the last one
_PAUSES = (1.0, 3.0)  # seconds before the second and the third attempt: a busy server answers later


class CommandError(SchedulerError):
    """A command of the batch system is missing, fails or hangs."""


def command(
    *words: str,
    pauses: Sequence[float] = _PAUSES,
    without: tuple[str, ...] = (),
    keeping: tuple[str, ...] = (),
) -> str:
    """What a command prints. Raises CommandError, with what it said, if it fails again and again.

    without: the beginnings of the environment's variables that are not for it; keeping: of those, names that
    it has all the same.
    """
    kept = {k: v for k, v in os.environ.items() if k in keeping or not k.startswith(without)}
    for pause in (*pauses, None):
        try:
            done = subprocess.run(words, env=kept, capture_output=True, text=True, timeout=_PATIENCE)
        except OSError as error:
            raise CommandError(f"cannot start `{words[0]}` ({error.strerror}): is it on the PATH?") from None
        except subprocess.TimeoutExpired:
            said = f"has not answered for {_PATIENCE:.0f} s"
        else:
            if done.returncode == 0:
                return done.stdout
            output = (done.stderr.strip() or done.stdout.strip()).splitlines()
            last = "; ".join(line.strip() for line in output[-_MOST_LINES:] if line.strip())
            said = f"failed with status {done.returncode}: {last or 'it said nothing'}"
        if pause is not None:
            time.sleep(pause)
    raise CommandError(f"`{' '.join(words)}` {said}")


def user() -> str:
    """Whose jobs are asked for."""
    import getpass  # by who maps: workers, which have the table too, need none

    return getpass.getuser()


def answers(*words: str) -> bool:
    """Whether a command is here and succeeds at once."""
    try:
        command(*words, pauses=())
    except CommandError:
        return False
    return True
