"""Golden for ever: the populations of the commit that last defined draws and weights, bit for bit.

Processors and math libraries differ in the last bit, so that commit, kept as a wheel, is asked in the same
run; ids, cuts and counts are the same everywhere, and stand here. They are those of the first draws, too:
only the last bits of weights were defined anew since, with densities by blocks and curves (STREAMS 2).
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mpiabc
from mpiabc.version import STREAMS
from tests.conftest import HANGS, ROOT, environment

OURS = Path(mpiabc.__file__).parent.parent  # of the checkout, or where it is installed
GOLDEN = ROOT / "tests" / "golden"
WHEELS = {streams: GOLDEN / f"streams{streams}" / "mpiabc-0.1.0-py3-none-any.whl" for streams in (1, 2)}
COUNTS = {  # evaluations, simulations, failures, and a digest of the ids, of each generation
    "scalar": [
        [100, 100, 0, "96bdba67cd0b5e6d"],
        [287, 234, 0, "6b198e9343d4f269"],
        [388, 290, 0, "2863f2175f9930be"],
        [696, 551, 0, "6493e77f58f36a10"],
    ],
    "vectorised": [
        [100, 100, 0, "96bdba67cd0b5e6d"],
        [287, 234, 0, "7016d1a190fe6534"],
        [366, 279, 0, "35964f06fc5bdd1a"],
        [614, 468, 0, "1f4215cd56b4ed2d"],
    ],
    "static": [
        [100, 100, 0, "96bdba67cd0b5e6d"],
        [295, 225, 0, "58bb65bcb8b05b24"],
        [404, 285, 0, "69271ef6d1801de8"],
        [608, 475, 0, "7bc3d07b4b444e96"],
    ],
    "local kernel": [
        [100, 100, 0, "96bdba67cd0b5e6d"],
        [258, 220, 0, "4522a2dd52280c5e"],
        [284, 240, 0, "32c2a89a0ddd62d6"],
        [443, 384, 0, "d6ece883124607d0"],
    ],
    "dict data": [
        [100, 100, 0, "96bdba67cd0b5e6d"],
        [360, 290, 0, "7470086fb825baab"],
        [272, 222, 0, "02274cb83ce9aaaa"],
        [558, 478, 0, "8a04a036283d8070"],
    ],
    "callable distance": [
        [100, 100, 0, "96bdba67cd0b5e6d"],
        [351, 284, 0, "3818adcc1326690d"],
        [329, 258, 0, "e2a90b868d71fb40"],
        [420, 362, 0, "51a25619b12048cd"],
    ],
    "failures rejected": [
        [106, 106, 6, "3c3a8cf3161729da"],
        [311, 240, 4, "344d5c403471c067"],
        [365, 302, 6, "05824a7db366cd92"],
        [522, 415, 14, "63ce624a36f7d983"],
    ],
}


def asked(path, folder, generations):
    """The populations by the mpiabc of this path."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, GOLDEN / "digests.py", folder, str(generations)]
    env = environment() | {"PYTHONPATH": str(path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["from"].startswith(str(path))
    return found["populations"]


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return asked(WHEELS[STREAMS], tmp_path_factory.mktemp("before"), 4)


def counts(found):
    names = ("evaluations", "simulations", "failures", "ids")
    return {
        case: [[population[name] for name in names] for population in populations]
        for case, populations in found.items()
    }


def test_populations_are_those_of_the_golden_commit(before, tmp_path):
    assert asked(OURS, tmp_path, 4) == before


def test_files_of_the_golden_commit_are_continued_to_its_populations(before, tmp_path):
    begun = asked(WHEELS[STREAMS], tmp_path, 2)
    assert asked(OURS, tmp_path, 2) == begun
    assert asked(OURS, tmp_path, 4) == before


def test_ids_cuts_and_counts_are_those_that_are_written_down(before):
    assert counts(before) == COUNTS


@pytest.mark.long
def test_ids_cuts_and_counts_were_the_same_before_weights_were_defined_anew(tmp_path):
    """Files from then are read, and not continued, which a sentence says; they keep their weights."""
    first = asked(WHEELS[1], tmp_path, 4)
    assert counts(first) == COUNTS
    for case, populations in first.items():
        kept = list(mpiabc.open(tmp_path / f"{case}.db"))
        assert [population.digest() for population in kept] == [p["digest"] for p in populations]
        assert all(np.all(population.level == population.generation) for population in kept)
    env = environment() | {"PYTHONPATH": str(OURS)}
    command = [sys.executable, GOLDEN / "digests.py", tmp_path, "5"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANGS, check=False)
    assert "StoreError" in done.stderr
    assert f"streams: 1 there, {STREAMS} here" in done.stderr
