"""The form of scripts, as the generator in Python reads it."""

from __future__ import annotations

import pytest

from benchmarks.peers import PEERS
from benchmarks.script import Rule, expand, holds, read, unescape, varint


def test_escapes_are_for_bytes_that_a_line_cannot_hold() -> None:
    assert unescape(r"a\r\n\x00\xffb\\n") == b"a\r\n\x00\xffb\\n"
    assert unescape(r'"\u00e9"') == rb'"\u00e9"'


def test_names_in_braces_stand_for_values_and_json_stays() -> None:
    form = b'{"id":"{connection}","topic":"{topic}","n":{number},"m":"{stamp}"}'
    values = {"connection": 7, "topic": 12, "number": 3, "stamp": b"x"}
    assert expand(form, values) == b'{"id":"000007","topic":"00012","n":3,"m":"x"}'


@pytest.mark.parametrize(
    ("number", "wanted"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (16384, b"\x80\x80\x01")]
)
def test_lengths_of_mqtt(number: int, wanted: bytes) -> None:
    assert varint(number) == wanted
    if number >= 8:
        assert expand(b"{varint}", {"size": number - 8}) == wanted


def test_patterns() -> None:
    assert holds(b"abc", b"b")
    assert holds(b"abc", b"^ab")
    assert not holds(b"abc", b"^b")
    assert holds(b"2", b"^2$")
    assert not holds(b"22", b"^2$")
    # A page is long, and what is last in it stands at its end.
    assert holds(100_000 * b"x" + b'"last":true}', b'"last":true')


def test_directives() -> None:
    script = read("path /x\noffset 3\nobserver.on a ! b => c\nobserver.beat 15 hi\npublisher.each go\n")
    assert script.texts["path"] == b"/x"
    assert script.numbers["offset"] == 3
    assert script.parts["observer"].rules == [Rule(b"a", b"b", b"c")]
    assert (script.parts["observer"].beat_every, script.parts["observer"].beat) == (15.0, b"hi")
    assert script.parts["publisher"].steps == [("each", b"go")]
    with pytest.raises(ValueError, match="nonsense"):
        read("observer.nonsense x")


@pytest.mark.parametrize("name", PEERS)
def test_every_peers_script_can_be_read_and_publishes_a_stamp(name: str) -> None:
    for text in filter(None, (PEERS[name].script(), PEERS[name].storm_script())):
        script = read(text)
        assert b"{stamp}" in script.texts["body"]
        assert b"{body}" in script.texts["event"]
        assert script.parts["observer"].steps
