"""Labels of simulated and observed data: where both have them, data are compared by label."""

from collections import Counter
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from mpiabc.conversion import EXACT, RefusedError, is_frame, is_xarray, shortened


class Axes(NamedTuple):
    """The axes of labelled data: their labels, None where positions count, and their names, if any."""

    labels: list[list[Hashable] | None]
    dims: tuple[Hashable, ...] | None = None


def axes_of(part: Any) -> Axes | None:
    """The axes of a labelled part, None of any other."""
    kind = type(part)
    if kind is np.ndarray or kind in EXACT:
        return None
    if is_xarray(kind):
        coords = part.coords
        labels = [coords[dim].to_index().tolist() if dim in coords else None for dim in part.dims]
        return Axes(labels, tuple(part.dims))
    rows = part.index.tolist() if hasattr(kind, "iloc") else None
    if is_frame(kind):
        return Axes([rows, list(part.columns)])
    return None if rows is None else Axes([rows])


def transposed(mine: Axes, theirs: Axes, array: np.ndarray, skipped: int) -> tuple[Axes, np.ndarray]:
    """Their axes behind the first `skipped` in the order of mine, where both have names."""
    if mine.dims is None or theirs.dims is None or mine.dims == theirs.dims[skipped:]:
        return theirs, array
    order = order_of(list(mine.dims), list(theirs.dims[skipped:]), "dimension ") or range(len(mine.dims))
    places = [*range(skipped), *(place + skipped for place in order)]
    dims = tuple(theirs.dims[place] for place in places)
    return Axes([theirs.labels[place] for place in places], dims), array.transpose(places)


def order_of(wanted: list[Hashable] | None, found: list[Hashable] | None, what: str = "") -> list[int] | None:
    """Where in `found` each wanted label is; None where positions count, or agree."""
    if wanted is None or found is None or wanted == found:
        return None
    places = {label: place for place, label in enumerate(found)}
    known = set(wanted)
    for labels in (wanted, found):
        counts = Counter(labels)
        for label in counts if len(counts) < len(labels) else ():
            if counts[label] > 1:
                raise RefusedError(f"{what}{shortened(repr(label))} comes twice")
    missing = [f"{what}{shortened(repr(label))} is missing" for label in wanted if label not in places]
    others = [f"{what}{shortened(repr(label))} is not among them" for label in found if label not in known]
    if missing or others:
        raise RefusedError(" and ".join(missing[:1] + others[:1]))
    return [places[label] for label in wanted]
