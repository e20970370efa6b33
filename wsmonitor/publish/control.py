"""Pause, cancel and questions: cooperative, at points that the program itself passes.

Theory of operation. A request is a mark on a node (session, chain or step); it concerns the node and all
beneath it. Nobody is interrupted. When a thread or task of the program comes to a point (`checkpoint()`,
`track()`, the start of a step), it looks at the marks on its node and on the nodes above:

- a cancel mark raises `Cancelled` there. The command is ``applied`` when the marked node has ended as
  ``cancelled``; if it ended otherwise, the command is ``rejected``, with the reason.
- a pause mark blocks there (an async point awaits), and the blocked step becomes ``paused``. The command is
  ``applied``, and the marked node ``paused``, when every step that is still open beneath it is blocked: until
  then some code is still running, and the state says so.
- a question (`approve`, `input`) blocks its own node, as ``awaiting_input``, until it is answered.

Commands come here when their acceptance is on record (see `commands`) and `refusal` has nothing against them.
All methods but the waiting ones are called with the run's lock held; a wait releases it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from wsmonitor.protocol.changes import CommandChange
from wsmonitor.protocol.entities import Command
from wsmonitor.protocol.errors import Cancelled, Rejected
from wsmonitor.protocol.messages import Hold

if TYPE_CHECKING:
    from .node import Node
    from .run import Run


@dataclass(slots=True)
class Request:
    """A pause or cancel mark on one node, with the commands that asked for it."""

    reason: str
    commands: list[Command] = field(default_factory=list)
    in_force: bool = False  # pause: everything beneath is blocked


@dataclass(slots=True)
class Question:
    """What a node waits for an answer to."""

    kind: Literal["approve", "input"]
    prompt: str
    choices: tuple[str, ...] = ()
    answered: bool = False
    approved: bool = False
    value: str = ""
    reason: str = ""


class Control:
    """The marks of one run, and those who wait because of them."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._condition = threading.Condition(run.lock)
        self._wakers: set[Callable[[], None]] = set()
        self.attention = 0
        """How many marks there are: points read this without a lock, and mostly find 0."""
        self.stopped = ""
        """Why the whole run is over although some of its code may still be running."""

    # -- marks; the run's lock is held

    def pause(self, node: Node, command: Command) -> None:
        """Mark *node* to be paused."""
        if node.pause_request is None:
            node.pause_request = Request(_by("paused", command))
            self.attention += 1
        if node.pause_request.in_force:
            self._tell(command, "applied", "it was paused already")
            return
        node.pause_request.commands.append(command)
        self.settle()

    def resume(self, node: Node, command: Command) -> None:
        """Take the pause mark from *node*."""
        self._lift_pause(node, "resumed before it took effect")
        self._tell(command, "applied")
        self.wake()

    def cancel(self, node: Node, command: Command | None, reason: str = "") -> None:
        """Mark *node* to be cancelled; everything open beneath it becomes ``cancelling``."""
        if node.cancel_request is None:
            node.cancel_request = Request(reason or _by("cancelled", command))
            self.attention += 1
        if command is not None:
            node.cancel_request.commands.append(command)
        for other in self._run.beneath(node):
            other.move("cancelling", node.cancel_request.reason)
        self.wake()

    def follow(self, holds: dict[str, Hold]) -> None:
        """What is wanted beneath nodes that another process owns, by their ids: all that is in force.

        The commands themselves are the owner's to take and to answer; here only their effect is followed.
        """
        for node in self._run.foreign.values():
            hold = holds.get(node.id)
            want = "run" if hold is None else hold.want
            reason = "" if hold is None else hold.reason
            if want == "pause" and node.pause_request is None:
                node.pause_request = Request(reason)
                self.attention += 1
            elif want != "pause" and node.pause_request is not None:
                self._lift_pause(node, "")
            if want == "cancel" and node.cancel_request is None:
                self.cancel(node, None, reason)
            elif want != "cancel" and node.cancel_request is not None:
                node.cancel_request = None
                self.attention -= 1
        self.settle()
        self.wake()

    def stop(self, reason: str) -> None:
        """The run is over: whoever still runs beneath it is told at its next point."""
        self.stopped = reason
        self.attention += 1
        self.wake()

    def answer(self, node: Node, command: Command) -> None:
        """Give *command*'s answer to the question that *node* waits with."""
        question = node.question
        assert question is not None
        question.answered = True
        question.approved = command.name == "approve"
        question.value = str(command.args.get("value", ""))
        why = str(command.args.get("reason", ""))
        question.reason = _by("rejected", command) + (f": {why}" if why else "")
        self._tell(command, "applied")
        self.wake()

    def ended(self, node: Node) -> None:
        """*node* has reached a terminal state: finish the commands that were about it."""
        if node.cancel_request is not None:
            for command in node.cancel_request.commands:
                if node.state == "cancelled":
                    self._tell(command, "applied")
                else:
                    self._tell(command, "rejected", f"it ended as {node.state} before it could be cancelled")
            node.cancel_request = None
            self.attention -= 1
        if node.pause_request is not None:
            self._lift_pause(node, f"it ended as {node.state} before it could be paused")
        if self.attention:
            self.settle()

    def settle(self) -> None:
        """Put those pause marks in force beneath which nothing runs any more."""
        for node in (*self._run.owned(), *self._run.foreign.values()):
            request = node.pause_request
            if request is None or request.in_force or not self._quiet(node):
                continue
            request.in_force = True
            for other in self._run.beneath(node):
                if other.state == "running":
                    other.move("paused", request.reason)
            for command in request.commands:
                self._tell(command, "applied")
            request.commands.clear()

    def wake(self) -> None:
        """Let everybody who waits look again."""
        self._condition.notify_all()
        for waker in list(self._wakers):
            waker()

    def _quiet(self, node: Node) -> bool:
        """Whether every step beneath *node* that could be running is blocked at a point."""
        beneath = self._run.beneath(node)
        leaves = [other for other in beneath if other.is_step and not other.open_children]
        if leaves:
            return all(leaf.blocked for leaf in leaves)
        return any(other.blocked for other in beneath)

    def _lift_pause(self, node: Node, otherwise: str) -> None:
        request = node.pause_request
        if request is None:
            return
        node.pause_request = None
        self.attention -= 1
        for command in request.commands:
            self._tell(command, "rejected", otherwise)
        for other in self._run.beneath(node):
            if other.state == "paused" and not _paused_by(other):
                other.move("running", "")

    def _tell(self, command: Command, state: Literal["applied", "rejected"], reason: str = "") -> None:
        self._run.channel.command_state(CommandChange(id=command.id, state=state, reason=reason[:4096]))

    # -- points; the run's lock is not held

    def check(self, node: Node) -> None:
        """A point: raise `Cancelled`, or wait while paused, or go on.

        Raises:
            Cancelled: *node* or a node above it is to be cancelled.
        """
        if self.attention and self._concerns(node):
            self._wait(node, lambda: not _paused_by(node), None)

    async def acheck(self, node: Node) -> None:
        """`check` that awaits instead of blocking the thread."""
        if self.attention and self._concerns(node):
            await self._await(node, lambda: not _paused_by(node), None)

    def raise_if_cancelled(self, node: Node) -> None:
        """Raise `Cancelled` if *node* or a node above it is to be cancelled; never waits."""
        if self.attention:
            self._raise(node)

    def ask(self, node: Node, question: Question, timeout: float | None) -> str:
        """Wait for the answer to *question*.

        Raises:
            Cancelled: *node* or a node above it is to be cancelled.
            Rejected: the answer was no.
            TimeoutError: no answer within *timeout* seconds.
        """
        self._begin(node, question)
        try:
            answered = self._wait(node, lambda: question.answered, timeout)
        finally:
            self._finish(node)
        answer = self._outcome(question, answered)
        self.check(node)  # it may have been paused meanwhile: an answer does not lift that
        return answer

    async def aask(self, node: Node, question: Question, timeout: float | None) -> str:
        """`ask` that awaits instead of blocking the thread."""
        self._begin(node, question)
        try:
            answered = await self._await(node, lambda: question.answered, timeout)
        finally:
            self._finish(node)
        answer = self._outcome(question, answered)
        await self.acheck(node)
        return answer

    def hold(self, node: Node, ready: Callable[[], bool], timeout: float) -> bool:
        """Wait until *ready* (called with the lock held), at most *timeout* seconds. For retries."""
        return self._wait(node, ready, timeout)

    async def ahold(self, node: Node, ready: Callable[[], bool], timeout: float) -> bool:
        """`hold` that awaits instead of blocking the thread."""
        return await self._await(node, ready, timeout)

    def _begin(self, node: Node, question: Question) -> None:
        with self._run.lock:
            node.question = question
            node.move("awaiting_input", question.prompt)

    def _finish(self, node: Node) -> None:
        with self._run.lock:
            node.question = None
            if node.state == "awaiting_input":
                node.move("running", "")

    @staticmethod
    def _outcome(question: Question, answered: bool) -> str:
        if not answered:
            raise TimeoutError(f"no answer to: {question.prompt}")
        if question.kind == "approve" and not question.approved:
            raise _rejected(question.reason)
        return question.value

    def _wait(self, node: Node, ready: Callable[[], bool], timeout: float | None) -> bool:
        clock = self._run.runtime.monotonic
        until = None if timeout is None else clock() + timeout
        with self._condition:
            self._block(node)
            try:
                while True:
                    self._look(node)
                    if ready():
                        return True
                    left = None if until is None else until - clock()
                    if left is not None and left <= 0:
                        return False
                    self._condition.wait(left)
            finally:
                self._unblock(node)

    async def _await(self, node: Node, ready: Callable[[], bool], timeout: float | None) -> bool:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def waker() -> None:
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the loop was closed under the waiting task
                self._wakers.discard(waker)

        until = None if timeout is None else loop.time() + timeout
        with self._run.lock:
            self._wakers.add(waker)
            self._block(node)
        try:
            while True:
                event.clear()
                with self._run.lock:
                    self._look(node)
                    if ready():
                        return True
                left = None if until is None else until - loop.time()
                if left is not None and left <= 0:
                    return False
                try:
                    await asyncio.wait_for(event.wait(), left)
                except TimeoutError:
                    continue  # a last look: the answer may have come just now
        finally:
            with self._run.lock:
                self._wakers.discard(waker)
                self._unblock(node)

    def _raise(self, node: Node) -> None:
        if self.stopped:
            raise _cancelled(self.stopped)
        request = _cancelled_by(node)
        if request is not None:
            raise _cancelled(request.reason)

    def _look(self, node: Node) -> None:
        self._raise(node)
        if node.state == "running" and (pause := _paused_by(node)):
            node.move("paused", pause.reason)
        self.settle()

    def _concerns(self, node: Node) -> bool:
        return bool(self.stopped) or _cancelled_by(node) is not None or _paused_by(node) is not None

    def _block(self, node: Node) -> None:
        node.blocked += 1

    def _unblock(self, node: Node) -> None:
        node.blocked -= 1
        if node.state == "paused" and not node.blocked and not _paused_by(node):
            node.move("running", "")


