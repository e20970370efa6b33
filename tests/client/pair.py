"""A subscription's machine and the model server, linked: what the subscription's tests drive."""

from __future__ import annotations

from typing import Any

from wsmonitor.client.subscription import Delivery, SubscriptionMachine
from wsmonitor.client.types import Update
from wsmonitor.protocol.messages import (
    Batch,
    ClientMessage,
    Event,
    Removed,
    Resync,
    ServerMessage,
    SyncBegin,
    Synced,
    SyncPage,
)

from .model import ModelServer


class Pair:
    """A machine and a model server, with a link between them that the test may cut."""

    def __init__(self, *, delivery: Delivery = "all", keep: int = 8, page: int = 3) -> None:
        self.now = 0.0
        self.server = ModelServer(keep=keep, page=page)
        self.sent: list[ClientMessage] = []
        self.told: list[Update] = []
        self.generation = 0
        self.machine = SubscriptionMachine(
            "s",
            send=self._send,
            tell=self.told.append,
            random=lambda: 0.0,
            next_generation=self._next,
            delivery=delivery,
        )
        self.linked = False

    def _next(self) -> int:
        self.generation += 1
        return self.generation

    def _send(self, message: ClientMessage) -> None:
        self.sent.append(message)
        if self.linked:
            self.server.receive(message)

    def connect(self) -> None:
        self.linked = True
        self.machine.connected(self.now)

    def cut(self) -> None:
        self.linked = False
        self.server.detach()
        self.machine.disconnected(self.now, "cut")

    def give(self, message: ServerMessage) -> None:
        machine, now = self.machine, self.now
        match message:
            case SyncBegin():
                machine.sync_begin(now, message)
            case SyncPage():
                machine.sync_page(now, message)
            case Synced():
                machine.synced(now, message)
            case Event():
                machine.event(now, message)
            case Batch():
                machine.batch(now, message)
            case Resync():
                machine.resync(now, message)
            case Removed():
                machine.removed(message)
            case _:
                raise AssertionError(message)

    def pump(self, count: int = 10_000) -> None:
        while count and self.server.outbox:
            self.give(self.server.outbox.popleft())
            count -= 1

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.machine.handle_timeout(self.now)

    def live(self) -> None:
        self.connect()
        self.pump()
        assert self.machine.phase == "live"
        self.told.clear()
        self.sent.clear()

    def of(self, kind: type[Any]) -> list[Any]:
        return [update for update in self.told if isinstance(update, kind)]
