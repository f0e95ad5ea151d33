"""Problem: prior, simulator, observed data, summary and distance; what one sends to a colleague."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from mpiabc import calls, mapped
from mpiabc.arguments import described_fields, real, refuse_class, refuse_text, whole
from mpiabc.command import Command
from mpiabc.distances import PNorm, Returned, RowDistance, is_adaptive, measures_rows, of_data
from mpiabc.errors import ProblemError
from mpiabc.fingerprint import Fingerprint, code_differences, fingerprint
from mpiabc.fingerprint.words import in_words
from mpiabc.kept import Kept, Nothing, holds_numbers, kept_of
from mpiabc.layout import shown
from mpiabc.named import shapes_of
from mpiabc.particles import Particles
from mpiabc.population import Model
from mpiabc.priors.marginals import Adapted
from mpiabc.priors.prior import JointPrior, Prior
from mpiabc.protection import protected
from mpiabc.streams import BLOCK
from mpiabc.structure import Data, Structure, description_of

#: Keyword-only parameters that a simulator may declare, each passed by name.
EXTRAS = ("epsilon", "id", "comm")


_MOST_LABELS = 100_000  # of numbers, beyond which they would be larger than these
_AT_ONCE = (
    1 << 17
)  # numbers that are copied for a digest: ranks of a node may share what they are copied from


class _Reject:
    """What a simulator returns for a rejection, whatever epsilon is; there is one, in every process."""

    def __repr__(self) -> str:
        return "mpiabc.REJECT"

    def __reduce__(self) -> str:
        return "REJECT"


REJECT = _Reject()


class EvaluationId(NamedTuple):
    """The address of an evaluation; `index` is an array for a vectorised simulator."""

    generation: int
    index: Any

    def __str__(self) -> str:
        return f"{self.generation}:{self.index}"


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be inferred.

    prior: a `Prior`, a dict of what one is made of, or anything with names, sample(n, rng) and logpdf(theta).

    simulate(theta, rng) returns a float, an array, or a dict of them, or `mpiabc.REJECT`; `theta` maps names
    to floats, `rng` is the numpy Generator of this evaluation alone. Written simulate(theta), it finds
    NumPy's and Python's global generators seeded for the evaluation. Keyword-only parameters that it
    declares are passed by name: `epsilon`, the threshold in force (None rejects too, then), `id`, the
    evaluation's address, and `comm`, the communicator of the ranks that simulate this together, see
    `schedulers.MPI(team=)`. With `vectorized=True`, `theta[name]` is an array (n,) and every returned
    array has n as its first axis; `summarize` then gets whole blocks too, `distance` single rows. n is at
    most 256; with `batch`, a multiple of 256, every call has exactly so many rows, so that what is compiled
    for a shape is compiled once: rows outside of the prior's support repeat the first one inside, and what
    comes back for them is dropped. A call that raises is then one failure, that of its batch.

    observed, of which a copy is kept, has the structure of what `simulate`, or `summarize` after it, returns.
    `distance` is a callable (simulated, observed) -> float, or has `rows`, see `distances.RowDistance`. A
    callable may compare anything: where observed data are no numbers, or `summarize` gives them other names,
    it gets what `simulate` returned, and only what `summarize` makes of that, if there is one, is kept; where
    they are numbers, simulated data may have more keys, and what has not the observed form is kept as nan.
    Without observed data the simulator returns its distance. `summarize(data)` may declare a keyword-only
    `rng`, which goes on where `simulate` has left it.

    on_error: "raise" ends the run with the worker's traceback, "reject" counts a failed evaluation as a
    rejection, an int k ends the run at the k-th.

    Raises ProblemError for a part that cannot work.
    """

    prior: JointPrior
    simulate: Callable[..., Data]
    observed: Data = None
    summarize: Callable[..., Data] | None = None
    distance: Callable[[Data, Data], float] | RowDistance | None = None
    vectorized: bool = False
    batch: int | None = None
    on_error: str | int = "raise"
    timeout: float | None = None
    name: str | None = None
    fingerprint: Fingerprint = field(init=False, repr=False)
    is_raw: bool = field(default=False, init=False, repr=False)  # the distance gets what `simulate` returned
    example: Data = field(default=None, init=False, repr=False)  # then: of what is kept

    def __init__(
        self,
        prior: JointPrior,
        simulate: Callable[..., Data],
        observed: Data = None,
        *,
        summarize: Callable[..., Data] | None = None,
        distance: Callable[[Data, Data], float] | RowDistance | None = None,
        vectorized: bool = False,
        batch: int | None = None,
        on_error: str | int = "raise",
        timeout: float | None = None,
        name: str | None = None,
    ) -> None:
        values = {key: value for key, value in locals().items() if key != "self"}
        values["prior"] = Prior(prior) if isinstance(prior, Mapping) else prior
        if distance is None:
            values["distance"] = Returned() if observed is None else PNorm()
        values["name"] = getattr(simulate, "__name__", type(simulate).__name__) if name is None else name
        values["observed"] = protected(observed)()
        for key, value in values.items():
            object.__setattr__(self, key, value)
        _check(self)
        # Before the first evaluation, so that counters agree; it travels along, for `arrived`.
        object.__setattr__(self, "fingerprint", self.fingerprint_here())
        _decide_what_is_kept(self)

    def fingerprint_here(self) -> Fingerprint:
        """Code and values of the parts as they are in this process, now."""
        parts = ["simulate", "summarize", "distance", "prior"]
        parts += [] if holds_numbers(self.observed) else ["observed"]
        return fingerprint(**{name: getattr(self, name) for name in parts})

    def arrived(self) -> "Problem":
        """This problem, which has come from another process; raises ProblemError for other code here."""
        arrived(self)
        return self

    # How a problem of several models, `models.Models`, says the same.

    @property
    def models(self) -> "tuple[Problem, ...]":
        """The problems that rows are of: this one."""
        return (self,)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters."""
        return tuple(self.prior.names)

    @property
    def named_models(self) -> tuple[Model, ...]:
        """What populations know of several models: there are none."""
        return ()

    @property
    def width(self) -> int:
        """Parameters of a row."""
        return len(self.prior.names)

    def split(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Drawn rows as columns of particles."""
        return {"theta": x}

    def joint(self, rows: Particles) -> np.ndarray:
        """Particles as rows that were drawn."""
        return rows.theta

    def measured_by(self, distance: Any) -> "Problem":
        """The same with another distance."""
        return dataclasses.replace(self, distance=distance)

    def named(self, x: np.ndarray) -> dict[str, Any]:
        """The parameters of a drawn row, by name."""
        return shown(self.prior, x.tolist())

    @property
    def step(self) -> int:
        """Ids that one call evaluates: leases are multiples of it."""
        if self.batch is not None:
            return self.batch
        return BLOCK if self.vectorized else 1

    @property
    def structure(self) -> Structure | Nothing:
        """The structure of what is kept of simulated data, and, if they are numbers, of the observed ones."""
        if not self.is_raw:
            return Structure(self.observed if self.observed is not None else 0.0)
        if self.example is not None:
            return Structure(self.example)
        return Nothing("its distance" if self.observed is None else description_of(self.observed))

    @property
    def observed_row(self) -> np.ndarray:
        """The observed data as a row (k,) of what is kept of them."""
        data = self.example if self.is_raw else self.observed
        return self.structure.row(0.0 if data is None else data)

    def plain(self) -> dict[str, Any]:
        """What a file says of it as plain data: the observed row, labels, shapes, bounds and support.

        The support is a list, with one for each of several models.
        """
        structure = Nothing("") if self.observed is None else self.structure
        has_labels = structure.size <= _MOST_LABELS
        bounds = self.prior.bounds() if isinstance(self.prior, Prior) else None
        return {
            "observed": self.observed_row[: structure.size],
            "labels": structure.labels() if has_labels else None,
            "shapes": shapes_of(structure),
            "bounds": bounds,
            "support": [self.prior.plain_support() if isinstance(self.prior, Prior) else None],
        }

    def parts(self) -> dict[str, str]:
        """Each part as text that is the same in every process; the rest is `fingerprint`."""
        return {
            "parameter names": ", ".join(self.prior.names),
            "prior": described(self.prior),
            "observed data": _described_data(self.observed),
            "simulator": described(self.simulate),
            "summary": described(self.summarize),
            "distance": described(self.distance),
            "vectorized": f"{self.vectorized}{'' if self.batch is None else f', batch={self.batch}'}",
        }


