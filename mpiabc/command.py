"""An external program as a simulator: a folder of its own for each evaluation, and what it leaves there."""

import csv
import json
import os
import shlex
import shutil
import string
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mpiabc import programs, threads
from mpiabc.arguments import real
from mpiabc.errors import Error, ProblemError, shortened

_OUT, _STDOUT, _STDERR = "out", "stdout", "stderr"  # files in the folder
_OURS = ("seed", _OUT, "folder")
_SEEDS = 2**31  # what R, C and Fortran take for a seed
_MOST_KEPT = 20  # folders of failed evaluations, in a process


class CommandError(Error):
    """A program that has failed, or has left nothing that can be read."""


class Command:
    """A program as a simulator, such as `Command("./model {beta} {gamma} {seed} {out}")`.

    Placeholders: the parameters (`{beta:.3f}` too), `{seed}`, a whole number below 2^31 of the evaluation's
    stream, `{out}`, a path for the program to write to, and `{folder}`. The command is one text, or a list
    of words; there is no shell (`["bash", "-c", "..."]` is one). Each evaluation runs in an empty folder of
    its own below TMPDIR, so words that name files as they stand, such as `./model` or `model.R`, are made
    absolute here and now; what these files hold is part of the problem's fingerprint.

    What it has simulated is what `read(folder)` returns, which gets a `pathlib.Path`; without that, the file
    `{out}` by its ending (`{out}.csv`: .txt, .csv, .json, .npy, .npz; numbers between whitespace or commas
    where it has none); and where the command has no `{out}`, the numbers on its standard output. A status
    other than 0 is a failure, as is a run longer than `timeout` seconds; the first folders of failures are
    kept, and named in them. A launcher of MPI finds none of our own ranks' variables, so that
    `mpirun -n 4 ./model ...` works.

    Raises ProblemError for a command that cannot run.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        read: Callable[[Path], Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
        if not words:
            raise ProblemError("Command(...) is empty: give a program and its arguments")
        self.given = shlex.join(words)
        self.fields = frozenset(name for word in words for name in _fields(word))
        self.words = tuple(_absolute(word) for word in words)
        self.read = read
        self.timeout = timeout
        if timeout is not None and not (real(timeout) or 0) > 0:
            raise ProblemError(f"Command(timeout={timeout!r}): give seconds > 0, or None")
        _check_program(words[0], self.words[0])

    def __repr__(self) -> str:
        read = getattr(self.read, "__qualname__", self.read)
        return f"Command({self.given!r}, read={read}, timeout={self.timeout})"

    @property
    def __name__(self) -> str:
        return Path(self.words[0]).name

    @property
    def code_files(self) -> tuple[str, ...]:
        """The files that the command names: they are code, to a fingerprint."""
        return tuple(word for word in self.words if os.path.isabs(word) and os.path.isfile(word))

    def check(self, names: Iterable[str]) -> None:
        """Raise ProblemError unless parameters of these names fill the command."""
        names = tuple(names)
        if taken := sorted(set(names) & set(_OURS)):
            raise ProblemError(f"a parameter is called {taken[0]!r}, which Command fills itself: rename it")
        if unknown := sorted(self.fields - {*names, *_OURS}):
            raise ProblemError(
                f"the command has {{{unknown[0]}}}, which is no parameter: expected one of "
                f"{', '.join(names)}, or {', '.join(_OURS)}; write {{{{ and }}}} for braces"
            )

    def __call__(self, theta: Mapping[str, float], rng: np.random.Generator) -> Any:
        """What the program makes of these parameters. Raises CommandError, and what `read` raises."""
        with _folder() as folder:
            known: dict[str, Any] = {**theta, _OUT: folder / _OUT, "folder": folder}
            if "seed" in self.fields:
                known["seed"] = int(rng.integers(_SEEDS))
            self._run([word.format(**known) for word in self.words], folder)
            return self._found(folder)

    def _run(self, words: list[str], folder: Path) -> None:
        """Run the program to its end; whatever ends this early ends it too, and all that it has started."""
        with open(folder / _STDOUT, "wb") as out, open(folder / _STDERR, "wb") as err:
            own = programs.environment() | threads.of_programs()
            program = subprocess.Popen(
                words, cwd=folder, env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            try:
                status = program.wait(self.timeout)
            except BaseException as error:
                programs.end(program.pid)
                program.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    why = f"took longer than the {self.timeout:g} s that it has"
                    raise CommandError(self._failure(words, why, folder)) from error
                raise
        if status:
            how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
            cause = subprocess.CalledProcessError(status, words)
            raise CommandError(self._failure(words, how, folder)) from cause

    def _failure(self, words: list[str], how: str, folder: Path) -> str:
        said = next((text for name in (_STDERR, _STDOUT) if (text := _text(folder / name).strip())), "")
        return f"`{shlex.join(words)}` {how}; it said: {shortened(said) or 'nothing'}"

    def _found(self, folder: Path) -> Any:
        if self.read is not None:
            return self.read(folder)
        if _OUT not in self.fields:
            return _numbers(folder / _STDOUT, "standard output")
        files = sorted(path for path in folder.iterdir() if path.name == _OUT or path.stem == _OUT)
        if len(files) != 1:
            names = ", ".join(path.name for path in files) or "no file"
            raise CommandError(f"the program has left {names} for {{out}}, expected one file, or give read=")
        return _content(files[0])


# The command.


def _fields(word: str) -> list[str]:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(word) if name is not None]
    except ValueError as error:
        raise ProblemError(
            f"the command's {word!r} cannot be filled ({error}); write {{{{ and }}}} for braces"
        ) from None
    return [name.partition(".")[0].partition("[")[0] for name in names]


def _absolute(word: str) -> str:
    """A word that names a file from here, for programs that run elsewhere."""
    is_file = not os.path.isabs(word) and os.path.isfile(word)
    return os.path.abspath(word) if is_file and not _fields(word) else word


def _check_program(word: str, path: str) -> None:
    if shutil.which(path) is not None and (os.sep in word or not os.path.isabs(path)):
        return
    if os.path.isfile(path):
        todo = "write ./ before it" if os.sep not in word else "make it executable, by chmod +x"
        raise ProblemError(f"the command's program is {word!r}, a file that does not run so: {todo}")
    raise ProblemError(f"the command's program {word!r} is not found: give its path, or one on the PATH")


# Its folder.

_kept = 0  # folders of failed evaluations


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, removed afterwards unless what ran there has failed."""
    global _kept
    folder = Path(tempfile.mkdtemp(prefix="mpiabc-"))
    try:
        yield folder
    except Exception as error:
        if _kept < _MOST_KEPT:
            _kept += 1
            error.add_note(f"its folder is kept: {folder}")
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


