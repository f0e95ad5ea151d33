"""The read-only view of a run, which checks whatever it reads."""

import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload
from weakref import WeakValueDictionary

import numpy as np

from mpiabc import html
from mpiabc.arguments import whole
from mpiabc.errors import StoreError
from mpiabc.named import Shapes, shapes_from
from mpiabc.particles import Particles
from mpiabc.population import Model, Population, short, unlike
from mpiabc.records import DEATH, Failure, failures_in
from mpiabc.store.files import DamagedError, attempts, damaged
from mpiabc.store.parts import rebuilt
from mpiabc.store.place import place_of, status
from mpiabc.store.schema import (
    ARRAYS,
    NUMBERS,
    columns_of,
    content,
    crc_of,
    crc_of_order,
    lacking,
    reading,
    unpacked_arrays,
    whole_buffers,
    whole_pool,
    whole_sample,
)
from mpiabc.store.sessions import Session, sessions_from
from mpiabc.store.simulations import KeptSimulations, kept_simulations

if TYPE_CHECKING:
    from mpiabc.analysis.posterior import Posterior

_log = logging.getLogger(__name__)

_MOST_SHOWN = 20  # generations in a notebook's table


class History:
    """The committed populations of a run, read-only; safe while the run goes on."""

    problem: Any = None  # the run's, where it was run in this process

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = place_of(path)
        if status(self.path) is None:
            raise StoreError(f"there is no file {os.fsdecode(path)}")
        self._populations: WeakValueDictionary[int, Population] = WeakValueDictionary()
        self._latest: Population | None = None  # kept for who asks again; others while somebody has them
        self.unusable: int | None = None  # the first generation that is left out, with all after it
        len(self)  # it can be read

    def __reduce__(self) -> Any:
        return History, (self.path,)  # it opens the file where it arrives

    def __repr__(self) -> str:
        return f"<History {str(self.path)!r}: {len(self)} generations of {self.problem_name}>"

    def __len__(self) -> int:
        noted = "SELECT value FROM run WHERE key = 'generations'"
        doubtful = "min(CASE WHEN log_evidence IS NULL THEN generation END)"
        query = f"SELECT count(*), max(generation), ({noted}), {doubtful} FROM population"
        for _ in attempts():
            ((count, last, noted, doubtful),) = self.read(query)
            if count == noted == (0 if last is None else last + 1):
                if doubtful is None or not self._is_unusable(doubtful):
                    return count
                return doubtful
        raise DamagedError(self.path, f"{count} generations of {noted} are there")

    @overload
    def __getitem__(self, t: int) -> Population: ...
    @overload
    def __getitem__(self, t: slice) -> list[Population]: ...
    def __getitem__(self, t: int | slice) -> Population | list[Population]:
        """A generation, or, of a slice, a list of some."""
        if isinstance(t, slice):
            return [self[i] for i in range(*t.indices(len(self)))]
        at, n = whole(t), len(self)
        if at is None:
            raise TypeError(f"history[{t!r}]: give the whole number of one generation, or a slice of them")
        if not -n <= at < n:
            raise IndexError(f"generation {at} of {n} committed ones")
        generation = at % n
        population = self._populations.get(generation)
        if population is None:
            population = self._populations[generation] = self._load(generation)
        self._latest = population
        return population

    def __iter__(self) -> Iterator[Population]:
        return (self[t] for t in range(len(self)))

    def order(self, level: int) -> tuple[str, list[np.ndarray]] | None:
        """What was decided for a level, as JSON and arrays; None if the file does not have it whole."""
        with reading(self.path) as db:
            if "level" not in columns_of(db, "orders"):
                return None  # a file of an older mpiabc
        for crc, text, arrays in self.read("SELECT crc, told, arrays FROM orders WHERE level = ?", level):
            # It may be of any type, and say any size.
            with suppress(AttributeError, TypeError, ValueError, MemoryError):
                if crc == crc_of_order(text, arrays):
                    return text, unpacked_arrays(arrays)
        return None

    def sample(self, generation: int) -> Particles | None:
        """The sample of a generation's simulations; None if it has none here. Raises DamagedError."""
        with reading(self.path) as db:
            if "generation" not in columns_of(db, "sample"):
                return None  # a file of an older mpiabc
        query = "SELECT crc, widths, rows FROM sample WHERE generation = ?"
        for row in self.read(query, generation):
            if (found := whole_sample(*row)) is None:
                raise DamagedError(self.path, f"the sample of generation {generation}")
            return found
        return None

    def pool(self, generation: int) -> list[np.ndarray] | None:
        """How all simulations are weighted and measured after a batch of `ABCAMIS`; None if it is of none.

        log prior (n,), log sum_t n_t q_t (n,), and distances (n,) as they were measured then, in the order of
        `simulations`. Raises DamagedError.
        """
        with reading(self.path) as db:
            if "generation" not in columns_of(db, "pool"):
                return None  # a file of an older mpiabc
        for row in self.read("SELECT crc, arrays FROM pool WHERE generation = ?", generation):
            if (found := whole_pool(*row)) is None:
                raise DamagedError(self.path, f"the weights of all simulations after batch {generation}")
            return found
        return None

    @property
    def partial(self) -> Population | None:
        """What was accepted of the generation that a budget has ended the run inside of, or None.

        `simulations=` and `acceptance_rate=` end a run so: what lies below the last id that the budget
        allows meets that generation's epsilon, and has weights that sum to 1; it is fewer particles than a
        generation has. It is no generation: neither among these nor in a digest, and it is gone when the run
        goes on. Every scheduler finds the same; what a signal or the walltime ends leaves none, nor does
        static scheduling, where what is known by then depends on time.
        """
        known = self.partial_level()
        return None if known is None else self._load(known["level"], "partial")

    @property
    def simulations(self) -> KeptSimulations:
        """All simulations of a run with keep="all"; raises StoreError for other runs."""
        return kept_simulations(self)

    def partial_level(self) -> Any:
        """What is known of the generation that a budget has ended: its level, and the ids drawn in it."""
        return self._json("partial", "null")

    @property
    def reason(self) -> str | None:
        """What ended the run: a stopping rule, or "interrupted: ..." or "failed: ..."; None: it goes on.

        "threshold": it has no more, as a list at its end; "threshold: no distance is smaller": a quantile
        cannot fall; "threshold: all particles meet the next one": where evaluations are recycled, nothing
        new is needed. Older files have "threshold" for all of these.

        None too after a death that left no time to write; the run can be continued after all of these.
        """
        return self._setting("reason")

    @property
    def notes(self) -> dict[str, str]:
        """What was reported of the run, by topic."""
        return self._json("notes", "{}")

    @property
    def warnings(self) -> list[str]:
        """What casts doubt on the run, such as a collapse, each reported once."""
        return [note for topic, note in self.notes.items() if topic != DEATH]

    @property
    def deaths(self) -> dict[str, int]:
        """How often a process died, of whatever, that was at these evaluations."""
        return json.loads(self._setting("deaths", "{}"))

    @property
    def problem_name(self) -> str:
        """The name of the problem."""
        return self._setting("problem_name") or ""

    @property
    def settings(self) -> dict[str, Any]:
        """What the run was begun with."""
        return self._json("settings")

    @property
    def sessions(self) -> list[Session]:
        """How, when and where the run was begun and gone on with, in this order; none of older files."""
        try:
            return sessions_from(self._json("sessions", "[]"))
        except (TypeError, AttributeError):
            raise DamagedError(self.path, "its sessions") from None

    @property
    def observed(self) -> np.ndarray | None:
        """The observed data as the row (k,) that `summaries` are compared with; None in older files."""
        row = self._setting("observed", None)
        return None if row is None else np.frombuffer(row, np.float64)

    @property
    def labels(self) -> list[str] | None:
        """A name for each number of a row of `summaries`; None in older files, and for very long rows."""
        return self._json("labels", "null")

    @property
    def shapes(self) -> Shapes:
        """The names of simulated data, each with its shape; of older files, as far as labels tell."""
        found = self._json("shapes", "null")
        if found is None:
            return shapes_from(self.labels or ())
        return tuple((name, tuple(shape)) for name, shape in found)

    @property
    def shares(self) -> dict[int, float]:
        """The share of the workers' time in which they simulated, by generation; older files lack it."""
        return {int(t): share for t, share in self._json("shares", "{}").items()}

    @property
    def bounds(self) -> list[list[float] | None] | None:
        """The ends of each parameter's support, None where they are not known."""
        return self._json("bounds", "null")

    @property
    def supports(self) -> list[dict[str, Any] | None] | None:
        """What plain data say of the support of the prior, or of each model's; None in older files.

        A None among it: they do not say all, as there is a constraint, a choice, or a foreign prior.
        """
        return self._json("support", "null")

    def posterior(self, t: int = -1, *, problem: Any = None, seed: int = 0) -> "Posterior":
        """The posterior of a generation, as a density: adjusted by regression and smoothed.

        How, or whether it is adjusted at all, is chosen by the density of simulations that are held out, see
        `method` and `scores` of what is returned. It is the same in every process for one seed, and lies
        inside of the prior's support.

        problem: of several models, the one that is meant, or its name or index; and the run's, where the file
        does not say all of the prior's support: the error says so. Raises ProblemError for another one.

        Of a run with keep="all" the last one, t = -1, is made of all simulations, `simulations.weighted()`,
        and any other t of that population alone.
        """
        from mpiabc.analysis.gathered import of_population
        from mpiabc.analysis.posterior import fit

        if t == -1 and self.settings.get("keep") == "all":
            return fit(self.simulations.weighted(problem), seed)
        return fit(of_population(self, t, problem), seed)

    def part(self, name: str, *, trust: bool = False, instead: str = "") -> Any:
        """The run's "problem", "kernel" or "threshold"; executes code that the file holds, if you trust it.

        instead: what else could be given, for who does not.

        Raises StoreError if you do not, if the file does not hold it, or if it cannot be rebuilt here.
        """
        blob = self._setting(f"part {name}", None)
        if blob is None:
            more = f": give {instead}" if instead else ""
            raise StoreError(f"{self.path} does not hold its {name}, which could not be pickled{more}")
        if not trust:
            more = f", or {instead}" if instead else ""
            raise StoreError(
                f"this would execute the {name} that {self.path} holds: give trust=True if you trust whoever "
                f"made that file{more}"
            )
        return rebuilt(blob, name, self.path)

    @property
    def failures(self) -> list[Failure]:
        """Failed evaluations by address: below the cuts, of the open generation, and what ended the run.

        Where workers look ahead, those below the cuts: which level others will be of is not decided.
        """
        rows = self.read(
            "SELECT generation, id, theta, error, traceback, place, kind FROM failure ORDER BY generation, id"
        )
        is_decided = not self.settings.get("lookahead")
        journal = self.read("SELECT crc, records FROM journal") if is_decided else []
        try:
            kept = [Failure(t, id, json.loads(theta), *rest) for t, id, theta, *rest in rows]
            noted = [failure for buffer in whole_buffers(journal) for failure in failures_in(buffer)]
        except (TypeError, ValueError) as error:
            raise DamagedError(self.path, f"its failures: {error}") from None
        by_address = {(failure.generation, failure.index): failure for failure in noted + kept}
        return [by_address[address] for address in sorted(by_address)]

    def predict(self, n: int = 1000, **options: Any) -> Any:
        """`n` simulations from a population, on any scheduler: a `Prediction`, (n, ...) by name.

        options: t=-1, the generation; problem=, that of the run or one that simulates something else of the
        same parameters, such as more days, or trust=True, to execute the one that the file holds;
        scheduler="auto"; seed=0, another one for other simulations: they are the same each time, on any
        scheduler. theta=(n, d) are parameters of your own in the place of particles. raw=True: what
        `simulate` returns, not what `summarize` makes of it. Noise models add nothing to it. A simulation
        that fails is raised, or nan where the problem rejects failures. Under MPI all ranks call it, of
        `mpiabc.open`; those that do not lead get None. The file stays as it is.

        Raises ProblemError and StoreError before any work.
        """
        from mpiabc.analysis.predict import predicted

        return predicted(self, n, **options)

    def to_dataframe(self) -> Any:
        """All populations in one pandas data frame, with the generation as a column.

        Where a parameter is called so itself, the column is `generation_`.
        """
        names, models = self.models()
        name = unlike([*names, *(name for model in models for name in model.names)], "generation")
        frames = [population.to_dataframe().assign(**{name: t}) for t, population in enumerate(self)]
        import pandas

        return pandas.concat(frames, ignore_index=True)

    def to_arviz(self, draws: int = 1000, seed: int = 0, *, problem: Any = None) -> Any:
        """The last population, resampled to equal weights, as ArviZ has it: InferenceData, or a DataTree.

        Groups: posterior, posterior_predictive (the accepted simulations), observed_data, sample_stats, and,
        where the first generation let everything through, prior and prior_predictive. problem: the one of
        several models.
        """
        from mpiabc.analysis.export import inference_data

        return inference_data(self, draws, seed, problem)

    def _repr_html_(self) -> str:
        n, heading = len(self), ["generation", "epsilon", "particles", "ess", "acceptance rate", "seconds"]
        rows = [
            [
                str(p.generation),
                short(p.epsilon),
                str(len(p)),
                f"{p.ess:.0f}",
                f"{p.acceptance_rate:.3g}",
                f"{p.seconds:.3g}",
            ]
            for p in self[-_MOST_SHOWN:]
        ]
        shown = f", the last {_MOST_SHOWN} of them" if n > _MOST_SHOWN else ""
        return html.table(heading, rows, f"{self!r}{shown}; {self.reason or 'not finished'}")

    def _is_unusable(self, generation: int) -> bool:
        """Whether a generation without evidence is as it was written: nan weights were let pass once."""
        if generation != self.unusable:
            row = next(self._rows(generation), {})
            if not row or content(row | {"log_evidence": math.nan}, *self.models()) is None:
                return False  # it is damaged, which is reported when it is read
            self.unusable = generation
            _log.warning(
                "%s: the weights of generation %d are no numbers, as prior or kernel gave nan or infinite "
                "densities: it is left out, with all after it",
                self.path,
                generation,
            )
        return True

    def _load(self, generation: int, table: str = "population") -> Any:
        """A population, checked by its digest: a reader without locks may meet a half-written file.

        None if the table of partial ones has none.
        """
        models = self.models()
        more = {"columns_of_distances": self.names_of_distances(), "shapes": self.shapes}
        for _ in attempts():
            row: dict[str, Any] = {}
            for row in self._rows(generation, table):
                population = content(row, *models)
                if population is not None:
                    return population.with_values(**more)
        if not row and table == "partial":
            return None
        if not row:
            raise StoreError(f"{self.path} does not hold generation {generation} any more: open it again")
        raise DamagedError(
            self.path, f"the content of generation {generation} does not have the digest stored with it"
        )

    def names_of_distances(self) -> tuple[str, ...]:
        """The names of several distances, if they have names."""
        return tuple(self._json("distances", "[]"))

    def _rows(self, generation: int, table: str = "population") -> Iterator[dict[str, Any]]:
        """The row of a generation, if it is there."""
        names = (*NUMBERS, *ARRAYS, "digest", "crc")
        with reading(self.path) as db:
            there = columns_of(db, table)
        asked = (name if name in there else f"NULL AS {name}" for name in names)
        query = f"SELECT {', '.join(asked)} FROM {table} WHERE generation = ?"
        return (dict(zip(names, values, strict=True)) for values in self.read(query, generation))

    def models(self) -> tuple[tuple[str, ...], tuple[Model, ...]]:
        """The names of the parameters, or, where models are several, what populations know of these."""
        settings = self.settings
        models = (Model(name, tuple(names), share) for name, names, share in settings.get("models") or ())
        return tuple(settings["names"]), tuple(models)

    def _setting(self, key: str, *default: Any) -> Any:
        for _ in attempts():
            rows = self.read("SELECT value, crc FROM run WHERE key = ?", key)
            if not rows and default:
                return default[0]
            if rows and crc_of(rows[0][0]) == rows[0][1]:
                return rows[0][0]
        raise DamagedError(self.path, f"its {key} {'is not what was written' if rows else 'is missing'}")

    def _json(self, key: str, *default: str) -> Any:
        try:
            return json.loads(self._setting(key, *default))
        except (TypeError, ValueError, RecursionError) as error:
            raise DamagedError(self.path, f"its {key}: {type(error).__name__}") from None

    def read(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query of the file gives."""
        with reading(self.path) as db:
            return db.execute(query, values).fetchall()


def damage(path: Path) -> str | None:
    """What SQLite's check of a whole file, or our own checksums, find damaged; None if nothing."""
    try:
        with reading(path) as db:
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            found = (lacking(db) or found) if found == "ok" else found
        if found != "ok":
            raise damaged(path, found.splitlines()[-1])
        history = History(path)
        _ = history.settings, history.reason, history.problem_name, history.failures
        deque(history, maxlen=0)  # each is read, none is kept
        deque(map(history.sample, range(len(history))), maxlen=0)
        deque(map(history.pool, range(len(history))), maxlen=0)
        _ = history.partial
        deque(history.simulations if history.settings.get("keep") == "all" else (), maxlen=0)
    except DamagedError as error:
        return error.found
    except StoreError:  # it cannot be read now, which is no damage
        pass
    return None
