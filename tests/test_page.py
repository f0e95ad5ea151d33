"""The page of a run: who may look, what it says, and how it looks on in a real browser."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys

import pytest

import mpiabc
from mpiabc import cli
from mpiabc.onlooker.gallery import Gallery, Shown
from mpiabc.onlooker.look import Onlooker
from mpiabc.onlooker.page import Doorkeeper, Looks, application, page_of
from tests import problems
from tests.browser import browser
from tests.conftest import HANGS, environment, imported

TOKEN = "very-secret"


class Client:
    """Asks an application as a server would, in this process."""

    def __init__(self, path, *names):
        imported("starlette")
        self.looks = Looks(Onlooker(path))
        self.looks.gallery.wake = lambda version, *, is_running: None  # nothing is drawn
        self._application = application(self.looks, Doorkeeper(TOKEN, names), path.name)

    def get(self, path="/", token=TOKEN, host="127.0.0.1:8765", method="GET"):
        """Status, headers and body."""
        return asyncio.run(self._get(path, token, host, method))

    async def _get(self, path, token, host, method):
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        query = b"" if token is None else f"token={token}".encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "headers": [(b"host", host.encode())],
            "root_path": "",
        }
        await self._application(scope, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], headers, body.decode(errors="replace")


@pytest.fixture
def client(run):
    return Client(run)


# Who may look.


@pytest.mark.parametrize(
    "token",
    [None, "", "wrong", TOKEN + "2", TOKEN[:-1], "v\N{LATIN SMALL LETTER E WITH ACUTE}ry"],
    ids=["none", "empty", "wrong", "longer", "shorter", "accents"],
)
def test_nothing_is_said_without_the_token_but_how_to_have_it(client, token):
    for path in ["/", "/view.json", "/picture/pairs.png", "/nothing", "/../run.db"]:
        status, headers, body = client.get(path, token)
        assert status == 403
        assert "open the address that `mpiabc serve` has printed" in body
        assert headers["cache-control"] == "no-store"
        assert TOKEN not in body


def test_this_machine_is_asked_by_any_of_its_names(client):
    for host in ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765", "127.0.0.1"]:
        assert client.get(host=host)[0] == 200


def test_foreign_name_that_means_this_machine_is_refused(client):
    """DNS rebinding: with the token, even."""
    for host in ["evil.example", "127.0.0.1.evil.example:8765", "", "localhost.evil:80"]:
        status, _, body = client.get(host=host)
        assert status == 403
        assert "--allow-host" in body


def test_name_of_a_proxy_is_let_through_if_it_is_given(run):
    assert Client(run, "hub.example.org").get(host="hub.example.org")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(client, run, method):
    before = run.read_bytes()
    assert client.get("/", method=method)[0] == 405
    assert client.get("/view.json", method=method)[0] == 405
    assert run.read_bytes() == before


def test_there_are_no_files_and_no_list_of_them(client):
    for path in ["/run.db", "/picture/", "/static", "/assets/page.js", "/picture/..%2frun.db.png"]:
        assert client.get(path)[0] == 404


# What it says.


def test_page_asks_only_for_what_lies_beside_it(client):
    """Relative addresses alone, so that it may lie below any path of a proxy; nothing of another machine."""
    _, headers, page = client.get()
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not re.findall(r"""https?://|(?:src|href|fetch\(|at\()\s*=?\s*["'`]/""", page)
    assert TOKEN not in page


def test_name_of_a_file_is_no_part_of_the_page():
    assert "<script>alert" not in page_of("<script>alert(1)</script>.db", "nonce")


def test_view_is_json_of_texts_for_any_numbers(client):
    """An infinite epsilon is a text: JSON knows no such number."""
    view = json.loads(client.get("/view.json")[2], parse_constant=pytest.fail)
    assert view["state"] == "ended"
    assert view["said"] == "it has come to its end: threshold"
    ((title, (heading, *rows)),) = view["tables"]
    assert title == "generations"
    assert [row[heading.index("generation")] for row in rows] == ["2", "1", "0"]
    assert [row[heading.index("epsilon")] for row in rows] == ["0.8", "1.5", "3"]


def test_damaged_file_is_a_sentence_in_the_page(run):
    run.write_bytes(b"no database at all" * 100)
    status, _, body = Client(run).get("/view.json")
    view = json.loads(body)
    assert (status, view["state"]) == (200, "unreadable")
    assert "it is not an mpiabc run" in view["said"]


