"""The machinery of one session in one process: what its session, chains and steps share.

A `Run` has the lock, the channel, the marks (`Control`), the error lane and the ids. Its sources of time and
randomness, and the function that connects, come in as a `Runtime`.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wsmonitor.client.types import Target
from wsmonitor.protocol.changes import Change, ProblemChange
from wsmonitor.protocol.entities import Command, ErrorInfo
from wsmonitor.protocol.errors import WsMonitorError

from .channel import Channel, ConnectionLike
from .control import Control
from .redaction import Redactor
from .values import Capture, ValueLimits, clean, cut

if TYPE_CHECKING:
    from .node import Node

ERRORS_KEPT: Final = 100
VALUES_KEPT: Final = 32 * 1024 * 1024
"""Bytes of large values that are kept in memory, so that they can be uploaded again after a new epoch."""


TAKES: Final[dict[str, tuple[str, ...]]] = {
    "pending": ("cancel",),
    "running": ("pause", "cancel"),
    "paused": ("resume", "cancel"),
}
"""The commands that a step takes in each state; questions and retries besides."""


class WsMonitorWarning(UserWarning):
    """Something about publishing went wrong at run time; the program itself is not concerned."""


class PublishError(WsMonitorError):
    """With ``strict=True``: what would otherwise be a warning and an entry in ``session.errors``."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(f"{info.message} [{info.code}]")
        self.info = info
        self.code = info.code


