"""How an observer joins a topic: subscribe, and pull the sync page by page. No loop, no socket.

A storm of observers who come back does nothing but this. So everything that need not wait for anything is
done in the moment in which the message comes; what has to wait (a session that is to be loaded, a page behind
another, a page that takes long to make) is given back as the rest, which becomes a task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from wsmonitor.protocol.errors import InvalidIdError
from wsmonitor.protocol.ids import check_session_id, is_directory
from wsmonitor.protocol.messages import Removed, Subscribe, SyncNext

from .ports import Refusal, Sync
from .replies import limit_info, refusal
from .subscription import Subscription

if TYPE_CHECKING:
    from .peer import Peer

Rest = Callable[[], Awaitable[None]]
"""What is left of a request that could not be carried out at once."""


class Joining:
    """One connection's way into its topics."""

    __slots__ = ("_peer",)

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def may_watch(self, topic: str) -> bool:
        """Whether the token covers *topic*. The directory shows each token what its patterns cover."""
        claims = self._peer.credential.claims
        return claims.may("observe") and (is_directory(topic) or claims.covers(topic))

    async def subscribe(self, message: Subscribe) -> None:
        rest = self.begin_subscribe(message)
        if rest is not None:
            await rest()

    def begin_subscribe(self, message: Subscribe) -> Rest | None:
        subscription = self._subscription(message)
        if subscription is None:
            return None
        subscription.begin(
            message.generation, latest=message.delivery == "latest", interval=message.interval_ms / 1000
        )
        engine, asked = self._peer.services.engine, (message.topic, message.generation, message.resume)
        with self._ended_by_a_failure(subscription):
            sync = engine.subscribe_at_once(*asked, subscription)
            if sync is not None:
                self._begin_sync(subscription, sync)
                return None

            async def rest() -> None:
                with self._ended_by_a_failure(subscription):
                    self._begin_sync(subscription, await engine.subscribe(*asked, subscription))

            return rest
        return None

    def _subscription(self, message: Subscribe) -> Subscription | None:
        """The one that *message* is about, new or known; None when the client was told that it has none."""
        peer, topic = self._peer, message.topic
        if not is_directory(topic):
            try:
                check_session_id(topic, "topic")
            except InvalidIdError as exc:
                raise refusal("bad_id", str(exc), details={"topic": topic}) from exc
        if not self.may_watch(topic):
            peer.send(Removed(topic=topic, reason="not_available"))
            return None
        subscription = peer.subscriptions.get(topic)
        if subscription is None:
            if len(peer.subscriptions) >= peer.limits.subscriptions:
                raise Refusal(limit_info("subscriptions", peer.limits.subscriptions, topic=topic))
            if (beyond := peer.tenant.subscribe()) is not None:
                raise Refusal(beyond)
            hello, claims = peer.hello, peer.credential.claims
            subscription = Subscription(
                peer,
                topic,
                claims,
                # Whoever signed the token knows better who this is than who shows it.
                claims.name or (hello.name if hello is not None else "") or claims.sub,
                (hello.instance if hello is not None else "") or peer.ident,
            )
            peer.subscriptions[topic] = subscription
            peer.tenant.subscriptions += 1
        elif message.generation <= subscription.generation:
            raise refusal(
                "bad_message",
                f"generation {message.generation} is not above {subscription.generation}",
                details={"topic": topic},
            )
        return subscription

    @contextmanager
    def _ended_by_a_failure(self, subscription: Subscription) -> Iterator[None]:
        try:
            yield
        except Refusal as exc:
            self._peer.end_subscription(subscription)
            if exc.info.code != "not_available":
                # The session is there, and may be readable later: the client asks again.
                raise
            self._peer.send(Removed(topic=subscription.topic, reason="not_available"))
        except BaseException:
            self._peer.end_subscription(subscription)
            raise

    def _begin_sync(self, subscription: Subscription, sync: Sync) -> None:
        peer = self._peer
        if subscription.phase != "syncing":
            sync.close()
            if subscription.phase == "over":
                peer.services.engine.unsubscribe(subscription.topic, subscription)
            return
        subscription.sync = sync
        peer.send(sync.begin)

    async def sync_next(self, message: SyncNext) -> None:
        wire, subscription = self._peer.wire, self._pulling(message)
        async with wire.bulk():
            sync = self._wanted(subscription, message)
            while sync is not None and not sync.prepare(message.page):
                await wire.turn()
                sync = self._wanted(subscription, message)
            if sync is not None:
                self._give_page(subscription, sync, message.page)

    def begin_sync_next(self, message: SyncNext) -> Rest | None:
        subscription = self._pulling(message)
        sync = self._wanted(subscription, message)
        if self._peer.wire.bulk_free and (sync is None or sync.prepare(message.page)):
            if sync is not None:
                self._give_page(subscription, sync, message.page)
            return None
        return partial(self.sync_next, message)

    def _pulling(self, message: SyncNext) -> Subscription:
        subscription = self._peer.subscriptions.get(message.topic)
        if subscription is None:
            raise refusal(
                "unexpected_message", "there is no such subscription", details={"topic": message.topic}
            )
        return subscription

    @staticmethod
    def _wanted(subscription: Subscription, message: SyncNext) -> Sync | None:
        """The sync that *message* is about; None if it was given up meanwhile: the client has been told, or
        knows."""
        return subscription.sync if subscription.generation == message.generation else None

    def _give_page(self, subscription: Subscription, sync: Sync, number: int) -> None:
        try:
            pulled = sync.pull(number)
        except Refusal as exc:
            if exc.info.code != "gone":
                raise
            # The session side has ended the sync: the client has to begin another.
            subscription.mute("reset")
            return
        if pulled.seq is not None:
            subscription.go_live(sync.begin.epoch, pulled.seq)
        self._peer.send_frames(pulled.chunks, subscription.pages)