def arrived(problem: Any) -> None:
    """Raise ProblemError if a problem, or models, from another process have other code here.

    Functions of modules travel by name: what a worker finds under it may be another version.
    """
    different = code_differences(problem.fingerprint, problem.fingerprint_here())
    if different:
        raise ProblemError(
            f"the problem's code is not the leading process's here: {'; '.join(in_words(different))}; bring "
            "both to one version of your modules"
        )


class Signature(NamedTuple):
    """What a simulator wants to be called with, besides theta."""

    takes_rng: bool
    extras: tuple[str, ...]  # of EXTRAS


def signature(simulate: Callable[..., Data]) -> Signature:
    """How to call the simulator. Raises ProblemError for parameters that we cannot fill."""
    known = calls.signatures(simulate)
    if not known:
        return Signature(True, ())  # a builtin that does not tell: call it with (theta, rng)
    found = next(filter(None, map(_filled, known)), None)
    if found is None:
        raise ProblemError(
            f"the simulator is {getattr(simulate, '__name__', simulate)}{known[0]}, expected simulate(theta, "
            "rng) or simulate(theta), with keyword-only epsilon, id or comm where wanted"
        )
    return found


def _filled(signature: inspect.Signature) -> Signature | None:
    """What is passed by this signature; None if it has parameters that we cannot fill."""
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    second = positional[1] if len(positional) > 1 else None
    takes_rng = takes_any if second is None else second.default is second.empty or second.name == "rng"
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    required = [p.name for p in positional[2:] if p.default is p.empty]
    required += [p.name for p in named if p.default is p.empty and p.name not in EXTRAS]
    if required or not (positional or takes_any):
        return None
    return Signature(takes_rng, tuple(p.name for p in named if p.name in EXTRAS))


