"""What rows have that do not know of a column, as those of older files, is said where it is declared."""

import numpy as np
import pytest

from mpiabc.particles import Particles, columns
from mpiabc.store import schema
from tests import problems

GIVEN = {"ids": np.arange(3), "distances": np.ones(3), "log_weights": np.zeros(3)}
GIVEN |= {"theta": np.zeros((3, 2)), "summaries": np.zeros((3, 1))}
LACKING = {name: column for name, column in columns().items() if column.lacking is not None}


def test_columns_may_be_left_out_whose_declaration_says_what_stands_there():
    assert GIVEN.keys() | LACKING.keys() == columns().keys()
    rows = Particles(**GIVEN)
    for name, column in LACKING.items():
        found = getattr(rows, name)
        assert found.dtype == column.dtype
        assert found.shape == ((3, 0) if column.width else (3,))
        assert (found == column.lacking).all()
    for name in GIVEN:
        with pytest.raises(TypeError, match=name):
            Particles(**{other: GIVEN[other] for other in GIVEN if other != name})


def test_a_file_that_lacks_them_is_read(tmp_path):
    """Of which level its particles are, a population knows."""
    population = problems.sampler().run(tmp_path / "run.db", generations=1, scheduler="serial")[0]
    row = schema.row_of(population) | dict.fromkeys(LACKING)
    row["crc"] = schema.crc_of_row(row)
    found = schema.content(row, population.names)
    assert found.digest() == population.digest()
    for name, column in LACKING.items():
        expected = population.generation if name == "level" else column.lacking
        assert (getattr(found, name) == expected).all()
