"""Whether this server takes and sends anything now, and who is told when that changes."""

from __future__ import annotations

from collections.abc import Callable

from wsmonitor.protocol.messages import Degraded

from .clock import Clock
from .health import CHECK_EVERY, ROOM, StoreHealth
from .replies import store_refusal
from .stores.base import Store, StoreError


class Condition:
    """See the module's text.

    Args:
        doubt: why one of several servers cannot know what it has missed; None while it does.
        check_at: have `check` run at this time (monotonic seconds); None: no more.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        doubt: Callable[[], StoreError | None],
        check_at: Callable[[float | None], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._doubt = doubt
        self._check_at = check_at
        self._health = StoreHealth(clock.wall_ns, self._changed)
        self._callbacks: list[Callable[[], None]] = []

    @property
    def degraded(self) -> Degraded | None:
        """Why no changes are taken at present; None while they are."""
        return self._health.degraded

    @property
    def seconds_down(self) -> float:
        """For how long no changes were taken, in all."""
        return self._health.seconds_down

    def listen(self, callback: Callable[[], None]) -> None:
        """Have *callback* called when `degraded` is another, or whether there is doubt."""
        self._callbacks.append(callback)

    def allow(self, session: str) -> None:
        """Raise `Refusal` while nothing of *session* may be taken or given."""
        if (doubt := self._doubt()) is not None:
            raise store_refusal(doubt, session)

    def doubted(self) -> None:
        """Whether there is doubt has changed."""
        if (doubt := self._doubt()) is not None:
            self._health.ailing(doubt)
        self._check_at(self._clock.monotonic())
        self._tell()

    def committed(self, failure: StoreError | None) -> None:
        """The store has taken a write, unless there is a *failure*."""
        now = self._clock.monotonic()
        if failure is not None:
            self._health.refused(failure, now)
        elif self._health.committed(now):
            self._check_at(now)

    async def ready(self) -> None:
        """Raise `StoreError` when no write could be taken now."""
        try:
            if (doubt := self._doubt()) is not None:
                raise doubt
            await self._store.check(room=ROOM if self.degraded is not None else 0)
        except StoreError as exc:
            self._health.ailing(exc)
            raise
        self._health.well()

    async def check(self) -> None:
        """Find out whether writes are taken; again after a while as long as they are not."""
        try:
            await self.ready()
        except StoreError:
            self._check_at(self._clock.monotonic() + CHECK_EVERY)

    def _changed(self) -> None:
        self._check_at(None if self.degraded is None else self._clock.monotonic() + CHECK_EVERY)
        self._tell()

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()
