"""What a browser asks of a live widget, and its answers: each request is carried out once.

A request is ``{"do", "id", …}``. ``id`` is chosen by the browser, a new one for each: when the same id comes
again (the browser had no answer, and says it again by another way), the answer is repeated and nothing is
done twice. The answer is a custom message, outside the rhythm of the frames and within the process's budget:

``{"type": "answer", "to", "ok": true, …}``  what was asked for; bytes travel as binary buffers
``{"type": "answer", "to", "ok": false, "code", "text"}``  why not, in words for people
``{"type": "received", "to"}``  it came by the comm, and the answer takes longer: the kernel is not busy

``to`` is the request's ``id``, and not called so: ipykernel 7.4 remembers each message with an ``id`` that a
widget sends, until an answer to it comes, and to an answer none comes.

Requests come on any thread and are only put down there; `Desk.work` carries them out on the sender's thread,
which owns the view. What takes time gives a future.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from wsmonitor.protocol.errors import WsMonitorError

from .packing import Message

Request: TypeAlias = dict[str, Any]

REMEMBERED: Final = 400
"""How many requests are known by their id: far more than can be under way."""

WAITING: Final = 200
"""How many requests may wait to be carried out, and how many answers to be made or sent. Beyond it requests
are refused: nobody clicks so fast."""

ID_LENGTH: Final = 128


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked for: JSON, and binary buffers that belong to it."""

    body: dict[str, Any]
    buffers: list[bytes] = field(default_factory=list)


class RefusedError(WsMonitorError):
    """A request cannot be carried out. ``code`` is for programs, the message for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of request.

    Attributes:
        handle: carries it out, on the sender's thread; raises `RefusedError`.
        once: whether carrying it out again would do harm: then its answer is remembered. What only
            reads is read again instead of being kept.
    """

    handle: Callable[[Request], Answer | Future[Answer]]
    once: bool = False


class Desk:
    """See the module's docstring.

    Args:
        questions: what may be asked.
        send: takes a message for the browser; from any thread.
        unsent: how many messages wait to be sent.
    """

    def __init__(
        self,
        questions: Mapping[str, Question],
        send: Callable[[Message], None],
        unsent: Callable[[], int] = lambda: 0,
    ) -> None:
        self._questions = questions
        self._send = send
        self._unsent = unsent
        self._inbox: deque[tuple[Request, bool]] = deque()
        self._lock = threading.Lock()
        # None while it is being carried out, and for what is read again when it is asked again.
        self._known: OrderedDict[str, Message | None] = OrderedDict()
        self._open: set[str] = set()

    def take(self, request: Request, live: bool) -> bool:
        """Put a request down, from any thread; whether it was one. *live*: see `LiveWidget.hear`."""
        ident = request.get("id")
        if not isinstance(request.get("do"), str) or not isinstance(ident, str):
            return False
        if not 1 <= len(ident) <= ID_LENGTH:
            return False
        if len(self._inbox) >= WAITING:
            # A refusal is a message, too. Who hears nothing asks again, or gives up in time.
            if self._unsent() < WAITING:
                text = "too many requests wait in the kernel: ask again later"
                self._send(_refusal(ident, "too_many", text))
            return False
        self._inbox.append((request, live))
        return True

    def work(self) -> None:
        """Carry out what was put down, as answers can be sent. On the sender's thread; never raises."""
        while self._inbox and self._unsent() + len(self._open) < WAITING:
            request, live = self._inbox.popleft()
            self._carry_out(str(request["id"]), request, live)

    def _carry_out(self, ident: str, request: Request, live: bool) -> None:
        question = self._questions.get(str(request["do"]))
        if question is None:
            self._send(_refusal(ident, "unknown_request", f"the kernel's wsmonitor has no {request['do']!r}"))
            return
        with self._lock:
            if ident in self._open:
                return  # its answer is under way
            told = self._known.get(ident)
            if told is None:
                self._open.add(ident)
                self._known[ident] = None
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
        if told is not None:
            self._send(told)
            return
        try:
            outcome = question.handle(request)
        except Exception as exc:  # noqa: BLE001 - whatever it is: who asked must hear of it
            self._finish(ident, question, _failed(ident, exc))
            return
        if isinstance(outcome, Answer):
            self._finish(ident, question, _told(ident, outcome))
            return
        if not live and not outcome.done():
            self._send(({"type": "received", "to": ident}, []))

        def done(future: Future[Answer]) -> None:
            error = future.exception()
            message = _told(ident, future.result()) if error is None else _failed(ident, error)
            self._finish(ident, question, message)

        outcome.add_done_callback(done)

    def _finish(self, ident: str, question: Question, message: Message) -> None:
        with self._lock:
            self._open.discard(ident)
            if question.once and ident in self._known:
                self._known[ident] = message
        self._send(message)


def _told(ident: str, answer: Answer) -> Message:
    return {**answer.body, "type": "answer", "to": ident, "ok": True}, answer.buffers


def _refusal(ident: str, code: str, text: str) -> Message:
    return {"type": "answer", "to": ident, "ok": False, "code": code, "text": text}, []


def _failed(ident: str, error: BaseException) -> Message:
    code = str(getattr(error, "code", "") or "internal")
    text = str(error) if isinstance(error, WsMonitorError) else f"{type(error).__name__}: {error}"
    return _refusal(ident, code, text or code)
