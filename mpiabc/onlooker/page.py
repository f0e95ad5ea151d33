"""A run as a page, with Starlette (`mpiabc[serve]`): read-only, for who has its token, on this machine alone.

A page in a browser may ask any address of this machine: the token keeps others out, and the name that a
request is for is checked, as a foreign name may be made to mean this machine (DNS rebinding). All addresses
in the page are relative, so it may lie below any path of a proxy.
"""

import hmac
import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from mpiabc.errors import Error, StoreError
from mpiabc.onlooker import words
from mpiabc.onlooker.gallery import Gallery
from mpiabc.onlooker.look import Onlooker
from mpiabc.onlooker.view import State, View
from mpiabc.text import shown_lines

MISSING = "the page needs starlette, uvicorn, jinja2 and matplotlib: install `mpiabc[serve]`"

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_FRESH = 0.5  # seconds for which a view is good for all who look
_NO_TOKEN = (
    "This page is for who has its token: open the address that `mpiabc serve` has printed, with ?token= and "
    "all that follows."
)
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",  # it has the token
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    sentence: str


@dataclass(frozen=True)
class Doorkeeper:
    """Who may look: requests for a name of this machine, with the token."""

    token: str
    names: Collection[str] = ()  # besides those of loopback

    def refusal(self, host: str, query: str) -> Refusal | None:
        """Why this request is refused, if it is."""
        name = _without_port(host)
        if name not in (*_LOOPBACK, *self.names):
            allowed = f"if {name!r} is the name of a proxy of yours, give `mpiabc serve --allow-host {name}`"
            return Refusal(403, f"This page is for 127.0.0.1 and localhost: {allowed}.")
        given = parse_qs(query).get("token", [""])[-1]
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return Refusal(403, _NO_TOKEN)
        return None


def _without_port(host: str) -> str:
    """The name in a Host header, in lower case."""
    name, colon, port = host.strip().lower().rpartition(":")
    return name if colon and port.isdecimal() else host.strip().lower()


class Looks:
    """The view for all who look, at most one look in half a second; and its pictures."""

    def __init__(self, onlooker: Onlooker, clock: Callable[[], float] = time.monotonic) -> None:
        self.gallery = Gallery(onlooker.path)
        self._onlooker, self._clock = onlooker, clock
        self._lock = threading.Lock()
        self._at, self._current = -_FRESH, dict[str, Any]()

    def current(self) -> dict[str, Any]:
        """The view as JSON; a file that cannot be read is a sentence in it."""
        with self._lock:
            if self._clock() >= self._at + _FRESH:
                self._current, self._at = self._look(), self._clock()
            pictures = self.gallery.pictures()
            words_of = [
                {"name": p.name, "title": p.title, "caption": p.caption, "version": p.version}
                for p in pictures
            ]
            return self._current | {"pictures": words_of, "findings": self.gallery.findings()}

    def _look(self) -> dict[str, Any]:
        try:
            view = self._onlooker.look()
        except StoreError as error:
            return {"name": self._onlooker.path.name, "state": "unreadable", "said": shown_lines(str(error))}
        self.gallery.wake(view.version, is_running=view.state is State.RUNNING)
        return as_json(view)


def as_json(view: View) -> dict[str, Any]:
    """A view in texts, as the page shows them."""
    tables = {
        "generations": words.generations_of(view)[:1] + words.generations_of(view)[:0:-1],
        "hosts": words.hosts_of(view) if len(view.hosts) > 1 else [],
        "workers": words.workers_of(view),
        "last failures": words.failures_of(view),
    }
    return {
        "name": view.name,
        "problem": view.problem,
        "state": view.state.value,
        "said": view.said,
        "version": view.version,
        "generations": view.generations,
        "part": None if view.progressed is None else words.part(view),
        "facts": words.facts_of(view),
        "warnings": list(view.warnings),
        "tables": [[title, rows] for title, rows in tables.items() if len(rows) > 1],
    }


def page_of(name: str, nonce: str) -> str:
    """The page, which has all that it needs but the run. Raises Error without jinja2."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise Error(MISSING) from None
    assets = {file: _asset(file) for file in ("page.html", "page.css", "page.js")}
    template = Environment(autoescape=True).from_string(assets["page.html"])
    return template.render(name=name, nonce=nonce, style=assets["page.css"], script=assets["page.js"])


def _asset(name: str) -> str:
    return (files("mpiabc.onlooker") / "assets" / name).read_text(encoding="utf-8")


def application(looks: Looks, keeper: Doorkeeper, name: str) -> Any:
    """The page and what it asks for. Raises Error without Starlette."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise Error(MISSING) from None

    def page(request: Any) -> Any:
        nonce = secrets.token_urlsafe(16)
        policy = {"content-security-policy": _POLICY.format(nonce=nonce)}
        return HTMLResponse(page_of(name, nonce), headers=_HEADERS | policy)

    def view(request: Any) -> Any:
        return JSONResponse(looks.current(), headers=_HEADERS)

    def picture(request: Any) -> Any:
        found = looks.gallery.picture(request.path_params["name"])
        if found is None:
            return PlainTextResponse("There is no such picture of this run.", 404, headers=_HEADERS)
        return Response(found.png, media_type="image/png", headers=_HEADERS)

    def missing(request: Any, error: Any) -> Any:
        sentence = "There is nothing here but the page of one run, and nothing can be changed."
        return PlainTextResponse(sentence, error.status_code, headers=_HEADERS)

    routes = [Route("/", page), Route("/view.json", view), Route("/picture/{name}.png", picture)]
    return guarded(Starlette(routes=routes, exception_handlers={404: missing, 405: missing}), keeper)


def guarded(application: Any, keeper: Doorkeeper) -> Any:
    """An ASGI application that is asked only what the keeper lets through."""
    from starlette.responses import PlainTextResponse

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        hosts = [value.decode("latin-1") for key, value in scope["headers"] if key == b"host"]
        query = scope["query_string"].decode("latin-1")
        refusal = keeper.refusal(hosts[0] if len(hosts) == 1 else "", query)
        answer = application
        if refusal is not None:
            answer = PlainTextResponse(refusal.sentence, refusal.status, headers=_HEADERS)
        await answer(scope, receive, send)

    return guard
