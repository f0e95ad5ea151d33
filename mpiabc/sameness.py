"""Is it the same run? What a file was begun with is compared with what is to go on in it."""

import json
import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpiabc.errors import StoreError
from mpiabc.fingerprint import Fingerprint, differences
from mpiabc.fingerprint.words import in_words, there_and_here
from mpiabc.order import epsilon_of
from mpiabc.store import Store
from mpiabc.version import digit_difference, versions

_log = logging.getLogger(__name__)
_MOST_CHANGES = 5  # that are named
_ACCEPT = "accept_changes=True to go on with the new one where nothing is decided, or "


class Observed(NamedTuple):
    """The observed numbers (k,), and a name for each, of which there are none for very many."""

    row: np.ndarray
    labels: Sequence[str] | None


def noted(fingerprint: Fingerprint) -> dict[str, Any]:
    """What a file has besides the settings: versions, which are reported, and code and values."""
    return {"versions": versions(), "fingerprint": json.loads(fingerprint.to_json())}


def check(
    file: Store,
    mine: dict[str, Any],
    found: dict[str, Any],
    fingerprint: Fingerprint,
    accept_changes: bool,
    threshold: Any = None,
    observed: Observed | None = None,
) -> dict[str, Any]:
    """The settings to go on with: those, the code and the values that the run was begun with.

    Only its threshold may be another one, for generations of which nothing is known: one that goes on with
    what was decided (`goes_on`), or any one that is meant. Raises StoreError for what differs; changes of
    code and values may be meant, and are noted then.
    """
    found = {"streams": 1} | found  # which the first files do not say
    different = [key for key in mine if _plain(mine[key]) != _plain(found.get(key))]
    t = _first_of(threshold, file, found, accept_changes) if different == ["threshold"] else None
    if different and t is None:
        apart = "; ".join(_apart(key, found.get(key), mine[key], file, observed) for key in different)
        raise StoreError(
            f"{file.path} holds a run with other settings ({apart}): give another file name, or "
            f"{_ACCEPT if different == ['threshold'] else ''}overwrite=True to begin anew"
        )
    there = Fingerprint.from_json(json.dumps(found["fingerprint"]))
    changes = differences(there if t is None else _with_threshold(there, fingerprint), fingerprint)
    if changes:
        _check_changes(file, found, _listed(changes), accept_changes)
        _tell_changes(file, _listed(changes))
    if difference := digit_difference(found["versions"]):
        _log.warning("%s: %s; digests may differ in the last bit", file.path, difference)
    settings = found | ({} if t is None else {"threshold": mine["threshold"]})
    if t is not None:
        note = f"from generation {t} on the threshold is {mine['threshold']}, before {found['threshold']}"
        file.rethreshold(t, settings | noted(fingerprint), threshold, note)
        _log.warning("%s: %s", file.path, note)
    elif changes:
        file.renew(found | noted(fingerprint))
    return settings


def _check_changes(file: Store, found: dict[str, Any], changes: str, accept_changes: bool) -> None:
    """Raise StoreError for other code or values, unless they are meant, and may be."""
    if found.get("recycle") or found.get("sampler"):
        does = "recycles" if found.get("recycle") else "pools simulations"
        raise StoreError(
            f"{file.path} {does}, and was begun with other code or values ({changes}): "
            "particles of both would be in one population; undo that, give another file name, or "
            "overwrite=True to begin anew"
        )
    if not accept_changes:
        raise StoreError(
            f"{file.path} was begun with other code or values ({changes}): undo that, give "
            "another file name, or accept_changes=True to go on with it, or overwrite=True to begin anew"
        )


def _tell_changes(file: Store, changes: str) -> None:
    """Note in the file, and say, that the run goes on with others."""
    t_open = len(file.history())
    note = f"from generation {t_open} on the run has other code or values: {changes}"
    file.tell(f"changes {t_open}: {changes}", note)
    _log.warning("%s: %s", file.path, note)


def _apart(key: str, there: Any, here: Any, file: Store, observed: Observed | None) -> str:
    """A setting that differs, in words."""
    if key == "observed data" and observed is not None and (text := _numbers_apart(file, observed)):
        return f"{key}: {text}"
    return f"{key}: {there_and_here(repr(there), repr(here))}"


def _numbers_apart(file: Store, observed: Observed) -> str:
    """Which observed numbers differ; empty where the file's are of another form, or do not differ."""
    history = file.history()
    there, labels = history.observed, observed.labels
    if there is None or labels is None or (there.shape, history.labels) != (observed.row.shape, labels):
        return ""
    places = np.flatnonzero(~((there == observed.row) | (np.isnan(there) & np.isnan(observed.row))))
    if not places.size:
        return ""
    first, more = int(places[0]), f", and {len(places) - 1} more differ" if len(places) > 1 else ""
    return f"{labels[first]} is {there[first]!s} there, {observed.row[first]!s} here{more}"


def _first_of(threshold: Any, file: Store, found: dict[str, Any], accept_changes: bool) -> int | None:
    """The generation from which on another threshold may hold; None if it may not."""
    decided = _decided(file)
    goes_on = getattr(threshold, "goes_on", None)
    does_go_on = callable(goes_on) and goes_on(_plain(found.get("threshold")), decided)
    return len(decided) if does_go_on or accept_changes else None


def _with_threshold(there: Fingerprint, here: Fingerprint) -> Fingerprint:
    """What a run was begun with, but for the values of its threshold."""

    def is_its(name: str) -> bool:
        return re.match(r"threshold\b", name) is not None

    values = {name: value for name, value in there.values.items() if not is_its(name)}
    return Fingerprint(there.code, values | {k: v for k, v in here.values.items() if is_its(k)})


def _decided(file: Store) -> list[float]:
    """The epsilons of all generations of which anything is known; that of the open one is in its order."""
    history = file.history()
    committed = [population.epsilon for population in history]
    order = history.order(len(committed))
    if order is None or next(file.noted(len(committed)), None) is None:
        return committed
    return [*committed, epsilon_of(order[0])]


def _listed(changes: list[str]) -> str:
    left = len(changes) - _MOST_CHANGES
    return "; ".join(in_words(changes[:_MOST_CHANGES])) + (f"; and {left} more" if left > 0 else "")


def _plain(value: Any) -> Any:
    """A setting in which NumPy's numbers look like Python's, as parts have them since they are converted."""
    return re.sub(r"\bnp\.(?:float|int)64\(([^()]*)\)", r"\1", value) if isinstance(value, str) else value
