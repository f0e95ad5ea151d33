"""The ranks of an MPI job as a scheduler: who leads, and who serves."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mpiabc import team
from mpiabc.errors import Interrupted, SchedulerError
from mpiabc.schedulers import teams
from mpiabc.schedulers.base import Lost, Shared, count
from mpiabc.schedulers.beside import Beside
from mpiabc.schedulers.foreign import Comm
from mpiabc.schedulers.mpi.communicators import checked, duplicate_of, keyval, our_own, where_is
from mpiabc.schedulers.mpi.ending import abort, left
from mpiabc.schedulers.mpi.held import Hold, held_now, hold_of
from mpiabc.schedulers.mpi.home import Home
from mpiabc.schedulers.mpi.launch import load_mpi
from mpiabc.schedulers.mpi.leader import Ranks
from mpiabc.schedulers.mpi.rank import Rank
from mpiabc.schedulers.together import Together
from mpiabc.signals import Signals, heard

_log = logging.getLogger(__name__)


class MPI:
    """The ranks of a communicator (COMM_WORLD by default), rank 0 of which leads.

    is_static: `size` slots are dealt out, and each tries until it has its acceptance. team: so many ranks
    simulate together, `simulate(theta, rng, *, comm)`, with the same theta and the same state of rng; what
    the first of them returns counts. Ranks that fill no team idle.
    """

    def __init__(self, comm: Comm | None = None, *, team: int | None = None, is_static: bool = False) -> None:
        self.comm = comm
        self.team = team
        self.is_static = is_static

    def __repr__(self) -> str:
        options = "" if self.team is None else f"team={self.team}"
        return f"MPIStatic({options})" if self.is_static else f"MPI({options})"

    def leads(self) -> bool:
        """Whether this is rank 0. Raises SchedulerError for teams that these ranks cannot make up."""
        size = 1 if self.team is None else count(self.team, f"MPI(team={self.team!r})")
        comm = self._communicator()
        if size > comm.size:
            raise SchedulerError(
                f"MPI(team={self.team}) on {comm.size} rank{'s' * (comm.size > 1)}: start at least as many "
                "ranks as make up a team, or take a smaller one"
            )
        return comm.rank == 0

    def open(self, problem: Shared) -> Together:
        """Greet the other ranks and take this rank's own core into service."""
        comm = self._communicator()
        try:
            comm, cores, who = our_own(comm)
        except KeyboardInterrupt:  # the ranks that are missing can be sent nothing
            stopped = Interrupted(f"stopped by {heard()} before all ranks had come")
            abort(comm, stopped.code, str(stopped))
        if comm.size == 1:
            return Together([Home(problem, where_is(comm), cores, None, self._known(who))])
        hold = self.held()
        if self._has_teams():
            if hold:
                raise SchedulerError(
                    f"{self!r}: the other ranks of this script serve a sampler of pyABC, each by itself: run "
                    "simulators that need teams in a script of their own"
                )
            return _opened_teams(problem, comm, who, self._group(comm))
        ranks = Ranks(comm, problem, hold=hold)
        return Together([ranks, Home(problem, where_is(comm), cores, ranks, self._known(who))])

    def serve(self, problem: Shared) -> None:
        """Work for rank 0. Raises Interrupted or SystemExit if the run ends so there."""
        with Signals() as signals:
            signals.settle()
            comm, cores, who = our_own(self._communicator())
            group = self._group(comm) if self._has_teams() else None
            status = Rank(comm, problem, cores, signals, self._known(who), group).run()
        _finish(status)

    def _has_teams(self) -> bool:
        """Whether several ranks simulate together."""
        return self.team is not None and self.team > 1

    def _known(self, who: team.Worker) -> team.Worker:
        """As whom a rank evaluates that is a team of its own, or of none."""
        return replace(who, team=who.rank) if self.team == 1 else who

    def _group(self, comm: Comm) -> teams.Group:
        """The teams of a communicator of ours, as this rank sees them; made once for each size."""
        there = comm.Get_attr(keyval())
        kept: dict[int | None, teams.Group] = there if isinstance(there, dict) else {}
        if self.team not in kept:
            kept[self.team] = teams.made(load_mpi(), duplicate_of(comm), self.team or 1)
            comm.Set_attr(keyval(), kept)
        return kept[self.team]

    # Ranks that are held: whatever rank 0 opens, they serve, and wait for the next.

    def hold(self) -> bool:
        """On rank 0, hold the other ranks from now on, until `release`: true. On these, serve so long: false.

        Raises Interrupted or SystemExit where that ends with another status than 0.
        """
        comm, cores, who = our_own(self._communicator())
        if comm.rank == 0:
            hold_of(comm, load_mpi()).depth += 1
            return True
        with Signals() as signals:
            signals.settle()
            status = 0
            while status == 0:
                status = Rank(comm, None, cores, signals, who).run()
        _finish(status)
        return False

    def held(self) -> "Hold | None":
        """What is known of the ranks that are held now, the same for all that share them; None on others."""
        return held_now(our_own(self._communicator())[0])

    def are_gone(self) -> bool:
        """Whether nobody holds them any more."""
        return self.held() is None

    def lend(self, give_back: Callable[[], None]) -> None:
        """What is open now is closed by `give_back`, as soon as rank 0 opens anything else for held ranks."""
        if hold := self.held():
            hold.give_back = give_back

    def release(self, status: int = 0) -> None:
        """Let the ranks go when all who hold them have: they end with this status, or go on after 0."""
        if not left and (hold := self.held()):
            hold.depth -= 1
            if not hold.depth:
                hold.end(status)

    def _communicator(self) -> Comm:
        library = load_mpi()
        if left:
            raise SchedulerError("the other ranks have left after the last run's error: start the job again")
        return library.COMM_WORLD if self.comm is None else checked(library, self.comm)


def MPIStatic(comm: Comm | None = None, *, team: int | None = None) -> MPI:
    """Static scheduling over MPI: no simulation is wasted, the slowest slot is waited for."""
    return MPI(comm, team=team, is_static=True)


def _opened_teams(problem: Shared, comm: Comm, who: team.Worker, group: teams.Group) -> Together:
    """Greet the other ranks, and lead this rank's team beside them, if it is in one."""
    library, where = load_mpi(), where_is(comm)
    ranks = Ranks(comm, problem, group.plan)
    for remark in teams.remarks(group.plan, is_threaded=teams.is_threaded(library)):
        _log.warning(remark)
    if group.number is None:
        return Together([ranks])

    def make_lead(give_up: Callable[[Lost], None]) -> teams.Lead:
        lead = teams.Lead(group, library, where, problem.timeout, give_up)
        lead.wire.run = ranks.number
        return lead

    who = replace(who, team=group.number)
    return Together([ranks, Beside(problem, where, who, make_lead, partial(abort, comm, 1))])


def _finish(status: int) -> None:
    if status > 1:
        raise Interrupted(code=status)
    if status > 0:
        raise SystemExit(status)
