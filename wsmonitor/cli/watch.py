"""``wsmonitor watch``: a session live, for people, for pipes, and as a condition in a script."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Protocol

import click

from wsmonitor.client.types import ConnectionStatus, PhaseChanged, SyncCompleted
from wsmonitor.protocol.entities import Session
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL

from . import lines
from .failures import Exit, Failure
from .feed import Bound, Feed, Item, Linked, Lost, Told
from .options import Server, Span, StateName, console, json_option, no_connection, target_options
from .scene import LogLine, Picture, Scene
from .story import Story
from .terminal import frame, log_line, state_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

_FRAME: Final = 0.25  # seconds between two frames of the terminal view: ages and countdowns tick
_LOG: Final = 200  # lines kept for the view; eight at most are shown


@click.command(
    "watch", short_help="Watch a session live.", context_settings={"ignore_unknown_options": False}
)
@click.argument("session")
@click.option(
    "--until",
    multiple=True,
    type=StateName(),
    help="End when the session is in STATE: status 0, or 1 if it ended in another (repeatable).",
)
@click.option(
    "--on",
    multiple=True,
    type=StateName(),
    help="Run COMMAND each time the session comes into STATE (repeatable).",
)
@click.option(
    "--timeout", "limit", type=Span(), default=None,
    help="Stop watching after this time: status 124 with --until, else 0.",
)  # fmt: skip
@click.option("--plain", is_flag=True, help="Lines instead of the live view, also in a terminal.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@json_option
@target_options
def watch_command(
    session: str,
    until: tuple[str, ...],
    on: tuple[str, ...],
    limit: float | None,
    plain: bool,
    command: tuple[str, ...],
    as_json: bool,
    server: Server,
) -> int:
    """Watch SESSION: a name follows its newest run, an id stays with one.

    In a terminal it is a live view; in a pipe it is a line per change of state. When the link to the
    server or to the program is lost it says so, freezes its timers and heals by itself. Ctrl-C leaves;
    the session goes on.

    \b
    Examples:
      wsmonitor watch nightly-etl
      wsmonitor watch nightly-etl --until succeeded --timeout 2h && deploy
      wsmonitor watch nightly-etl --json | jq -c 'select(.type == "event")'
      wsmonitor watch nightly-etl --on failed -- notify-send 'etl failed'

    COMMAND gets WSMONITOR_SESSION (the id), WSMONITOR_SESSION_NAME and WSMONITOR_STATE in its environment.
    """
    if bool(on) != bool(command):
        raise click.UsageError("--on STATE and a command after -- belong together")
    out = console()
    with ExitStack() as stack:
        connection = stack.enter_context(server.handle("watch"))
        feed = stack.enter_context(Feed(connection, session))
        face: Face
        if as_json:
            face = JsonFace()
        elif plain or not out.is_terminal:
            face = PlainFace(feed, out)
        else:
            face = stack.enter_context(LiveFace(feed, out))
        try:
            return watch(feed, face, Conditions(until, on, command), limit)
        except KeyboardInterrupt:
            # To leave is how a live view ends; but what was waited for was not reached.
            if until:
                raise
            return Exit.OK


class Face(Protocol):
    """How the watched session is shown."""

    tick: float | None  # seconds after which `draw` is wanted, also when nothing happened

    def take(self, item: Item) -> None:
        """Something happened."""

    def draw(self, *, last: bool = False) -> None:
        """Show how things are now."""


class Conditions:
    """``--until`` and ``--on``: judged on verified states only."""

    def __init__(
        self, until: tuple[str, ...], on: tuple[str, ...] = (), command: tuple[str, ...] = ()
    ) -> None:
        self.until = until
        self._on = on
        self._command = command
        self._last: tuple[str, str] | None = None

    @classmethod
    def ended(cls) -> Conditions:
        """Over as soon as the session has ended, however it did."""
        return cls(tuple(sorted(TERMINAL)))

    def judge(self, session: Session | None) -> int | None:
        """The exit status when the watching is over; None while it is not."""
        if session is None:
            return None
        now = (session.id, session.state)
        if now != self._last:
            self._last = now
            if session.state in self._on:
                self._run(session.id, session.name, session.state)
        if session.state in self.until:
            return Exit.OK
        # A crash alone can be taken back by its producer; to wait for that has no end that can be promised.
        return Exit.FAILED if self.until and session.state in TERMINAL else None

    def _run(self, session: str, name: str, state: str) -> None:
        words = {"WSMONITOR_SESSION": session, "WSMONITOR_SESSION_NAME": name, "WSMONITOR_STATE": state}
        try:
            # What the user wrote on his own command line; it gets no shell.
            done = subprocess.run(  # noqa: S603
                list(self._command), stdin=subprocess.DEVNULL, env={**os.environ, **words}, check=False
            )
        except OSError as exc:
            click.echo(f"wsmonitor: {self._command[0]}: {exc.strerror}", err=True)
            return
        if done.returncode:
            click.echo(f"wsmonitor: {self._command[0]} ended with status {done.returncode}", err=True)


def watch(
    feed: Feed,
    face: Face,
    conditions: Conditions,
    limit: float | None,
    over: Callable[[], None] | None = None,
) -> int:
    """Show what the feed tells until a condition is met, the time is up, or there is nothing to wait for.

    Args:
        limit: seconds; None for no end.
        over: looked at twice a second; raises when there is nothing to wait for any more.
    """
    end = time.monotonic() + limit if limit is not None else None
    drawn = 0.0
    while True:
        now = time.monotonic()
        if end is not None and now >= end:
            face.draw(last=True)
            return Exit.TIMEOUT if conditions.until else Exit.OK
        pause = 0.5 if over is not None else None
        waits = [
            wait for wait in (face.tick, pause, end - now if end is not None else None) if wait is not None
        ]
        item = feed.next(min(waits, default=None))
        if over is not None:
            over()
        if item is not None:
            face.take(item)
            if isinstance(item, Told):
                status = conditions.judge(item.record)
                if status is not None:
                    face.draw(last=True)
                    return status
            _stop_if_hopeless(item)
        if face.tick is not None and time.monotonic() - drawn >= face.tick:
            face.draw()
            drawn = time.monotonic()


def _stop_if_hopeless(item: Item) -> None:
    """End on what no waiting mends: a refused token, a session that is not for it."""
    if isinstance(item, Linked) and item.status.phase == "failed":
        raise no_connection(item.status)
    if (
        isinstance(item, Told)
        and isinstance(item.update, PhaseChanged)
        and item.update.phase == "not_available"
    ):
        raise Failure(
            item.update.reason or "there is no such session, or not for this token",
            code="not_available",
            status=Exit.REFUSED,
        )


class JsonFace:
    """One JSON object per line, flushed at once."""

    tick: float | None = None

    def __init__(self) -> None:
        self._told: tuple[object, ...] = ()

    def take(self, item: Item) -> None:
        at = time.time_ns()
        match item:
            case Linked(status=status):
                # Each heartbeat measures the round trip anew: that alone is no change worth a line.
                told = (
                    status.phase,
                    status.url,
                    status.attempt,
                    status.code,
                    status.reason,
                    status.connections,
                )
                if told != self._told:
                    self._told = told
                    self._write(lines.connection(status, time.monotonic(), at))
            case Bound(session=session, run=run):
                self._write(lines.run(session, run, at))
            case Told(session=session, update=SyncCompleted() as update, state=SessionState() as state):
                self._write(lines.synced(session, state, update, at))
            case Told(session=session, update=update):
                for line in lines.updates(session, update, at):
                    self._write(line)
            case Lost(count=count):
                self._write({"type": "dropped", "at": str(at), "count": count})

    def draw(self, *, last: bool = False) -> None:
        """Nothing: every line was written when it happened."""

    @staticmethod
    def _write(line: lines.Line) -> None:
        sys.stdout.write(lines.text(line) + "\n")
        sys.stdout.flush()


class PlainFace:
    """A line per change of state: for pipes and log files."""

    tick: float | None = None

    def __init__(self, feed: Feed, out: Console) -> None:
        self.feed = feed
        self.out = out
        self.story = Story()
        self.status = ConnectionStatus()
        self._summed: tuple[str, str, int] | None = None  # the state that was summed up last

    def take(self, item: Item) -> None:
        wall = time.time_ns()
        for line in tell(self.story, item, wall):
            self.out.print(log_line(line), soft_wrap=True)
        if isinstance(item, Linked):
            self.status = item.status
        if isinstance(item, Told) and item.state is not None:
            self.story.seen(item.state)
            self._summary(item.state)

    def _summary(self, state: SessionState) -> None:
        self._summed = (state.topic, state.epoch, state.seq)
        self.out.print(state_line(self._scene(state)), soft_wrap=True)

    def draw(self, *, last: bool = False) -> None:
        state = self.feed.snapshot()
        if last and state is not None and self._summed != (state.topic, state.epoch, state.seq):
            self._summary(state)

    def _scene(self, state: SessionState) -> Scene:
        return Scene(
            self.feed.target, Picture.of(state), self.status, "live", time.monotonic(), time.time_ns()
        )


class LiveFace:
    """The live view in a terminal."""

    tick: float | None = _FRAME

    def __init__(self, feed: Feed, out: Console) -> None:
        self.feed = feed
        self.out = out
        self.story = Story()
        self.log: deque[LogLine] = deque(maxlen=_LOG)
        self.picture: Picture | None = None
        self.reason = ""
        self._stale = False
        self._live: Live | None = None

    def __enter__(self) -> LiveFace:
        from rich.live import Live

        self._live = Live(console=self.out, auto_refresh=False, transient=False, vertical_overflow="crop")
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self.draw(last=True)
            self._live.stop()

    def take(self, item: Item) -> None:
        self.log.extend(tell(self.story, item, time.time_ns()))
        if isinstance(item, Told):
            self._stale = True
            if item.state is not None:
                self.story.seen(item.state)
            if isinstance(item.update, PhaseChanged):
                self.reason = item.update.reason
        if isinstance(item, Bound):
            self.picture = None
            self._stale = True

    def draw(self, *, last: bool = False) -> None:
        from rich.console import Group

        if self._live is None:
            return
        began = time.monotonic()
        scene = self.scene()
        width, height = self.out.size
        # The last frame stays in the terminal's history: the prompt needs a line below it.
        self._live.update(Group(*frame(scene, width, height - 1)), refresh=True)
        # A very large session takes long to draw: a view must not take a whole core.
        self.tick = max(_FRAME, 4 * (time.monotonic() - began))

    def scene(self) -> Scene:
        """What there is to show now."""
        if self._stale:
            state = self.feed.snapshot()
            self.picture = Picture.of(state) if state is not None else None
            self._stale = False
        return Scene(
            self.feed.target,
            self.picture,
            self.feed.connection.status,
            self.feed.phase,
            time.monotonic(),
            time.time_ns(),
            reason=self.reason,
            watching=self.feed.watching,
            log=tuple(self.log),
        )


def tell(story: Story, item: Item, wall: int) -> list[LogLine]:
    """The log lines of *item*; *wall* is our clock, nanoseconds."""
    match item:
        case Linked(status=status):
            return list(story.status(status, time.monotonic(), wall))
        case Bound(session=session, run=run):
            return [LogLine(wall, "idle", "", f"watching run {run}: {session}")] if session else []
        case Told(update=update):
            return list(story.update(update, wall))
        case Lost(count=count):
            return [LogLine(wall, "wait", "", f"{count:,} lines were left out: this reader is too slow")]
