"""What a constraint leaves of a prior, by which evidence is divided: `where` narrows and never rescales."""

from typing import Any

from mpiabc.errors import ProblemError
from mpiabc.priors.prior import Prior, satisfies
from mpiabc.streams import Purpose, Stream

_DRAWS = 1_000_000
_AT_ONCE = 10_000


def share_inside(prior: Any, key: tuple[int, int]) -> float:
    """The share of a million draws of the marginals that `where` leaves, 1 without one.

    Its relative standard error is sqrt((1 - share) / share) / 1000. Raises ProblemError if none is left.
    """
    if not isinstance(prior, Prior) or prior.where is None:
        return 1.0
    stream, inside = Stream(key, Purpose.CONSTRAINT), 0
    for block in range(_DRAWS // _AT_ONCE):
        theta = prior.sample(_AT_ONCE, stream.at(0, block))
        inside += int(satisfies(prior.where, prior.layout, theta).sum())
    if not inside:
        raise ProblemError(
            f"none of {_DRAWS} draws of the prior satisfies where: widen it, or give marginals closer to it"
        )
    return inside / _DRAWS
