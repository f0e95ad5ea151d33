"""What can be wrong with a Redis server, or the way to it: each in a sentence, with what to do.

redis-py has a class for some of these, and leaves the server's word (NOPERM) out of their text; for others it
keeps the word. In front of what one command of several has met it writes that command, content and all: that
is shown nowhere.
"""

from typing import NamedTuple

from mpiabc.text import shown

_LONGEST = 200  # characters of what a server answers
_GIVE = "give it in the URL, MPIABC_REDIS_PASSWORD, or a password file"


class _Trouble(NamedTuple):
    """Words of an error or names of its class, what the server is then, and whether waiting may help."""

    signs: tuple[str, ...]
    sentence: str
    may_pass: bool = True


_TROUBLES = (
    _Trouble(
        ("another certificate",),
        "has another certificate than the broker's file says: take its present file, if the broker was "
        "started anew; else something stands between",
        may_pass=False,
    ),
    _Trouble(("NOAUTH", "Authentication required"), f"wants a password: {_GIVE}", may_pass=False),
    _Trouble(
        ("NoPermissionError", "NOPERM", "no permissions"),
        "does not let its user do what is needed ({reason}): give that user the rules (ACL) of "
        "examples/redis.md",
        may_pass=False,
    ),
    _Trouble(("OutOfMemoryError", "OOM "), "is full: raise its `maxmemory`, or delete what else is on it"),
    _Trouble(("ReadOnlyError", "READONLY"), "is a replica, which can only be read: give its primary"),
    _Trouble(("MASTERDOWN", "MasterDownError"), "is a replica that has lost its primary: give the primary"),
    _Trouble(
        ("WRONGTYPE",),
        "holds something of another kind under a key of ours (`mpiabc:...`): delete it, or take another "
        "database of it (redis://host:6379/1)",
    ),
    _Trouble(("BusyLoadingError", "LOADING"), "is still reading its data from its disk: try again soon"),
    _Trouble(("BUSY ",), "is held up by somebody's script: wait, or end it with `SCRIPT KILL`"),
    _Trouble(
        ("MISCONF",),
        "cannot write to its disk, and takes nothing until it can: make room there, or set "
        "`stop-writes-on-bgsave-error no`",
    ),
    _Trouble(("NOREPLICAS",), "misses its replicas: start them, or lower `min-replicas-to-write`"),
    _Trouble(
        ("MovedError", "MOVED ", "CLUSTERDOWN", "ClusterDownError", "CROSSSLOT", "ClusterCrossSlotError"),
        "is one of a Redis Cluster: give a server that is alone",
        may_pass=False,
    ),
    _Trouble(
        ("max number of clients",),
        "takes no more connections: raise its `maxclients` (a worker has three), or start fewer workers",
    ),
    _Trouble(("DB index", "invalid DB"), "has no database of that number: give another", may_pass=False),
    _Trouble(
        ("bulk length",),
        "takes no pieces of that size: raise its `proto-max-bulk-len`, or let large data come from a file",
        may_pass=False,
    ),
    _Trouble(
        ("AuthenticationError", "WRONGPASS", "password"),
        f"does not accept the password: {_GIVE}",
        may_pass=False,
    ),
)


def _of(error: Exception) -> _Trouble | None:
    text = " ".join([*(kind.__name__ for kind in type(error).__mro__), reason(error)])
    return next((trouble for trouble in _TROUBLES if any(sign in text for sign in trouble.signs)), None)


def reason(error: Exception) -> str:
    """An error in its own words, without the content that was sent."""
    text = str(error).rpartition("caused error: ")[2].partition(", with args beginning")[0]
    first, *_ = text.splitlines() or [""]
    return shown(first[:_LONGEST]) or type(error).__name__


def refusal(error: Exception, server: str) -> str | None:
    """What a server that answers is; None for errors that are not an answer."""
    trouble = _of(error)
    if trouble is not None:
        return f"the Redis server at {server} {trouble.sentence.format(reason=reason(error))}"
    if any(kind.__name__ == "ResponseError" for kind in type(error).__mro__):
        return f"the Redis server at {server} refuses: {reason(error)}"
    return None


def sentence(error: Exception, server: str) -> str:
    """What is wrong with a server that was to be used now."""
    return refusal(error, server) or f"{_unreachable(error, server)} (the client says: {reason(error)})"


def _unreachable(error: Exception, server: str) -> str:
    text, is_tls = reason(error), server.startswith("rediss")
    if type(error).__name__ == "InvalidResponse":
        return f"what answers at {server} is no Redis server: check host and port"
    if _is_of_tls(text) or (is_tls and "Timeout" in text):
        certificates = "check certificates (that of a broker is in its file: --broker FILE)"
        return f"no TLS connection to {server}: use redis:// if the server has no TLS, or {certificates}"
    if is_cut(error):
        return f"the server at {server} closed the connection: use rediss:// if it speaks TLS"
    start = "start one with `mpiabc broker start`"
    return f"no Redis server answers at {server}: {start}, or check host and port"


def _is_of_tls(text: str) -> bool:
    return "SSL" in text or "CERTIFICATE" in text.upper()


def is_cut(error: Exception) -> bool:
    """Whether a connection that was there has ended."""
    text = reason(error)
    return "closed" in text or "reset" in text.lower() or "Broken pipe" in text


def may_pass(error: Exception) -> bool:
    """Whether waiting may help: a wrong password stays wrong."""
    trouble = _of(error)
    return not _is_of_tls(reason(error)) if trouble is None else trouble.may_pass


def is_of_another_kind(error: Exception) -> bool:
    """Whether there is something under a key that is not what we keep there: it is nobody's."""
    return "WRONGTYPE" in reason(error)