# What it has left.


def _content(path: Path) -> Any:
    """What a file holds, by its ending."""
    match path.suffix:
        case ".npy":
            return np.load(path)
        case ".npz":
            with np.load(path) as arrays:
                return dict(arrays)
        case ".json":
            return json.loads(path.read_text())
        case ".csv":
            return _table(path)
    return _numbers(path, path.name)


def _numbers(path: Path, name: str) -> Any:
    """A single number as a float, a line or a column of them as (n,), lines of several as (n, m)."""
    lines = [line.partition("#")[0].replace(",", " ").split() for line in _text(path).splitlines()]
    rows = [line for line in lines if line]
    try:
        found = np.array(rows, np.float64)
    except ValueError as error:
        raise CommandError(f"the {name} is no table of numbers: {error}") from None
    if not found.size:
        raise CommandError(f"the {name} holds no number")
    return float(found.item()) if found.size == 1 else found.squeeze()


def _table(path: Path) -> Any:
    """A dict of its columns if the first line names them; R's unnamed one, of row names, is left out."""
    with open(path, newline="") as file:
        head, *rows = [row for row in csv.reader(file) if row] or [[]]
    if all(map(_is_number, head)):
        return _numbers(path, path.name)
    try:
        columns = zip(*rows, strict=True) if rows else ([] for _ in head)
        return {
            name: np.array(column, np.float64) for name, column in zip(head, columns, strict=True) if name
        }
    except ValueError as error:
        raise CommandError(f"{path.name} is no table of numbers: {error}") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text(path: Path) -> str:
    return path.read_text(errors="replace")
