"""Whatever comes in: no fault, no invariant broken, every answer one that the protocol knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scale import many
from wsmonitor.protocol.messages import Error, Welcome
from wsmonitor.protocol.reducer import SessionState, decode_entity

from . import schemas
from .targets import House, Wrong, codec, frames_in, text_frame

CORPUS = Path(__file__).parent / "corpus"
ROLES = st.sampled_from(["observe", "command", "publish", "admin"])


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One server for all examples of this file: what one connection did must not harm the next."""
    with House() as found:
        yield found


def corpus() -> list[Path]:
    return sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", corpus(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_corpus(house: House, path: Path) -> None:
    """What was found once, and a beginning for each kind of input."""
    target = {"codec": codec, "door": house.door, "frames": house.frames, "messages": house.messages}
    target[path.parent.name](path.read_bytes())


def test_the_corpus_begins_every_target() -> None:
    """None is forgotten."""
    assert {path.parent.name for path in corpus()} == {"codec", "door", "frames", "messages"}
    types = {
        name for path in corpus() for name in schemas.requests() if f'"{name}"'.encode() in path.read_bytes()
    }
    assert types == set(schemas.requests())


@settings(max_examples=many(200))
@given(st.binary(max_size=400))
def test_any_bytes_to_the_codec(data: bytes) -> None:
    codec(data)


@settings(max_examples=many(150))
@given(schemas.valid() | schemas.nearly())
def test_any_message_to_the_codec(data: bytes) -> None:
    codec(data)


LINES = (
    *(
        "GET / HTTP/1.1",
        "POST / HTTP/1.1",
        "GET /healthz HTTP/1.1",
        "GET /?token=a HTTP/1.1",
        "PRI * HTTP/2.0",
    ),
    "GET /.well-known/wsmonitor-challenge?nonce=00 HTTP/1.1",
    *("Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Origin: null"),
    *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: wsmonitor.v1"),
    *("Authorization: Bearer a.b.c", "Sec-WebSocket-Protocol: wsmonitor.v1, wsmonitor.bearer.a.b.c"),
    *(
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "X: " + "y" * 3000,
        ": ",
        "",
        "\x00",
        "\xff",
        "\x16\x03\x01",
    ),
)
HEADS = st.lists(
    st.tuples(st.sampled_from(LINES), st.sampled_from(["\r\n", "\r\n", "\n", ""])), max_size=9
).map(lambda lines: "".join(line + end for line, end in lines).encode("latin-1"))


@settings(max_examples=many(200))
@given(st.integers(0, 255), HEADS | st.binary(max_size=300))
def test_any_bytes_at_the_door(house: House, size: int, data: bytes) -> None:
    house.door(bytes([size]) + data)


def frame(first: int, second: int, mask: bytes, payload: bytes) -> bytes:
    """A frame with these two bytes in front; one without a length gets the right one."""
    return bytes([first, second if second & 127 else second | len(payload)]) + mask + payload


FRAMES = st.lists(
    st.builds(
        lambda first, second, mask, payload: (
            bytes([first, second | (len(payload) if second & 127 == 0 else 0)]) + mask + payload
        ),
        st.sampled_from([0x81, 0x01, 0x80, 0x00, 0x82, 0x88, 0x89, 0x8A, 0x09, 0x83, 0xC1, 0x8F]),
        st.sampled_from([0x80, 0x80, 0x80, 0x00, 0xFE, 0xFF]),
        st.binary(min_size=4, max_size=4),
        st.binary(max_size=125),
    )
    | (schemas.valid() | schemas.nearly()).map(text_frame)
    | st.just(text_frame(b'{"type":"hello","major":1}')),
    max_size=8,
).map(b"".join)


@settings(max_examples=many(150))
@given(st.integers(0, 3), FRAMES | st.binary(max_size=200))
def test_any_frames_after_a_handshake(house: House, role: int, data: bytes) -> None:
    house.frames(bytes([role]) + data)


@settings(max_examples=many(150))
@given(ROLES, st.lists(schemas.valid(), max_size=10))
def test_messages_that_the_document_allows(house: House, role: str, texts: list[bytes]) -> None:
    """In any order: they are carried out or refused by a code. None of them is one that cannot be read."""
    for message in house.say(role, texts):
        if isinstance(message, Error):
            assert message.error.code not in ("bad_json", "unknown_type"), texts


@settings(max_examples=many(150))
@given(ROLES, st.lists(schemas.nearly() | schemas.valid(), max_size=10))
def test_messages_that_the_document_nearly_allows(house: House, role: str, texts: list[bytes]) -> None:
    first, *_ = house.say(role, texts)
    assert isinstance(first, Welcome)


def test_after_all_that_a_bystander_s_sessions_agree(house: House) -> None:
    """AGREE: whatever was sent above, a session's digest is that of its state, and a newcomer is served."""
    for session in ("s1", "s2", "etl~1", "é~1", "s9"):
        state: SessionState | None = None
        asks = [{"type": "subscribe", "topic": session, "generation": 1}]
        asks += [{"type": "sync_next", "topic": session, "generation": 1, "page": page} for page in range(20)]
        for message in house.say("observe", [schemas._text(ask) for ask in asks]):
            match type(message).__name__:
                case "SyncBegin":
                    state = SessionState(session, message.epoch, message.base)
                case "SyncPage" if state is not None:
                    for kind, entity in message.entities:
                        decoded = decode_entity(kind, entity)
                        assert decoded is not None
                        state.put(kind, decoded)
                case "Event" if state is not None:
                    state.apply(message)  # what came after the snapshot that is shared with others
                case "Synced" if state is not None:
                    assert (state.seq, state.digest) == (message.seq, message.digest)
                    break
        else:
            raise AssertionError(f"{session} was not synced")


def test_a_fault_would_be_found() -> None:
    """The targets can fail: an answer that is none, an error without a code, a fault of the server."""
    with House() as house:
        with pytest.raises(Wrong, match="refused"):
            house.check(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        good = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
        for text, words in (
            (b'{"type":"no_such"}', "no message"),
            (b'{"type":"error","error":{"code":"internal","message":"a fault"}}', "cannot be told"),
            (b'{"type":"error","error":{"code":"new","message":"x"}}', "cannot be told"),
        ):
            with pytest.raises(Wrong, match=words):
                house.check(good + b"\x81" + bytes([len(text)]) + text)
        with pytest.raises(Wrong, match="closed with 2000"):
            house.check(good + b"\x88\x02\x07\xd0")
        assert list(frames_in(b"\x81\x05hel")) == []
        house.embedded.server.engine.heads = None  # type: ignore[assignment, method-assign]
        house.embedded.server.engine.subscribe = None  # type: ignore[assignment, method-assign]
        with pytest.raises(Wrong, match="a request failed"):
            house.say("admin", [b'{"type":"subscribe","topic":"s1","generation":1}'])
