"""The simulated Redis answers as a real one does: to the commands that the store uses, and to its scripts."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tests.scale import many
from wsmonitor_server.stores.redis import scripts

from .redis_data import Data, Failure, Status
from .redis_scripts import Scripts

UNORDERED = {b"SMEMBERS", b"HGETALL", b"HVALS"}


class Both:
    """A real Redis and a simulated one, asked the same."""

    def __init__(self, url: str) -> None:
        redis = pytest.importorskip("redis")
        place, _, prefix = url.partition("?prefix=")
        self.prefix = prefix.encode()
        self.real = redis.Redis.from_url(place, protocol=2)
        self.data = Data(time.time)
        self.scripts = Scripts(self.data)
        self._errors: type[Exception] = redis.exceptions.ResponseError

    def ask(self, *command: bytes) -> Any:
        """The answer of both, which has to be the same."""
        there, here = self._there(*command), self._here(*command)
        if command[0] in UNORDERED:
            there, here = sorted(there), sorted(here)
        assert _settled(there) == _settled(here), command
        return here

    def _there(self, *command: bytes) -> Any:
        # Not as redis-py reads it: as it was said.
        connection = self.real.connection_pool.get_connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except self._errors as exc:
            return type(exc)
        finally:
            self.real.connection_pool.release(connection)

    def _here(self, *command: bytes) -> Any:
        try:
            if command[0] == b"EVAL":
                return self.scripts.run(self.scripts.load(command[1]), command[3:])
            answer = self.data.call(*command)
            return bytes(answer) if isinstance(answer, Status) else answer
        except Failure:
            return self._errors
        finally:
            self.data.take()

    def script(self, script: scripts.Script, *arguments: bytes | str | int) -> Any:
        spelled = [one if isinstance(one, bytes) else str(one).encode() for one in arguments]
        return self.ask(b"EVAL", script.text.encode(), b"0", self.prefix, *spelled)


def _settled(answer: Any) -> Any:
    """An answer without what is left to chance.

    That is a set in `scripts.LOAD`'s, and the milliseconds by which the nodes stand in `scripts.WATCHING`'s.
    """
    match answer:
        case [_, list(), _, list(), list(values), _, list()]:
            return [*answer[:4], sorted(values), *answer[5:]]
        case [[bytes(), *_] as nodes, list(people)] if all(isinstance(one, bytes) for one in nodes):
            return [sorted(nodes), people]
    return answer


@pytest.fixture
def both(redis_url: str) -> Both:
    return Both(redis_url)


def a_command(dice: random.Random) -> tuple[bytes, ...]:
    """One of those that the scripts use, on few keys, so that they meet what is there."""
    field, other = (dice.choice((b"a", b"b", b"c", b"d")) for _ in range(2))
    number = b"%d" % dice.randrange(12)
    low, high = sorted((dice.randrange(12), dice.randrange(12)))
    edges = [(b"-", b"+"), (b"%d" % low, b"%d" % high), (b"(%d-1" % low, b"%d-1" % high)]
    first, last = dice.choice(edges)
    scores = dice.choice([(b"-inf", b"+inf"), (b"%d" % low, b"(%d" % high), (b"(%d" % low, b"%d" % high)])
    return dice.choice(
        [
            (b"SET", b"n", number), (b"GET", b"n"), (b"INCR", b"n"), (b"DECRBY", b"n", number),
            (b"SET", b"x", b"value", b"PX", b"100000"), (b"EXISTS", b"x"), (b"DEL", b"x"),
            (b"APPEND", b"t", b"text" + number), (b"GETRANGE", b"t", b"%d" % low, b"%d" % high),
            (b"HSET", b"h", field, number, other, b"1"), (b"HGET", b"h", field),
            (b"HDEL", b"h", field, other),
            (b"HMGET", b"h", field, other), (b"HGETALL", b"h"), (b"HVALS", b"h"), (b"HLEN", b"h"),
            (b"HEXISTS", b"h", field), (b"HSETNX", b"h", field, number), (b"HINCRBY", b"i", field, number),
            (b"SADD", b"s", field, other), (b"SREM", b"s", field), (b"SMEMBERS", b"s"),
            (b"SISMEMBER", b"s", field),
            (b"ZADD", b"z", number, field), (b"ZSCORE", b"z", field), (b"ZREM", b"z", field),
            (b"ZRANGEBYSCORE", b"z", *scores), (b"ZRANGEBYSCORE", b"z", *scores, b"LIMIT", b"1", b"2"),
            (b"RPUSH", b"l", field, number), (b"LTRIM", b"l", b"-%d" % (1 + low), b"-1"),
            (b"LRANGE", b"l", b"%d" % low, b"%d" % (high - 4)), (b"LINDEX", b"l", b"%d" % (low - 4)),
            (b"XADD", b"c", b"%d-%d" % (low, high), field, number), (b"XRANGE", b"c", first, last),
            (b"XREVRANGE", b"c", last, first, b"COUNT", b"2"), (b"XTRIM", b"c", b"MINID", b"%d" % low),
            (b"XADD", b"c", b"MAXLEN", b"5", b"%d-%d" % (low, high), field, number),
            (b"XREAD", b"COUNT", b"3", b"STREAMS", b"c", b"%d-0" % low),
            (b"HGET", b"s", field), (b"GET", b"h"),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(many(1)))
def test_commands_have_the_same_answers(both: Both, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(1_500):
        name, *arguments = a_command(dice)
        at = arguments.index(b"STREAMS") + 1 if b"STREAMS" in arguments else 0
        arguments[at] = both.prefix + arguments[at]
        both.ask(name, *arguments)


def an_order(session: str, version: int, seq: int, born: bytes, dice: random.Random) -> list[object]:
    """What `records.order` makes of a commit, with any contents.

    No history is cut off: a real Redis keeps more than it is asked to, a simulated one does not.
    """
    events = dice.randrange(3)
    names = [f"step:{dice.randrange(6)}" for _ in range(events)]
    return [
        session, "e1", seq, seq + events, version, born.decode(), f"{seq + events}-{version + 1}",
        f"record {version}" + "x" * dice.choice((0, 0, 40_000)),
        [part for name in names for part in (name, f"of {version}")],
        [f"step:{dice.randrange(6)}"] if dice.random() < 0.2 else [], ["p", f"position {version}"],
        ["key", "command"] if dice.random() < 0.2 else [], [f"sha{version}"], [f"sha{version - 2}"],
        [("one", [f"{version + 1} line", f"{version + 2} line"])] if dice.random() < 0.3 else [],
        0, f"digest {version}", f"line {version}" if version else "", dice.choice("01"),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(many(1)))
def test_scripts_do_the_same(both: Both, seed: int) -> None:
    from wsmonitor_server.stores.redis import records

    dice = random.Random(seed)
    epoch, runs = b"", 0
    heads: dict[str, tuple[int, int, bytes]] = {}
    for turn in range(250):
        node, session = dice.choice(("n1", "n2")), dice.choice(("s~1", "zwölf~2"))
        version, seq, born = heads.get(session, (0, 0, b""))
        if turn % 50 == 0:
            runs += 1
            epoch = both.script(scripts.SETTLE, node, f"run{runs}", "replication", f"epoch{runs}", 1)[0]
        what = dice.randrange(10)
        if what < 5:
            wrong = dice.random() < 0.1
            order = an_order(session, version + wrong, seq, born, dice)
            ident = f"{turn:016x}"
            packed = records.pack([order])
            reply = both.script(scripts.COMMIT, node, epoch, ident, 3, packed)
            again = both.script(scripts.COMMIT, node, epoch, ident, 3, packed)
            assert reply == again, "what was done is known, and not done twice"
            if reply[1]:
                heads[session] = (version + 1, int(str(order[3])), born or ident.encode())
        elif what == 5:
            found = both.script(scripts.LOAD, node, epoch, session, f"fresh{turn}", 1_000)
            if len(found) > 1:
                head = dict(zip(found[1][::2], found[1][1::2], strict=True))
                heads[session] = (int(head[b"version"]), int(head[b"seq"]), head[b"born"])
        elif what == 6:
            both.script(scripts.MISSED, node, session, dice.randrange(version + 1))
            both.script(scripts.LOGS, node, session, "one", dice.randrange(9), 2)
        elif what == 7:
            both.script(scripts.WATCH, node, session, dice.choice((b"", b"people")))
            both.script(scripts.BEAT, node, 60_000, 60_000, dice.choice(("", node)))
            both.script(scripts.WATCHING, node, session)
        elif what == 8 and dice.random() < 0.3:
            both.script(scripts.REMOVE, node, session, turn)
            heads.pop(session, None)
        else:
            both.script(scripts.REVOKE, node, f"token{turn}", 5)
            both.script(scripts.FORGET, node, "revoked", f"token{turn - 2}", 5)
            both.script(scripts.VALUE_WRITE, node, session, "1" * 64, 8, dice.choice((0, 4)), b"data")
            both.script(scripts.VALUE_BEGIN, node, session, "1" * 64)
            both.script(scripts.VALUE_END, node, session, "1" * 64, dice.choice((0, 1)))
    for key in (b"bus:n", b"vbytes"):
        both.ask(b"GET", both.prefix + key)
    both.ask(b"XRANGE", both.prefix + b"bus", b"-", b"+")
    for key in (b"dir", b"revoked", b"tombstones", b"s:s~1:e", b"s:s~1:p", b"s:s~1:h", b"s:s~1:r"):
        both.ask(b"HGETALL", both.prefix + key)
    both.script(scripts.LEAVE, "n1")
    both.script(scripts.NODES, "n2")
