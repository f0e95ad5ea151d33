"""All simulations: rows of evaluations that were simulated, accepted or not, as a run keeps them.

They are what the ids below the last cut came to, at the level that these were tried at: what lies above it
was simulated or not as time would have it, and is no part of them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpiabc.particles import Particles
from mpiabc.population import Model, beside, distances_by_name, theta_by_name

_CHUNK = 1 << 22  # bytes of rows that lie together in a file


@dataclass(frozen=True, eq=False)
class Simulations:
    """Simulated evaluations, n rows in the order of level and id.

    theta (n, d), distances (n,), or (n, m) of several, summaries (n, k), ids (n,), level (n,): the generation
    whose proposal drew it, model (n,): the index of one of several, accepted (n,): whether its distance met
    the threshold of its level, or the noise let it pass. Failures and rejections without data are no rows.
    """

    ids: np.ndarray
    theta: np.ndarray
    distances: np.ndarray
    summaries: np.ndarray
    model: np.ndarray
    level: np.ndarray
    accepted: np.ndarray
    names: tuple[str, ...] = ()
    models: tuple[Model, ...] = ()  # none, where there is one
    columns_of_distances: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"<Simulations: {len(self)}, of which {int(self.accepted.sum())} were accepted>"

    def take(self, rows: np.ndarray) -> "Simulations":
        """Those of an index, or where a mask is true, in arrays of their own."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        return replace(self, **{name: getattr(self, name).take(index, axis=0) for name in COLUMNS})

    def to_dataframe(self) -> Any:
        """A pandas data frame: a column a parameter, then distance, generation, id, accepted.

        Names are those of a population's data frame; summaries are a table of their own.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_dataframe needs pandas: install `mpiabc[pandas]`") from None
        distances = distances_by_name(self.distances, self.columns_of_distances)
        ours = {**distances, "generation": self.level, "id": self.ids, "accepted": self.accepted}
        return pandas.DataFrame(beside(theta_by_name(self), ours))


COLUMNS = ("ids", "theta", "distances", "summaries", "model", "level", "accepted")


_OF_ROWS = ("theta", "distances", "summaries", "model")  # columns that particles have, too


def of_rows(parts: Sequence[tuple[Particles, bool]], generation: int) -> Simulations:
    """Rows of one generation, each part accepted or not, one part after another."""
    rows = [part for part, _ in parts]
    ids = np.concatenate([part.ids for part in rows]) if rows else np.empty(0, np.int64)
    columns: dict[str, Any] = {name: _joined(rows, name) for name in _OF_ROWS}
    return Simulations(
        ids=ids,
        **columns,
        level=np.full(len(ids), generation),
        accepted=np.repeat([is_accepted for _, is_accepted in parts], list(map(len, rows))).astype(bool),
    )


def _joined(rows: Sequence[Particles], name: str) -> np.ndarray:
    if rows:
        return np.concatenate([getattr(part, name) for part in rows])
    return np.empty(0, np.int64) if name == "model" else np.empty((0, 0) if name != "distances" else 0)


def joined(parts: Sequence[Simulations]) -> Simulations:
    """All rows, one part after another; there is at least one part. Parts without rows say no widths."""
    full = [part for part in parts if len(part)] or [parts[0]]
    columns: dict[str, Any] = {n: np.concatenate([getattr(part, n) for part in full]) for n in COLUMNS}
    return replace(full[0], **columns)


def bytes_of_row(d: int, k: int, c: int = 0, *, narrow: bool = False, models: int = 1) -> int:
    """What a simulation takes in a file: d parameters, k statistics, c distances if these are several."""
    return 8 * (1 + d + max(1, c) + (models > 1)) + (4 if narrow else 8) * k + 1


def chunks(rows: Simulations) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What of rows lies together in a file: what says how to read it, and the columns as one buffer."""
    d, k, c = (
        rows.theta.shape[1],
        rows.summaries.shape[1],
        0 if rows.distances.ndim == 1 else rows.distances.shape[1],
    )
    several, narrow = bool(rows.model.any()), rows.summaries.dtype == np.float32
    step = max(1, _CHUNK // bytes_of_row(d, k, c, narrow=bool(narrow), models=1 + several))
    of = max(1, -(-len(rows) // step))
    for start in range(0, max(1, len(rows)), step):
        part = slice(start, start + step)
        columns = [getattr(rows, name)[part] for name in _packed(several)]
        header = {"m": len(columns[0]), "of": of, "d": d, "k": k, "c": c}
        header |= {"model": several, "narrow": bool(narrow)}
        yield header, b"".join(np.ascontiguousarray(column).tobytes() for column in columns)


def read(header: dict[str, Any], buffer: bytes, generation: int) -> Simulations:
    """The inverse of what `chunks` made. Raises ValueError for what it did not make."""
    m, at = int(header["m"]), 0
    columns: dict[str, Any] = {}
    for name in _packed(header["model"]):
        dtype, shape = _layout(name, m, header)
        array: np.ndarray = np.frombuffer(buffer, dtype, math.prod(shape), at)
        columns[name], at = array.reshape(shape), at + array.nbytes
    if at != len(buffer):
        raise ValueError(f"{len(buffer)} bytes of {m} simulations, expected {at}")
    columns.setdefault("model", np.zeros(m, np.int64))
    return Simulations(level=np.full(m, generation), **columns)


def _packed(several: bool) -> tuple[str, ...]:
    """The columns of a buffer, in their order."""
    return "ids", "theta", "distances", "summaries", *(["model"] if several else []), "accepted"


def _layout(name: str, m: int, header: dict[str, Any]) -> tuple[type, tuple[int, ...]]:
    """The type and the shape of a column."""
    match name:
        case "theta":
            return np.float64, (m, header["d"])
        case "summaries":
            return np.float32 if header["narrow"] else np.float64, (m, header["k"])
        case "distances":
            return np.float64, (m, header["c"]) if header["c"] else (m,)
        case "accepted":
            return np.bool_, (m,)
    return np.int64, (m,)
