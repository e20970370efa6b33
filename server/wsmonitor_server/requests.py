"""What a client asks for, carried out: one table from message type to handler. No loop, no socket.

Whether a request is allowed is decided from the token's claims alone, before anything is looked up:
``not_available`` for a session outside the token's patterns, ``forbidden`` for what its role does not
permit. The engine then refuses for reasons of state only.

A request with a number is answered under it. `subscribe` and `publish` have none: what goes wrong
with them is told by an error that names the session, and for a subscription by ``removed``.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec

from wsmonitor.protocol.codec import DamagedPublish, encode
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.messages import (
    Ack,
    CommandRequest,
    Deliver,
    Done,
    Fenced,
    HistoryGet,
    Hold,
    HoldChanged,
    LogsGet,
    Publish,
    PublishClose,
    PublishOpen,
    Refresh,
    Refreshed,
    Rejected,
    Remove,
    Revoke,
    Status,
    StatusGet,
    Stop,
    Subscribe,
    SyncNext,
    Unsubscribe,
    ValueAck,
    ValueGet,
    ValuePage,
    ValuePut,
)

from .auth import AuthError
from .joining import Joining, Rest
from .outbox import Lane
from .ports import ProducerHandle, Refusal
from .replies import error_info, limit_info, not_available, refusal
from .stores.base import StoreError
from .values import UPLOAD_IDLE

if TYPE_CHECKING:
    from .peer import Peer


class Route(NamedTuple):
    """How a message type is handled.

    ``permit`` is what the role has to permit ("" for anything); ``lane`` names what the order is kept for.
    ``begin``, where there is one, does at once what need not wait for anything: it gives the rest, or None.
    """

    permit: str
    lane: Callable[[Any], Hashable]
    handle: Callable[[Requests, Any], Awaitable[None]]
    begin: Callable[[Requests, Any], Rest | None] | None = None


class Requests:
    """One connection's requests, and the producers that it holds. Implements `ports.ProducerEvents`."""

    __slots__ = (
        "_answers",
        "_goodbyes",
        "_opening",
        "_peer",
        "_producers",
        "_silent",
        "_uploads",
        "joining",
    )

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.joining = Joining(peer)
        self._producers: dict[tuple[str, str], ProducerHandle] = {}
        self._opening: set[tuple[str, str]] = set()
        self._uploads: dict[tuple[str, str], float] = {}  # when its last page came (monotonic seconds)
        self._goodbyes: dict[tuple[str, str], int] = {}  # producer to the epoch that said goodbye
        self._silent = False
        self._answers = Lane(bulk=True)  # pages that were asked for one by one

    @property
    def producers(self) -> int:
        """How many producers are held."""
        return len(self._producers)

    # -- entry

    def submit(self, message: Any, size: int) -> None:
        """Queue *message* in its lane. *size* is what it had on the wire."""
        route = ROUTES[type(message)]
        if isinstance(message, PublishClose):
            # A program that ends says goodbye and closes at once: the close must not overtake the goodbye.
            key = (message.session, message.producer)
            if key in self._producers:
                self._goodbyes[key] = message.producer_epoch

        if isinstance(message, Publish | DamagedPublish) and size > self._peer.limits.batch_size:
            limit = limit_info("batch_size", self._peer.limits.batch_size, session=message.session)
            self._peer.send_error(_located(limit, message))
            return

        lane, rest = route.lane(message), None
        if route.begin is not None and self._peer.wire.idle(lane):
            # A task for each message of a join, or of a publisher, would cost more than what is done in it.
            rest = self._begin(route, message, size)
            if rest is None:
                return

        async def job() -> None:
            await self._carry_out(route, message, size, rest)

        self._peer.wire.run(lane, size, job)

    def _begin(self, route: Route, message: Any, size: int) -> Rest | None:
        assert route.begin is not None
        try:
            self._decide(route.permit, getattr(message, "session", ""))
            self._charge(message, size)
            return route.begin(self, message)
        except Exception as exc:  # noqa: BLE001 - a fault in one request must not end the connection
            self._answer_failure(exc, message)
            return None

    async def _carry_out(self, route: Route, message: Any, size: int, rest: Rest | None) -> None:
        peer = self._peer
        if peer.phase == "closed" or not peer.still_valid():
            return
        try:
            self._decide(route.permit, getattr(message, "session", ""))
            if rest is not None:
                await rest()
                return
            self._charge(message, size)
            await route.handle(self, message)
        except Exception as exc:  # noqa: BLE001 - a fault in one request must not end the connection
            self._answer_failure(exc, message)

    def _answer_failure(self, exc: Exception, message: Any) -> None:
        """Tell why *message* was not carried out. To be called while *exc* is handled: a fault is logged."""
        session: str = getattr(message, "session", "")
        if isinstance(exc, Refusal):
            info = exc.info
        elif isinstance(exc, StoreError):
            info = error_info(exc.code, exc.message, session=session)
        else:
            info = error_info(
                "internal",
                "a fault of the server; its log has it under the correlation id",
                session=session,
                correlation=self._peer.services.fault(self._peer, type(message).__name__),
            )
        self._peer.send_error(_located(info, message), getattr(message, "request", None))

    def _charge(self, message: Any, size: int) -> None:
        """What is published is the tenant's. Raises `Refusal` when it has published too much."""
        if isinstance(message, Publish | DamagedPublish | ValuePut):
            changes = 0 if isinstance(message, ValuePut) else len(message.changes)
            now = self._peer.services.clock.monotonic()
            self._within(self._peer.tenant.publish(changes, size, now), message.session)

    @staticmethod
    def _within(beyond: ErrorInfo | None, session: str = "") -> None:
        if beyond is not None:
            raise Refusal(msgspec.structs.replace(beyond, session=session))

    def _decide(self, permit: str, session: str) -> None:
        claims = self._peer.credential.claims
        if session and not claims.covers(session):
            raise not_available(session)
        if permit and not claims.may(permit):
            raise refusal(
                "forbidden", f"the token's role {claims.role!r} does not permit this", session=session
            )

    # -- topics: how one joins them is `joining`

    async def _unsubscribe(self, message: Unsubscribe) -> None:
        subscription = self._peer.subscriptions.get(message.topic)
        if subscription is not None:
            self._peer.end_subscription(subscription)

    # -- publishing

    async def _publish_open(self, message: PublishOpen) -> None:
        peer, key = self._peer, (message.session, message.producer)
        if peer.phase == "draining":
            raise refusal("draining", "the server is stopping", session=message.session)
        # Those on their way count as well: many are asked for at once before the first is there.
        taken = self._opening.union(self._producers)
        if key not in taken and len(taken) >= peer.limits.publications:
            raise Refusal(limit_info("publications", peer.limits.publications, session=message.session))
        self._within(peer.tenant.open(message.session), message.session)
        self._opening.add(key)
        peer.tenant.opened(message.session)
        try:
            opened, handle = await peer.services.engine.open_producer(message, peer.credential.claims, self)
        except BaseException:
            peer.tenant.closed(message.session)
            raise
        finally:
            self._opening.discard(key)
        if peer.phase == "closed":
            peer.tenant.closed(message.session)
            await handle.close(goodbye=False)
            return
        self._forget(key)
        self._producers[key] = handle
        peer.send(opened)
        peer.services.done(
            peer,
            "producer opened",
            session=message.session,
            producer=message.producer,
            producer_epoch=opened.producer_epoch,
            agent=message.agent,
        )

    def _begin_publish(self, message: Publish | DamagedPublish) -> Rest | None:
        handle = self._handle_for(message)
        if handle.publish_now(message.producer_epoch, message.first, message.changes):
            return None
        return lambda: self._publish(message)

    async def _publish(self, message: Publish | DamagedPublish) -> None:
        handle = self._handle_for(message)
        await handle.publish(message.producer_epoch, message.first, message.changes)

    def _handle_for(self, message: Publish | DamagedPublish) -> ProducerHandle:
        limits = self._peer.limits
        handle = self._producers.get((message.session, message.producer))
        if handle is None:
            raise refusal(
                "unexpected_message",
                "`publish_open` comes before `publish`",
                session=message.session,
                details={"producer": message.producer},
            )
        if len(message.changes) > limits.batch_changes:
            raise Refusal(limit_info("batch_changes", limits.batch_changes, session=message.session))
        return handle

    async def _publish_close(self, message: PublishClose) -> None:
        key = (message.session, message.producer)
        handle = self._producers.get(key)
        self._goodbyes.pop(key, None)
        if handle is not None and handle.epoch == message.producer_epoch:
            self._forget(key)
            await handle.close(goodbye=True)
        self._peer.send(Done(request=message.request))

    def heard(self) -> None:
        """A message arrived: producers that counted as silent live."""
        if self._silent:
            self._silent = False
            for handle in self._producers.values():
                handle.heard()

    def narrowed(self) -> None:
        """The token was replaced: producers that the new one does not cover lose their connection."""
        claims = self._peer.credential.claims
        for key, handle in list(self._producers.items()):
            if not (claims.may("publish") and claims.covers(key[0])):
                self._forget(key)
                self._close_later(key, handle)
                self._peer.send_error(not_available(key[0]).info)

    def lost(self) -> None:
        """The connection is gone."""
        for key, handle in list(self._producers.items()):
            self._close_later(key, handle, goodbye=self._goodbyes.get(key) == handle.epoch)
            self._forget(key)
        self._goodbyes.clear()

    def _forget(self, key: tuple[str, str]) -> None:
        """This connection no longer holds the producer, if it did."""
        if self._producers.pop(key, None) is not None:
            self._peer.tenant.closed(key[0])

    def _close_later(self, key: tuple[str, str], handle: ProducerHandle, *, goodbye: bool = False) -> None:
        async def job() -> None:
            await handle.close(goodbye=goodbye)

        self._peer.wire.run(("producer", *key), 0, job)

    # -- what an open producer hears

    def last_heard(self) -> float:
        return self._peer.last_heard

    def silent(self) -> None:
        self._silent = True

    def acked(self, session: str, producer: str, accepted: int) -> None:
        self._peer.send(Ack(session=session, producer=producer, accepted=accepted))

    def rejected(self, session: str, producer: str, number: int, error: ErrorInfo) -> None:
        told = self._peer.correlated(error)
        self._peer.send(Rejected(session=session, producer=producer, number=number, error=told))

    def deliver(self, session: str, producer: str, command: Command) -> None:
        self._peer.send(Deliver(session=session, producer=producer, command=command))

    def held(self, session: str, producer: str, hold: Hold) -> None:
        self._peer.send(HoldChanged(session=session, producer=producer, hold=hold))

    def fenced(self, session: str, producer: str, *, removed: bool) -> None:
        self._forget((session, producer))
        reason: Literal["taken", "removed"] = "removed" if removed else "taken"
        self._peer.send(Fenced(session=session, producer=producer, reason=reason))

    def failed(self, session: str, producer: str, error: ErrorInfo) -> None:
        # The connection stays: its observers and its other producers have nothing to do with it.
        self._forget((session, producer))
        details = {**error.details, "producer": producer}
        self._peer.send_error(msgspec.structs.replace(error, details=details))

    # -- values, logs, history

    async def _value_put(self, message: ValuePut) -> None:
        peer, engine, limits = self._peer, self._peer.services.engine, self._peer.limits
        key = (message.session, message.sha256)
        try:
            data = base64.b64decode(message.data, validate=True)
        except ValueError as exc:
            raise refusal("bad_message", f"value_put: `data` is not base64: {exc}") from exc
        if len(data) > limits.page_size:
            raise Refusal(limit_info("page_size", limits.page_size, session=message.session))
        if message.total > limits.value_size:
            raise Refusal(limit_info("value_size", limits.value_size, session=message.session))
        if message.offset + len(data) > message.total:
            raise refusal("bad_message", "value_put: the page ends behind `total`", session=message.session)
        self._count_upload(key)
        complete = False
        try:
            received = await engine.value_begin(message.session, message.sha256, message.total)
            if received < message.total:
                now = self._peer.services.clock.monotonic()
                self._within(
                    peer.tenant.upload(
                        message.session, message.sha256, message.total, now, engine.value_bytes
                    ),
                    message.session,
                )
            if data and message.offset == received:
                complete = await engine.value_write(
                    message.session, message.sha256, message.total, message.offset, data
                )
                received = message.offset + len(data)
            else:
                complete = received == message.total
        except BaseException:
            self._uploads.pop(key, None)
            raise
        if complete:
            self._uploads.pop(key, None)
        peer.send(ValueAck(request=message.request, received=received, complete=complete))

    def _count_upload(self, key: tuple[str, str]) -> None:
        now, limit = self._peer.services.clock.monotonic(), self._peer.limits.uploads
        if key not in self._uploads and len(self._uploads) >= limit:
            # An upload that was given up tells nobody: one that went silent no longer counts.
            self._uploads = {one: at for one, at in self._uploads.items() if now - at < UPLOAD_IDLE}
            if len(self._uploads) >= limit:
                raise Refusal(limit_info("uploads", limit, session=key[0]))
        self._uploads[key] = now

    async def _value_get(self, message: ValueGet) -> None:
        peer = self._peer
        async with peer.wire.bulk():
            if peer.phase == "closed":
                return
            length = min(message.length, peer.limits.page_size)
            found = await peer.services.engine.value_read(
                message.session, message.sha256, message.offset, length
            )
            if found is None:
                raise refusal("gone", "this value is no longer kept", session=message.session)
            data, total = found
            page = ValuePage(
                request=message.request,
                sha256=message.sha256,
                offset=message.offset,
                total=total,
                data=base64.b64encode(data).decode("ascii"),
            )
            peer.send_bulk(encode(page), self._answers)

    async def _logs_get(self, message: LogsGet) -> None:
        peer = self._peer
        async with peer.wire.bulk():
            if peer.phase != "closed":
                page = await peer.services.engine.logs(
                    message.session, message.step, message.first, message.limit, message.request
                )
                peer.send_bulk(encode(page), self._answers)

    async def _history_get(self, message: HistoryGet) -> None:
        peer = self._peer
        async with peer.wire.bulk():
            if peer.phase != "closed":
                page = await peer.services.engine.history(
                    message.session, message.first, message.limit, message.request
                )
                peer.send_bulk(encode(page), self._answers)

    # -- commands and administration

    async def _command(self, message: CommandRequest) -> None:
        if self._peer.phase == "draining":
            raise refusal("draining", "the server is stopping", session=message.session)
        peer = self._peer
        reply = await peer.services.engine.command(message, peer.credential.claims)
        peer.send(reply)
        peer.services.done(
            peer,
            "command taken",
            session=message.session,
            command=reply.command.id,
            name=reply.command.name,
            request=message.request,
            repeated=reply.repeated,
        )

    async def _refresh(self, message: Refresh) -> None:
        peer, services = self._peer, self._peer.services
        try:
            credential = await services.authenticate(message.token)
        except AuthError as exc:
            raise Refusal(exc.info) from exc
        if peer.phase == "closed":
            return
        if credential.claims.sub != peer.credential.claims.sub:
            raise refusal("unauthorized", "the new token is another subject's")
        if credential.claims.tenant != peer.credential.claims.tenant:
            raise refusal("unauthorized", "the new token is another tenant's")
        peer.adopt(credential)
        peer.send(Refreshed(request=message.request, expires=credential.claims.exp))
        services.done(peer, "token refreshed", token=credential.claims.jti, expires=credential.claims.exp)

    async def _remove(self, message: Remove) -> None:
        await self._peer.services.engine.remove(message.session)
        self._peer.send(Done(request=message.request))
        self._peer.services.done(self._peer, "session removed", session=message.session)

    async def _revoke(self, message: Revoke) -> None:
        await self._peer.services.engine.revoke(message.jti, message.expires)
        self._peer.send(Done(request=message.request))
        self._peer.services.done(self._peer, "token revoked", token=message.jti)

    async def _status(self, message: StatusGet) -> None:
        peer = self._peer
        # Counts over all sessions are the administrator's: they tell of sessions outside the patterns.
        info = peer.services.information(full=peer.credential.claims.may("admin"))
        peer.send(Status(request=message.request, info=info))

    async def _stop(self, message: Stop) -> None:
        self._peer.send(Done(request=message.request))
        self._peer.services.request_stop()


