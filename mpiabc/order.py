"""Orders: what adaptive parts have decided for one level of a run, and the form in which that is kept.

A kept order is JSON and arrays, its classes by name from a list of ours, never a pickle: who looks at a file
executes nothing. Centres and weights are those of the population before, inverses are computed anew. A part
that is not ours is not kept: who has it fits it again.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from mpiabc import distances
from mpiabc.acceptors import Acceptor, Tempered, Within
from mpiabc.defended import Defended
from mpiabc.kernels.discrete import MixedMixture
from mpiabc.kernels.free import Freed
from mpiabc.kernels.gaussian import Proposal
from mpiabc.kernels.mixture import GaussianMixture, LocalGaussianMixture
from mpiabc.layout import Layout, layout_of
from mpiabc.population import Population
from mpiabc.priors.joint import ModelPrior, ModelProposal
from mpiabc.records import order_number


@dataclass(frozen=True, eq=False)
class Order:
    """The order that produces one population: all that evaluations need besides the problem."""

    level: int
    key: tuple[int, int]  # of the streams, from the run's seed
    epsilon: Any  # a float, or, of several distances, one for each (m,)
    proposal: Proposal
    size: int
    is_static: bool = False
    most_tries: int | None = None  # after which a slot gives up
    attempt: int = 0  # how often the level was taken back
    distance: Any = None  # as fitted; None is the problem's own
    acceptor: Acceptor = field(default_factory=Within)
    first: int = 0  # the lowest of its ids, which go on from level to level if evaluations are recycled
    earlier: tuple[Proposal, ...] | None = None  # of the levels from 1 on, where weights need all densities
    keep: str = "accepted"  # "theta": no statistics of accepted evaluations; "all": rejected ones come home
    errors: Mapping[str, Any] | None = None  # what the user's `np.seterr` says where the run is led
    sample: int = 0  # so many simulated rows are looked at by who decides next, accepted or not
    sample_end: float = math.inf  # rows of rejected ids below it come home, if there is a sample
    calibrated: int = 0  # simulations that its distance was fitted to before
    is_batch: bool = False  # its size is a number of ids, all of which count
    chain: tuple[Any, ...] | None = None  # of coupled proposals: those since `coupling.base_of` its level

    @property
    def number(self) -> int:
        """What leases and records know the order by."""
        return order_number(self.level, self.attempt)

    @property
    def is_undecided(self) -> bool:
        """Whether rejected rows are looked at again where an id turns out to be of a later level."""
        return self.chain is not None and (self.sample > 0 or getattr(self.acceptor, "wants_all", False))


class ForeignError(Exception):
    """A part of an order is not ours."""


_PROPOSALS = Defended, Freed, GaussianMixture, LocalGaussianMixture, MixedMixture, ModelProposal
_OURS: dict[str, type] = {cls.__name__: cls for cls in (*_PROPOSALS, *distances.FITTED, Tempered, Within)}
_FOREIGN = {"foreign": True}  # in place of a distance that is not ours
_ANEW = ("inverse",)  # fields that are computed when a part is made
_OF_PROBLEM = ("prior", "layout")  # fields that the problem has
_OF_MODELS = "proposals"  # the field that has a part for each model
_OF_POPULATION = ("theta", "weights", "model")  # columns that parts refer to
_KEPT = ("level", "epsilon", "size", "is_static", "distance", "acceptor", "keep")
_OF_SAMPLE = ("sample", "sample_end", "calibrated")  # kept where there is a sample

Arrays = list[np.ndarray]


def kept(order: Order, before: Population | None) -> tuple[str, Arrays]:
    """The order as JSON, and arrays; its proposal is null if it is the prior, or not ours."""
    arrays: Arrays = []
    names = (*_KEPT, *_OF_SAMPLE) if order.sample else _KEPT
    names = (*names, "is_batch") if order.is_batch else names
    described = {name: _flat_part(name, getattr(order, name), before, arrays) for name in names}
    known = len(arrays)
    try:
        described["proposal"] = None if before is None else _flat(order.proposal, before, arrays)
    except ForeignError:
        del arrays[known:]
        described["proposal"] = None
    return json.dumps(described), arrays


def epsilon_of(text: str) -> Any:
    """The epsilon of a kept order."""
    return _as_epsilon(json.loads(text)["epsilon"])


def _as_epsilon(value: Any) -> Any:
    return np.array(value) if isinstance(value, list) else value


def acceptor_of(text: str) -> Acceptor:
    """The acceptor of a kept order."""
    return _Whole([]).of(json.loads(text)["acceptor"])


def calibrated(text: str) -> int:
    """Simulations that were made before the generation of a kept order."""
    return int(json.loads(text).get("calibrated", 0))


def has_foreign_distance(text: str) -> bool:
    """Whether a kept order lacks its distance, which is to be fitted again."""
    return json.loads(text)["distance"] == _FOREIGN


def is_kept_whole(distance: Any) -> bool:
    """Whether orders keep a fitted distance, so that nothing of it is ever fitted again."""
    try:
        _flat(distance, None, [])
    except ForeignError:
        return False
    return True


def distance_of(text: str, arrays: Arrays) -> Any:
    """The distance of a kept order; None is the problem's own."""
    return _Whole(arrays).of(json.loads(text)["distance"])


