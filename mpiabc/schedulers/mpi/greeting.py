"""What a rank says of itself before it has leases, and whether it may have any."""

import json
import logging
from dataclasses import dataclass
from typing import TypedDict

from mpiabc.errors import ProblemError, SchedulerError
from mpiabc.fingerprint import Fingerprint, differences, differing_parts
from mpiabc.fingerprint.words import in_words
from mpiabc.schedulers.base import Shared
from mpiabc.version import digit_difference, version_difference, versions

_log = logging.getLogger(__name__)


class Hello(TypedDict, total=False):
    """Who a rank is, and what it is to evaluate; of another mpiabc, perhaps nothing of it."""

    where: str
    versions: dict[str, str]
    parts: dict[str, str]
    fingerprint: str


def hello(where: str, problem: Shared) -> bytes:
    """Who a rank is, and what it is to evaluate."""
    parts = {name: str(part) for name, part in problem.parts().items()}
    answer: Hello = {"where": where, "versions": versions(), "parts": parts}
    answer["fingerprint"] = problem.fingerprint.to_json()
    return json.dumps(answer).encode()


@dataclass(frozen=True)
class Expected:
    """What ranks are to say of themselves: what rank 0 would say, or what differs in nothing that matters."""

    parts: dict[str, str]
    fingerprint: Fingerprint
    mine: Hello

    @classmethod
    def of(cls, problem: Shared) -> "Expected":
        """Of rank 0's own problem."""
        return cls(problem.parts(), problem.fingerprint, read(hello("", problem)))

    def checked(self, content: bytes, rank: int) -> str:
        """Where the rank is. Raises SchedulerError or ProblemError for one that would evaluate otherwise."""
        answer = read(content)
        if answer | {"where": ""} == self.mine:  # as it is with nearly all, of whom there may be thousands
            return answer["where"]
        return checked(answer, rank, self.parts, self.fingerprint)


def read(content: bytes) -> Hello:
    """What a rank says of itself; nothing if another mpiabc says it in another way."""
    try:
        return json.loads(content)
    except ValueError:
        return {}


def checked(answer: Hello, rank: int, parts: dict[str, str], mine: Fingerprint) -> str:
    """Where the rank is. Raises SchedulerError or ProblemError for one that would evaluate something else."""
    where = answer.get("where", f"rank {rank}")
    if difference := version_difference(answer.get("versions")):
        raise SchedulerError(f"{where} differs from rank 0: {difference}; use one environment")
    if difference := digit_difference(answer["versions"]):
        _log.warning("%s: %s; digests may differ in the last bit", where, difference)
    if different := differing_parts(parts, answer["parts"]):
        raise ProblemError(
            f"{where} built another problem than rank 0: its {' and '.join(different)} differ; "
            "all ranks run the same script, so give random numbers in it a seed"
        )
    theirs = _as_rank_0(Fingerprint.from_json(answer["fingerprint"]), mine, rank)
    if different := differences(theirs, mine):
        text = "; ".join(in_words(different[:5]))
        raise ProblemError(
            f"{where} has other code or values in its problem than rank 0: {text} "
            "(there is that rank); all ranks run the same script with the same modules"
        )
    return where


def _as_rank_0(theirs: Fingerprint, mine: Fingerprint, rank: int) -> Fingerprint:
    """What a rank has, where its own number is no difference: scripts keep it for names of files."""

    def named(there: dict[str, str], here: dict[str, str]) -> dict[str, str]:
        own = {name for name, text in there.items() if text == str(rank) and here.get(name) == "0"}
        return there | dict.fromkeys(own, "0")

    return Fingerprint(named(theirs.code, mine.code), named(theirs.values, mine.values))
