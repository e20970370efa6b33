"""The way from nodes to the publication: coalescing, healing, and what comes back.

A node changes; the channel decides when its change is submitted:

- what changes a state goes at once, with everything of that node that was held back;
- progress, metrics, outputs and log lines go at most every `INTERVAL` seconds per node: the first at once,
  the last always (by the connection's timer, so that it needs no further call of the user's program).

Every node keeps the full set of its fields (`Node.full_change`). That is what heals: after a new epoch, or
when
the spool had overflowed, the nodes concerned are asserted again, whole. Nodes that have ended are kept for
this up to `KEPT_ENDED`.

Nothing here waits for the network. Methods are called with the run's lock held, from the user's threads or
the connection's; the lock is never held while waiting.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from wsmonitor.client.types import ConnectionStatus, PublicationListener, Update
from wsmonitor.protocol.changes import Change, CommandChange, LogChange, ProblemChange
from wsmonitor.protocol.entities import Command, ErrorInfo, LogRecord
from wsmonitor.protocol.errors import in_words
from wsmonitor.protocol.messages import Hold

from .answers import Answers

if TYPE_CHECKING:
    from wsmonitor.client.keeper import Kept

    from .node import Node
    from .run import Run

INTERVAL: Final = 0.05
"""Seconds between two changes of one node that do not change its state: 20 a second."""

KEPT_ENDED: Final = 10_000
LOG_BATCH: Final = 64
LOG_HELD: Final = 1_000
"""Log lines of one node that wait for their turn; more are dropped and counted. A server keeps as many."""

_WITHOUT_VALUES: Final = frozenset(
    {"value_too_large", "event_too_large", "value_missing", "value_mismatch", "gone"}
)
_TRYING: Final = frozenset({"waiting", "connecting", "authenticating", "locating"})


class PublicationLike(Protocol):
    """What the channel needs of `wsmonitor.client`'s publication."""

    @property
    def unacknowledged(self) -> int: ...
    def submit(self, change: Change) -> int | None: ...
    def submit_value(self, data: bytes, sha256: str) -> object: ...
    @property
    def left(self) -> Kept | None: ...
    def flush(self, timeout: float) -> bool: ...
    def close(self, timeout: float) -> bool: ...


class ConnectionLike(Protocol):
    """What the channel needs of `wsmonitor.client`'s connection."""

    @property
    def status(self) -> ConnectionStatus: ...
    def publication(
        self,
        session: str,
        producer: str,
        listener: PublicationListener,
        *,
        agent: str = "",
        keep: bool = False,
    ) -> PublicationLike: ...
    def subscribe(self, topic: str, listener: Callable[[Update], None] | None = None) -> Any: ...
    def call_soon(self, fn: Callable[[], None], /) -> object: ...
    def call_later(self, delay: float, fn: Callable[[], None], /) -> Callable[[], None]: ...
    def close(self, timeout: float = ...) -> None: ...


