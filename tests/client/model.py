"""A server as the protocol describes it, small enough to be read at once: the subscription's counterpart.

It speaks messages, not bytes, and does nothing by itself: the test lets it answer, lose, and begin anew.
"""

from __future__ import annotations

from collections import deque

import msgspec

from wsmonitor.protocol.codec import encode_record
from wsmonitor.protocol.entities import Step
from wsmonitor.protocol.messages import (
    Batch,
    ClientMessage,
    Event,
    ServerMessage,
    Subscribe,
    SyncBegin,
    Synced,
    SyncNext,
    SyncPage,
    Unsubscribe,
)
from wsmonitor.protocol.reducer import SessionState

TS = "1"


class ModelServer:
    """One topic, its history of bounded length, and at most one subscriber."""

    def __init__(self, topic: str = "s", *, keep: int = 8, page: int = 3) -> None:
        self.topic = topic
        self.keep = keep
        self.page = page
        self.epochs = 1
        self.state = SessionState(topic, "e1")
        self.history: list[Event] = []
        self.outbox: deque[ServerMessage] = deque()
        self.subscription: Subscribe | None = None
        self.attached = False
        self.base: SessionState | None = None
        self.pages: list[SyncPage] = []
        self.batched: dict[tuple[str, str], Step] = {}
        self.batch_from = 0

    # -- what happens

    def happen(self, ident: str, name: str) -> Event:
        """One event: a step is written."""
        seq = self.state.seq + 1
        step = Step(id=ident, chain="c", name=name, seq=seq)
        event = Event(
            topic=self.topic, epoch=self.state.epoch, seq=seq, ts=TS, kind="step", entity=encode_record(step)
        )
        self.state.apply(event)
        self.history = [*self.history, event][-self.keep :]
        if self.attached and self.subscription is not None:
            if self.subscription.delivery == "all":
                self.outbox.append(event)
            else:
                self.batched["step", ident] = step
        return event

    def flush_batch(self) -> None:
        """With delivery "latest": what has gathered goes out."""
        if self.attached and self.batched:
            self.outbox.append(
                Batch(
                    topic=self.topic,
                    epoch=self.state.epoch,
                    from_=self.batch_from,
                    to=self.state.seq,
                    ts=TS,
                    entities=[(kind, encode_record(step)) for (kind, _), step in self.batched.items()],
                    digest=self.state.digest,
                )
            )
            self.batched.clear()
            self.batch_from = self.state.seq

    def begin_anew(self, *, keep_entities: bool) -> None:
        """A new epoch: the history is broken."""
        self.epochs += 1
        old = self.state
        self.state = SessionState(self.topic, f"e{self.epochs}", 0)
        self.history = []
        if keep_entities:
            for kind, entity in old:
                self.state.put(kind, msgspec.structs.replace(entity, seq=0))
        self.detach()

    def detach(self) -> None:
        """The connection is gone, and what was on its way with it."""
        self.outbox.clear()
        self.subscription = None
        self.attached = False
        self.base = None
        self.batched.clear()

    # -- what is asked

    def receive(self, message: ClientMessage) -> None:
        match message:
            case Subscribe():
                self._subscribe(message)
            case SyncNext():
                self._next(message)
            case Unsubscribe():
                self.subscription = None
                self.attached = False
            case _:
                raise AssertionError(f"unexpected {message}")

    def _subscribe(self, message: Subscribe) -> None:
        assert self.subscription is None or message.generation > self.subscription.generation
        self.subscription = message
        self.attached = False
        self.batched.clear()
        self.base = self.state.copy()
        resume, reset, history, gap = message.resume, "", [], None
        if resume is not None:
            if resume.epoch != self.base.epoch:
                reset = "epoch"
            elif resume.seq > self.base.seq:
                reset = "ahead"
            elif resume.seq == self.base.seq and resume.digest != self.base.digest:
                reset = "diverged"
            elif resume.seq < self.base.seq:
                missed = [event for event in self.history if event.seq > resume.seq]
                if len(missed) == self.base.seq - resume.seq:
                    history = missed
                else:
                    gap = (resume.seq + 1, self.base.seq)
        entities = [(kind, encode_record(entity)) for kind, entity in self.base]
        chunks = [entities[i : i + self.page] for i in range(0, len(entities), self.page)] or [[]]
        self.pages = [
            SyncPage(
                topic=self.topic,
                generation=message.generation,
                page=number,
                base=self.base.seq,
                entities=chunk,
                history=[encode_record(event) for event in history] if number == 0 else [],
                gap=gap if number == 0 else None,
                last=number == len(chunks) - 1,
            )
            for number, chunk in enumerate(chunks)
        ]
        self.outbox.append(
            SyncBegin(
                topic=self.topic,
                generation=message.generation,
                epoch=self.base.epoch,
                base=self.base.seq,
                entities=len(entities),
                reset=reset,  # type: ignore[arg-type]  # one of the literals
            )
        )

    def _next(self, message: SyncNext) -> None:
        subscription = self.subscription
        if subscription is None or message.generation != subscription.generation or self.base is None:
            return
        page = self.pages[message.page]
        if not page.last:
            self.outbox.append(page)
            return
        tail = [event for event in self.history if event.seq > self.base.seq]
        if len(tail) < self.state.seq - self.base.seq:
            self._another_round(page)
            return
        self.outbox.append(page)
        self.outbox.extend(tail)
        self.outbox.append(
            Synced(
                topic=self.topic,
                generation=subscription.generation,
                seq=self.state.seq,
                digest=self.state.digest,
            )
        )
        self.attached = True
        self.base = None
        self.batch_from = self.state.seq

    def _another_round(self, page: SyncPage) -> None:
        """History no longer reaches back to the base: the entities changed since, under a higher one."""
        assert self.base is not None
        changed = [(k, encode_record(e)) for k, e in self.state if e.seq > self.base.seq]
        self.base = self.state.copy()
        self.outbox.append(msgspec.structs.replace(page, last=False))
        self.pages.append(
            SyncPage(
                topic=self.topic,
                generation=page.generation,
                page=page.page + 1,
                base=self.base.seq,
                entities=changed,
                last=True,
            )
        )
