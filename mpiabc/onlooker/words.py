"""A view in words and tables: the same on terminal and page. Pure."""

import re

from mpiabc.durations import duration
from mpiabc.onlooker.view import State, View
from mpiabc.population import short
from mpiabc.store.roster import Worker

_MOST_ROWS = 50


def facts_of(view: View) -> list[tuple[str, str]]:
    """Names and values, the most telling first."""
    p, facts = view.progressed, []
    if p is not None:
        facts += [
            ("generation", str(p.level)),
            ("epsilon", short(p.epsilon, 4)),
            (p.counted, f"{p.accepted} of {p.size}"),
            ("simulations/s", f"{p.rate:.3g}"),
            ("busy workers", f"{p.busy} of {p.workers}"),
            ("generation ends in", time_left(view)),
        ]
    else:
        facts += [("generations", str(view.generations)), ("epsilon", view.epsilon or "-")]
    if p is not None and p.models:
        facts.append(("models before", p.models))
    facts += [("failures", str(view.failed))] if view.failed else []
    if view.leader:
        facts += [("leader", view.leader), ("last sign of life", ago(view))]
    return facts


def time_left(view: View) -> str:
    """Until the open generation is complete, once there is a first result."""
    p = view.progressed
    if p is None or view.state is not State.RUNNING:
        return "-"
    return "nothing accepted yet" if p.seconds_left is None else duration(p.seconds_left)


def ago(view: View) -> str:
    """When the run was last heard of."""
    if view.age is None:
        return "-"
    return "now" if view.age < 3 else f"{duration(view.age)} ago"


def part(view: View) -> float:
    """How much of the open generation is there, from 0 to 1."""
    p = view.progressed
    return min(1.0, p.accepted / p.size) if p is not None and p.size else 0.0


def generations_of(view: View, most: int = _MOST_ROWS) -> list[list[str]]:
    """A heading, and a row for each of the last generations."""
    heading = ["generation", "epsilon", "N", "evaluations", "acceptance rate", "ess", "time"]
    rows = view.rows[-most:] if most else ()
    return [heading] + [
        [
            str(row.generation),
            row.epsilon,
            str(row.size),
            str(row.evaluations),
            f"{row.acceptance_rate:.3g}",
            f"{row.ess:.1f}",
            duration(row.seconds),
        ]
        for row in rows
    ]


def hosts_of(view: View) -> list[list[str]]:
    """A heading, and a row for each machine that works for the run."""
    heading = ["host", "workers", "at work", "share of time", "longest"]
    return [heading] + [
        [host.host, str(host.workers), str(host.busy), f"{host.share:.0%}", duration(host.longest)]
        for host in view.hosts
    ]


def workers_of(view: View, most: int = 32) -> list[list[str]]:
    """A heading, and a row for each of those that are at something for longest, by their names."""
    heading = ["worker", "at", "for", "share of time"]
    return [heading] + [
        [worker.who, worker.at or "-", duration(worker.seconds) if worker.at else "-", f"{worker.share:.0%}"]
        for worker in sorted(view.workers[:most], key=_name_of)
    ]


def _name_of(worker: Worker) -> list[tuple[int, str]]:
    """What a worker is sorted by: rank 10 comes after rank 9."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", worker.who)]


def failures_of(view: View) -> list[list[str]]:
    """A heading, and a row for each of the last failures."""
    return [["evaluation", "kind", "error", "theta", "where"]] + [
        [f.address, f.kind, f.error, f.theta, f.where] for f in view.failures
    ]


def line_of(view: View) -> str:
    """All on one line."""
    return f"{view.name}: {view.said}"
