"""Damage: a run's file cut short or overwritten anywhere gives the right posterior or one clear sentence.

    python -m tests.damage [--step 1]

The file holds two committed generations and a third that is open, with its journal. It is damaged in one
place, shown by `mpiabc show`, and run again by the same command; then the next place has its turn. The
table says what came of it. With --step 1 every byte has its turn; the tests take bytes far apart.
"""

import argparse
import contextlib
import io
import logging
import random
import signal
import sys
import tempfile
import warnings
from collections import Counter
from itertools import chain
from pathlib import Path
from unittest import mock

import mpiabc
from mpiabc import cli
from mpiabc.store import files, history
from tests import disks, problems
from tests.conftest import environment

PAGE = 4096  # bytes of SQLite's pages
GENERATIONS = 2


def sampler(calls=None):
    """Its simulations are added to `calls`."""

    seen = [] if calls is None else calls

    def gaussian(theta, rng, *, id):
        seen.append(id)
        return problems.gaussian(theta, rng)

    return problems.sampler(n=20, name="gaussian", simulate=gaussian)


def run(file, calls=None, **rules):
    """The run in the file, whose simulations are added to `calls`."""
    return sampler(calls).run(file, scheduler="serial", progress=False, **rules)


def prepare(folder):
    """The file to damage, and the digests of an uninterrupted run."""
    quiet = list(run(folder / "quiet.db"))
    file = folder / "run.db"
    run(file, simulations=sum(p.simulations for p in quiet[:GENERATIONS]) + 20)
    assert len(mpiabc.open(file)) == GENERATIONS
    return file, problems.digests(quiet)


def prepare_hot(folder):
    """The file of a run that was killed in its third commit, beside it SQLite's own journal."""
    file = folder / "hot.db"
    job = disks.program(disks.killed_in_commit("damage.sampler()"), environment(), file)
    assert job.returncode == -signal.SIGKILL, job.stdout
    return file.read_bytes(), file.with_name("hot.db-journal").read_bytes()


def damages_of_journal(file, journal, step, rng):
    """The same for SQLite's journal, beside the file that it should mend."""
    yield "journal whole", 0, file, journal
    yield "journal gone", 0, file, None
    for at in range(0, len(journal), step):
        yield "journal cut", at, file, journal[:at]
        yield "journal byte", at, file, _replaced(journal, at, bytes([journal[at] ^ rng.randrange(1, 256)]))


def damages(content, step, rng):
    """Name of the kind, place and damaged content; None for the journal of SQLite, which is not there."""
    for kind, at, damaged in _damages(content, step, rng):
        yield kind, at, damaged, None


def _damages(content, step, rng):
    pages = range(0, len(content), PAGE)
    for at in sorted({*range(0, len(content), step), *pages, len(content) - 1}):
        yield "cut short", at, content[:at]
        yield "one byte", at, _replaced(content, at, bytes([content[at] ^ rng.randrange(1, 256)]))
    for page in pages:
        yield "page of zeros", page, _replaced(content, page, bytes(PAGE))
        yield "page of noise", page, _replaced(content, page, rng.randbytes(PAGE))
        yield "half a page", page, _replaced(content, page + PAGE // 2, rng.randbytes(PAGE // 2))
        for other in pages:
            if other != page:
                yield "another page", page, _replaced(content, page, content[other : other + PAGE])


def _replaced(content, at, part):
    return content[:at] + part + content[at + len(part) :]


def reported(output, error):
    """One sentence for a user, and no traceback."""
    assert error.count("\n") == 1, error
    assert "Traceback" not in output + error, error


def outcome(file, expected):
    """What `mpiabc show` and the same command make of a file; AssertionError if it is wrong."""
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        status = cli.main(["show", str(file)])
    assert status in (0, 1)
    if status:
        reported(output.getvalue(), error.getvalue())
    with contextlib.suppress(mpiabc.StoreError):  # what can be read is right, whether all can be or not
        for found, digest in zip(mpiabc.open(file), expected, strict=False):
            assert found.digest() == digest
    warned = _Heard()
    calls = []
    try:
        with warned:
            history = run(file, calls)
    except mpiabc.StoreError as found:
        assert not calls
        reported("", f"{found}\n")
        return "reported"
    assert problems.digests(history) == expected
    if any(id.generation < GENERATIONS for id in calls):
        assert "is empty" in warned.text, "committed generations were lost in silence"
        return "reported, begun anew"
    return "went on"


class _Heard(logging.Handler):
    """Within the `with`, what mpiabc warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record):
        self.text += record.getMessage()

    def __enter__(self):
        logging.getLogger("mpiabc").addHandler(self)
        return self

    def __exit__(self, *exception):
        logging.getLogger("mpiabc").removeHandler(self)


def play(step, seed=0, out=print):
    """Counts of (kind, what came of it)."""
    counts = Counter()
    # Nobody is writing.
    quick, too = (mock.patch.object(room, "attempts", return_value=(0, 1)) for room in (files, history))
    with tempfile.TemporaryDirectory() as folder, quick, too:
        file, expected = prepare(Path(folder))
        content, rng = file.read_bytes(), random.Random(seed)
        hot = damages_of_journal(*prepare_hot(Path(folder)), step, rng)
        for kind, at, damaged, journal in chain(damages(content, step, rng), hot):
            copy = Path(folder) / "copy.db"
            copy.write_bytes(damaged)
            if journal is not None:
                copy.with_name("copy.db-journal").write_bytes(journal)
            try:
                counts[kind, outcome(copy, expected)] += 1
            except Exception as error:
                counts[kind, "wrong"] += 1
                out(f"WRONG {kind} at {at} of {len(content)}: {type(error).__name__}: {error}")
            for path in Path(folder).glob("copy.db*"):
                path.unlink()
    return counts


def main():
    """Damage the file everywhere and print the table; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=int, default=1, help="bytes between two places")
    warnings.simplefilter("error")
    counts = play(parser.parse_args().step)
    outcomes = ("went on", "reported", "reported, begun anew", "wrong")
    print(f"{'damage':<16}" + "".join(f"{name:>18}" for name in outcomes))
    for kind in dict.fromkeys(kind for kind, _ in counts):
        print(f"{kind:<16}" + "".join(f"{counts[kind, name]:>18}" for name in outcomes))
    return 1 if any(name == "wrong" for _, name in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
