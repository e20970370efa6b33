"""Redirects: followed within a server, and to no other one, which must not get the token."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urljoin

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.http11 import Response

from wsmonitor.client import Target, connect
from wsmonitor.client.opening import _Connect

PATIENCE = 60.0


def redirect(target: str) -> InvalidStatus:
    return InvalidStatus(Response(302, "Found", Headers({"Location": target}), b""))


@pytest.mark.parametrize("given", [{}, {"host": "127.0.0.1", "port": 1}], ids=["by the library", "by us"])
def test_only_the_same_server_is_followed(given: dict[str, Any]) -> None:
    """Also where no address is given, because a proxy is asked: the library would take the headers along."""
    request = _Connect("ws://here:1/", additional_headers={"Authorization": "Bearer T"}, **given)
    for target in ("/other/", "ws://here:1/other/"):
        assert request.process_redirect(redirect(target)) == "ws://here:1/other/"
    for target in ("ws://here:2/", "wss://here:1/", "ws://there:1/", "//there:1/", "ws://here.there:1/"):
        found = request.process_redirect(redirect(target))
        assert isinstance(found, InvalidURI)
        assert found.uri == urljoin("ws://here:1/", target)


def test_what_is_no_redirect_is_left_as_it_is() -> None:
    refused = InvalidStatus(Response(401, "Unauthorized", Headers(), b""))
    assert _Connect("ws://here:1/").process_redirect(refused) is refused


def test_a_redirect_to_another_server_is_told_and_asks_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.setblocking(False)
        target = f"ws://127.0.0.1:{elsewhere.getsockname()[1]}/"

        class Redirect(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(302)
                self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        with HTTPServer(("127.0.0.1", 0), Redirect) as web:
            thread = threading.Thread(target=web.serve_forever)
            thread.start()
            try:
                with connect(Target(url=f"ws://127.0.0.1:{web.server_port}/", token="T")) as conn:
                    status = conn.wait_for(lambda one: one.phase == "waiting", PATIENCE)
                assert status.code == "connection_lost"
                assert f"redirect to {target}" in status.reason
            finally:
                web.shutdown()
                thread.join(PATIENCE)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()