def test_file_that_is_not_there_is_a_sentence_in_the_page(tmp_path):
    view = json.loads(Client(tmp_path / "later.db").get("/view.json")[2])
    assert (view["state"], view["said"]) == ("not there", "there is no such file yet")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "give --wait to wait for it"), (b"text" * 99, "it is not an mpiabc run")],
    ids=["missing", "damaged"],
)
def test_serve_says_in_the_terminal_what_is_wrong_with_a_file(tmp_path, capsys, content, said):
    path = tmp_path / "run.db"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["serve", str(path)]) == 1
    assert said in capsys.readouterr().err


def test_port_in_use_is_a_sentence(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(run), "--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_missing_starlette_is_named_with_its_extra(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    assert cli.main(["serve", str(run)]) == 1
    assert "install `mpiabc[serve]`" in capsys.readouterr().err


# Pictures.


class Drawing(Gallery):
    """One that draws when it is asked to, by a clock of its own."""

    def __init__(self, path):
        self.now, self.drawn = 0.0, []
        super().__init__(path, lambda: self.now)

    def _draw(self, version):
        self.drawn.append(version)
        self.now += 10.0
        self._rests_until = self.now + 20.0

    def looked_at(self, version, is_running):
        self.wake(version, is_running=is_running)
        self.close(HANGS)
        return self.drawn


def test_pictures_are_drawn_once_for_each_version_and_a_run_that_goes_on_has_a_rest_of_them(tmp_path):
    gallery = Drawing(tmp_path / "run.db")
    assert gallery.looked_at("0", True) == []
    assert gallery.looked_at("1-a", True) == ["1-a"]
    assert gallery.looked_at("1-a", True) == ["1-a"]
    assert gallery.looked_at("2-b", True) == ["1-a"]
    gallery.now += 30.0
    assert gallery.looked_at("2-b", True) == ["1-a", "2-b"]
    assert gallery.looked_at("3-c", False) == ["1-a", "2-b", "3-c"]


def test_picture_is_served_under_its_name(client):
    client.looks.gallery._pictures["pairs"] = Shown("pairs", "Posterior", "words", "1-a", b"\x89PNG")
    status, headers, body = client.get("/picture/pairs.png")
    assert (status, headers["content-type"]) == (200, "image/png")
    assert body.endswith("PNG")
    assert client.get("/picture/scales.png")[0] == 404
    assert [each["name"] for each in json.loads(client.get("/view.json")[2])["pictures"]] == ["pairs"]


# In a browser.


def serving(path):
    """`mpiabc serve`, and the address that it prints."""
    command = [sys.executable, "-m", "mpiabc", "serve", str(path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
    )
    for line in process.stdout:
        if found := re.search(r"http://127\S+", line):
            return process, found[0]
    pytest.fail("it says no address")


@pytest.mark.long
def test_page_follows_a_run_in_a_browser_without_being_loaded_again(tmp_path):
    """Generations and pictures come while the run goes on, without a word in the console; Ctrl-C ends it."""
    for library in ("starlette", "uvicorn", "jinja2", "matplotlib"):
        imported(library)
    path = tmp_path / "run.db"
    populations = problems.sampler(n=20).sample(path, scheduler="serial")
    next(populations)
    server, url = serving(path)
    try:
        with browser() as page:
            page.open(url)
            page.ask("window.isTheSame = true")
            rows = "document.querySelectorAll('#tables .table:first-child tbody tr').length"
            page.wait_for(f"{rows} == 1")
            next(populations)
            page.wait_for(f"{rows} == 2")
            digests = problems.digests(list(populations) and mpiabc.open(path))
            page.wait_for(f"{rows} == 3 && one('state').textContent == 'ended'")
            page.wait_for("[...document.images].some((image) => image.naturalWidth > 100)")
            assert page.ask("window.isTheSame") is True
            assert page.ask("document.querySelectorAll('form, input, button').length") == 0
            assert page.console == []
    finally:
        server.send_signal(signal.SIGINT)
        said, _ = server.communicate(timeout=HANGS)
    assert server.returncode == 0, said
    assert "Traceback" not in said
    assert problems.digests(mpiabc.open(path)) == digests
