"""The recorder of this kernel: hooks that tell of a cell, and a thread that hears what it puts out."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import zmq

from wsmonitor.notebook.trace import BEGIN
from wsmonitor.protocol.entities import Command
from wsmonitor.protocol.states import State

from .cells import Begin, Cell, Ending
from .interrupting import Answer, Interrupter
from .iopub import Endpoint, Message, Unreadable, Within
from .outcomes import outcome, words
from .progress import Bars
from .prompts import input_prompts
from .publishing import CellStep, Recording
from .turns import Turns

PATIENCE: Final = 2.0
"""Seconds that the beginning waits for the kernel's first message, and the end for its last."""
TICK: Final = 0.25
"""Seconds between two looks at cells that run: log lines, and whether one waits for input."""
COUNT_WITHIN: Final = 1
"""Seconds for which a step waits for its execution count."""
REST: Final = 0.05
"""Seconds from the first message to hearing it, with those that came meanwhile. To be woken by each would
slow the cell that sends it; and a short cell has ended by then."""
RESTS: Final = 4
"""So many times that, while a cell runs."""
_AT_ONCE: Final = 4_096
_CELLS_KEPT: Final = 500
_WEIGHT_KEPT: Final = 64 * 1024 * 1024
_EARLY: Final = 256
_EARLY_SIZE: Final = 256 * 1024
_PUT_OUT: Final = frozenset(
    {"stream", "display_data", "execute_result", "error", "clear_output", "comm_open", "comm_msg"}
)


class _Recorded:
    """A cell and its step."""

    def __init__(self, cell: Cell, step: CellStep) -> None:
        self.cell = cell
        self.step = step
        self.ended = False
        self.awaits = False
        self.displays: set[str] = set()
        self.shown: Any = None