def _located(info: ErrorInfo, message: Any) -> ErrorInfo:
    """*info* with the topic or the producer that it concerns: the only way to know it without a number."""
    where = {name: getattr(message, name) for name in ("topic", "producer") if getattr(message, name, "")}
    return msgspec.structs.replace(info, details={**where, **info.details}) if where else info


def _topic(message: Subscribe | SyncNext | Unsubscribe) -> Hashable:
    return ("topic", message.topic)


def _producer(message: PublishOpen | Publish | DamagedPublish | PublishClose) -> Hashable:
    return ("producer", message.session, message.producer)


def _upload(message: ValuePut) -> Hashable:
    return ("upload", message.session, message.sha256)


def _read(message: object) -> Hashable:
    return "read"


def _admin(message: object) -> Hashable:
    return "admin"


ROUTES: Final[dict[type, Route]] = {
    Subscribe: Route(
        "",
        _topic,
        lambda requests, message: requests.joining.subscribe(message),
        lambda requests, message: requests.joining.begin_subscribe(message),
    ),
    SyncNext: Route(
        "",
        _topic,
        lambda requests, message: requests.joining.sync_next(message),
        lambda requests, message: requests.joining.begin_sync_next(message),
    ),
    Unsubscribe: Route("", _topic, Requests._unsubscribe),
    PublishOpen: Route("publish", _producer, Requests._publish_open),
    Publish: Route("publish", _producer, Requests._publish, Requests._begin_publish),
    DamagedPublish: Route("publish", _producer, Requests._publish, Requests._begin_publish),
    PublishClose: Route("publish", _producer, Requests._publish_close),
    ValuePut: Route("publish", _upload, Requests._value_put),
    ValueGet: Route("observe", _read, Requests._value_get),
    LogsGet: Route("observe", _read, Requests._logs_get),
    HistoryGet: Route("observe", _read, Requests._history_get),
    CommandRequest: Route("command", lambda message: ("command", message.session), Requests._command),
    Refresh: Route("", lambda message: "refresh", Requests._refresh),
    Remove: Route("admin", _admin, Requests._remove),
    Revoke: Route("admin", _admin, Requests._revoke),
    StatusGet: Route("", _admin, Requests._status),
    Stop: Route("admin", _admin, Requests._stop),
}
"""Every message of a client, but for the three that `peer` answers at once."""