def refusal(node: Node, command: Command) -> str:
    """Why one of the commands above cannot be executed on *node* now; "" if it can."""
    match command.name:
        case "pause" if node.cancel_request is not None:
            return "it is being cancelled"
        case "resume" if node.pause_request is None:
            return "it is not paused"
        case "approve" | "reject" | "input":
            question = node.question
            wanted = "input" if command.name == "input" else "approve"
            if question is None or question.answered or question.kind != wanted:
                return "nothing of this kind is being asked"
            text = str(command.args.get("value", ""))
            if command.name == "input" and question.choices and text not in question.choices:
                return f"the answer must be one of {', '.join(question.choices)}"
        case "interrupt":
            return "no command 'interrupt' is taken here"
    return ""


def _paused_by(node: Node) -> Request | None:
    above: Node | None = node
    while above is not None:
        if above.pause_request is not None:
            return above.pause_request
        above = above.above
    return None


def _cancelled_by(node: Node) -> Request | None:
    above: Node | None = node
    while above is not None:
        if above.cancel_request is not None:
            return above.cancel_request
        above = above.above
    return None


def _by(what: str, command: Command | None) -> str:
    actor: Any = "" if command is None else command.actor or command.via
    return f"{what} by {actor}" if actor else what


class _CancelledInPool(Cancelled, Exception):
    """`Cancelled` beneath `multiprocessing.Pool` (or ``ThreadPool``), which loses what is no `Exception`.

    There a `BaseException` ends the worker, and whoever waits for the result waits for ever. Pickled, on its
    way to the process that waits, it becomes a plain `Cancelled`.
    """

    def __reduce__(self) -> tuple[type[Cancelled], tuple[Any, ...]]:
        return Cancelled, self.args


class _RejectedInPool(Rejected, Exception):
    """The same for `Rejected`."""

    def __reduce__(self) -> tuple[type[Rejected], tuple[Any, ...]]:
        return Rejected, self.args


for _carried, _plain in ((_CancelledInPool, Cancelled), (_RejectedInPool, Rejected)):
    # In tracebacks, and wherever a program shows the type: the name that the documents use.
    _carried.__module__, _carried.__qualname__, _carried.__name__ = (
        _plain.__module__,
        _plain.__qualname__,
        _plain.__name__,
    )


def _cancelled(reason: str) -> Cancelled:
    return _CancelledInPool(reason) if _in_pool() else Cancelled(reason)


def _rejected(reason: str) -> Rejected:
    return _RejectedInPool(reason) if _in_pool() else Rejected(reason)


def _in_pool() -> bool:
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if frame.f_code.co_name == "worker" and frame.f_globals.get("__name__") == "multiprocessing.pool":
            return True
        frame = frame.f_back
    return False
