"""Is it the same run? What a file was begun with is compared with what is to go on in it."""

import json
import logging
import re
from typing import Any

from mpiabc.errors import StoreError
from mpiabc.fingerprint import Fingerprint, differences
from mpiabc.store import Store
from mpiabc.version import digit_difference, versions

_log = logging.getLogger(__name__)
_MOST_CHANGES = 5  # that are told


def noted(fingerprint: Fingerprint) -> dict[str, Any]:
    """What a file has besides the settings: versions, which are told, and code and values."""
    return {"versions": versions(), "fingerprint": json.loads(fingerprint.to_json())}


def check(
    file: Store, mine: dict[str, Any], found: dict[str, Any], fingerprint: Fingerprint, accept_changes: bool
) -> None:
    """Go on only with the settings, the code and the values that the run was begun with.

    Raises StoreError for what differs; changes of code and values may be meant, and are noted then.
    """
    found = {"streams": 1} | found  # which the first files do not say
    different = [key for key in mine if _plain(mine[key]) != _plain(found.get(key))]
    if different:
        apart = "; ".join(f"{key}: {found.get(key)!r} there, {mine[key]!r} here" for key in different)
        raise StoreError(
            f"{file.path} holds a run with other settings ({apart}): give another file name, or "
            "overwrite=True to begin anew"
        )
    changes = differences(Fingerprint.from_json(json.dumps(found["fingerprint"])), fingerprint)
    if changes and found.get("recycle"):
        raise StoreError(
            f"{file.path} recycles, and was begun with other code or values ({_listed(changes)}): "
            "particles of both would be in one population; undo that, give another file name, or "
            "overwrite=True to begin anew"
        )
    if changes and not accept_changes:
        raise StoreError(
            f"{file.path} was begun with other code or values ({_listed(changes)}): undo that, give "
            "another file name, or accept_changes=True to go on with it, or overwrite=True to begin anew"
        )
    if changes:
        t = len(file.history())
        note = f"from generation {t} on the run has other code or values: {_listed(changes)}"
        file.tell(f"changes {t}: {_listed(changes)}", note)
        _log.warning("%s: %s", file.path, note)
    if difference := digit_difference(found["versions"]):
        _log.warning("%s: %s; digests may differ in the last bit", file.path, difference)
    if changes:
        file.renew(found | noted(fingerprint))


def _listed(changes: list[str]) -> str:
    left = len(changes) - _MOST_CHANGES
    return "; ".join(changes[:_MOST_CHANGES]) + (f"; and {left} more" if left > 0 else "")


def _plain(value: Any) -> Any:
    """A setting in which NumPy's numbers look like Python's, as parts have them since they are converted."""
    return re.sub(r"\bnp\.(?:float|int)64\(([^()]*)\)", r"\1", value) if isinstance(value, str) else value
