"""What ends the programs of children whose leader was killed: their group is all that is left of it."""

import contextlib
import subprocess

from mpiabc import programs

#: Keeps the groups that are named to it, by "+ GROUP" and "- GROUP"; kills them when nobody can tell it more.
_SCRIPT = """
trap '' HUP INT TERM USR1 USR2 XCPU
groups=' '
while read -r sign group; do
  case $sign in
    +) groups="$groups$group " ;;
    -) groups="${groups%% $group *} ${groups#* $group }" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"""


class Reaper:
    """A shell that outlives this process by a moment, however that ends; none where it cannot be started."""

    def __init__(self) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        with contextlib.suppress(OSError):
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            programs.ours.add(self._shell.pid)

    def add(self, group: int) -> None:
        """Kill this group, which a child of ours leads, if this process goes without `end`."""
        programs.ours.add(group)
        self._tell(f"+ {group}\n")

    def remove(self, group: int) -> None:
        """Forget a group that has ended: its number may become somebody else's."""
        programs.ours.discard(group)
        self._tell(f"- {group}\n")

    def close(self) -> None:
        """Give up our end of its pipe, as each process must that is forked from this one."""
        if self._shell is not None and self._shell.stdin is not None:
            with contextlib.suppress(OSError):
                self._shell.stdin.close()

    def end(self) -> None:
        """Nobody is left to be killed."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.wait()
            programs.ours.discard(self._shell.pid)
        self.close()

    def _tell(self, line: str) -> None:
        if self._shell is not None and self._shell.stdin is not None:
            with contextlib.suppress(OSError):  # it was killed
                self._shell.stdin.write(line.encode())
                self._shell.stdin.flush()