def _check_prior(prior: object) -> None:
    if not isinstance(prior, JointPrior) or isinstance(prior, type):
        raise ProblemError(
            f"the prior is {prior!r}, expected mpiabc.Prior(name=distribution, ...) or an object with "
            "names, sample(n, rng) and logpdf(theta)"
        )
    if isinstance(prior.names, str) or not all(isinstance(name, str) for name in prior.names):
        raise ProblemError(f"the names of the prior are {prior.names!r}, expected a tuple of text")
    if not prior.names:
        raise ProblemError("the prior is empty: it names no parameters")


def _check(problem: Problem) -> None:
    _check_prior(problem.prior)
    refuse_text("distance", problem.distance, "mpiabc.PNorm()")
    for role in ("simulate", "distance", "summarize"):
        value = getattr(problem, role)
        if measures_rows(value):
            refuse_class(role, value, "rows")
        elif isinstance(value, type) and _has_call(value):
            refuse_class(role, value)
        is_there = callable(value) or (role == "distance" and measures_rows(value))
        if not is_there and not (role == "summarize" and value is None):
            raise ProblemError(f"{role} is {value!r}, expected a callable")
    signature(problem.simulate)
    _check_calls(problem)
    if (
        problem.observed is None
        and problem.summarize is not None
        and not isinstance(problem.distance, Returned)
    ):
        raise ProblemError(
            "summarize without observed data: nothing says what is kept, or compared; give observed data, or "
            "leave the distance out too, so that what summarize returns is the distance"
        )
    if isinstance(problem.simulate, Command):
        _check_command(problem.simulate, problem)
    is_callable = not measures_rows(problem.distance)
    if problem.observed is None and not (is_callable or isinstance(problem.distance, Returned)):
        raise ProblemError(
            f"distance={described(problem.distance)} compares numbers, and there are no observed data: give "
            "observed=, or leave the distance out too, where the simulator returns it"
        )
    if not is_callable and problem.observed is not None:
        kept_of(problem.observed, problem.summarize, is_callable)
    check = getattr(problem.distance, "check", None)
    if callable(check):
        check(problem.observed)
    _check_batch(problem)
    object.__setattr__(problem, "on_error", policy(problem.on_error))
    object.__setattr__(problem, "timeout", time_limit(problem.timeout))


