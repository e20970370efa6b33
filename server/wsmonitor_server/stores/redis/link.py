"""One connection to Redis at a time, made anew when it breaks, and looked at before it is used.

redis-py speaks the protocol and the handshake. Pools and retries are ours: a commit may be sent again only
because its script knows it again, and no command may reach a Redis that is another than the one that was
met last before somebody has looked at what that means (`Link.meet`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from wsmonitor.host import is_loopback
from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.metrics import SECONDS, Histogram
from wsmonitor_server.stores.base import StoreError

from .address import Address
from .instance import Instance, UnfitError, facts, judge
from .scripts import Script
from .sentinel import primary
from .words import check_files, explain, kind, transient, unreachable

CLOSING: Final = 1.0
"""Seconds for a connection to end in order, when the store is closed."""

FIRST_DELAY: Final = 0.05
LONGEST_DELAY: Final = 1.0

Command = Sequence[Any]
"""A command and its arguments; or a `Script` and its arguments."""

_REFUSALS: Final = frozenset(
    {"AuthenticationError", "AuthenticationWrongNumberOfArgsError", "NoPermissionError", "AuthorizationError"}
)


def library() -> Any:
    """redis-py's asyncio part. Raises `ConfigurationError` where it is not installed."""
    try:
        import redis.asyncio
    except ImportError as exc:
        raise ConfigurationError(
            "the Redis store needs redis-py, which is not installed: pip install 'wsmonitor[redis]'"
        ) from exc
    return redis.asyncio


def advice(address: Address) -> tuple[str, ...]:
    """What whoever chose *address* should know."""
    if not address.encrypted and not all(map(is_loopback, address.hosts)):
        return ("what sessions say, and the password, travel unencrypted: rediss:// is with TLS",)
    return ()


async def connection(address: Address) -> Any:
    """A connection of redis-py's that is not made yet. Raises `ConfigurationError`, `UnfitError`."""
    made = library()
    common: dict[str, Any] = {
        "db": address.db,
        "username": address.username or None,
        "password": address.secret() or None,
        "socket_timeout": None,  # a question has a deadline of its own
        "socket_connect_timeout": None,
        "protocol": 2,
    }
    if address.scheme == "unix":
        return made.UnixDomainSocketConnection(path=address.path, **common)
    host, port = await primary(address) if address.sentinels else (address.host, address.port)
    common |= {"host": host, "port": port, "socket_keepalive": True}
    if address.encrypted:
        check_files(address)
        return made.SSLConnection(**common, ssl_check_hostname=True, **dict(address.tls))
    return made.Connection(**common)


