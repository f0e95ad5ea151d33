"""Whether ranks find each other: mpi4py's MPI, the launchers, and two ranks that are started for it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mpiabc.cli.doctor.check import Place, Remark, Seen, note, problem, warning
from mpiabc.cli.doctor.launching import STARTS, Launched, Launcher, Library, asked, started

_KIN = {"Intel MPI": "MPICH"}  # whose ranks the same launchers start
_EXTRA = "install `mpiabc[mpich]` or `mpiabc[openmpi]`, or load your system's MPI"
_MOST_SHOWN = 200  # characters of what a launcher says
_RULER = re.compile(r"^[\s\-=*]*$")


@dataclass(frozen=True)
class Start:
    """What is there to start ranks with, what they are to load, and what has become of two of them."""

    library: Library
    launcher: Launcher | None
    launched: Launched | None
    right: Launcher | None = None  # one of the library's own, if it is another


def look_at_library(place: Place) -> tuple[Library, bool]:
    """With it, whether anything here would start ranks."""
    return place.library, bool(place.launchers) or place.rank is not None


def judge_library(seen: tuple[Library, bool]) -> Seen:
    """Without an MPI only ranks are missed."""
    found, is_wanted = seen
    if not found.lack:
        built = f", built with {found.built}" if _family(found.built) != _family(found.family) else ""
        where = f" ({found.path})" if found.path else ""
        return Seen(f"{found.name or 'unknown'}{where}, mpi4py {found.mpi4py}{built}")
    text = f"mpi4py finds no MPI ({found.lack}): {_EXTRA}"
    if "No module named 'mpi4py'" in found.lack:
        text = "mpi4py is not installed, without which no rank finds the others: `pip install mpi4py`"
    if is_wanted:
        return Seen("none", (problem(text),))
    return Seen("none", (warning(f"{text}; runs use the cores of this machine without it"),))


def look_at_launchers(place: Place) -> tuple[Launcher, ...]:
    """All kinds."""
    return place.launchers


def judge_launchers(found: tuple[Launcher, ...]) -> Seen:
    """The first of each name."""
    if not found:
        text = f"there is no mpirun: {_EXTRA}; runs use the cores of this machine without it"
        return Seen("none", (warning(text),))
    return Seen(", ".join(_shown(found)), tuple(_of_launchers(found)))


def _shown(found: tuple[Launcher, ...]) -> Iterator[str]:
    """Names of one folder and kind together."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for each in found:
        folder = str(Path(each.path).parent)
        kinds.setdefault((folder, each.family, each.version), []).append(each.name)
    for (folder, family, version), names in kinds.items():
        yield f"{folder}/{'|'.join(names)} ({f'{family} {version}'.strip() or 'of an unknown kind'})"


def _of_launchers(found: tuple[Launcher, ...]) -> Iterator[Remark]:
    first, *others = found
    for other in others:
        if other.name == "mpiexec" and _family(other.family) != _family(first.family):
            yield warning(f"two MPIs are on the PATH: {first} and {other}; start ranks by {first.name}")
    if not first.is_on_path:
        lack = f"{first.name} is not on the PATH"
        yield note(f"{lack}: activate the environment, or call it by its path, {first.path}")


def look_at_start(place: Place) -> Start:
    """Two ranks are started, unless this is one of several already."""
    launcher = next((each for each in place.launchers if each.family != "Slurm"), None)
    right = _own_launcher(place.library, launcher)
    if place.rank is not None:
        return Start(place.library, launcher, place.rank, right)
    is_possible = launcher is not None and not place.library.lack
    return Start(place.library, launcher, started(launcher) if is_possible and launcher else None, right)


def _own_launcher(found: Library, first: Launcher | None) -> Launcher | None:
    """The mpirun in the folder of programs beside the library's own folder, if it is not the first one."""
    path = Path(found.path).parent.parent / "bin" / "mpirun"
    if not (found.path and path.is_file()) or (first is not None and path.samefile(first.path)):
        return None
    return asked("mpirun", str(path))


def judge_start(seen: Start) -> Seen:
    """Two ranks of two, or why not."""
    if seen.launched is None:
        return Seen("not tried")
    if seen.launched.is_own:
        return _judge_own(seen, seen.launched)
    worlds = seen.launched.worlds
    if worlds == ((0, 2), (1, 2)) and seen.launched.status == 0:
        return Seen("start, and find each other")
    if worlds == ((0, 2), (1, 2)):
        text = f"{seen.launcher} starts two ranks and ends with status {seen.launched.status}{_said(seen)}"
        return Seen("find each other, then fail", (problem(text),))
    if worlds == ((0, 1), (0, 1)):
        text = f"{seen.launcher} starts two ranks, each of which takes itself for the only one: each would"
        return Seen("each is alone", (problem(f"{text} do the whole run; {_mismatch(seen)}"),))
    if seen.launched.status is None:
        text = f"{seen.launcher} has not started two ranks within {STARTS:.0f} s{_said(seen)}; on a login "
        return Seen("hang", (problem(f"{text}node that may be meant so: ask again inside a job"),))
    return Seen("do not start", (_refusal(seen),))


def _judge_own(seen: Start, launched: Launched) -> Seen:
    (rank, size), *_ = launched.worlds
    if launched.status:
        return Seen("each is alone", (problem(launched.said),))
    text = f"this is one of {size} ranks, which have found each other, so no others were started"
    return Seen(f"this is rank {rank} of {size}", (note(text),))


def _mismatch(seen: Start) -> str:
    """What to do where mpirun and mpi4py are of different MPIs, as far as that is seen."""
    advice = f"use {seen.right.path}" if seen.right else "use the mpirun of that one"
    if seen.launcher and _family(seen.launcher.family) == _family(seen.library.family):
        advice += ", or srun with the right --mpi"
    return f"mpirun and mpi4py belong to different MPIs (mpi4py uses {seen.library.name}): {advice}"


def _refusal(seen: Start) -> Remark:
    """What a launcher says that has started nothing, in our words where it is one of the known refusals."""
    assert seen.launched is not None
    assert seen.launcher is not None
    said, launcher = seen.launched.said, seen.launcher
    if "run as root" in said:
        return problem(
            f"{launcher} does not start for root: set OMPI_ALLOW_RUN_AS_ROOT=1 and "
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or be another user"
        )
    if "enough slots" in said:
        return warning(
            f"{launcher} starts no more ranks than there are cores, and there is one: give --oversubscribe "
            "where more are wanted"
        )
    if _family(launcher.family) != _family(seen.library.family) and launcher.family and seen.library.family:
        return problem(f"{launcher} starts no ranks: {_mismatch(seen)}")
    return problem(f"{launcher} fails with status {seen.launched.status}{_said(seen)}")


def _said(seen: Start) -> str:
    """The first line of a launcher's that is no ruler, as a quotation."""
    assert seen.launched is not None
    lines = (line.strip() for line in seen.launched.said.splitlines() if not _RULER.match(line))
    first = next(lines, "")[:_MOST_SHOWN]
    return f" ({first})" if first else ""


def _family(name: str) -> str:
    return _KIN.get(name, name)
