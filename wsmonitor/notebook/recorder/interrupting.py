"""The command ``interrupt``: it reaches the execution that it names, or is refused; never the next one.

A signal cannot name a cell: it hits whatever the main thread does when it arrives. So a lock decides. The
hooks that begin and end an execution take it, and so does whoever sends the signal: while it is sent, the
execution that it means cannot end. If the execution was about to end, the signal arrives within the hook that
ends it, which waits for it a moment and takes the `KeyboardInterrupt` upon itself.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

GRACE: Final = 0.05
"""Seconds for which the end of an interrupted execution waits for a signal that may still be on its way."""

Answer = Callable[[str, str], None]


@dataclass
class _Execution:
    msg_id: str
    thread: int
    asked: list[tuple[str, Answer]] = field(default_factory=list)


def send_to_main() -> None:
    """Interrupt the main thread, also within a blocking call where the system can do that."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        # A signal to the process may be taken by any thread, and then does not wake a sleeping main thread.
        signal.pthread_kill(main, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


class Interrupter:
    """Which execution runs now, and interrupting it.

    Args:
        send: interrupts the main thread.
        wait: lets the current thread wait for some seconds.
    """

    def __init__(
        self, send: Callable[[], None] = send_to_main, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._send = send
        self._wait = wait
        self._gate = threading.Lock()
        self._running: dict[str, _Execution] = {}

    @property
    def busy(self) -> bool:
        """Whether an execution runs now."""
        return bool(self._running)

    def begin(self, msg_id: str) -> None:
        """On the thread that executes: *msg_id* begins."""
        with self._gate:
            self._running[msg_id] = _Execution(msg_id, threading.get_ident())

    def again(self, msg_id: str) -> None:
        """On the thread that executes: an interrupt came before *msg_id*'s own code had begun.

        IPython shows what a hook raises and goes on, so it would be lost: it is sent again, in a moment.
        """

        def send() -> None:
            with self._gate:
                if msg_id in self._running:
                    self._send()

        timer = threading.Timer(GRACE, send)
        timer.daemon = True
        timer.start()

    def end(self, msg_id: str, *, interrupted: bool) -> str | None:
        """On the thread that executes: *msg_id* ends. *interrupted*: by a `KeyboardInterrupt`.

        Returns who interrupted it, in words; "" if nobody did by command; None if it has ended before.
        """
        execution = None
        try:
            with self._gate:
                execution = self._running.pop(msg_id, None)
            if execution is not None and execution.asked and not interrupted:
                self._wait(GRACE)
        except KeyboardInterrupt:
            # The signal was meant for this execution, and that is over.
            if execution is None:
                with self._gate:
                    execution = self._running.pop(msg_id, None)
        if execution is None:
            return None
        if not execution.asked:
            return ""
        words = ", ".join(dict.fromkeys(who for who, _ in execution.asked))
        for _, answer in execution.asked:
            if interrupted:
                answer("applied", "KeyboardInterrupt was raised in the cell, and ended it")
            else:
                answer("applied", "the signal was sent; the cell went on to its own end")
        return words if interrupted else ""

    def ask(self, msg_id: str, who: str, answer: Answer) -> None:
        """On any thread: interrupt *msg_id*, and only it.

        The command's acceptance is on record already. *answer* is told ``applied`` when the execution has
        ended, or ``rejected`` with the reason; it must not block.
        """
        with self._gate:
            execution = self._running.get(msg_id)
            if execution is None:
                reason = "this cell has ended"
            elif execution.thread != threading.main_thread().ident:
                reason = "this cell runs in a subshell: only the main thread can be interrupted"
            else:
                execution.asked.append((who, answer))
                self._send()
                return
        answer("rejected", reason)