def program() -> str:
    """What this process runs, for people: the script's name."""
    return cut(clean(Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"), 64)


def _agent() -> str:
    return f"{program()}, pid {os.getpid()}"


def _connect(target: Target) -> ConnectionLike:
    from wsmonitor.client import connect

    return connect(target)


@dataclass(frozen=True)
class Runtime:
    """What a run takes from the outside world; tests pass their own.

    Attributes:
        connect: gives a handle on the connection to a server.
        monotonic: seconds, never going back.
        wall_ns: nanoseconds since 1970 UTC.
        random_bits: so many random bits, as an integer: for ids.
        agent: which process this is, for people.
    """

    connect: Callable[[Target], ConnectionLike] = _connect
    monotonic: Callable[[], float] = time.monotonic
    wall_ns: Callable[[], int] = time.time_ns
    random_bits: Callable[[int], int] = secrets.randbits
    agent: Callable[[], str] = _agent


class Run:
    """See the module's docstring."""

    def __init__(
        self,
        runtime: Runtime,
        session_id: str,
        *,
        redactor: Redactor,
        limits: ValueLimits,
        strict: bool,
        on_command: Callable[[Command], None],
    ) -> None:
        self.takes = TAKES
        self.runtime = runtime
        self.session_id = session_id
        self.strict = strict
        self.pid = os.getpid()
        self.origin = _origin()
        self.lock = threading.RLock()
        self.capture = Capture(redactor, runtime.monotonic, limits)
        self.control = Control(self)
        self._on_command = on_command
        self.channel = Channel(self, on_command)
        self.errors: deque[ErrorInfo] = deque(maxlen=ERRORS_KEPT)
        self.open = False
        self.ended = False
        self.nodes: dict[str, Node] = {}  # announced and not ended, by id
        self.foreign: dict[str, Node] = {}  # another process's, beneath which this one works, by id
        self._prefix = f"{runtime.random_bits(32):08x}"
        self._count = 0
        self._warned: set[str] = set()
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._values_size = 0
        self._raise: ErrorInfo | None = None
        self.opener: Callable[[], None] | None = None  # opens the channel at the first use, after a fork
        self.retries: OrderedDict[str, Callable[[Command], None]] = OrderedDict()  # failed steps, by id
        self.question_kinds: set[str] = set()
        self.last_failure: tuple[object, ...] | None = None

    # -- ids and time

    def new_id(self, letter: str) -> str:
        """An id that no other process of this session gives."""
        with self.lock:
            self._count += 1
            return f"{letter}{self._count}-{self._prefix}"

    def gave(self, ident: str) -> bool:
        """Whether *ident* is one of this run's own ids."""
        return ident.endswith(f"-{self._prefix}")

    def now(self) -> str:
        """Nanoseconds since 1970 UTC, as the protocol writes them."""
        return str(self.runtime.wall_ns())

    def after_fork(self) -> None:
        """In a forked child: nothing of the parent's is ours to write, and nobody holds the lock any more."""
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.control = Control(self)
        self.channel.abandon()
        self.channel = Channel(self, self._on_command)  # commands for what this process begins come here
        self._prefix = f"{self.runtime.random_bits(32):08x}"
        self.retries.clear()
        self._values.clear()
        self._values_size = 0
        for node in self.nodes.values():
            node.disown()
            self.foreign[node.id] = node
        for node in self.foreign.values():
            node.pause_request = node.cancel_request = None  # told anew when this process opens its channel
        self.nodes.clear()

    def ensure_open(self) -> None:
        """A point of the program: from here on it must hear of pause and cancel, also in a forked child."""
        if self.opener is None or not self.open:
            return
        try:
            with self.lock:
                self.opener()
        except PublishError:
            raise
        except Exception as exc:  # noqa: BLE001 - HARMLESS: the program goes on without us
            self.report("internal", f"nothing is published: {type(exc).__name__}: {exc}")

    # -- nodes; the lock is held

    def owned(self) -> Iterator[Node]:
        """The nodes that this process has announced and not ended: parents before their children."""
        return iter([node for node in self.nodes.values() if not node.foreign])

    def beneath(self, node: Node) -> list[Node]:
        """*node* and the open nodes beneath it, the deepest last."""
        return [other for other in self.nodes.values() if not other.foreign and _within(other, node)]

    def node_of(self, change: Change) -> Node | None:
        """The open node that *change* was about, if it was about one."""
        ident = getattr(change, "id", None) or getattr(change, "step", None) or self.session_id
        return self.nodes.get(ident)

    # -- large values; the lock is held

    def keep_value(self, data: bytes, sha256: str) -> None:
        """Upload a value, and keep it for a later epoch as long as there is room."""
        self.channel.upload(data, sha256)
        if sha256 in self._values or len(data) > VALUES_KEPT:
            return
        self._values[sha256] = data
        self._values_size += len(data)
        while self._values_size > VALUES_KEPT:
            _, dropped = self._values.popitem(last=False)
            self._values_size -= len(dropped)

    def kept_value(self, sha256: str) -> bytes | None:
        """The bytes of a large value, if they are still kept."""
        return self._values.get(sha256)

    # -- the error lane

    def note(self, code: str, message: str, node: Node | None = None) -> ErrorInfo:
        """Put an entry into ``session.errors``, and nothing else."""
        info = ErrorInfo(
            code=code,
            message=self.capture.text(message, 4096),
            severity="warning",
            session=self.session_id,
            chain=node.chain_id if node is not None else "",
            step=node.id if node is not None and node.is_step else "",
        )
        self.errors.append(info)
        return info

    def report(self, code: str, message: str, *, node: Node | None = None, background: bool = False) -> None:
        """Something went wrong at run time: an entry, and one warning per code. With ``strict``, raise.

        Args:
            code: of the catalogue.
            message: for a person.
            node: what it was about.
            background: this is not the user's thread: ``strict`` raises at the next call instead.

        Raises:
            PublishError: with ``strict``, on the user's thread.
        """
        info = self.note(code, message, node)
        if self.strict:
            if not background:
                raise PublishError(info)
            self._raise = info
            return
        if code in self._warned:
            return
        self._warned.add(code)
        text = f"wsmonitor: {info.message} [{code}]"
        try:
            if background:
                warnings.warn_explicit(text, WsMonitorWarning, *self.origin)
            else:
                warnings.warn(text, WsMonitorWarning, stacklevel=_outside())
        except WsMonitorWarning:
            # Somebody turns warnings into errors. The monitor does not raise into the program that it
            # watches unless `strict` asks for it; the entry in `errors` stays.
            return

    def raise_pending(self) -> None:
        """With ``strict``: raise what went wrong in the background."""
        if self._raise is not None:
            info, self._raise = self._raise, None
            raise PublishError(info)

    def problem(self, change: ProblemChange) -> None:
        """Publish an error of the session."""
        with self.lock:
            self.channel.problem(change)


def _within(node: Node, above: Node) -> bool:
    at: Node | None = node
    while at is not None:
        if at is above:
            return True
        at = at.above
    return False


def _origin() -> tuple[str, int]:
    """The file and line of the user's code that is running: what a warning from the background names."""
    frame = sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("wsmonitor."):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _outside() -> int:
    """The stack level of the user's code, so that a warning names a line that the user wrote."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("wsmonitor."):
        frame = frame.f_back
        level += 1
    return level