def _has_call(cls: type) -> bool:
    """Whether its objects are called, and not the class itself, which makes one.

    One that decides itself what it makes, data perhaps, is called.
    """
    names = {name for base in cls.__mro__[:-1] for name in vars(base)}  # but for those of object
    return "__call__" in names and "__new__" not in names and type(cls).__call__ is type.__call__


def _check_calls(problem: Problem) -> None:
    """Raise ProblemError for a prior or a distance that cannot be called as it will be."""
    prior, distance = problem.prior, problem.distance
    if not calls.is_ours(prior):
        calls.check("prior", prior, "sample", "n, rng")
        calls.check("prior", prior, "logpdf", "theta")
    if calls.is_ours(distance):
        return
    if not measures_rows(distance):
        calls.check_function("distance", distance, "simulated, observed")
        return
    calls.check("distance", distance, "rows", "simulated, observed")
    if is_adaptive(distance):
        calls.check("distance", distance, "fit", "sample, observed")


def _decide_what_is_kept(problem: Problem) -> None:
    """Raises ProblemError for observed data, or a summary, that cannot be what they are for."""
    distance = problem.distance
    is_callable = isinstance(distance, Returned) or not measures_rows(distance)
    if problem.observed is None and is_callable:
        kept = Kept(not (problem.vectorized and isinstance(distance, Returned)), None)
    else:
        kept = kept_of(problem.observed, summary_of(problem.summarize), is_callable)
    if not kept.is_raw:
        _check_holes(problem)
    if kept.is_raw and problem.vectorized:
        raise ProblemError(
            f"vectorized=True, and the distance compares {description_of(problem.observed)}: what a "
            "vectorised simulator returns is taken apart by the first axis of arrays; leave vectorized out, "
            "or give observed data that are numbers, as summarize returns them"
        )
    if kept.is_raw:
        object.__setattr__(problem, "is_raw", True)
        object.__setattr__(problem, "example", kept.example)


def _check_holes(problem: Problem) -> None:
    """Raise ProblemError for observed data with nan, unless the distance leaves these out."""
    row, distance = problem.observed_row, of_data(problem.distance, problem.observed)
    holes = np.flatnonzero(np.isnan(row))
    if not holes.size:
        return
    if len(holes) == len(row):
        raise ProblemError("observed data contain nan and nothing else: give at least one number")
    if measures_rows(distance) and not np.isnan(distance.rows(row[None], row)).any():
        return
    which = problem.structure.labels()[holes[0]]
    name = which.partition("[")[0]
    where = f" of {name!r}" if isinstance(problem.observed, Mapping) else ""
    raise ProblemError(
        f"observed data{where} contain nan, {which} first: leave missing values out of the data, or give "
        'distance=mpiabc.PNorm(missing="ignore"), which compares all others'
    )


def summary_of(summarize: Callable[..., Data] | None) -> Callable[..., Data] | None:
    """A summary as a callable of data and an rng, which it gets if it declares it.

    Without an rng, as for observed data, it gets one of seed 0.
    """
    if summarize is None or not _takes_rng_too(summarize):
        return summarize
    return lambda data, rng=None: summarize(data, rng=np.random.default_rng(0) if rng is None else rng)


def _takes_rng_too(summarize: Callable[..., Data]) -> bool:
    try:
        parameter = inspect.signature(summarize).parameters.get("rng")
    except (TypeError, ValueError):
        return False
    return parameter is not None and parameter.kind is parameter.KEYWORD_ONLY


def policy(on_error: Any) -> str | int:
    """What becomes of failures: "raise", "reject", or how many are too many. Raises ProblemError."""
    if isinstance(on_error, str) and on_error in ("raise", "reject"):
        return on_error
    count = whole(on_error)
    if count is None or count < 1:
        raise ProblemError(f'on_error={on_error!r}: give "raise", "reject", or a whole number >= 1')
    return count


def time_limit(timeout: Any) -> float | None:
    """The seconds that an evaluation may take, or None. Raises ProblemError."""
    if timeout is None:
        return None
    seconds = real(timeout)
    if seconds is None or not seconds > 0:
        raise ProblemError(f"timeout={timeout!r}: give seconds > 0, or None")
    return seconds


