"""The wait for a call's results: what is seen in its folder, what the batch system says, and what follows."""

import logging
import math
import time
from collections import Counter

from mpiabc.batch import CommandError
from mpiabc.batch.ending import Ending, Why
from mpiabc.cluster.call import Call
from mpiabc.errors import SchedulerError

_log = logging.getLogger(__name__)

_LOOK = 0.5  # seconds between two looks at the folder
_ASK = 5.0  # seconds between two questions to the batch system
_SILENCE = 1800.0  # seconds without an answer of the batch system after which it is given up
_LAG = 15.0  # seconds after a task has gone, in which its file may still come into sight on another node
_RECORD = 60.0  # seconds after a task has gone, in which the accounting may still hear of it
_MOST_STARTS = 3  # of a task that goes without a result
_pause = time.sleep

_ADVICE = {
    Why.CANCELLED: "nothing is submitted again",
    Why.TIME: "give more walltime=",
    Why.MEMORY: "give more memory=",
}


class Wait:
    """Waits until each task has its results, or is known to come to nothing.

    returns: failures of items, and of tasks, are what their items come to; else the first one that is known
    is raised. submits: a task that was lost is submitted again.
    """

    def __init__(self, call: Call, *, returns: bool, submits: bool) -> None:
        self._call, self._returns, self._submits = call, returns, submits
        self._hopeless: dict[int, SchedulerError] = {}
        self._missing_since: dict[int, float] = {}
        self._asked_why = -math.inf
        self._deleted: set[int] = set()  # tasks that were seen to be ended by somebody
        self._starts: Counter[int] = Counter()
        self._reported: set[int] = set()  # items

    def __call__(self) -> dict[int, SchedulerError]:
        """Wait; the tasks that have come to nothing. Raises what an item has, or SchedulerError."""
        asked = answered = time.monotonic()
        while self._is_open():
            _pause(_LOOK)
            if (now := time.monotonic()) - asked < _ASK:
                continue
            asked = now
            try:
                states = self._call.states()
            except CommandError:  # its server is busy, or starts anew: results may come in all the same
                if now - answered > _SILENCE:
                    raise
                continue
            answered = now
            self._judge(states, now)
        return self._hopeless

    def _is_open(self) -> bool:
        """Whether there is something to wait for, after a look at the folder."""
        for item in sorted(self._call.failed() - self._reported):
            failed = self._call.failure(item)
            if not self._returns:
                raise failed.exception()
            self._reported.add(item)
            _log.warning("%s: %s", failed.address, failed.text.splitlines()[-1])
        return len(self._call.done() | self._hopeless.keys()) < self._call.n

    def _judge(self, states: dict[int, str], now: float) -> None:
        """Decide about the tasks of which the batch system knows no more, and which have left no result."""
        call = self._call
        self._refuse_broken(states)
        self._deleted |= {task for task, state in states.items() if state == "deleted"}
        gone = set(range(1, call.n + 1)) - call.done() - states.keys() - self._hopeless.keys()
        self._missing_since = {task: self._missing_since.get(task, now) for task in gone}
        late = {task for task, since in self._missing_since.items() if now - since > _LAG}
        if late and now - self._asked_why > _LAG:
            self._asked_why = now
            self._decide(late, now)

    def _refuse_broken(self, states: dict[int, str]) -> None:
        """Raise for tasks that would wait, or end at once, for ever."""
        for task, state in states.items():
            if state == "error":
                raise SchedulerError(
                    f"the batch system cannot run {self._call.described(task)}. {self._call.last_words(task)}"
                )
        if broken := next(self._call.folder.glob("*.broken"), None):
            text = self._call.described(int(broken.stem))
            raise SchedulerError(f"{text} cannot begin:\n{broken.read_text()}")

    def _decide(self, late: set[int], now: float) -> None:
        """Why they have gone, and what follows: nothing yet, an error, or a new start."""
        try:
            endings, has_records = self._call.endings(late), True
        except CommandError as error:
            _log.debug("no word about why tasks have ended: %s", error)
            endings, has_records = {}, False
        lost = []
        for task in sorted(late - self._call.done()):
            ending = endings.get(task)
            if ending is None and has_records and now - self._missing_since[task] < _RECORD:
                continue
            ending = self._understood(task, ending, has_records)
            if ending.why is Why.LOST and self._submits and self._starts[task] + 1 < _MOST_STARTS:
                lost.append(task)
                continue
            self._give_up(task, ending)
        for task in lost:
            self._starts[task] += 1
            del self._missing_since[task]
        if lost:
            self._call.submit(lost)

    def _understood(self, task: int, ending: Ending | None, has_records: bool) -> Ending:
        """Somebody has cancelled what was seen to be deleted, and what leaves the queue without a trace."""
        text = ending.details if ending else "no record of it is found"
        has_vanished = ending is None and has_records and not self._call.has_begun(task)
        if task in self._deleted or has_vanished:
            return Ending(Why.CANCELLED, text)
        return ending or Ending(Why.LOST, text)

    def _give_up(self, task: int, ending: Ending) -> None:
        """Raise that a task comes to nothing, or note it where failures are returned."""
        call, starts = self._call, self._starts[task] + 1
        advice = _ADVICE.get(
            ending.why, f"it was submitted {starts} times" if self._submits else "it is lost"
        )
        error = SchedulerError(
            f"{call.described(task)} {ending.why.value} ({ending.details}): {advice}. What is finished is "
            f"kept: the same call goes on with it, and cluster.collect({str(call.folder)!r}) has it. "
            f"{call.last_words(task)}"
        )
        if not self._returns or (ending.why is Why.CANCELLED and self._submits):
            raise error
        self._hopeless[task] = error
