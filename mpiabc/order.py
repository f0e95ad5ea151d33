"""Orders: what adaptive parts have decided for one level of a run, and the form in which that is kept.

A kept order is JSON and arrays, its classes by name from a list of ours, never a pickle: who looks at a file
executes nothing. Centres and weights are those of the population before, inverses are computed anew. A part
that is not ours is not kept: who has it fits it again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from mpiabc.acceptors import Acceptor, Within
from mpiabc.joint import ModelProposal
from mpiabc.kernel import Proposal
from mpiabc.mixture import GaussianMixture, LocalGaussianMixture
from mpiabc.population import Population
from mpiabc.records import order_number


@dataclass(frozen=True, eq=False)
class Order:
    """The order that produces one population: all that evaluations need besides the problem."""

    level: int
    key: tuple[int, int]  # of the streams, from the run's seed
    epsilon: float
    proposal: Proposal
    size: int
    is_static: bool = False
    most_tries: int | None = None  # after which a slot gives up
    attempt: int = 0  # how often the level was taken back
    distance: Any = None  # as fitted; None is the problem's own
    acceptor: Acceptor = field(default_factory=Within)
    first: int = 0  # the lowest of its ids, which go on from level to level if evaluations are recycled
    earlier: tuple[Proposal, ...] | None = None  # of the levels from 1 on, where weights need all densities
    errors: Mapping[str, Any] | None = None  # what the user's `np.seterr` says where the run is led

    @property
    def number(self) -> int:
        """What leases and records know the order by."""
        return order_number(self.level, self.attempt)


class ForeignError(Exception):
    """A part of an order is not ours."""


_PARTS = (GaussianMixture, LocalGaussianMixture, ModelProposal, Within)
_OURS: dict[str, type] = {cls.__name__: cls for cls in _PARTS}
_ANEW = ("inverse", "prior")  # fields that are computed when a part is made, or that the problem has
_OF_POPULATION = ("theta", "weights", "model")  # columns that parts refer to
_KEPT = ("level", "epsilon", "size", "is_static", "distance", "acceptor")

Arrays = list[np.ndarray]


def kept(order: Order, before: Population | None) -> tuple[str, Arrays]:
    """The order as JSON, and arrays; its proposal is null if it is the prior, or not ours."""
    arrays: Arrays = []
    told = {name: _flat(getattr(order, name), before, arrays) for name in _KEPT}
    try:
        told["proposal"] = None if before is None else _flat(order.proposal, before, arrays)
    except ForeignError:
        told["proposal"], arrays = None, []
    return json.dumps(told), arrays


def epsilon_of(text: str) -> float:
    """The epsilon of a kept order."""
    return json.loads(text)["epsilon"]


def restored(text: str, arrays: Arrays, before: Population | None) -> dict[str, Any]:
    """The inverse of `kept`: what an Order is made of, besides its key."""
    return {name: _whole(value, before, arrays) for name, value in json.loads(text).items()}


def _flat(value: Any, before: Population | None, arrays: Arrays) -> Any:
    """A value as JSON has it. Raises ForeignError for what is not of our classes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_flat(part, before, arrays) for part in value]
    if isinstance(value, np.ndarray):
        if found := _place(value, before):
            return found
        is_factor = value.ndim == 3  # triangular: half of it is enough
        arrays.append(value[:, *np.tril_indices(value.shape[1])] if is_factor else value)
        return {"array": len(arrays) - 1} | ({"triangular": value.shape[1]} if is_factor else {})
    cls = type(value)
    if _OURS.get(cls.__name__) is not cls:
        raise ForeignError(cls.__name__)
    names = [f.name for f in fields(value) if f.name not in _ANEW]
    return {"class": cls.__name__} | {n: _flat(getattr(value, n), before, arrays) for n in names}


def _place(value: np.ndarray, before: Population | None) -> dict[str, Any] | None:
    """Where a population has this very column, or that of one of its models; None if it has not."""
    for m, part in enumerate([before, *(before.each() if before else ())]):
        for name in _OF_POPULATION:
            if value is getattr(part, name, None):
                return {"of the population": name} | ({"model": m - 1} if m else {})
    return None


def _whole(value: Any, before: Population | None, arrays: Arrays) -> Any:
    if isinstance(value, list):
        return tuple(_whole(part, before, arrays) for part in value)
    if not isinstance(value, dict):
        return value
    if "of the population" in value:
        part = before if "model" not in value or before is None else before.of(value["model"])
        return getattr(part, value["of the population"])
    if "array" in value:
        array = arrays[value["array"]]
        d = value.get("triangular")
        if d is None:
            return array
        whole = np.zeros((len(array), d, d))
        whole[:, *np.tril_indices(d)] = array
        return whole
    parts = {name: _whole(part, before, arrays) for name, part in value.items() if name != "class"}
    return _OURS[value["class"]](**parts)
