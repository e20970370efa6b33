"""What the log says of connections: an id on the user's screen leads to its line, and nobody can fill it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from wsmonitor.client import Target, connect
from wsmonitor.protocol.defaults import Limits
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import Error, PublishOpened, Rejected
from wsmonitor_server import journal
from wsmonitor_server.embedded import EmbeddedServer
from wsmonitor_server.journal import Journal
from wsmonitor_server.tenants import TenantLimits

from .machine import Machine
from .raw import get
from .test_draining import until
from .test_real_engine import Publisher, chain
from .wire import client


class Lines(logging.Handler):
    """The events that were logged, each with its fields."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append({"event": record.getMessage(), **getattr(record, "wsmonitor_fields", {})})

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.found if line["event"] == event]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("wsmonitor_server")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_a_refusal_leads_to_its_line(lines: Lines) -> None:
    async with (
        EmbeddedServer(limits=Limits(publications=1)) as server,
        client(server, server.token(sub="ada", tenant="acme"), hello=False) as one,
    ):
        await one.hello(agent="train.py", instance="i-1")
        await one.send("publish_open", request=1, session="s~1", producer="p", agent="a")
        await one.expect(PublishOpened)
        await one.send("publish_open", request=2, session="s~2", producer="p", agent="a")
        error = (await one.expect(Error)).error
        assert error.correlation == f"{server.server.instance[:8]}-c1-1"
        [line] = lines.of("refused")
        assert line == {
            "event": "refused",
            "connection": "c1",
            "subject": "ada",
            "tenant": "acme",
            "client": "i-1",
            "correlation": error.correlation,
            "code": "limit_exceeded",
            "reason": error.message,
            "session": "s~2",
            "producer": "p",
            "request": 2,
        }
        [opened] = lines.of("producer opened")
        assert (opened["connection"], opened["session"], opened["producer"]) == ("c1", "s~1", "p")


async def test_so_does_a_change_that_was_refused(lines: Lines) -> None:
    async with EmbeddedServer() as server, client(server) as one:
        publisher = Publisher(one, "s~1")
        await publisher.open()
        await one.send(
            "publish",
            session="s~1",
            producer="p",
            producer_epoch=1,
            first=1,
            changes=[chain("c") | {"name": 7}],
        )
        error = (await one.expect(Rejected)).error
        assert error.correlation
        assert [line["code"] for line in lines.of("refused")] == [error.code]
        assert lines.of("refused")[0]["correlation"] == error.correlation


async def test_what_is_forbidden_or_absent_is_logged_and_answered_alike(lines: Lines) -> None:
    async with EmbeddedServer() as server, client(server, server.token(sessions=("a*",))) as one:
        answers = []
        for session in ("a-absent", "forbidden"):
            await one.send("remove", request=1, session=session)
            answers.append((await one.expect(Error)).error)
        assert [one.correlation for one in answers] == ["", ""]
        assert [line["session"] for line in lines.of("refused")] == ["a-absent", "forbidden"]


async def test_nobody_can_fill_the_log(lines: Lines) -> None:
    """A burst is logged, and how many more there were; of another connection nothing is left out."""
    async with EmbeddedServer(metrics=True) as server, client(server) as flood, client(server) as other:
        for number in range(200):
            await flood.send("remove", request=number, session="absent")
            await flood.expect(Error)
        await other.send("remove", request=1, session="absent")
        await other.expect(Error)
        refused = lines.of("refused")
        assert [line["connection"] for line in refused].count("c2") == 1
        written = [line for line in refused if line["connection"] == "c1"]
        left_out = server.server.counters["log_lines_suppressed_total"]
        assert len(written) + left_out == 200
        assert left_out > 0
        _, _, text = await get(server, "/metrics")
        assert f"wsmonitor_log_lines_suppressed_total {left_out}\n".encode() in text
        await flood.socket.close()
        await until(lambda: len(server.server.journal) == 1)
        [closed] = lines.of("connection closed")
        told = sum(line.get("left_out", 0) for line in written) + closed.get("left_out", 0)
        assert told == left_out


async def test_strangers_share_what_is_written_of_them(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "STRANGERS_BURST", 3)
    monkeypatch.setattr(journal, "STRANGERS_RATE", 0.000_1)
    async with EmbeddedServer() as server:
        for number in range(5):
            status, _, body = await get(server, f"/nothing{number}")
            assert status == 404
            error = json.loads(body)["error"]
            assert error["correlation"] == f"{server.server.instance[:8]}-c{number + 1}"
        assert [line["connection"] for line in lines.of("request refused")] == ["c1", "c2", "c3"]
        assert server.server.counters["log_lines_suppressed_total"] == 2


async def test_the_id_is_on_the_users_screen(lines: Lines) -> None:
    async with EmbeddedServer(limits=Limits(value_size=10)) as server:
        with pytest.raises(InvalidStatus) as refused:
            async with client(server, "no token"):
                pass
        ident = json.loads(refused.value.response.body or b"")["error"]["correlation"]
        assert lines.of("request refused")[0]["correlation"] == ident

        def at_the_client() -> tuple[str, str]:
            with connect(Target(url=server.url, token="no token")) as link:
                reason = link.wait_for(lambda status: bool(status.reason), 60).reason
            return reason, lines.of("request refused")[-1]["correlation"]

        reason, ident = await asyncio.to_thread(at_the_client)
        assert f"(server log: {ident})" in reason


async def test_what_becomes_of_a_command_is_logged(lines: Lines) -> None:
    async with (
        EmbeddedServer() as server,
        client(server, sub="p") as program,
        client(server, sub="u") as user,
    ):
        publisher = Publisher(program, "s~1")
        await publisher.open()
        commands = [{"name": "pause"}]
        await publisher.publish({"op": "session", "name": "s", "state": "running", "commands": commands})
        await user.send("command", request=1, session="s~1", key="ab" * 16, name="pause", deadline_ms=60_000)
        await until(lambda: lines.of("command taken"))
        [taken] = lines.of("command taken")
        assert (taken["subject"], taken["session"], taken["command"]) == ("u", "s~1", "ab" * 16)
        [requested] = lines.of("a command is requested")
        assert (requested["session"], requested["command"]) == ("s~1", "ab" * 16)


def test_what_ends_after_its_connection_leaves_no_note(lines: Lines) -> None:
    """A request may be carried out to its end when nobody is there any more: it is logged all the same."""
    machine = Machine()
    written = Journal("0123456789abcdef", machine.clock, Counter())
    ident = written.refused(machine.peer, ErrorInfo(code="gone", message="m"), 1)
    assert ident == "01234567-1-1"
    assert len(written) == 1
    machine.peer.lost()
    assert written.closed(machine.peer.ident) == 0
    written.done(machine.peer, "command taken", command="c")
    assert [line["command"] for line in lines.of("command taken")] == ["c"]
    assert len(written) == 0


async def test_who_is_turned_away_with_a_good_token_is_named(lines: Lines) -> None:
    async with EmbeddedServer(tenant_limits=TenantLimits(connections=1)) as server:
        first, second = (server.token(sub=sub, tenant="acme") for sub in ("ada", "bob"))
        async with client(server, first):
            with pytest.raises(InvalidStatus):
                async with client(server, second):
                    pass
            with pytest.raises(InvalidStatus):
                async with client(server, "not a token"):
                    pass
    known, stranger = lines.of("request refused")
    assert (known["code"], known["subject"], known["tenant"]) == ("limit_exceeded", "bob", "acme")
    assert "subject" not in stranger
