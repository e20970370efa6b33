"""Entities at the tail: over the head, until they land there or are taken back."""

from __future__ import annotations

from wsmonitor.protocol.digest import entity_hash
from wsmonitor.protocol.entities import Chain
from wsmonitor.protocol.reducer import SessionState
from wsmonitor_server.hub import Numbered
from wsmonitor_server.overlay import Overlay


def a_chain(ident: str, seq: int, name: str = "c") -> Chain:
    return Chain(id=ident, name=name, producer="p", seq=seq)


def an_event(entity: Chain, *drops: tuple[str, str]) -> Numbered:
    return Numbered(entity.seq, b"", "chain", entity, drops, entity_hash(entity))


class Bench:
    """A state with one chain, and what is written over it."""

    def __init__(self) -> None:
        self.state = SessionState("s", "e", 1)
        self.old = a_chain("a", 1)
        self.state.put("chain", self.old)
        self.overlay = Overlay(self.state)

    def write(self, entity: Chain) -> None:
        self.overlay.put("chain", entity.id, entity.seq, entity, entity_hash(entity))

    def drop(self, ident: str, seq: int) -> None:
        self.overlay.put("chain", ident, seq, None, 0)

    def digest_of(self, *entities: Chain) -> int:
        wanted = SessionState("s", "e", 1)
        for one in entities:
            wanted.put("chain", one)
        return int(wanted.digest, 16)


def test_what_is_written_hides_the_head_and_counts_in_the_digest() -> None:
    bench = Bench()
    assert (bench.overlay.get("chain", "a"), bench.overlay.digest) == (bench.old, bench.digest_of(bench.old))
    new, more = a_chain("a", 2, "other"), a_chain("b", 3)
    bench.write(new)
    bench.write(more)
    assert (bench.overlay.get("chain", "a"), bench.overlay.get("chain", "b")) == (new, more)
    assert bench.overlay.digest == bench.digest_of(new, more)
    newest = a_chain("a", 4, "third")
    bench.write(newest)
    assert bench.overlay.digest == bench.digest_of(newest, more), "it stands in the place of what was written"


def test_what_is_dropped_is_not_there_though_the_head_has_it() -> None:
    bench = Bench()
    bench.drop("a", 2)
    assert bench.overlay.get("chain", "a") is None
    assert bench.overlay.digest == bench.digest_of()
    assert bench.overlay.written() == [("chain", "a", None)]


def test_what_lands_is_the_heads_unless_it_was_written_again_behind_that() -> None:
    bench = Bench()
    first, second, third = a_chain("b", 2), a_chain("c", 3), a_chain("b", 4, "again")
    for one in (first, second, third):
        bench.write(one)
    bench.drop("a", 3)
    bench.overlay.landed(an_event(first))
    assert bench.overlay.get("chain", "b") == third
    bench.overlay.landed(an_event(second, ("chain", "a")))
    assert bench.overlay.written() == [("chain", "b", third)]
    bench.overlay.landed(an_event(second))  # nothing of it is left to land
    assert len(bench.overlay) == 1


def test_taken_back_it_shows_the_head() -> None:
    bench = Bench()
    bench.write(a_chain("a", 2, "other"))
    bench.overlay.clear(bench.state)
    assert (bench.overlay.get("chain", "a"), len(bench.overlay)) == (bench.old, 0)
    assert bench.overlay.digest == bench.digest_of(bench.old)
    other = SessionState("s", "e2", 0)
    bench.overlay.clear(other)
    assert (bench.overlay.get("chain", "a"), bench.overlay.digest) == (None, int(other.digest, 16))
