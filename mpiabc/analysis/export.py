"""A run for other programs: ArviZ's groups, and files of plain columns."""

import csv
import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mpiabc.analysis.priors import sampled
from mpiabc.analysis.writing import whole
from mpiabc.errors import Error, ProblemError
from mpiabc.named import by_name
from mpiabc.population import Population, beside
from mpiabc.store import History

Path = str | os.PathLike[str]
_ARRAYS = ("ids", "theta", "weights", "distances", "summaries", "model")
Groups = dict[str, dict[str, np.ndarray]]


def inference_data(history: History, draws: int = 1000, seed: int = 0, problem: Any = None) -> Any:
    """`History.to_arviz`."""
    try:
        import arviz
    except ImportError:
        raise ImportError("to_arviz needs arviz: install `mpiabc[arviz]`") from None
    groups: dict[str, Any] = _groups(history, draws, seed, problem)
    if "posterior" in inspect.signature(arviz.from_dict).parameters:  # ArviZ 0.x
        return arviz.from_dict(**groups)
    return arviz.from_dict(groups)


def _groups(history: History, draws: int, seed: int, problem: Any) -> Groups:
    """ArviZ's groups, each a chain of draws of equal weight; of one model."""
    last, rng = _of(history[-1], problem), np.random.default_rng(seed)
    last.check_one("to_arviz")
    rows = _drawn(last, draws, rng)
    groups = {
        "posterior": _chain(dict(zip(last.names, last.theta.T, strict=True)), rows),
        "posterior_predictive": _chain(_data(last), rows),
        "sample_stats": _chain(_stats(last), rows),
    }
    first = sampled(history)
    if first is not None:
        first = _of(first, problem)
        rows = _drawn(first, draws, rng)
        groups["prior"] = _chain(dict(zip(first.names, first.theta.T, strict=True)), rows)
        groups["prior_predictive"] = _chain(_data(first), rows)
    if history.observed is not None and groups["posterior_predictive"]:
        parts = by_name(history.observed[None], history.shapes)
        groups["observed_data"] = {name: np.atleast_1d(part[0]) for name, part in parts.items()}
    return {name: group for name, group in groups.items() if group}


def _of(population: Population, problem: Any) -> Population:
    return population if problem is None else population.of(problem)


def _drawn(population: Population, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Rows by weight, as `Population.resample` draws them."""
    return rng.choice(len(population), size=draws, p=population.weights)


def _chain(columns: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.asarray(column)[rows][None] for name, column in columns.items()}


def _data(population: Population) -> dict[str, np.ndarray]:
    """The accepted simulations by name; none, if none are kept."""
    if not population.shapes or not population.summaries.shape[1]:
        return {}
    return by_name(np.asarray(population.summaries, np.float64), population.shapes)


def _stats(population: Population) -> dict[str, np.ndarray]:
    distance = np.asarray(population.distances)
    return {"distance": distance, "weight": population.weights, "id": population.ids}


# Files.


def exported(history: History, to: str, output: Path, is_all: bool = False, model: Any = None) -> None:
    """Write the last population into a file, or all of them, of one of several models if it is said which.

    Raises ProblemError, and Error for the file.
    """
    if to not in FORMATS:
        raise ProblemError(f"to={to!r}: give {', '.join(map(repr, FORMATS))}")
    if not len(history):
        raise ProblemError(f"{history.path} has no complete generation yet: there is nothing to export")
    if os.path.exists(output) and os.path.samefile(output, history.path):
        raise ProblemError(f"{output} is the run's own file: give another one for what is exported")
    try:
        with whole(output) as path:
            FORMATS[to](history, path, is_all, model)
    except OSError as error:
        raise Error(f"{output} cannot be written: {error.strerror or error}") from None


def _populations(history: History, is_all: bool, model: Any) -> Iterator[Population]:
    """One at a time: thousands need not be in the memory together."""
    return (_of(population, model) for population in (history if is_all else history[-1:]))


def _table(population: Population, is_all: bool) -> dict[str, np.ndarray]:
    columns = population.table()
    if not is_all:
        return columns
    return beside(columns, {"generation": np.full(len(population), population.generation)})


def _csv(history: History, output: Path, is_all: bool, model: Any) -> None:
    """Numbers as Python writes them, to the last bit; holes are nan."""
    with open(output, "w", newline="", encoding="utf-8") as file:
        writer, heading = csv.writer(file), None
        for population in _populations(history, is_all, model):
            columns = _table(population, is_all)
            if heading is None:
                heading = list(columns)
                writer.writerow(heading)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


def _parquet(history: History, output: Path, is_all: bool, model: Any) -> None:
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise Error(
            f"parquet needs pandas and pyarrow, {error.name} is not installed: install both"
        ) from None
    frames = [pandas.DataFrame(_table(p, is_all)) for p in _populations(history, is_all, model)]
    pandas.concat(frames, ignore_index=True).to_parquet(output)


def _netcdf(history: History, output: Path, is_all: bool, model: Any) -> None:
    if is_all:
        raise ProblemError("netcdf has the groups of ArviZ, which are of one population: leave all out")
    try:
        inference_data(history, problem=model).to_netcdf(os.fspath(output))
    except ImportError as error:
        missing = "netcdf needs arviz, and h5netcdf or netCDF4: install `mpiabc[arviz]` and one of these"
        raise Error(f"{missing} ({error})") from None


def _npz(history: History, output: Path, is_all: bool, model: Any) -> None:
    """Arrays by the names that populations have for them; the rows of all generations one after another."""
    populations = list(_populations(history, is_all, model))
    found = {name: [np.asarray(getattr(p, name)) for p in populations] for name in _ARRAYS}
    m = max(parts.shape[1:] for parts in found["distances"])
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in found.items()}
    arrays["generation"] = np.concatenate([np.full(len(p), p.generation) for p in populations])
    arrays["epsilon"] = np.array([np.broadcast_to(p.epsilon, m) for p in populations])
    if models := populations[0].models:
        arrays["models"] = np.array([model.name for model in models])
    else:
        arrays["names"] = np.array(populations[0].names)
    with open(output, "wb") as file:
        np.savez_compressed(file, **arrays)


FORMATS: dict[str, Callable[[History, Path, bool, Any], None]] = {
    "csv": _csv,
    "parquet": _parquet,
    "netcdf": _netcdf,
    "npz": _npz,
}