class Channel(PublicationListener):
    """One producer's publication of one session."""

    def __init__(self, run: Run, on_command: Callable[[Command], None]) -> None:
        self._run = run
        self._on_command = on_command
        self._connection: ConnectionLike | None = None
        self._publication: PublicationLike | None = None
        self._held: dict[str, Node] = {}
        self._cancel_timer: Callable[[], None] | None = None
        self._unsent: dict[str, Node] = {}
        self._ended: OrderedDict[str, Node] = OrderedDict()
        self._stripped: set[str] = set()
        self._epoch = ""
        self._overflows = False
        self._was_live = False
        self._told_absent = False
        self.trouble = ""  # why there is no link; empty while there is one
        self._finishing = False
        self._resumed: tuple[ConnectionLike, str] | None = None
        self._settled = threading.Event()  # nothing of an earlier process is left to be ended
        self._settled.set()
        self.closed: Callable[[Channel], None] | None = None  # told when nothing is left to do
        self.done: Callable[[], None] = lambda: None  # told when it has said goodbye and left nothing
        self.dropped_changes = 0
        self.dropped_logs = 0
        self.answers = Answers(self._submit)
        self.phase = "idle"
        self.left: Kept | None = None  # of a publication that has ended: what was not confirmed
        self.taken_over = False  # or removed
        self.removed = False  # whether somebody removed the session

    # -- opening and closing

    def open(
        self,
        connection: ConnectionLike,
        session: str,
        producer: str,
        agent: str,
        *,
        resume: bool = False,
        keep: bool = False,
    ) -> None:
        """Begin to publish. Returns at once.

        Args:
            resume: end what an earlier process left open.
            keep: keep on disk what cannot be delivered.
        """
        self._connection = connection
        if resume:
            self._resumed = (connection, producer)
            self._settled.clear()
        self._publication = connection.publication(session, producer, self, agent=agent, keep=keep)

    @property
    def unacknowledged(self) -> int:
        """Changes that the server has not confirmed yet."""
        publication = self._publication
        return 0 if publication is None else publication.unacknowledged

    def flush(self, timeout: float) -> bool:
        """Wait until everything is confirmed, at most *timeout* seconds. Must not hold the run's lock."""
        with self._run.lock:
            self.send_held()
            publication = self._publication
        return publication is None or publication.flush(timeout)

    def finish(self) -> None:
        """Say goodbye in the background, once everything is confirmed. Returns at once."""
        with self._run.lock:
            self.send_held()
            self._finishing = True
            if self._cancel_timer is not None:
                self._cancel_timer()
                self._cancel_timer = None
            self._goodbye()

    def close(self) -> None:
        """Let go of the publication and the connection, whatever is left."""
        with self._run.lock:
            publication, connection = self._publication, self._connection
            self._publication = self._connection = None
            self._held.clear()
            self._unsent.clear()
            self._ended.clear()
            calls = self.answers.drop()
        _call(calls)
        if publication is not None:
            publication.close(0.0)
            self.left = publication.left
        if connection is not None:
            connection.close()
        if self.closed is not None:
            self.closed(self)

    def _close_done(self) -> None:
        clean = self._publication is not None and not self.taken_over and not self._publication.unacknowledged
        self.close()
        if clean:
            self.done()

    def leave(self, timeout: float) -> bool:
        """Say goodbye on this thread, within *timeout* seconds; says whether everything was confirmed.

        For the end of the process. Must not hold the run's lock, nor be on the connection's thread.
        """
        until = self._run.runtime.monotonic() + timeout
        with self._run.lock:
            publication, connection = self._publication, self._connection
            self._connection = None  # so that nobody else begins to close it
        done = True
        if publication is not None:
            done = publication.flush(timeout)
            if not self._settled.is_set():
                self._settled.wait(max(0.0, until - self._run.runtime.monotonic()))
                done = publication.flush(max(0.0, until - self._run.runtime.monotonic()))
            publication.close(max(0.0, until - self._run.runtime.monotonic()))
            self.left = publication.left
        if connection is not None:
            connection.close(max(0.0, until - self._run.runtime.monotonic()))
        return done

    def _have_settled(self) -> None:
        self._settled.set()
        with self._run.lock:
            self._goodbye()

    def _goodbye(self) -> None:
        publication, connection = self._publication, self._connection
        if not self._finishing or connection is None:
            return
        if not self._settled.is_set():
            return
        if publication is None or (publication.unacknowledged == 0 and not self._unsent):
            # On the connection's own thread, after what it is doing now: this may be one of its callbacks.
            connection.call_soon(self._close_done)

    def abandon(self) -> None:
        """Forget the connection without touching it: it belongs to the process that forked us."""
        self._publication = self._connection = None
        self._cancel_timer = None
        self._held.clear()
        self._unsent.clear()
        self._ended.clear()
        self.answers.drop()  # the commands, and the threads that would execute them, are the parent's

    # -- sending; the run's lock is held

    def touch(self, node: Node, *, urgent: bool) -> None:
        """*node* has changes to send: at once, or when its turn comes."""
        now = self._run.runtime.monotonic()
        if urgent or now - node.sent_at >= INTERVAL:
            self._held.pop(node.id, None)
            self._send(node, now)
        elif node.id not in self._held:
            self._held[node.id] = node
            if self._cancel_timer is None:
                self._arm(INTERVAL - (now - node.sent_at))

    def send_held(self) -> None:
        """Send what waits for its turn."""
        held, self._held = self._held, {}
        now = self._run.runtime.monotonic()
        for node in held.values():
            self._send(node, now)

    def ended(self, node: Node) -> None:
        """*node* will hardly change any more: keep it as long as it may have to be asserted again."""
        self._ended[node.id] = node
        self._ended.move_to_end(node.id)
        while len(self._ended) > KEPT_ENDED:
            self._ended.popitem(last=False)

    def kept(self, ident: str) -> Node | None:
        """The ended node *ident*, if it is still kept."""
        return self._ended.get(ident)

    def upload(self, data: bytes, sha256: str) -> None:
        """Upload a large value, before the change that refers to it."""
        if self._publication is not None:
            self._publication.submit_value(data, sha256)

    def command_state(self, change: CommandChange) -> None:
        """Tell what became of a command."""
        self.answers.tell(change)

    def accept(
        self, command: Command, then: Callable[[], None], dropped: Callable[[], None] = lambda: None
    ) -> None:
        """Accept *command*. *then* is called when the acceptance is committed, on the connection's thread and
        without the lock; *dropped* when it will not be: then the command must not be executed.
        """
        self.answers.accept(command.id, then, dropped)

    def problem(self, change: ProblemChange) -> None:
        """Tell an error of the session."""
        self.submit(change)

    def submit(self, change: Change) -> bool:
        """Submit *change*; False if there is no room for it, or nowhere to go."""
        return self._submit(change) is not None

    def _submit(self, change: Change) -> int | None:
        publication = self._publication
        number = None if publication is None else publication.submit(change)
        if number is None:
            self.dropped_changes += 1
        return number

    def _send(self, node: Node, now: float) -> None:
        node.sent_at = now
        if node.id in self._unsent:
            # Something of it was left out, perhaps its beginning: only the whole can follow.
            self._assert_again([node])
        else:
            change = node.take_change()
            if change is not None and not self.submit(change):
                self._unsent[node.id] = node
        self._send_logs(node)

    def _send_logs(self, node: Node) -> None:
        records = node.take_logs()
        for start in range(0, len(records), LOG_BATCH):
            batch: tuple[LogRecord, ...] = tuple(records[start : start + LOG_BATCH])
            if not self.submit(LogChange(step=node.id, records=batch)):
                self.dropped_logs += len(batch)

    def _arm(self, delay: float) -> None:
        if self._connection is not None and not self._finishing:
            self._cancel_timer = self._connection.call_later(max(delay, 0.0), self._on_timer)

    def _on_timer(self) -> None:
        with self._run.lock:
            self._cancel_timer = None
            now = self._run.runtime.monotonic()
            soonest: float | None = None
            for ident, node in list(self._held.items()):
                due = node.sent_at + INTERVAL
                # A timer may be a little early; a node that is due within a millisecond is due.
                if due <= now + 0.001:
                    del self._held[ident]
                    self._send(node, now)
                else:
                    soonest = due if soonest is None else min(soonest, due)
            if soonest is not None:
                self._arm(soonest - now)

    def _assert_again(self, nodes: list[Node]) -> None:
        for node in nodes:
            if not node.announced or node.foreign:
                continue
            for data, sha256 in node.kept_values():
                self.upload(data, sha256)
            if not node.has_logs:  # those keep their turn: behind the lines that are on their way
                self._held.pop(node.id, None)
            if self.submit(node.full_change()):
                self._unsent.pop(node.id, None)
            else:
                self._unsent[node.id] = node

    # -- what comes back: on the connection's thread

    def opened(self, epoch: str, known: bool) -> None:
        with self._run.lock:
            earlier, self._epoch = self._epoch, epoch
            resumed, self._resumed = self._resumed, None
            if resumed is not None:
                from .takeover import end_what_was_left

                end_what_was_left(self._run, *resumed, done=self._have_settled)
            if earlier and (earlier != epoch or not known):
                self._assert_again([*self._ended.values(), *self._run.owned()])
                self.answers.assert_again()

    def acknowledged(self, number: int) -> None:
        with self._run.lock:
            calls = self.answers.acknowledged(number)
        _call(calls)
        if self._finishing:
            with self._run.lock:
                self._goodbye()

    def drained(self, dropped: int) -> None:
        with self._run.lock:
            # This closes the hole that the overflow left: whole entities, in their newest state only.
            self._overflows = False
            self._run.note(
                "skipped",
                f"{dropped:,} changes in all were left out; what they were about is sent anew",
            )
            self._assert_again(list(self._unsent.values()))
            self._goodbye()

    def rejected(self, number: int, change: Change | None, error: ErrorInfo) -> None:
        if isinstance(change, CommandChange):
            with self._run.lock:
                calls = self.answers.rejected(number)
            _call(calls)
            # No fault of the program: the record had come to its end otherwise.
            self._run.note(
                error.code, f"the answer {change.state!r} to a command came too late: {error.message}"
            )
            return
        with self._run.lock:
            node = (
                None
                if change is None
                else self._run.node_of(change) or self._ended.get(getattr(change, "id", ""))
            )
            if node is not None and error.code in _WITHOUT_VALUES and node.id not in self._stripped:
                # Once per node: the state must arrive even if what it carried cannot.
                if len(self._stripped) < KEPT_ENDED:
                    self._stripped.add(node.id)
                node.strip_values()
                self.submit(node.full_change())
        waits = change is None and error.retryable
        what = "takes nothing for now, and is asked again" if waits else "refused a change"
        self._run.report(error.code, f"the server {what}: {in_words(error)}", node=node, background=True)

    def overflowed(self, count: int) -> None:
        if self._overflows:
            return
        self._overflows = True
        self._run.report(
            "skipped",
            "changes come faster than they can be sent, or the server is away for long: some are left out; "
            "the newest state of everything concerned is sent as soon as there is room",
            background=True,
        )

    def unkept(self, words: str) -> None:
        self._run.report("spool_unavailable", words, background=True)

    def command(self, command: Command) -> None:
        self._on_command(command)

    def held(self, holds: tuple[Hold, ...]) -> None:
        run = self._run
        with run.lock:
            run.control.follow({hold.step or hold.chain or run.session_id: hold for hold in holds})

    def fenced(self, *, removed: bool) -> None:
        self.removed = removed
        self.taken_over = True
        with self._run.lock:
            calls = self.answers.drop()
        _call(calls)
        words = "this session was removed: nothing more is kept of it"
        if not removed:
            words = "another process has taken this session over"
        self._run.report("fenced", words, background=True)

    def status(self, status: ConnectionStatus) -> None:
        before, self.phase = self.phase, status.phase
        if status.phase == "live":
            self._was_live = True
            self.trouble = ""
        elif status.reason:
            self.trouble = status.reason
        if status.phase == "failed" and before != "failed":
            self._run.report(
                status.code or "connection_lost", f"nothing is published: {status.reason}", background=True
            )
        elif status.phase == "waiting" and self._was_live and before not in _TRYING:
            self._run.note("connection_lost", f"the link to the server is down: {status.reason}")
        elif status.phase == "waiting" and not self._was_live and not self._told_absent:
            self._told_absent = True
            self._run.report(
                "connection_lost",
                f"the server cannot be reached yet: {status.reason}; it is tried again and again, "
                "and the program goes on meanwhile",
                background=True,
            )


def _call(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        function()
