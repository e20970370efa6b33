"""A sync: how one subscription gets from nothing, or from an old position, to the head.

::

    sync_begin(epoch, base) → pages of the state at base → [rounds of what changed since] → events → synced

The pages are pulled, from an immutable copy, so a slow reader cannot be overrun; meanwhile nothing
is queued for it. When history no longer reaches back to ``base`` at the end of a round, another
round brings what changed since, at a higher base: each is smaller than the one before.

What a client with an older position missed, ``(old, base]``, comes as ``history``: for its log and
its handlers, never reduced. If history is incomplete, one ``gap`` stands for all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from msgspec import Raw

from wsmonitor.protocol.codec import encode
from wsmonitor.protocol.entities import ErrorInfo
from wsmonitor.protocol.messages import Position, SyncBegin, Synced, SyncPage

from .framing import CHUNK, frame_text, join
from .hub import Feed
from .ports import Pulled, Refusal, Subscriber
from .snapshot import DROPPABLE, Page, pages

Reset = Literal["", "epoch", "ahead", "diverged"]


class TopicSync:
    """A running sync of one subscription. See `ports.Sync` for its methods' contracts."""

    def __init__(
        self,
        feed: Feed,
        subscriber: Subscriber,
        generation: int,
        resume: Position | None,
        *,
        page_size: int,
        absent: bool = False,
        tell_reset: bool = True,
        on_attach: Callable[[], None] = lambda: None,
    ) -> None:
        self.subscriber = subscriber
        self._feed = feed
        self._page_size = page_size
        self._on_attach = on_attach
        self._closed = False
        self._number = -1
        self._current: SyncPage | None = None
        reset, resumed = self._judge(resume)
        self._snapshot = feed.snapshot(at_least=resumed or 0)
        self._base = self._snapshot.base
        history, self._gap = self._missed(resumed)
        self._history = list(_chunks(history, page_size))
        self._shared = None if self._history else 0  # the snapshot's page that comes next
        self._resumed = resumed is not None
        self._generation = generation
        self._pages = self._produce()
        self._pulled: Pulled | None = None
        self.begin = SyncBegin(
            topic=feed.topic,
            generation=generation,
            epoch=self._snapshot.epoch,
            base=self._base,
            entities=self._snapshot.count,
            absent=absent,
            reset=reset if tell_reset else "",
        )
        feed.begin(self)

    def _judge(self, resume: Position | None) -> tuple[Reset, int | None]:
        """Whether the offered position can be continued: the reason if not, the seq if so."""
        feed = self._feed
        if resume is None:
            return "", None
        if resume.epoch != feed.state.epoch:
            # Who had seen nothing yet has lost nothing.
            return ("epoch" if resume.seq else ""), None
        if resume.seq > feed.state.seq:
            return "ahead", None
        known = feed.digest_at(resume.seq)
        if resume.digest and known is not None and resume.digest != known:
            return "diverged", None
        return "", resume.seq

    def _missed(self, seq: int | None) -> tuple[list[Raw], tuple[int, int] | None]:
        if seq is None or seq >= self._base:
            return [], None
        if self._feed.first_kept > seq + 1:
            return [], (seq + 1, self._base)
        return [Raw(kept.encoded) for kept in self._feed.history if seq < kept.seq <= self._base], None

    def _produce(self) -> Iterator[SyncPage]:
        """All pages in order. It goes on when a page is pulled, so it judges by the head of that moment."""
        number = 0

        def page(
            entities: Page, drop: list[tuple[str, str]], history: list[Raw], *, last: bool = False
        ) -> SyncPage:
            nonlocal number
            made = SyncPage(
                topic=self._feed.topic,
                generation=self._generation,
                page=number,
                base=self._base,
                entities=entities,
                drop=drop,
                history=history,
                gap=self._gap,
                last=last,
            )
            self._gap = None
            number += 1
            return made

        while self._history:
            chunk = self._history.pop(0)
            self._shared = None if self._history else 0
            yield page([], [], chunk)
        known = set(self._snapshot.keys)
        count, over = 0, False
        while not over:
            entities, over = self._snapshot.page(count)
            count += 1
            self._shared = None if over else count
            yield page(entities, [], [], last=over and self._reaches())
        while True:  # until one was the last: behind it nobody pulls
            state = self._feed.state
            base = self._base
            changed = [
                (kind, entity)
                for kind, group in state.entities.items()
                for entity in group.values()
                if entity.seq > base
            ]
            present = {(kind, ident) for kind in DROPPABLE for ident in state.entities[kind]}
            drop = sorted(known - present)
            known = present
            if self._resumed:
                # What this round skips is no longer all in history: like any gap of one who was there.
                self._gap = (self._base + 1, state.seq)
            self._base = state.seq
            for entities, over in pages(changed, self._page_size):
                yield page(entities, drop, [], last=over and self._reaches())
                drop = []

    def _reaches(self) -> bool:
        return self._feed.first_kept <= self._base + 1

    def prepare(self, number: int) -> bool:
        """See `ports.Sync.prepare`."""
        return (
            self._closed
            or self._shared is None
            or number != self._number + 1
            or self._snapshot.ready(self._shared)
        )

    def pull(self, number: int) -> Pulled:
        """See `ports.Sync.pull`."""
        again = number == self._number
        shared = self._shared if not again and self._gap is None else None
        page = self.page(number)
        if again and self._pulled is not None:
            return self._pulled
        seq = self._feed.state.seq if page.last else None

        def make() -> Sequence[tuple[bytes, int]]:
            payloads = [encode(page), *(self._end() if page.last else ())]
            frames = b"".join(map(frame_text, payloads))
            # As a rule one write; but not one of megabytes, should there be so many events.
            few = len(frames) <= self._page_size + CHUNK
            return [(frames, len(payloads))] if few else list(join(tuple(payloads)))

        if shared is None:
            chunks = make()
        else:
            chunks = self._snapshot.framed((shared, number, self._generation, page.last, seq), make)
        if page.last:
            self._attach()
        self._pulled = Pulled(chunks, seq)
        return self._pulled

    def _end(self) -> list[bytes]:
        """What follows the last page: the events behind its base, and ``synced``."""
        topic, state = self._feed.topic, self._feed.state
        synced = Synced(topic=topic, generation=self._generation, seq=state.seq, digest=state.digest)
        return [*self._feed.since(self._base), encode(synced)]

    def page(self, number: int) -> SyncPage:
        """Page *number*. Raises `Refusal` when it is not the next one, nor the one before again."""
        if self._closed:
            raise Refusal(
                ErrorInfo(
                    code="gone",
                    message="this sync is over: subscribe again",
                    retryable=True,
                    session=self._feed.topic,
                )
            )
        if number == self._number and self._current is not None:
            return self._current
        if number != self._number + 1 or (self._current is not None and self._current.last):
            raise Refusal(
                ErrorInfo(
                    code="unexpected_message",
                    message=f"page {number} is not the next one, nor the one before",
                    session=self._feed.topic,
                )
            )
        self._current = next(self._pages)
        self._number = number
        return self._current

    def finish(self) -> tuple[list[bytes], int, str]:
        """Attach the subscriber: from here on it gets live events.

        To be called in the loop turn of the last page. Gives the encoded events behind its base, and the seq
        and digest after them.
        """
        if self._closed:
            raise RuntimeError("finish() after close()")
        if self._current is None or not self._current.last or not self._reaches():
            raise RuntimeError("finish() belongs into the loop turn that pulled the last page")
        events = self._feed.since(self._base)
        self._attach()
        return events, self._feed.state.seq, self._feed.state.digest

    def _attach(self) -> None:
        self._feed.attach(self)
        self._closed = True
        self._pages = iter(())
        self._on_attach()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pages = iter(())
            if self._feed.syncs.get(id(self.subscriber)) is self:
                del self._feed.syncs[id(self.subscriber)]


def _chunks(history: list[Raw], size: int) -> Iterator[list[Raw]]:
    chunk: list[Raw] = []
    filled = 0
    for raw in history:
        length = len(bytes(raw)) + 1
        if chunk and filled + length > size:
            yield chunk
            chunk, filled = [], 0
        chunk.append(raw)
        filled += length
    if chunk:
        yield chunk
