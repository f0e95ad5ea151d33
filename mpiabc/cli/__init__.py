"""The command line: one module a command, each of which adds itself to the parser when it is asked for.

    mpiabc run influenza.py --population-size 1000 --generations 8
    mpiabc show influenza.db
    mpiabc replay influenza.db 3:17 --trust

Exit status: 0 done, 1 an error, 2 a wrong command line, 75 stopped early and resumable (or what
MPIABC_RESUMABLE_STATUS says, as SGE wants 99), 130 another command that Ctrl-C has ended.
"""

import signal
import sys
from collections.abc import Sequence

from mpiabc import voice
from mpiabc.errors import ProblemError, resumable_status

_BY_SIGINT = 128 + signal.SIGINT  # as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, of `sys.argv` by default; returns its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        from mpiabc.cli.commands import carried_out  # Ctrl-C may come already while that is imported

        return carried_out(words)
    except KeyboardInterrupt:
        return _stopped(words[:1] == ["run"])


def _stopped(is_run: bool) -> int:
    """The status of a command that has heard nothing of signals, yet or any more, after one sentence."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would interrupt this
    exec("")  # else Python ends by the signal, after all, where it has left another exec: of a dataclass
    more = "; run the same command again to continue" if is_run else ""
    voice.put(f"mpiabc: stopped by SIGINT{more}\n", sys.stderr)
    if not is_run:
        return _BY_SIGINT
    try:
        return resumable_status()
    except ProblemError:  # it would have been said
        return 1