class Recorder:
    """See the module's docstring. One at a time in a kernel: see `starting`.

    Attributes:
        session: the recording as a session.
        problems: what could not be recorded, in words, by kind: (words, how often).
    """

    def __init__(self, shell: Any, session: Recording, interrupter: Interrupter | None = None) -> None:
        self._shell = shell
        self.session = session
        self.interrupter = interrupter or Interrupter()
        session._commands.on_interrupt = self._interrupt
        self._endpoint = Endpoint.of(shell.kernel)
        self._pid = os.getpid()
        self.problems: dict[str, int] = {}
        self._executions = 0
        self._begun: dict[str, Begin] = {}  # by msg_id; written by hooks, taken by the thread
        self._endings: dict[str, Ending] = {}
        self._infos: dict[int, tuple[Any, str]] = {}  # by id of IPython's info, which is held: ids come again
        self._cells: dict[str, _Recorded] = {}
        self._running: dict[str, _Recorded] = {}
        self._displays: dict[str, list[_Recorded]] = {}
        self._steps: dict[str, str] = {}  # msg_id by step id, of cells that run
        self._early: deque[Message] = deque(maxlen=_EARLY)
        self._counts: dict[str, int] = {}
        self._bars = Bars()
        self._turns = Turns()
        session.pause = self._turns.pause
        self._busy = False  # whether the kernel said so last
        self._stopping = False
        self._heard = threading.Event()
        self._within = Within(getattr(shell.kernel, "iopub_thread", None))
        self._hears: zmq.Socket[Any] | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="wsmonitor-recorder", daemon=True)

    # -- on the shell's thread

    def start(self) -> bool:
        """Begin to hear; says whether the kernel's messages arrive."""
        self.session.open()
        self._hears = self._within.connect() or self._endpoint.connect(zmq.Context.instance())
        self._thread.start()
        kernel = self._shell.kernel
        deadline = time.monotonic() + PATIENCE
        while not self._heard.wait(0.02) and time.monotonic() < deadline:
            # A subscription takes effect some time after it was made. What a front-end has been told already
            # changes nothing there, and tells us that we hear.
            kernel.send_response(kernel.iopub_socket, "status", {"execution_state": "busy"})
        events = self._shell.events
        events.register("pre_run_cell", self._before)
        events.register("post_run_cell", self._after)
        request = self._request()
        if request is not None:
            content = request.get("content", {})
            if content.get("store_history", True) and not content.get("silent"):
                self._start_cell(request, str(content.get("code", "")), None)
        return self._heard.is_set()

    def stop(self, reason: str = "", *, state: State = "succeeded") -> None:
        """End the recording; what was put out until now is in it."""
        if os.getpid() != self._pid:
            return
        for event, hook in (("pre_run_cell", self._before), ("post_run_cell", self._after)):
            if hook in self._shell.events.callbacks[event]:
                self._shell.events.unregister(event, hook)
        self._flush_streams()
        self._stopping = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(2 * PATIENCE)
        self.session.end(state if state in ("succeeded", "cancelled") else "cancelled", reason)
        self._wake_in.close()
        self._wake_out.close()
        self._within.leave()

    @property
    def alive(self) -> bool:
        """Whether it records, in this very process."""
        return self._pid == os.getpid() and self._thread.is_alive()

    @property
    def executions(self) -> int:
        """How many executions have begun while it recorded, the one that runs now among them."""
        return self._executions

    def _request(self) -> Mapping[str, Any] | None:
        """The request that is being executed, if it is one."""
        parent = self._shell.get_parent()
        header = parent.get("header") if isinstance(parent, Mapping) else None
        return parent if header and header.get("msg_type") == "execute_request" else None

    def _before(self, info: Any) -> None:
        ident = ""
        try:
            if not info.store_history or info.silent or os.getpid() != self._pid:
                return
            request = self._request()
            if request is not None:
                ident = str(request["header"]["msg_id"])
                self._start_cell(request, info.raw_cell, info)
        except KeyboardInterrupt:
            self.interrupter.again(ident)
        except Exception as exc:  # noqa: BLE001 - nothing of ours may reach the cell; it is told in `status`
            self._problem(f"a cell's beginning: {type(exc).__name__}: {exc}")

    def _start_cell(self, request: Mapping[str, Any], source: str, info: Any) -> None:
        ident = str(request["header"]["msg_id"])
        if ident in self._begun or ident in self._running:
            return  # code that runs code: %%capture, %%time, run_cell
        metadata = request.get("metadata") or {}
        cell_id = getattr(info, "cell_id", None) or metadata.get("cellId") or ""
        if info is not None:
            self._infos[id(info)] = (info, ident)
        # Of the cell that starts the recording, the message with the count has passed.
        count = 0 if info is not None else len(self._shell.history_manager.input_hist_raw) - 1
        self.interrupter.begin(ident)
        self._executions += 1
        # Nothing here may give the interpreter's lock away, as waking the thread would: to have it again may
        # take 5 ms. The kernel's own messages wake it.
        self._begun[ident] = Begin(ident, source, str(cell_id), count, time.time_ns())

    def _after(self, result: Any) -> None:
        try:
            if os.getpid() != self._pid:
                return
            if result is None:
                # ipykernel's way of ending a cell that was interrupted: the exception is on its way.
                request = self._request() or {}
                ident = str(request.get("header", {}).get("msg_id", ""))
                self._infos = {key: one for key, one in self._infos.items() if one[1] != ident}
                error = sys.exc_info()[1]
            else:
                error = result.error_before_exec or result.error_in_exec
                key = id(result.info)
                if key not in self._infos and isinstance(error, KeyboardInterrupt):
                    key = self._begun_as(result.info)
                _, ident = self._infos.pop(key, (None, ""))
            if not ident:
                return
            interrupted = isinstance(error, KeyboardInterrupt)
            who = self.interrupter.end(ident, interrupted=interrupted)
            if who is None:
                return  # of an interrupted cell, some versions of ipykernel tell twice
            name = "" if error is None else type(error).__name__
            if isinstance(error, SystemExit) and error.code in (None, 0):
                name = ""
            message = f"interrupted by {who}" if who else "" if error is None else words(error)
            self._endings[ident] = Ending(time.time_ns(), name, message, self._page())
        except Exception as exc:  # noqa: BLE001 - as in `_before`
            self._problem(f"a cell's end: {type(exc).__name__}: {exc}")

    def _begun_as(self, info: Any) -> int:
        """The key of what a cell began with that ends with *info*; 0 for none.

        Of a cell that is interrupted before its own code begins IPython makes another record.
        """

        def told(one: Any) -> tuple[object, ...]:
            return one.raw_cell, one.store_history, one.silent, getattr(one, "cell_id", None)

        return next((key for key, (begun, _) in self._infos.items() if told(begun) == told(info)), 0)

    def _page(self) -> Mapping[str, Any] | None:
        for payload in self._shell.payload_manager.read_payload():
            if payload.get("source") == "page":
                data = payload.get("data")
                return data if isinstance(data, Mapping) else None
        return None

    @staticmethod
    def _flush_streams() -> None:
        for stream in (sys.stdout, sys.stderr):
            flush = getattr(stream, "flush", None)
            if callable(flush):
                flush()

    def _problem(self, words: str) -> None:
        if len(self.problems) < 100:
            self.problems[words] = self.problems.get(words, 0) + 1

    def _wake(self) -> None:
        try:
            self._wake_out.send(b"\0")
        except OSError:  # it is full: then the thread is awake anyway
            return

    # -- on the connection's thread

    def _interrupt(self, command: Command, answer: Answer) -> None:
        ident = self._steps.get(command.step, "")
        who = command.actor + (f" via {command.via}" if command.via else "")
        self.interrupter.ask(ident, who or "a command", answer)

    # -- on the recorder's own thread

    def _run(self) -> None:
        hears = self._hears
        assert hears is not None
        poller = zmq.Poller()
        poller.register(hears, zmq.POLLIN)
        poller.register(self._wake_in.fileno(), zmq.POLLIN)
        ticked = 0.0
        stop_at: float | None = None
        heard = 0
        try:
            while True:
                now = time.monotonic()
                woken = poller.poll(self._patience(now, ticked))
                if woken and heard < _AT_ONCE and self._heard.is_set():
                    self._rest()
                self._turns.begin()
                self._read_wake()
                self._create()
                heard = self._hear(hears)
                now = time.monotonic()
                if now - ticked >= TICK:
                    ticked = now
                    self._tick(now)
                if self._stopping:
                    stop_at = stop_at or now + PATIENCE
                    if not heard or now > stop_at:
                        break
        except zmq.ContextTerminated:
            pass  # the kernel ends
        except Exception as exc:  # noqa: BLE001 - a thread that dies quietly would look alive
            self._problem(f"the recorder failed: {type(exc).__name__}: {exc}")
            self.session.error(f"recording ended: {type(exc).__name__}: {exc}", code="internal")
        finally:
            hears.close()  # first: the end of the kernel waits for it
            self._finish_all()

    def _patience(self, now: float, ticked: float) -> int | None:
        """Milliseconds until something is due without a message; None for nothing."""
        if self._stopping:
            return 50
        if (
            self._busy
            or self._running
            or self._begun
            or any(one.cell.due is not None for one in self._cells.values())
        ):
            return max(0, int((ticked + TICK - now) * 1000) + 1)
        return None

    def _rest(self) -> None:
        """Let a cell run: to its end, or for a while."""
        for _ in range(RESTS if self._running else 1):
            if self._stopping:
                return
            time.sleep(REST)
            if not self.interrupter.busy:
                return

    def _read_wake(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except OSError:
            return

    def _hear(self, hears: zmq.Socket[Any]) -> int:
        for count in range(_AT_ONCE):
            self._turns.pause()
            try:
                frames = hears.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return count
            self._heard.set()
            try:
                self._take(self._endpoint.read(frames))
            except Unreadable as exc:
                self._problem(f"a message: {exc}")
        return _AT_ONCE

    def _create(self, needed: str = "") -> None:
        """Make steps of what has begun, once its execution count is known; of *needed* anyway."""
        for ident, begin in list(self._begun.items()):
            count = begin.count or self._counts.pop(ident, 0)
            if not count and ident != needed and time.time_ns() - begin.at < COUNT_WITHIN * 1_000_000_000:
                continue
            cell = Cell(replace(begin, count=count), self.session.redact, widget=self._bars.text)
            recorded = _Recorded(cell, self.session.cell(cell))
            self._steps[recorded.step.id] = ident
            self._running[ident] = self._cells[ident] = recorded
            del self._begun[ident]
            early = list(self._early)
            self._early.clear()
            for message in early:
                if message.parent == ident:
                    self._take(message)
                else:
                    self._early.append(message)
            self._evict()

    def _evict(self) -> None:
        weight = sum(one.cell.outputs.weight for one in self._cells.values())
        for ident, one in list(self._cells.items()):
            if len(self._cells) <= _CELLS_KEPT and weight <= _WEIGHT_KEPT:
                return
            if one.ended and not one.cell.changed:
                weight -= one.cell.outputs.weight
                del self._cells[ident]
                for display in one.displays:
                    self._displays.pop(display, None)

    def _take(self, message: Message) -> None:
        recorded = self._cells.get(message.parent)
        idle = False
        if message.kind == "status":
            idle = self._endpoint.content(message).get("execution_state") == "idle"
            self._busy = not idle
        if recorded is None and message.parent in self._begun:
            # The count came before this, if it came at all.
            self._create(message.parent if message.kind in _PUT_OUT else "")
            recorded = self._cells.get(message.parent)
        now = time.monotonic()
        if message.kind == "execute_input":
            self._count(message)
        elif message.kind == "update_display_data":
            self._update(message, now)
        elif recorded is None and message.parent in self._begun and message.kind == "status":
            if idle:
                self._create(message.parent)
                self._end(self._cells[message.parent], now)
        elif recorded is None:
            # Put out between the request's arrival and the hook, by a thread: its cell will begin at once.
            if message.kind in _PUT_OUT and len(message.content) <= _EARLY_SIZE // 4:
                self._early.append(message)
        elif message.kind == "status":
            if idle:
                self._end(recorded, now)
        elif message.kind in ("comm_open", "comm_msg", "comm_close"):
            self._comm(recorded, message)
        elif message.kind in _PUT_OUT:
            content = self._endpoint.content(message)
            recorded.cell.take(message.kind, content, now)
            display = (content.get("transient") or {}).get("display_id")
            if isinstance(display, str) and display not in recorded.displays:
                recorded.displays.add(display)
                self._displays.setdefault(display, []).append(recorded)

    def _count(self, message: Message) -> None:
        # Where the hook runs, some versions of IPython have counted already, and some have not.
        count = self._endpoint.content(message).get("execution_count")
        if isinstance(count, int) and message.parent not in self._cells:
            self._counts[message.parent] = count
            while len(self._counts) > _EARLY:
                del self._counts[next(iter(self._counts))]
            self._create()

    def _update(self, message: Message, now: float) -> None:
        content = self._endpoint.content(message)
        display = (content.get("transient") or {}).get("display_id")
        html = (content.get("data") or {}).get("text/html", "")
        # An observer that shows this very recording writes down what it shows: to publish that would make
        # it write again.
        quiet = isinstance(html, str) and BEGIN in html
        for recorded in self._displays.get(str(display), ()):
            recorded.cell.update(content, now, quiet=quiet)

    def _comm(self, recorded: _Recorded, message: Message) -> None:
        if message.kind == "comm_msg" and not self._bars.knows(message.content):
            return
        content = self._endpoint.content(message)
        match message.kind:
            case "comm_open":
                progress = self._bars.opened(content)
            case "comm_msg":
                progress = self._bars.changed(content)
            case _:
                self._bars.closed(content)
                return
        if self._bars.has(content):
            recorded.cell.widget_changed(time.monotonic())
        if progress is not None:
            recorded.cell.progress = progress

    def _tick(self, now: float) -> None:
        for recorded in list(self._running.values()):
            self._log(recorded)
            self._show_progress(recorded)
        if self._running:
            self._look_for_input()
        for recorded in list(self._cells.values()):
            due = recorded.cell.due
            if due is not None and due <= now:
                self._publish(recorded, now)
                if recorded.ended:
                    self._log(recorded, last=True)

    def _log(self, recorded: _Recorded, *, last: bool = False) -> None:
        for name, lines in recorded.cell.lines.items():
            taken, skipped = lines.take(last=last)
            level = "warning" if name == "stderr" else "info"
            if skipped:
                recorded.step.log(f"({skipped:,} lines passed over here; the output has them)", "debug")
            for line in taken:
                recorded.step.log(line, level)

    def _show_progress(self, recorded: _Recorded) -> None:
        progress = recorded.cell.progress
        if progress is not None and progress != recorded.shown:
            recorded.shown = progress
            recorded.step.progress(progress.done, progress.total, progress.unit)

    def _publish(self, recorded: _Recorded, now: float) -> None:
        recorded.step.output(*recorded.cell.publication(now))
        if recorded.cell.outputs.dropped:
            recorded.step.dropped(recorded.cell.outputs.dropped)

    def _look_for_input(self) -> None:
        prompts = input_prompts(sys._current_frames())
        for ident, recorded in self._running.items():
            prompt = prompts.get(ident)
            if prompt is not None and not recorded.awaits:
                recorded.step.await_input(prompt)
            elif prompt is None and recorded.awaits:
                recorded.step.go_on()
            recorded.awaits = prompt is not None

    def _end(self, recorded: _Recorded, now: float) -> None:
        ident = recorded.cell.begin.msg_id
        if recorded.ended:
            return
        ending = self._endings.pop(ident, None)
        cell = recorded.cell
        if ending is not None and ending.page:
            cell.take("display_data", {"data": ending.page, "metadata": {}}, now)
        if cell.changed:
            self._publish(recorded, now)
        self._log(recorded, last=True)
        self._show_progress(recorded)
        state, reason, failed = outcome(ending, cell.failed)
        recorded.step.end(state, reason, ending.at if ending is not None else time.time_ns(), failed)
        recorded.ended = True
        self._running.pop(ident, None)
        self._steps.pop(recorded.step.id, None)

    def _finish_all(self) -> None:
        now = time.monotonic()
        for recorded in list(self._running.values()):
            ident = recorded.cell.begin.msg_id
            self.interrupter.end(ident, interrupted=False)
            self._endings.setdefault(ident, Ending(time.time_ns()))
            self._end(recorded, now)
        for recorded in self._cells.values():
            if recorded.cell.changed:
                self._publish(recorded, now)
            self._log(recorded, last=True)