def _flat_part(name: str, part: Any, before: Population | None, arrays: Arrays) -> Any:
    known = len(arrays)
    if name == "epsilon" and isinstance(part, np.ndarray):
        return part.tolist()
    try:
        return _flat(part, before, arrays)
    except ForeignError:
        if name != "distance":
            raise
        del arrays[known:]
        return _FOREIGN


def restored(text: str, arrays: Arrays, before: Population | None, prior: Any = None) -> dict[str, Any]:
    """The inverse of `kept`: what an Order is made of, besides its key and its distance.

    prior: the problem's.
    """
    whole, values = _Whole(arrays, before, prior), json.loads(text)
    epsilon = _as_epsilon(values.pop("epsilon"))
    return {name: whole.of(value) for name, value in values.items() if name != "distance"} | {
        "epsilon": epsilon
    }


def _flat(value: Any, before: Population | None, arrays: Arrays) -> Any:
    """A value as JSON has it. Raises ForeignError for what is not of our classes."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_flat(item, before, arrays) for item in value]
    if isinstance(value, np.ndarray):
        for name in _OF_POPULATION:
            if value is getattr(before, name, None):
                return {"of the population": name}
        is_factor = value.ndim == 3  # triangular: half of it is enough
        arrays.append(value[:, *np.tril_indices(value.shape[1])] if is_factor else value)
        return {"array": len(arrays) - 1} | ({"triangular": value.shape[1]} if is_factor else {})
    cls = type(value)
    if _OURS.get(cls.__name__) is not cls:
        raise ForeignError(cls.__name__)
    names = [f.name for f in fields(value) if f.name not in (*_ANEW, *_OF_PROBLEM)]
    described = {n: _flat(getattr(value, n), before, arrays) for n in names if n != _OF_MODELS}
    if isinstance(value, ModelProposal) and before is not None:  # each is fitted to its model's particles
        pairs = zip(value.proposals, before.each(), strict=True)
        described[_OF_MODELS] = [_flat(part, own, arrays) for part, own in pairs]
    return {"class": cls.__name__} | described


@dataclass(frozen=True)
class _Whole:
    """What makes parts of JSON."""

    arrays: Arrays
    before: Population | None = None
    prior: Any = None

    @property
    def layout(self) -> Layout:
        """That of the problem's prior."""
        return layout_of(self.prior)

    def of(self, value: Any) -> Any:
        """The value of which `_flat` made this."""
        if isinstance(value, list):
            return tuple(map(self.of, value))
        if not isinstance(value, dict):
            return value
        if "of the population" in value:
            return getattr(self.before, value["of the population"])
        if "array" in value:
            return _unfolded(self.arrays[value["array"]], value.get("triangular"))
        cls = _OURS[value["class"]]
        parts = {name: self.of(part) for name, part in value.items() if name not in ("class", _OF_MODELS)}
        if _OF_MODELS in value:
            parts[_OF_MODELS] = self._of_models(value[_OF_MODELS])
        theirs = {f.name: getattr(self, f.name) for f in fields(cls) if f.name in _OF_PROBLEM}
        return cls(**parts, **theirs)

    def _of_models(self, described: list[Any]) -> tuple[Any, ...]:
        """The parts for each model."""
        if not isinstance(self.prior, ModelPrior) or self.before is None:
            return tuple(None for _ in described)
        each = zip(described, self.before.each(), self.prior.priors, strict=True)
        return tuple(replace(self, before=own, prior=prior).of(part) for part, own, prior in each)


def _unfolded(array: np.ndarray, d: int | None) -> np.ndarray:
    """The array; factors (N, d, d) of their triangles."""
    if d is None:
        return array
    whole = np.zeros((len(array), d, d))
    whole[:, *np.tril_indices(d)] = array
    return whole
