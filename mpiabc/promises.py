"""What parts of users' own promise, asked of them: the same again, rows that stand alone, no other chance.

Each look gives a sentence, "" if nothing is seen; what a part raises goes through. `inspection` looks as a
run comes to a part, `testing.check_kernel` and its like in a test.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mpiabc.calls import is_ours, name_of
from mpiabc.errors import ProblemError
from mpiabc.guard import GlobalRandom
from mpiabc.masked import is_masked
from mpiabc.streams import BLOCK, Purpose, Stream

Key = tuple[int, int]
_ALONE = 32  # rows that are asked for alone, too


def of_answer(what: str, ask: Callable[[], Any], remedy: str) -> str:
    """Whether the same question gets the same answer, a number or several, and no random number is drawn."""
    (one, other), is_random = _watched(lambda: (ask(), ask()))
    if is_random:
        return f"{what} draws NumPy's or Python's global random numbers: {remedy}"
    if _same(one, other):
        return ""
    one, other = _unlike(one, other)
    return f"{what} gives {one!r}, and {other!r} when it is asked the same again: {remedy}"


def _unlike(one: Any, other: Any) -> tuple[Any, Any]:
    """Of arrays, the first of their numbers that differ."""
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape or not a.ndim:
        return one, other
    at = np.unravel_index(np.argmax((a != b) & ~((a != a) & (b != b))), a.shape)
    return a[at].item(), b[at].item()


def of_fit(what: str, fit: Callable[[], Any], key: Key) -> str:
    """Whether two fits of a kernel to one population give one proposal."""
    (one, other), is_random = _watched(lambda: (fit(), fit()))
    x, y = (_drawn(part, key) for part in (one, other))
    is_same = _same(x, y) and _same(one.logpdf(x.copy()), other.logpdf(x.copy()))
    return _of_fits(what, "proposal", "the same population", is_same, is_random)


def of_fitted_rows(what: str, fit: Callable[[], Any], summaries: np.ndarray, observed: np.ndarray) -> str:
    """Whether two fits of a distance to one sample give one distance."""
    (one, other), is_random = _watched(lambda: (fit(), fit()))
    is_same = _same(*(part.rows(summaries.copy(), observed.copy()) for part in (one, other)))
    return _of_fits(what, "distance", "the same sample", is_same, is_random)


def _of_fits(what: str, gives: str, given: str, is_same: bool, is_random: bool) -> str:
    remedy = f"a run that goes on fits its {gives} once more; draw nothing in fit, or from a seed of its own"
    if not is_same:
        return f"fit of {what} gives another {gives} when it is given {given} again: {remedy}"
    return f"fit of {what} draws NumPy's or Python's global random numbers: {remedy}" if is_random else ""


def of_proposal(what: str, proposal: Any, key: Key) -> str:
    """Whether a proposal's density, or a prior's, stays the same, and its rows stand alone if it says so."""
    x = _drawn(proposal, key)
    said = of_answer(
        f"logpdf of {what}",
        lambda: np.asarray(proposal.logpdf(x.copy()), np.float64),
        "weights would be wrong; it is a function of theta",
    )
    return said or of_rows(f"logpdf of {what}", proposal, proposal.logpdf, x)


def of_distance(what: str, distance: Any, simulated: np.ndarray, observed: np.ndarray) -> str:
    """Whether a distance of rows stays the same, and its rows stand alone if it says so."""

    def ask(rows: np.ndarray) -> Any:
        return distance.rows(rows.copy(), observed.copy())

    return of_answer(
        what,
        lambda: np.asarray(ask(simulated), np.float64),
        "a distance is a function of what it compares; what is random belongs into the simulator, which has "
        "rng",
    ) or of_rows(what, distance, ask, simulated)


def of_rows(what: str, part: Any, ask: Callable[[np.ndarray], Any], rows: np.ndarray) -> str:
    """Whether a row gives the same number alone as beside others, in every bit, if the part says so."""
    if not getattr(part, "is_rowwise", False):
        return ""
    together = np.asarray(ask(rows.copy()), np.float64)[:_ALONE]
    alone = np.array([np.asarray(ask(rows[i : i + 1].copy()), np.float64)[0] for i in range(len(together))])
    differs = ~((together == alone) | (np.isnan(together) & np.isnan(alone)))
    if not differs.any():
        return ""
    at = np.unravel_index(np.argmax(differs), differs.shape)
    one, other = float(alone[at]), float(together[at])
    return (
        f"{what} gives {one!r} for a row alone and {other!r} for it beside others, though is_rowwise = True "
        "promises the same in every bit: results depend on who works on what; leave is_rowwise out, or "
        "compute each row by itself"
    )


def check_draws(what: str, found: Any, n: int, d: int) -> None:
    """Raise ProblemError for what `sample(n, rng)` does not give."""
    expected = f"expected ({n}, {d}): a row for each draw, a column for each parameter"
    _check_numbers(f"sample({n}, rng) of {what}", found, (n, d), expected)


def check_densities(what: str, found: Any, n: int) -> None:
    """Raise ProblemError for what `logpdf` of `n` rows does not give."""
    _check_numbers(f"logpdf of {what}", found, (n,), f"expected ({n},): a number for each row")


def _check_numbers(said: str, found: Any, shape: tuple[int, ...], expected: str) -> None:
    if found is None:
        raise ProblemError(f"{said} gave None, {expected}")
    array = np.asarray(found)
    if array.dtype.kind not in "biuf" or is_masked(found):
        raise ProblemError(f"{said} gave {array.dtype} (a {type(found).__name__}), expected real numbers")
    if array.shape != shape:
        raise ProblemError(f"{said} gave shape {array.shape}, {expected}")


def of_name(what: str, part: Any) -> str:
    """A part of a user's own with its name; one of ours without."""
    return what if is_ours(part) else f"{what} {name_of(part)}"


def rows_like(observed: np.ndarray, key: Key, n: int = 2 * _ALONE) -> np.ndarray:
    """Made-up simulated rows (n, k) around an observed one (k,), which is the first of them."""
    rng = Stream(key, Purpose.CHECK).at(3, 0)
    size = np.where(np.isfinite(observed) & (observed != 0), np.abs(observed), 1.0)
    rows = observed + size * rng.standard_normal((n, len(observed)))
    rows[0] = observed
    return rows


def _drawn(part: Any, key: Key) -> np.ndarray:
    return np.array(part.sample(BLOCK, Stream(key, Purpose.CHECK).at(2, 0)), np.float64)


def _watched(ask: Callable[[], Any]) -> tuple[Any, bool]:
    """What is answered, and whether global random numbers were drawn for it, which are put back."""
    random = GlobalRandom((0, 0))
    with random.restored():
        random.seed(0, 0)
        before = random.look()
        return ask(), random.look() != before


def _same(one: Any, other: Any) -> bool:
    a, b = np.asarray(one), np.asarray(other)
    is_float = a.dtype.kind == b.dtype.kind == "f"
    return bool(np.array_equal(a, b, equal_nan=is_float))
