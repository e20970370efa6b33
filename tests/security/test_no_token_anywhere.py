"""A token is in the handshake and nowhere else (ASVS 5.0, 14.2.1, 16.2.5; protocol, rule 13): not in a URL,
log, error, metric, traceback, ``repr``, exported page, or on the disk."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest

import wsmonitor as wm
from tests.server_front.fakes import FakeEngine
from tests.server_front.raw import ask, get
from tests.server_front.wire import client
from wsmonitor.client import connect
from wsmonitor.client.actions import Open
from wsmonitor.client.driver import Endpoint
from wsmonitor.client.types import Target
from wsmonitor.protocol.messages import Refresh
from wsmonitor_server.auth import Authenticator, AuthError, SecretKey
from wsmonitor_server.embedded import EmbeddedServer, ThreadedServer
from wsmonitor_server.http import Upgrade

from .conftest import Ear
from .tokens import NOW, SECRET, token

PATIENCE = 60.0


def secret_parts(*tokens: str) -> list[str]:
    """What of a token makes it one: its signature, and the whole."""
    return [*tokens, *(one.split(".")[2] for one in tokens if one.count(".") == 2)]


def test_nothing_prints_its_token() -> None:
    """``repr`` is what debuggers, assertions and error reports show."""
    given = token()
    holders = [
        Upgrade(given, browser=False),
        Refresh(request=1, token=given),
        Open(1, "ws://x", given),
        Endpoint("ws://x", given),
        Target(url="ws://x", token=given),
        Authenticator(SecretKey(SECRET), lambda jti: False).verify(given, NOW),
        EmbeddedServer(key=SECRET),
        SecretKey(SECRET),
    ]
    for holder in holders:
        shown = f"{holder!r} {holder}"
        assert given not in shown
        assert SECRET.decode() not in shown


def test_a_refusal_s_traceback_has_no_token() -> None:
    """Also with all the causes: that is what a crash report has."""
    auth = Authenticator(SecretKey(SECRET), lambda jti: False)
    for given in (
        token(b"another secret of thirty-two bytes"), token(exp=5), token(aud="x"), token(role="root"),
        token(header={"crit": ["x"]}), token()[:-5] + "=====", token() + ".x", "\udcff" + token(),
    ):  # fmt: skip
        with pytest.raises(AuthError) as caught:
            auth.verify(given, NOW)
        text = "".join(traceback.format_exception(caught.value))
        assert not [one for one in secret_parts(given) if one in text]


@pytest.mark.parametrize(
    "path", ["/?token={}", "/?access_token={}", "/?x=1&JWT={}", "/healthz?bearer={}", "/?Token={}"]
)
async def test_a_token_in_a_url_is_refused_without_repeating_it(path: str, ear: Ear) -> None:
    """RFC 6750, 5.3; ASVS 14.2.1."""
    async with EmbeddedServer(engine=lambda *_: FakeEngine()) as server:
        given = server.token()
        status, headers, body = await ask(server, path.format(given), {"Authorization": f"Bearer {given}"})
    assert status == 400
    assert b"does not belong into the URL" in body
    for one in secret_parts(given):
        assert one.encode() not in body
        assert one not in str(headers)
        assert one not in ear.text.getvalue()


def places(given: str) -> list[dict[str, str | None]]:
    """Headers of handshakes, nearly all of them refused, with a token in every place where one may stand."""
    bearer, offered = {"Authorization": f"Bearer {given}"}, f"wsmonitor.v1, wsmonitor.bearer.{given}"
    return [
        {**bearer, "Sec-WebSocket-Key": None},
        {**bearer, "Sec-WebSocket-Version": "12"},
        {**bearer, "Sec-WebSocket-Protocol": "chat"},
        {**bearer, "Connection": "close"},
        {**bearer, "Origin": "https://evil.example.org"},
        {"Authorization": f"Bearer {given} {given}"},
        {"Authorization": f"Basic {given}"},
        {"Authorization": given},
        {**bearer, "Sec-WebSocket-Protocol": offered},
        {"Sec-WebSocket-Protocol": f"wsmonitor.bearer.{given}"},
        {"Sec-WebSocket-Protocol": offered, "Sec-WebSocket-Key": "x"},
        {"Sec-WebSocket-Protocol": offered, "Sec-WebSocket-Version": "x"},
        {"Sec-WebSocket-Protocol": offered.replace(",", ";")},
        {"Sec-WebSocket-Protocol": offered},
    ]


async def test_no_answer_repeats_a_token(ear: Ear) -> None:
    """Every way in which a handshake is refused."""
    async with EmbeddedServer(engine=lambda *_: FakeEngine(), metrics=True) as server:
        good, late = server.token(), server.token(ttl=-5)
        forged = token(b"another secret of thirty-two bytes")
        for given in (good, late, forged, good + "\xff", good[:-4]):
            for headers in places(given):
                _, fields, body = await ask(server, headers=headers)
                for one in secret_parts(given):
                    assert one.encode("latin-1") not in body
                    assert one not in str(fields)
        for path in ("/healthz", "/readyz", "/metrics"):
            _, fields, body = await get(server, path)
            assert good.encode() not in body
            assert good not in str(fields)
    for one in secret_parts(good, late, forged):
        assert one not in ear.text.getvalue()


async def test_a_bad_refresh_is_refused_without_repeating_it(
    ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In band, where a message is repeated most easily."""
    # This test's bare client is the library's own, which logs what it sends.
    monkeypatch.setattr(logging.getLogger("websockets.client"), "disabled", True)
    async with EmbeddedServer(engine=lambda *_: FakeEngine()) as server, client(server, sub="a") as one:
        others = server.token(sub="b")
        for given in (others, token(), "x" * 20_000, others + "\\ud800"):
            await one.raw(f'{{"type":"refresh","request":1,"token":"{given}"}}')
            answer = await one.socket.recv(decode=False)
            assert b'"error"' in answer
            assert not [part for part in secret_parts(given) if part.encode() in answer]
    assert not [part for part in secret_parts(others) if part in ear.text.getvalue()]


def test_a_program_that_logs_everything_logs_no_token(ear: Ear, tmp_path: Path) -> None:
    """Publisher, observer and server in one process, everything at DEBUG; then one that is refused. And the
    page that an observer exports, and what the server's disk has."""
    folder = tmp_path / "store"
    folder.mkdir()
    with EmbeddedServer.in_thread(store=f"sqlite:{folder / 'store.sqlite3'}") as server:
        good, late = server.token(), server.token(ttl=-5)
        seen = _publish_and_watch(server, good, tmp_path / "page.html")
        refused = connect(Target(url=server.url, token=late))
        with pytest.raises(wm.WsMonitorError) as caught:
            refused.wait_live(PATIENCE)
        status = refused.status
        refused.close()
        seen += f"{caught.value!r} {caught.value} {status} {refused!r}"
        seen += "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())
    for one in secret_parts(good, late):
        assert one not in ear.text.getvalue()
        assert one not in seen
    assert "connection opened" in ear.text.getvalue()


def _publish_and_watch(server: ThreadedServer, given: str, page: Path) -> str:
    with wm.session("s", url=server.url, token=given) as session, session.step("work") as step:
        step.output = {"rows": 3}
        shown = f"{session!r} {step!r} {session.url if hasattr(session, 'url') else ''}"
    observer = wm.watch(session.id, url=server.url, token=given)
    observer.wait(timeout=PATIENCE)
    shown += f"{observer!r} {observer.connection!r}" + observer.to_html(page).read_text("utf-8")
    observer.close()
    return shown
