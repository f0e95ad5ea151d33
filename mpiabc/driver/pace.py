"""How large leases are: work of measured cost, so that messages cost little and nobody waits for the last."""

from mpiabc.records import Records

_LEAST = 0.05  # of the engine's target: less work costs more to send than to do
_A_SECOND = 2000.0  # leases that a leading process handles with half of its core
_LONGER = 16  # times the engine's target at most, where leases come late
_LONGEST = 1.0  # seconds of such a lease: a stop waits for it
_OFTEN = 0.25  # of the leases: so many come late
_ROUND = 4  # leases a worker, after which it is seen how many did
_PREFETCH = 5.0  # times the engine's target: with more work, waiting for the next lease costs nothing


class Pace:
    """Lease sizes from the measured cost of an evaluation, a mean with a short memory.

    Workers of quick evaluations hold a lease ahead. Where many leases find their worker without any, the
    leading process does not keep up with them, as where ranks outnumber cores: they become longer.
    """

    def __init__(self, target: float = 0.05) -> None:
        """target: seconds of work in a lease."""
        self._target = target
        self._factor = 1
        self._given = self._late = 0
        self._seconds = 0.0
        self._count = 0.0
        self.longest = 0.0  # seconds of a lease, of late: an outlier is forgotten within hundreds of leases

    @property
    def cost(self) -> float:
        """Seconds for one evaluation (one slot, if static); 0 before the first measurement."""
        return self._seconds / self._count if self._count else 0.0

    def learn(self, records: Records) -> None:
        """Take in the time that a lease needed."""
        memory = 0.9 if self._seconds < 1.0 else 1.0 / (1.0 + records.seconds)
        self._seconds = memory * self._seconds + records.seconds
        self._count = memory * self._count + len(records)
        self.longest = max(records.seconds, 0.99 * self.longest)

    def give(self, late: int, given: int, workers: int) -> None:
        """So many leases were given where workers hold one ahead, some of them to workers that held none."""
        self._given += given
        self._late += min(max(0, late), given)
        if self._given >= _ROUND * workers:
            if self._late > _OFTEN * self._given:
                self._factor = min(2 * self._factor, _LONGER)
            self._given = self._late = 0

    def size(self, expected: float, workers: int) -> int:
        """Evaluations for the next lease, when about `expected` more are needed."""
        if not self.cost:
            return 1
        usual = max(self._target, workers / _A_SECOND)
        fair = max(expected / (2 * workers), _LEAST * usual / self.cost)
        return max(1, int(min(self._lengthened(usual) / self.cost, fair)))

    def is_quick(self, n: int) -> bool:
        """Whether workers should hold the next lease before they need it."""
        return 0 < n * self.cost < _PREFETCH * self._lengthened(self._target)

    def _lengthened(self, seconds: float) -> float:
        return max(seconds, min(self._factor * seconds, _LONGEST))