def _check_batch(problem: Problem) -> None:
    if problem.batch is None:
        return
    if not problem.vectorized:
        raise ProblemError(
            f"batch={problem.batch!r} is for simulators of many rows a call: give vectorized=True too, or "
            "leave batch out"
        )
    batch = whole(problem.batch)
    if batch is None or batch < 1 or batch % BLOCK:
        raise ProblemError(f"batch={problem.batch!r}: give a multiple of {BLOCK}, such as {64 * BLOCK}")
    object.__setattr__(problem, "batch", batch)


def _check_command(command: Command, problem: Problem) -> None:
    command.check(problem.prior.names)
    if problem.vectorized:
        raise ProblemError("a Command simulates one theta at a time: leave vectorized=True out")


def described(part: Any, seen: tuple[int, ...] = ()) -> str:
    """A part as text that is equal in all processes; of what is not ours, its name."""
    if part is None or isinstance(part, bool | int | float | complex | str | bytes | np.generic):
        return "none" if part is None and not seen else repr(part)
    if id(part) in seen:
        return "..."
    seen = (*seen, id(part))
    if isinstance(part, np.ndarray):
        # Who asks for it reads no file from end to end: its size and time are in the fingerprint.
        return f"array {part.shape} {'in a file' if mapped.placed(part) else _digest(part)}"
    if isinstance(part, list | tuple | set | frozenset):
        inner = ", ".join(described(item, seen) for item in part)
        return f"({inner},)" if len(part) == 1 else f"({inner})"
    if isinstance(part, dict):
        return "{" + ", ".join(f"{key!r}: {described(value, seen)}" for key, value in part.items()) + "}"
    if isinstance(part, Command):
        return repr(part)
    if isinstance(part, Prior):
        parts = part.parts | ({} if part.where is None else {"where": part.where})
        return (
            f"Prior({', '.join(f'{name}={described(marginal, seen)}' for name, marginal in parts.items())})"
        )
    if isinstance(part, Adapted):
        return f"{part.kind}{described(part.parts, seen)}"
    if hasattr(getattr(part, "dist", None), "name"):
        return f"{part.dist.name}{described((part.args, part.kwds), seen)}"
    if callable(part) and hasattr(part, "__qualname__"):
        return str(part.__qualname__)
    kind = type(part)
    is_ours = kind.__module__.split(".")[0] == "mpiabc"
    return f"{kind.__qualname__}({_attributes(part, seen)})" if is_ours else kind.__qualname__


def _attributes(part: Any, seen: tuple[int, ...]) -> str:
    if dataclasses.is_dataclass(part):
        values = {name: getattr(part, name) for name in described_fields(part)}
    else:
        values = getattr(part, "__dict__", {})
    return ", ".join(f"{name}={described(value, seen)}" for name, value in values.items())


def _described_data(observed: Data) -> str:
    """Observed data as text; what are no numbers is in the fingerprint."""
    if observed is None:
        return "none"
    if not holds_numbers(observed):
        return description_of(observed)
    return f"{Structure(observed)} {_digest_of_data(observed)}"


def _digest_of_data(data: Any) -> str:
    """A digest of observed data: of what they are if they are plain, else of their numbers and labels."""
    parts = data.values() if isinstance(data, dict) else [data]
    if all(isinstance(part, bool | int | float | np.ndarray | np.generic | list | tuple) for part in parts):
        return _digest(data)
    structure = Structure(data)
    return _digest({"numbers": structure.row(data), "labels": repr(structure.labels())})


def _digest(value: Any) -> str:
    """A short digest of plain data: numbers, arrays, text, and containers of them."""
    sha = hashlib.sha256()

    def add(item: Any) -> None:
        if isinstance(item, dict):
            for key in sorted(item, key=str):
                sha.update(f"{key}:".encode())
                add(item[key])
        elif isinstance(item, str):
            sha.update(item.encode())
        elif isinstance(item, bool | int | float | np.ndarray | np.generic | list | tuple):
            array = np.asarray(item)
            if array.dtype == object:
                sha.update(repr(item).encode())
            else:
                flat = array.reshape(-1)
                for start in range(0, flat.size, _AT_ONCE):
                    sha.update(flat[start : start + _AT_ONCE].astype(np.float64).tobytes())
        else:
            sha.update(described(item).encode())

    add(value)
    return sha.hexdigest()[:16]
