"""Planted faults of servers that share a Redis: see `faults`."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from wsmonitor_server.ledger import Ledger
from wsmonitor_server.nodes import Nodes
from wsmonitor_server.producers import ProducerDesk
from wsmonitor_server.session import LoadedSession
from wsmonitor_server.stores.redis import reading, scripts
from wsmonitor_server.stores.redis.bus import BusReader
from wsmonitor_server.stores.redis.store import RedisStore

from .faults import Fault, Patch, fault, method, replaced, together


def _script(owner: Any, name: str, right: str, wrong: str) -> Patch:
    """A script that says *wrong* where it should say *right*."""
    real = getattr(owner, name)
    assert right in real.text, f"{name} has changed"
    return lambda: replaced(owner, name, scripts.Script(real.text.replace(right, wrong)))


def _nothing(real: Any) -> Any:
    return lambda self, *args, **kwargs: None


async def _done() -> None:
    """Nothing."""


def _nothing_later(real: Any) -> Any:
    return lambda self, *args, **kwargs: _done()


def _yes(real: Any) -> Any:
    return lambda self, *args: True


def _always(real: Any) -> Any:
    return property(lambda self: True)


def _deaf_to(kind: str) -> Patch:
    def hear(real: Any) -> Any:
        def heard(self: Nodes, message: Any) -> None:
            if type(message).__name__ != kind:
                real(self, message)

        return heard

    return method(Nodes, "_hear", hear)


def _fences_nobody(real: Any) -> Any:
    def adopted(self: ProducerDesk, loaded: LoadedSession, events: Any, moved: Any) -> None:
        real(self, loaded, events, [one for one in moved if one not in loaded.holders])

    return adopted


def _epoch(ledger: Ledger, producer: str) -> int:
    position = ledger.position(producer)
    return 0 if position is None else position.epoch


def _without_positions(real: Any) -> Any:
    def adopt(self: Ledger, events: Any, producers: Any, **more: Any) -> Any:
        known = {name: one for name, one in producers.items() if one.epoch > _epoch(self, name)}
        return real(self, events, known, **more)

    return adopt


def _once_a_warden(real: Any) -> Any:
    def set_warden(self: BusReader, *, mine: bool) -> None:
        real(self, mine=mine or self._warden)

    return set_warden


def _keeps_watching(real: Any) -> Any:
    def watch_over(self: LoadedSession, ours: Any, now: float) -> None:
        before, self.verdicts = self.verdicts, {}
        real(self, ours, now)
        self.verdicts = {**before, **self.verdicts}

    return watch_over


def _drops_pending(real: Any) -> Any:
    def again(self: ProducerDesk, loaded: LoadedSession) -> None:
        loaded.following.pending.clear()
        real(self, loaded)

    return again


def _adopts_over_holes(real: Any) -> Any:
    def advance(self: Nodes, loaded: LoadedSession) -> None:
        while loaded.following.news and loaded.following.news[0].version <= loaded.following.version:
            loaded.following.news.popleft()
        if loaded.following.news and not loaded.following.behind and not loaded.ledger.committing:
            # The events that are missing are taken for none.
            loaded.following.version = loaded.following.news[0].version - 1
            loaded.feed.state.seq = loaded.following.news[0].head
        real(self, loaded)

    return advance


_COMPARES: Final = "tonumber(head[1] or 0) ~= version or tonumber(head[2] or 0) ~= expected"
_SAME: Final = "if known[1] and known[2] == ARGV[3] and known[3] == ARGV[4]"

_fault = partial(fault, shared=True)

_LOSSES: Final = ("Redis goes back", "Redis starts empty", "a replica takes over", "burst", "command")
_APART: Final = (
    "cut a node off from Redis",
    "a node does not hear Redis",
    "Redis does not hear a node",
    "Redis stands still",
)

NODE_FAULTS: Final[tuple[Fault, ...]] = (
    _fault(
        "what was missed is not read",
        "AGREE EXPIRED HONEST",
        method(Nodes, "_miss", _nothing),
        "messages are cut off", "burst", "revoke a token", "remove a session",
    ),
    _fault(
        "what follows a hole is told before the hole is repaired",
        "ORDER GAPLESS AGREE HONEST",
        method(Nodes, "advance", _adopts_over_holes),
        "messages are cut off", "burst", *_APART,
    ),
    _fault(
        "a server that is not sure goes on",
        "EXPIRED HONEST",
        method(Nodes, "sure", _always),
        "revoke a token", *_APART,
    ),
    _fault("a revocation elsewhere is not heard", "EXPIRED", _deaf_to("TokenRevoked"), "revoke a token"),
    _fault(
        "a removal elsewhere is not heard",
        "AGREE HONEST",
        _deaf_to("SessionRemoved"),
        "remove a session",
    ),
    _fault(
        "a fence is not looked at on the other server",
        "DURABLE ORDER ONCE",
        method(ProducerDesk, "adopted", _fences_nobody),
        "take a producer over", "burst", "slow network", *_APART,
    ),
    _fault(
        "a commit whose answer was lost is made twice",
        "ONCE ORDER DURABLE",
        together(
            _script(scripts, "COMMIT", "string.sub(last, 1, #id) == id", "false"),
            method(Ledger, "adopt", _without_positions),
        ),
        "reset a connection to Redis", "a node does not hear Redis", "Redis stands still", "burst",
    ),
    _fault(
        "nobody compares whom a commit was made for",
        "DURABLE ORDER",
        _script(scripts, "COMMIT", _COMPARES, "false"),
        "burst", "command", *_APART,
    ),
    _fault(
        "what others were faster than is forgotten",
        "DURABLE ORDER",
        method(ProducerDesk, "again", _drops_pending),
        "burst", "command", "slow network", "Redis is slow",
    ),
    _fault(
        "the epoch outlasts a failover",
        "MONOTONE HONEST DURABLE AGREE",
        _script(scripts, "SETTLE", _SAME, "if known[1]"),
        *_LOSSES,
    ),
    _fault(
        "a session's epoch outlasts a failover",
        "MONOTONE HONEST DURABLE AGREE",
        _script(reading, "LOAD", "'epoch', fresh, 'gen'", "'gen'"),
        *_LOSSES,
    ),
    _fault(
        "Redis is not told again what was revoked",
        "EXPIRED",
        method(RedisStore, "_revoke_again", _nothing_later),
        "revoke a token", "Redis goes back", "Redis starts empty", "Redis is emptied",
    ),
    _fault(
        "a server judges what another one has told, without a look at the store",
        "HONEST MONOTONE",
        method(Nodes, "judges", _yes),
        "stop server", "reset a connection", "burst", *_APART,
    ),
    _fault(
        "who was the warden stays it",
        "AGREE",
        method(BusReader, "_set_warden", _once_a_warden),
        "kill server", *_APART,
    ),
    _fault(
        "nobody watches over the programs of a server that is gone",
        "HONEST",
        method(Nodes, "_take_charge", _nothing_later),
        "kill server", "stop server", "kill a publisher", "kill a program",
    ),
    _fault(
        "a server that comes back does not get its programs back",
        "HONEST AGREE",
        method(LoadedSession, "watch_over", _keeps_watching),
        "cut a node off from Redis",
        quiet=True,
    ),
)  # fmt: skip
"""All planted faults of servers that share a Redis."""