class _BrokenError(Exception):
    """The connection is gone, and a new one may do better.

    Attributes:
        failure: what to say if it does not.
        sent: the questions may have been read, and done.
    """

    def __init__(self, failure: StoreError, *, sent: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.sent = sent


class Link:
    """See the module's text. Questions are asked one after the other, each group in one round trip.

    Args:
        meet: called with each new connection before it is used; raises `UnfitError` if it must not be.
        timeout: seconds for the answers to one group, and for making a connection.
        patience: seconds during which what found no Redis, or lost its answer, is asked again.

    Attributes:
        asked: how many groups were answered; ``connects``: how many connections were made.
        failures: how often a group found no Redis, or lost its answer.
        seconds: how long the answers took.
    """

    def __init__(
        self,
        address: Address,
        meet: Callable[[Any], Awaitable[None]],
        *,
        timeout: float,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._meet = meet
        self._timeout = timeout
        self._patience = patience
        self._clock = clock
        self.asked = self.connects = self.failures = 0
        self.seconds = Histogram(SECONDS)
        self._connection: Any = None
        self._lock = asyncio.Lock()
        self._broken: StoreError | None = None  # what was wrong the last time, if anything was
        self._broken_at = 0.0
        self._closed = False

    async def one(self, *command: Any, patience: float | None = None, again: bool = True) -> Any:
        """Ask one question. Raises `StoreError`."""
        [reply] = await self.many([command], patience=patience, again=again)
        return reply

    async def many(
        self, commands: Sequence[Command], *, patience: float | None = None, again: bool = True
    ) -> list[Any]:
        """Ask several at once.

        Args:
            patience: instead of the link's own.
            again: whether they may be asked again after their answer was lost.

        Raises:
            StoreError: with ``outcome_known`` false when they may have been done.
        """
        began = self._clock()
        give_up = began + (self._patience if patience is None else patience)
        delay = FIRST_DELAY
        unknown = False
        while True:
            try:
                async with self._lock:
                    if self._broken is not None and began < self._broken_at and self._clock() > give_up:
                        # It waited so long behind others that found no Redis: it would find none either.
                        raise _BrokenError(self._broken, sent=False)
                    asked_at = self._clock()
                    replies = await self._ask(commands)
                    self.asked += 1
                    self.seconds.observe(self._clock() - asked_at)
                    self._broken = None
                    return replies
            except StoreError as exc:
                exc.outcome_known = not unknown
                raise
            except _BrokenError as exc:
                self.failures += 1
                self._broken, self._broken_at = exc.failure, self._clock()
                unknown = unknown or exc.sent
                if (exc.sent and not again) or self._clock() + delay > give_up:
                    raise StoreError(
                        exc.failure.message,
                        code=exc.failure.code,
                        outcome_known=not unknown,
                        place=exc.failure.place,
                    ) from exc
            await asyncio.sleep(delay)
            delay = min(LONGEST_DELAY, 2 * delay)

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """One attempt. Raises `_BrokenError`, or `StoreError` for what another attempt would not change."""
        replies = await self._exchange(commands)
        if any(kind(reply) == "NoScriptError" for reply in replies):
            await self._exchange(
                [("SCRIPT", "LOAD", one[0].text) for one in commands if isinstance(one[0], Script)]
            )
            replies = await self._exchange(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                failure = explain(reply, self._address.shown)
                if transient(reply):
                    # By the next connection the address may lead to one that does it.
                    await self._drop()
                    raise _BrokenError(failure, sent=False) from reply
                raise failure from reply
        return replies

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send and receive; an error that is an answer is among the answers."""
        from redis.exceptions import RedisError, ResponseError

        place = self._address.shown
        if self._closed:
            raise StoreError("the store is closed")
        sent = False
        try:
            async with asyncio.timeout(self._timeout):
                if self._connection is None:
                    self._connection = await self._connected()
                    if self._closed:
                        raise StoreError("the store is closed")
            sent = True
            async with asyncio.timeout(self._timeout):
                wire = self._connection.pack_commands([_spelled(one) for one in commands])
                await self._connection.send_packed_command(wire, check_health=False)
                replies: list[Any] = []
                for _ in commands:
                    try:
                        replies.append(await self._connection.read_response())
                    except ResponseError as exc:
                        replies.append(exc)
                return replies
        except UnfitError as exc:
            await self._drop()
            if exc.lasting:
                raise
            raise _BrokenError(exc, sent=False) from exc
        except (RedisError, OSError, EOFError) as exc:
            await self._drop()
            cause = exc.__cause__
            if isinstance(cause, RedisError):
                # What a handshake over a Unix socket was answered, redis-py wraps.
                exc = cause
            name = kind(exc)
            if transient(exc):
                raise _BrokenError(explain(exc, place), sent=False) from exc
            if name in _REFUSALS or isinstance(exc, ResponseError):
                # The second: it was said of what a new connection is asked first.
                raise explain(exc, place) from exc
            failure, lasting = unreachable(exc, self._address, self._timeout, new=not self.connects)
            if lasting:
                raise failure from exc
            raise _BrokenError(failure, sent=sent) from exc
        except ConfigurationError as exc:
            # A file with a password or a certificate cannot be read (any more): which, clients are not told.
            await self._drop()
            raise StoreError("this server has no access to Redis", place=str(exc)) from exc
        except BaseException:
            # Half an exchange: the next answer on this connection would be another question's.
            await self._drop()
            raise

    async def _connected(self) -> Any:
        made = await connection(self._address)
        try:
            await made.connect()
            await self._meet(made)
            self.connects += 1
        except BaseException:
            await made.disconnect(nowait=True)
            raise
        return made

    async def _drop(self) -> None:
        gone, self._connection = self._connection, None
        if gone is not None:
            with contextlib.suppress(Exception):
                await gone.disconnect(nowait=True)

    async def renew(self) -> None:
        """Make a new connection, so that who is at its other end is looked at again. Raises `StoreError`."""
        async with self._lock:
            await self._drop()
        await self.one("PING")

    async def doubt(self) -> None:
        """Another link has broken: make a new connection before the next question.

        So it is known of that question that it was not asked, if Redis is gone.
        """
        if not self._lock.locked():
            await self._drop()

    async def close(self) -> None:
        """Ask nothing any more."""
        self._closed = True
        gone, self._connection = self._connection, None
        if gone is not None:
            # Until it is closed, and not only told to: the loop may end right after this.
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSING):
                    await gone.disconnect()


def _spelled(command: Command) -> Command:
    if isinstance(command[0], Script):
        return ("EVALSHA", command[0].sha, 0, *command[1:])
    return command


async def look(made: Any, place: str) -> Instance:
    """Ask the Redis at the other end of a new connection what it is. Raises `UnfitError`."""
    await made.send_command("INFO", check_health=False)
    return judge(facts(await made.read_response()), place)
