"""The one connection that a process has per server and credentials, and the registry of them."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wsmonitor._version import __version__
from wsmonitor.protocol.defaults import Timing

from . import runner as runners
from .clock import Instant
from .core import ClientCore
from .driver import Driver, Resolver
from .own import own_runs
from .subscription import Delivery, SubscriptionMachine
from .types import ConnectionStatus, Update

if TYPE_CHECKING:
    from .handles import Subscription

Key: TypeAlias = tuple[object, ...]
"""What a connection is shared by: the server's place, and at the end the credentials."""

AGENT: Final = f"wsmonitor-python/{__version__}"


class _Topic:
    """One topic on the shared connection, and who listens."""

    def __init__(self, machine: SubscriptionMachine) -> None:
        self.machine = machine
        self.handles: list[Subscription] = []

    def tell(self, update: Update) -> None:
        for handle in tuple(self.handles):
            handle._deliver(update)

    def wanted(self) -> tuple[Delivery, int]:
        """What satisfies everybody: all events if anybody wants all, else the shortest interval."""
        if any(handle.delivery == "all" for handle in self.handles):
            return "all", 1000
        return "latest", min((handle.interval_ms for handle in self.handles), default=1000)


class SharedConnection:
    """One link and its machines; ends when the last handle is closed.

    Args:
        key: what it is shared by.
        resolver: finds the server.
        name: what others see in the presence list.
        timing: the times that hold until the server names its own.
        runner: whose thread, loop and clocks it lives on.
        release_runner: called when nothing of it remains there.
        random: gives numbers in [0, 1), uniformly.
        instance: the process's id among those who watch.
    """

    def __init__(
        self,
        key: Key,
        resolver: Resolver,
        name: str,
        timing: Timing | None,
        *,
        runner: runners.Runner,
        release_runner: Callable[[runners.Runner], None],
        random: Callable[[], float],
        instance: str,
    ) -> None:
        self.key = key
        self.place = key[:-1]  # the server alone: all but the credentials
        # Re-entrant: a condition that is waited for may take a snapshot, a signal handler may publish.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.runner = runner
        self._release_runner = release_runner
        self.instance = instance
        self.core = ClientCore(
            random=random,
            agent=AGENT,
            name=name,
            instance=self.instance,
            timing=timing,
        )
        self.core.status_listeners.append(self._status_changed)
        self.resolver = resolver
        self.driver = Driver(self.runner, self.core, self.lock, resolver, self._ended)
        self.users = 0
        self.topics: dict[str, _Topic] = {}
        self.closing = False
        self.ended = threading.Event()
        self.abandoned = False  # in a forked child: it belongs to the parent
        self._exit_hook = self.driver.close
        self.runner.on_exit(self._exit_hook)
        self.runner.call_soon(self.driver.start)

    def _status_changed(self, status: ConnectionStatus) -> None:
        with self.lock:
            self.changed.notify_all()

    def _ended(self) -> None:
        self.runner.forget_exit(self._exit_hook)
        self.ended.set()
        self._release_runner(self.runner)

    def input(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Give the machines an input, on the runner's thread, from any thread."""
        if self.abandoned:
            return
        self.runner.call_soon(lambda: self.driver.input(function, *args, **kwargs))

    # -- subscriptions, on the runner's thread

    def attach(self, handle: Subscription) -> None:
        if handle._closed or self.closing:
            return
        entry = self.topics.get(handle.topic)
        if entry is None:
            self.driver.input(self._begin, handle)
            return
        entry.handles.append(handle)
        handle._machine = entry.machine
        for update in handle._standing():
            handle._deliver(update)
        self._readjust(entry)

    def _begin(self, now: Instant, handle: Subscription) -> None:
        holder: list[_Topic] = []
        machine = self.core.subscribe(
            now,
            handle.topic,
            lambda update: holder[0].tell(update),
            delivery=handle.delivery,
            interval_ms=handle.interval_ms,
        )
        entry = _Topic(machine)
        holder.append(entry)
        entry.handles.append(handle)
        handle._machine = machine
        self.topics[handle.topic] = entry

    def detach(self, handle: Subscription) -> None:
        entry = self.topics.get(handle.topic)
        if entry is None or handle not in entry.handles:
            return
        entry.handles.remove(handle)
        if entry.handles:
            self._readjust(entry)
        else:
            del self.topics[handle.topic]
            self.driver.input(lambda now: self.core.unsubscribe(handle.topic))

    def _readjust(self, entry: _Topic) -> None:
        delivery, interval = entry.wanted()
        self.driver.input(lambda now: entry.machine.redeliver(now.mono, delivery, interval))


_registry_lock = threading.Lock()
_registry: dict[Key, SharedConnection] = {}
_instance: str | None = None


def instance_id() -> str:
    """One id per process, so that the presence list counts people once."""
    global _instance
    if _instance is None:
        _instance = secrets.token_hex(8)
    return _instance


def _forked() -> None:
    global _registry_lock, _instance
    _registry_lock = threading.Lock()
    _instance = None
    own_runs.forked()
    for shared in _registry.values():
        shared.abandoned = True
        # The parent may have held it at the moment of the fork.
        shared.lock = threading.RLock()
        shared.changed = threading.Condition(shared.lock)
        shared.core.link.status = replace(
            shared.core.link.status,
            phase="closed",
            code="connection_lost",
            reason="this connection belongs to the parent process; connect again after a fork",
        )
        shared.driver.abandon()
    _abandoned.extend(_registry.values())
    _registry.clear()


_abandoned: list[SharedConnection] = []  # kept, so that nothing of the parent's is finalised in a child
runners.after_fork(_forked)


def acquire(key: Key, resolver: Resolver, name: str, timing: Timing | None) -> SharedConnection:
    """The shared connection of *key*, made if there is none. Give it back with `release`."""
    with _registry_lock:
        shared = _registry.get(key)
        if shared is None or shared.closing:
            shared = _registry[key] = SharedConnection(
                key,
                resolver,
                name,
                timing,
                runner=runners.acquire(),
                release_runner=runners.release,
                random=secrets.SystemRandom().random,
                instance=instance_id(),
            )
        shared.users += 1
        return shared


def release(shared: SharedConnection) -> bool:
    """One user less. True when it was the last one: the connection is then closing."""
    with _registry_lock:
        shared.users -= 1
        if shared.users > 0:
            return False
        shared.closing = True
        if _registry.get(shared.key) is shared:
            del _registry[shared.key]
    shared.runner.call_soon(shared.driver.close)
    return True


def connections() -> int:
    """How many connections this process holds open. For checks that nothing remains."""
    with _registry_lock:
        return len(_registry)
