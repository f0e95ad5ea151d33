"""Whatever is wrong with a Redis server, or the line to it, is held or reported, never wrong in silence."""

import json
from dataclasses import replace

import pytest

from mpiabc.records import brought, pack
from mpiabc.schedulers.base import Doubted
from mpiabc.schedulers.redis import troubles, wire
from mpiabc.schedulers.redis.line import Line
from mpiabc.schedulers.shared.messages import Kind
from mpiabc.version import versions
from tests import bridge, problems, server_faults

IN_TEST_REDIS = {
    "killed and started again empty",
    "killed and started again with its data",
    "the line is mute for a while",
    "a worker comes and is killed again and again",
}


FAULTS = [name for name in server_faults.FAULTS if name not in IN_TEST_REDIS]


@pytest.mark.long
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_held_or_reported(name, tmp_path):
    """The rows of `python -m tests.server_faults`."""
    _, trouble = server_faults.play(name, tmp_path)
    assert trouble is None, trouble


@pytest.mark.long
def test_what_is_held_is_not_reported_nor_reported_in_other_words(monkeypatch, tmp_path):
    """The check of the check."""
    for words, found in [("", ["other digests"]), ("these words", ("other words",))]:
        monkeypatch.setitem(
            server_faults.FAULTS, "a fault", server_faults.Fault(lambda scene, it=found: it, words)
        )
        assert server_faults.play("a fault", tmp_path)[1] is not None


@pytest.mark.parametrize("is_lost", [False, True])
def test_word_that_is_lost_puts_in_doubt_what_came_home_before(is_lost, tmp_path):
    """A worker that is signalled says what it doubts; a connection that breaks may take that along."""
    with server_faults.Scene(tmp_path) as scene:
        server = scene.server()
        engine = server.scheduler().open(problems.problem())
        reports = wire.key(engine._run, "reports")
        hello = {"host": "h", "process": 1, "places": 1, "versions": versions()}
        records = replace(brought(0, 0, 1, b"", 0.0), is_exposed=True)
        said = [
            (Kind.HELLO, 1, json.dumps(hello).encode()),
            (Kind.RECORDS, 2, pack(records)),
            (Kind.BEAT, 3 + is_lost, json.dumps([0, []]).encode()),
        ]
        for kind, serial, content in said:
            head = wire.REPORT.pack(kind, b"w" * 16, serial, 0)
            server.client.rpush(reports, wire.Signer(bridge.SECRET.encode()).sign(reports, head + content))
        found = engine.poll(1)
        while not found or len(engine._workers):  # the last that it says is that it leaves
            found += engine.poll(0.1)
        engine.close(0)
    assert (Doubted((records.lease,)) in found) == is_lost


def test_what_came_of_an_evaluation_and_is_too_large_is_its_failure(monkeypatch):
    """Of several, all go out again, one by one."""
    monkeypatch.setattr(wire, "LARGEST", 1000)
    server = wire.Server("redis://127.0.0.1:1")
    line = Line(server, "run")
    line.tell([brought(0, 5, 6, bytes(2000), 0.0), brought(0, 6, 8, bytes(2000), 0.0)])
    lost = []
    for message in line._outbox:
        content = message[wire.Signer.SIZE :]
        assert wire.REPORT.unpack_from(content)[0] == Kind.LOST
        lost.append(json.loads(content[wire.REPORT.size :]))
    (_, _, why, culprit, *_), (_, _, _, nobody, *_) = lost
    assert "and a Redis server takes" in why
    assert (culprit, nobody) == (5, None)


def test_content_of_commands_is_shown_nowhere():
    """redis-py writes a piped command into its error; a server the arguments of one that it does not know."""
    piped = (
        "Command # 1 (SET mpiabc:a:problem \x80secret\x1b[2J) of pipeline caused error: command not allowed"
    )
    unknown = "unknown command 'BLMPOP', with args beginning with: 'secret'"
    for text in (piped, unknown, "\x1b[2J"):
        message = troubles.sentence(bridge.redis.exceptions.OutOfMemoryError(text), "redis://h:1")
        assert "secret" not in message
        assert "\x1b" not in message
