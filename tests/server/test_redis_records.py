"""What is written to Redis comes back as it was; what nobody of ours has written is called damaged."""

from __future__ import annotations

import msgspec
import pytest

from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Chain, Command, Listing, LogRecord
from wsmonitor_server.stores.base import Commit, ProducerPosition
from wsmonitor_server.stores.bus import Committed, NodeGone, SessionRemoved, TokenRevoked, Watching
from wsmonitor_server.stores.redis import records
from wsmonitor_server.stores.redis.scripts import COMMIT, LOAD, Script

POSITION = ProducerPosition("p", "älice", 2, 7, "holder", "node")
LISTING = Listing(id="s~1", name="ein „s“", run=1)


def full() -> Commit:
    chain = Chain(id="c", name="c", seq=5)
    command = Command(id="0" * 32, name="pause", deadline="2", requested="1", state="applied", seq=1)
    return Commit(
        "s~1",
        "epoch",
        4,
        events=[(5, b'{"a":1}'), (6, '{"b":"ü"}'.encode())],
        entities={("chain", "c"): bytes(encode_record(chain))},
        drops={("step", "b"), ("step", "a:1")},
        producers={"p": POSITION},
        logs=[("x", LogRecord(n=n, at="1", text="t")) for n in (3, 4)],
        values={"11", "10"},
        released={"21", "20"},
        retired={command.id: bytes(encode_record(command))},
        first_kept=2,
        digest="d",
        listing=LISTING,
        attention=True,
        version=8,
    )


def test_a_commit_is_told_as_it_was_made() -> None:
    made = full()
    data = records.record(made, "me").encode()
    assert records.committed("s~1", b"6-9", data) == Committed(
        "s~1", "epoch", 9, 4, (b'{"a":1}', '{"b":"ü"}'.encode()), {"p": POSITION}, frozenset({"20", "21"}),
        1, LISTING, True, "me",
    )  # fmt: skip


def test_a_commit_of_nothing_is_one_too() -> None:
    empty = Commit("s~1", "epoch", 4)
    assert records.new_head(empty) == 4
    told = records.committed("s~1", b"4-1", records.record(empty, "me").encode())
    assert told == Committed("s~1", "epoch", 1, 4, node="me")


def test_an_order_says_what_the_script_is_to_do() -> None:
    order = records.order(full(), "born", "me")
    assert order[:7] == ["s~1", "epoch", 4, 6, 8, "born", "6-9"]
    assert records.record_of(order) == records.record(full(), "me")
    entities, drops, producers, retired, values, released, logs, first, digest, listing, attention = order[8:]
    assert entities == ["chain:c", bytes(encode_record(Chain(id="c", name="c", seq=5))).decode()]
    assert drops == ["step:a:1", "step:b"]
    assert isinstance(producers, list)
    assert producers[0] == "p"
    assert records.decode_position(producers[1].encode()) == POSITION
    assert isinstance(retired, list)
    assert retired[0] == "0" * 32
    assert (values, released) == (["10", "11"], ["20", "21"])
    assert logs == [("x", ['3 {"n":3,"at":"1","text":"t"}', '4 {"n":4,"at":"1","text":"t"}'])]
    assert (first, digest, attention) == (2, "d", "1")
    assert records.decode_listing(str(listing).encode()) == LISTING
    assert order[-1] == "1"
    assert records.order(Commit("s~1", "e", 0), "", "me")[-3:] == ["", "", "0"]


def test_a_group_s_orders_hold_texts_and_no_bytes() -> None:
    # Redis' reader of MessagePack does not know MessagePack's type for bytes.
    unpacked = msgspec.msgpack.decode(records.pack([records.order(full(), "born", "me")]))
    assert unpacked[0][0] == "s~1"
    assert "bytes" not in {type(part).__name__ for part in unpacked[0]}


def entry(**more: str) -> records.Fields:
    return {name.encode(): value.encode() for name, value in more.items()}


def test_the_messages_of_the_bus() -> None:
    line = records.encode_listing(LISTING)
    people = records.encode_people((("i", "Ann"),)).decode()
    record = records.record(full(), "me")
    told = {
        "c": records.message(entry(k="c", s="s~1", i="6-9", d=record)),
        "large": records.message(entry(k="c", s="s~1", i="6-9", o="id")),
        "r": records.message(entry(k="r", s="s~1", v="3", e="new", h="6", l=line, a="1", n="me")),
        "bare": records.message(entry(k="r", s="s~1", v="3", e="new", h="6", l="", a="0", n="me")),
        "x": records.message(entry(k="x", s="s~1", t="99", n="me")),
        "t": records.message(entry(k="t", j="jti", t="0")),
        "w": records.message(entry(k="w", s="s~1", n="me", p=people)),
        "nobody": records.message(entry(k="w", s="s~1", n="me", p="")),
        "g": records.message(entry(k="g", n="me")),
    }
    assert told == {
        "c": records.committed("s~1", b"6-9", record.encode()),
        "large": None,
        "r": Committed("s~1", "new", 3, 6, listing=LISTING, attention=True, node="me"),
        "bare": Committed("s~1", "new", 3, 6, node="me"),
        "x": SessionRemoved("s~1", 99, "me"),
        "t": TokenRevoked("jti", 0),
        "w": Watching("s~1", "me", (("i", "Ann"),)),
        "nobody": Watching("s~1", "me", ()),
        "g": NodeGone("me"),
    }
    assert records.encode_people(()) == b""


@pytest.mark.parametrize(
    "fields",
    [
        entry(),
        entry(k="?"),
        entry(k="x", s="s~1", t="soon", n="me"),
        entry(k="g"),
        entry(k="c", s="s~1", i="6-9", d="{}"),
        entry(k="c", s="s~1", i="6", d=records.record(Commit("s~1", "e", 0), "me")),
        entry(k="w", s="s~1", n="me", p="{"),
        entry(k="r", s="s~1", v="3", e="new", h="6", l="{", a="1", n="me"),
        {b"k": b"g", b"n": b"\xff"},
        {b"k": b"c", b"s": b"s~1", b"i": b"6-9", b"d": b'["\xff"]'},
        {
            b"k": b"r",
            b"s": b"s",
            b"v": b"3",
            b"e": b"",
            b"h": b"6",
            b"l": b'{"id":"\xff"}',
            b"a": b"",
            b"n": b"",
        },
    ],
)
def test_what_is_no_message_of_ours_is_damaged(fields: records.Fields) -> None:
    with pytest.raises(records.DamagedError):
        records.message(fields)


def test_fields_by_name() -> None:
    assert records.fields([b"a", b"1", b"b", b"2"]) == {b"a": b"1", b"b": b"2"}
    assert records.fields([]) == {}


def test_a_script_has_the_name_that_redis_gives_it() -> None:
    assert Script("return 1").sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
    assert COMMIT.sha != LOAD.sha
