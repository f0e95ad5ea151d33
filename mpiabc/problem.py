"""Problem: prior, simulator, observed data, summary and distance; what one sends to a colleague."""

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mpiabc.distance import PNorm
from mpiabc.errors import ProblemError
from mpiabc.prior import JointPrior, Prior
from mpiabc.structure import Data, Structure

#: Keyword-only parameters that a simulator may declare, each passed by name.
EXTRAS = ("epsilon", "id")


class EvaluationId(NamedTuple):
    """The address of an evaluation; `index` is an array for a vectorised simulator."""

    generation: int
    index: Any

    def __str__(self) -> str:
        return f"{self.generation}:{self.index}"


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be inferred.

    simulate(theta, rng) returns a float, an array, or a dict of them; `theta` maps names to floats,
    `rng` is the numpy Generator of this evaluation alone. Keyword-only parameters that it declares are
    passed by name: `epsilon`, the threshold in force (return None to reject early), and `id`, the
    evaluation's address. With `vectorized=True`, `theta[name]` is an array (n,) and every returned
    array has n as its first axis; `summarize` then gets whole blocks too, `distance` single rows.

    observed has the structure of what `simulate`, or `summarize` after it, returns. `distance` is a
    callable (simulated, observed) -> float. on_error: "raise" ends the run with the worker's
    traceback, "reject" counts a failed evaluation as a rejection, an int k ends the run at the k-th.

    Raises ProblemError for a part that cannot work.
    """

    prior: JointPrior
    simulate: Callable[..., Data]
    observed: Data
    summarize: Callable[[Data], Data] | None = None
    distance: Callable[[Data, Data], float] | None = None
    vectorized: bool = False
    on_error: str | int = "raise"
    timeout: float | None = None
    name: str | None = None

    def __init__(
        self,
        prior: JointPrior,
        simulate: Callable[..., Data],
        observed: Data,
        *,
        summarize: Callable[[Data], Data] | None = None,
        distance: Callable[[Data, Data], float] | None = None,
        vectorized: bool = False,
        on_error: str | int = "raise",
        timeout: float | None = None,
        name: str | None = None,
    ) -> None:
        values = {key: value for key, value in locals().items() if key != "self"}
        values["distance"] = PNorm() if distance is None else distance
        values["name"] = getattr(simulate, "__name__", type(simulate).__name__) if name is None else name
        for key, value in values.items():
            object.__setattr__(self, key, value)
        _check(self)

    def parts(self) -> dict[str, str]:
        """Each part as text that is the same in every process, for comparing problems."""
        return {
            "parameter names": ", ".join(self.prior.names),
            "prior": told(self.prior),
            "observed data": f"{Structure(self.observed)} {_digest(self.observed)}",
            "simulator": told(self.simulate),
            "summary": told(self.summarize),
            "distance": told(self.distance),
            "vectorized": str(self.vectorized),
        }


def accepted_extras(simulate: Callable[..., Data]) -> tuple[str, ...]:
    """Which of EXTRAS the simulator declares; ProblemError for parameters that we cannot fill."""
    try:
        parameters = list(inspect.signature(simulate).parameters.values())
    except (TypeError, ValueError):
        return ()  # a builtin that does not tell: call it with (theta, rng)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    required = [p.name for p in positional[2:] if p.default is p.empty]
    required += [p.name for p in named if p.default is p.empty and p.name not in EXTRAS]
    if "comm" in (p.name for p in named):
        raise ProblemError("the simulator asks for comm=: teams of ranks are not supported yet")
    if required or (len(positional) < 2 and not takes_any):
        found = f"{getattr(simulate, '__name__', simulate)}{inspect.signature(simulate)}"
        raise ProblemError(
            f"the simulator is {found}, expected simulate(theta, rng), with keyword-only epsilon or id "
            "where wanted"
        )
    return tuple(p.name for p in named if p.name in EXTRAS)


def _check(problem: Problem) -> None:
    prior = problem.prior
    if not isinstance(prior, JointPrior) or isinstance(prior, type):
        raise ProblemError(
            f"the prior is {prior!r}, expected mpiabc.Prior(name=distribution, ...) or an object with "
            "names, sample(n, rng) and logpdf(theta)"
        )
    if isinstance(prior.names, str) or not all(isinstance(name, str) for name in prior.names):
        raise ProblemError(f"the names of the prior are {prior.names!r}, expected a tuple of text")
    if not prior.names:
        raise ProblemError("the prior is empty: it names no parameters")
    for role in ("simulate", "distance", "summarize"):
        value = getattr(problem, role)
        if not callable(value) and not (role == "summarize" and value is None):
            raise ProblemError(f"{role} is {value!r}, expected a callable")
    accepted_extras(problem.simulate)
    Structure(problem.observed)
    if isinstance(problem.distance, PNorm):
        problem.distance(problem.observed, problem.observed)
    on_error = problem.on_error
    is_count = isinstance(on_error, int) and not isinstance(on_error, bool) and on_error >= 1
    if not is_count and on_error not in ("raise", "reject"):
        raise ProblemError(f'on_error={on_error!r}: give "raise", "reject", or a whole number >= 1')
    if problem.timeout is not None and not problem.timeout > 0:
        raise ProblemError(f"timeout={problem.timeout!r}: give seconds > 0, or None")


def told(part: Any, seen: tuple[int, ...] = ()) -> str:
    """A part of a problem as text without addresses: equal parts give equal text in all processes."""
    if part is None or isinstance(part, bool | int | float | complex | str | bytes | np.generic):
        return "none" if part is None and not seen else repr(part)
    if id(part) in seen:
        return "..."
    seen = (*seen, id(part))
    if isinstance(part, np.ndarray):
        return f"array {part.shape} {_digest(part)}"
    if isinstance(part, list | tuple | set | frozenset):
        inner = ", ".join(told(item, seen) for item in part)
        return f"({inner},)" if len(part) == 1 else f"({inner})"
    if isinstance(part, dict):
        return "{" + ", ".join(f"{key!r}: {told(value, seen)}" for key, value in part.items()) + "}"
    if isinstance(part, functools.partial):
        return f"partial({told((part.func, part.args, part.keywords), seen)})"
    if isinstance(part, np.random.Generator | np.random.RandomState):
        return type(part).__name__
    if callable(part) and hasattr(part, "__qualname__"):
        return str(part.__qualname__)
    if isinstance(part, Prior):
        parts = zip(part.names, part.marginals, strict=True)
        return f"Prior({', '.join(f'{name}={told(marginal, seen)}' for name, marginal in parts)})"
    if hasattr(getattr(part, "dist", None), "name"):
        return f"{part.dist.name}{told((part.args, part.kwds), seen)}"
    return f"{type(part).__qualname__}({_attributes(part, seen)})"


def _attributes(part: Any, seen: tuple[int, ...]) -> str:
    if dataclasses.is_dataclass(part):
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    else:
        values = getattr(part, "__dict__", {})
    return ", ".join(f"{name}={told(value, seen)}" for name, value in values.items())


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
            sha.update(array.astype(np.float64).tobytes() if array.dtype != object else repr(item).encode())
        else:
            sha.update(told(item).encode())

    add(value)
    return sha.hexdigest()[:16]


def differing_parts(mine: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """The names of the parts in which two problems differ."""
    return [name for name in mine if mine[name] != theirs.get(name)]
