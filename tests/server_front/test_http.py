"""What an HTTP request at the one port is, by its form alone, and each refusal word by word."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor_server.http import (
    JSON,
    Answer,
    Page,
    Upgrade,
    classify,
    error_answer,
    json_answer,
    unreadable,
    valid_nonce,
)

PAGES = ("/healthz", "/challenge")
ORIGIN = "https://hub.example.org"


def given(path: str = "/", **more: Any) -> Answer | Page | Upgrade:
    request: dict[str, Any] = {
        "upgrade": True,
        "authorization": "Bearer T",
        "subprotocols": "wsmonitor.v1",
        "origin": None,
        "origins": (ORIGIN,),
        "pages": PAGES,
    }
    return classify(path, **{**request, **more})


def refused(answer: object) -> tuple[int, str, str]:
    """The status, the code and the words of a refusal."""
    assert isinstance(answer, Answer)
    error = msgspec.json.decode(answer.body)["error"]
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert ("WWW-Authenticate" in answer.headers) == (answer.status == 401)
    return answer.status, error["code"], error["message"]


IN_URL = (
    "a token does not belong into the URL, where logs keep it: send `Authorization: Bearer`, "
    "or from a browser the subprotocol `wsmonitor.bearer.<token>`"
)
ONE_TOKEN = "`Authorization` has to be `Bearer` and one token"

REFUSALS: list[tuple[str, dict[str, Any], tuple[int, str, str]]] = [
    ("/?token=x", {}, (400, "bad_message", IN_URL)),
    ("/?a=1&Access_Token=x", {}, (400, "bad_message", IN_URL)),
    ("/?jwt=", {}, (400, "bad_message", IN_URL)),
    ("/healthz?bearer=x", {"upgrade": False}, (400, "bad_message", IN_URL)),
    ("/x", {}, (404, "not_available", "the WebSocket is served at /")),
    ("/healthz", {}, (404, "not_available", "the WebSocket is served at /")),
    ("/x", {"upgrade": False}, (404, "not_available", "there is nothing at this path")),
    (
        "/",
        {"upgrade": False},
        (426, "bad_subprotocol", "a WebSocket with subprotocol wsmonitor.v1 is served here"),
    ),
    (
        "/",
        {"origin": "https://evil.example.org"},
        (403, "origin_forbidden", "this origin is not on the server's allow-list"),
    ),
    ("/", {"origin": ""}, (403, "origin_forbidden", "this origin is not on the server's allow-list")),
    (
        "/",
        {"origin": "null", "origins": ()},
        (403, "origin_forbidden", "this origin is not on the server's allow-list"),
    ),
    (
        "/",
        {"subprotocols": None},
        (400, "bad_subprotocol", "the handshake has to offer the subprotocol wsmonitor.v1"),
    ),
    (
        "/",
        {"subprotocols": "wsmonitor.v2, ,"},
        (400, "bad_subprotocol", "the handshake has to offer the subprotocol wsmonitor.v1"),
    ),
    (
        "/",
        {"subprotocols": "wsmonitor.v1, wsmonitor.bearer.T"},
        (401, "unauthorized", "more than one token was offered"),
    ),
    (
        "/",
        {"subprotocols": "wsmonitor.v1, wsmonitor.bearer.T, wsmonitor.bearer.U", "authorization": None},
        (401, "unauthorized", "more than one token was offered"),
    ),
    ("/", {"authorization": None}, (401, "unauthorized", "no token: send `Authorization: Bearer`")),
    ("/", {"authorization": ""}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "Basic T"}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "Basic a, Bearer"}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "Bearer"}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "Bearer  "}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "Bearer T, Bearer U"}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "Bearer T,U"}, (401, "unauthorized", ONE_TOKEN)),
    ("/", {"authorization": "T"}, (401, "unauthorized", ONE_TOKEN)),
]


@pytest.mark.parametrize(("path", "fields", "expected"), REFUSALS)
def test_what_is_refused_by_its_form(
    path: str, fields: dict[str, Any], expected: tuple[int, str, str]
) -> None:
    assert refused(given(path, **fields)) == expected


def test_a_target_that_cannot_be_read_is_told_why() -> None:
    status, code, words = refused(given("//[", upgrade=False))
    assert (status, code) == (400, "bad_message")
    assert words.startswith("the request's target cannot be read: ")
    assert len(words) > len("the request's target cannot be read: ")


def test_handshakes_that_are_in_order() -> None:
    assert given() == Upgrade("T", browser=False)
    assert given("/?a=b") == Upgrade("T", browser=False)
    assert given(authorization="bEARER  T ") == Upgrade("T", browser=False)
    assert given(authorization="Bearer T U") == Upgrade("T U", browser=False)  # no token, as will be seen
    assert given(origin=ORIGIN) == Upgrade("T", browser=False)
    offered = " wsmonitor.bearer.T.U ,wsmonitor.v1"
    assert given(subprotocols=offered, authorization=None) == Upgrade("T.U", browser=True)
    assert "T.U" not in repr(given(subprotocols=offered, authorization=None))


def test_pages_and_what_they_are_asked() -> None:
    assert given("/healthz", upgrade=False) == Page("/healthz", "")
    assert given("/challenge?nonce=ab&nonce=cd&x=1", upgrade=False) == Page("/challenge", "ab")
    assert given("/challenge?nonce=", upgrade=False) == Page("/challenge", "")


def test_answers_and_their_status() -> None:
    assert json_answer(200, {"a": 1}) == Answer(200, b'{"a":1}', JSON)
    assert refused(error_answer(ErrorInfo(code="unheard_of", message="m"))) == (500, "unheard_of", "m")
    assert refused(error_answer(ErrorInfo(code="not_available", message="m"))) == (404, "not_available", "m")
    assert refused(error_answer(ErrorInfo(code="not_available", message="m"), 503))[0] == 503
    unauthorized = error_answer(ErrorInfo(code="unauthorized", message="m"))
    assert unauthorized.headers == {**JSON, "WWW-Authenticate": 'Bearer realm="wsmonitor"'}
    # A code of messages alone has no status of its own.
    assert refused(error_answer(ErrorInfo(code="skipped", message="m")))[0] == 500
    later = error_answer(ErrorInfo(code="limit_exceeded", message="m", details={"retry_after": 1.2}))
    assert (later.status, later.headers["Retry-After"]) == (429, "2"), "whole seconds"
    assert "Retry-After" not in unauthorized.headers


def test_what_is_no_request_is_told_so() -> None:
    assert refused(unreadable(too_large=True)) == (
        431,
        "message_too_large",
        "a line of the request's head is longer than 8 KiB, or there are too many of them",
    )
    words = "this is not an HTTP request of a WebSocket handshake"
    assert refused(unreadable(too_large=False)) == (400, "bad_message", words)


@pytest.mark.parametrize(
    ("nonce", "valid"),
    [
        ("a" * 15, False),
        ("a" * 16, True),
        ("A9" * 64, True),
        ("a" * 129, False),
        ("g" * 16, False),
        ("a" * 16 + "\n", False),
    ],
)
def test_the_form_of_a_nonce(nonce: str, valid: bool) -> None:
    assert valid_nonce(nonce) == valid
