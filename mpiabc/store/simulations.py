"""All simulations of a run that keeps all, read from its file a generation at a time."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mpiabc.arguments import whole
from mpiabc.errors import StoreError
from mpiabc.simulations import COLUMNS, Simulations, joined
from mpiabc.store.files import DamagedError
from mpiabc.store.schema import whole_chunk

if TYPE_CHECKING:
    from mpiabc.analysis.weighted import Weighted


_MOST_KEPT = 1 << 28  # bytes of rows that are kept for the next column


class KeptSimulations:
    """The simulations of a run with keep="all", read-only; safe while the run goes on.

    Rows of all generations, in the order of level and id: exactly the ids below the cuts, at the level that
    they were tried at, and where a budget has ended the run inside of a generation, of that one those below
    the budget's end, until the run goes on. What failed, or was rejected without data, is no row. Each of
    `theta`, `summaries`, `distances`, `ids`, `level`, `model`, `accepted` is that column of all of them; who
    asks for several keeps this object, `s = history.simulations`, which reads up to 256 MB once;
    `for rows in history.simulations` has one generation in memory at a time, `history.simulations[t]` is
    generation t. Others are fed in one line:

        inference.append_simulations(torch.tensor(s.theta), torch.tensor(s.summaries))   # sbi, s: these
    """

    def __init__(self, history: Any) -> None:
        self.history = history
        self._kept: dict[int, tuple[Any, Simulations]] = {}  # by generation, with what tells it from another

    def __repr__(self) -> str:
        return f"<{len(self)} simulations of {self.history!r}>"

    def __len__(self) -> int:
        chunks = self.history.read("SELECT told FROM simulation")
        return sum(int(json.loads(text)["m"]) for (text,) in chunks)

    def __getitem__(self, t: int) -> Simulations:
        at, n = whole(t), self.levels
        if at is None or not -n <= at < n:
            raise IndexError(f"simulations of generation {t!r}: there are those of {n} generations")
        return self._load(at % n)

    def __iter__(self) -> Iterator[Simulations]:
        return (self._load(t) for t in range(self.levels))

    @property
    def levels(self) -> int:
        """How many generations there are, one that a budget has ended among them."""
        return len(self.tried)

    @property
    def tried(self) -> tuple[int, ...]:
        """How many ids were drawn in each generation, those outside of the prior's support among them."""
        counts = [
            int(n) for (n,) in self.history.read("SELECT evaluations FROM population ORDER BY generation")
        ]
        counts = counts[: len(self.history)]
        partial = self.history.partial_level()
        return (
            (*counts, partial["evaluations"])
            if partial and partial["level"] == len(counts)
            else tuple(counts)
        )

    @property
    def theta(self) -> np.ndarray:
        """(n, d)."""
        return self._column("theta")

    @property
    def summaries(self) -> np.ndarray:
        """(n, k)."""
        return self._column("summaries")

    @property
    def distances(self) -> np.ndarray:
        """(n,), or (n, m) of several, as the distance of the level measured them."""
        return self._column("distances")

    @property
    def ids(self) -> np.ndarray:
        """(n,)."""
        return self._column("ids")

    @property
    def level(self) -> np.ndarray:
        """(n,): the generation whose proposal drew it."""
        return self._column("level")

    @property
    def model(self) -> np.ndarray:
        """(n,): the index of one of several models."""
        return self._column("model")

    @property
    def accepted(self) -> np.ndarray:
        """(n,) booleans."""
        return self._column("accepted")

    def rows(self) -> Simulations:
        """All of them at once."""
        return joined(list(self))

    def to_dataframe(self) -> Any:
        """All of them in one pandas data frame: parameters, distance, generation, id, accepted."""
        return self.rows().to_dataframe()

    def weighted(self, problem: Any = None) -> "Weighted":
        """All of them with their weights under the mixture of all proposals: what `posterior` is made of.

        problem: as `History.posterior` takes it. It takes the time of n N T kernels: n simulations, N
        particles in each of T generations. Raises ProblemError for densities that may not be normalised.
        """
        from mpiabc.analysis.pooled import weighted

        return weighted(self.history, problem)

    def _column(self, name: str) -> np.ndarray:
        parts = [getattr(rows, name) for rows in map(self._once, range(self.levels)) if len(rows)]
        return np.concatenate(parts) if parts else getattr(self.rows(), name)

    def _once(self, generation: int) -> Simulations:
        """Those of a generation, kept from one column to the next as far as they are not too many."""
        query = "SELECT chunk, crc FROM simulation WHERE generation = ? ORDER BY chunk"
        mark = self.history.read(query, generation)
        if generation in self._kept and self._kept[generation][0] == mark:
            return self._kept[generation][1]
        self._kept.pop(generation, None)
        rows = self._load(generation)
        if sum(map(_bytes_of, [rows, *(kept for _, kept in self._kept.values())])) <= _MOST_KEPT:
            self._kept[generation] = mark, rows
        return rows

    def _load(self, generation: int) -> Simulations:
        """Those of a generation. Raises DamagedError for a chunk that is not what was written, or missing."""
        query = "SELECT chunk, crc, told, rows FROM simulation WHERE generation = ? ORDER BY chunk"
        parts, found = [], self.history.read(query, generation)
        for chunk, *row in found:
            part = whole_chunk(generation, *row)
            if part is None:
                raise DamagedError(
                    self.history.path, f"chunk {chunk} of the simulations of generation {generation}"
                )
            parts.append(part)
        self._check_whole(generation, [(chunk, header) for chunk, _, header, _ in found])
        return replace(joined(parts), **self._names())

    def _check_whole(self, generation: int, found: list[tuple[int, str]]) -> None:
        expected = json.loads(found[0][1])["of"] if found else 1
        missing = set(range(expected)) - {chunk for chunk, _ in found}
        if missing:
            raise DamagedError(
                self.history.path,
                f"chunk {min(missing)} of the simulations of generation {generation} is missing",
            )

    def _names(self) -> dict[str, Any]:
        names, models = self.history.models()
        return {"names": names, "models": models, "columns_of_distances": self.history.names_of_distances()}


def _bytes_of(rows: Simulations) -> int:
    return sum(getattr(rows, name).nbytes for name in COLUMNS)


def kept_simulations(history: Any) -> KeptSimulations:
    """Those of a run. Raises StoreError for one that keeps what is accepted alone."""
    keep = history.settings.get("keep") or "accepted"
    if keep != "all":
        raise StoreError(
            f'{history.path} holds what was accepted, keep={keep!r}: a run with keep="all" keeps all '
            "simulations; begin one in another file"
        )
    return KeptSimulations(history)
