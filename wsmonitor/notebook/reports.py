"""What ``%wsmonitor sessions`` and ``%wsmonitor status`` tell, as small tables."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Final

from wsmonitor.export.words import OPEN, look, ordered, state_word
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.errors import WaitTimeoutError, WsMonitorError

from .rows import milliseconds, one_line

PATIENCE: Final = 10.0
"""Seconds that a magic waits for the server: a person waits with it."""


@dataclass(frozen=True)
class Table:
    """A table that shows itself as text and as HTML."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows] if self.columns[0] else list(self.rows)
        widths = [max((len(line[k]) for line in lines), default=0) for k in range(len(self.columns))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
        ]
        return "\n".join([self.title, *(line.rstrip() for line in text)])

    def _repr_html_(self) -> str:
        def line(cells: Iterable[str], tag: str) -> str:
            return (
                "<tr>"
                + "".join(f'<{tag} style="text-align: left">{escape(cell)}</{tag}>' for cell in cells)
                + "</tr>"
            )

        head = f"<thead>{line(self.columns, 'th')}</thead>" if self.columns[0] else ""
        body = "".join(line(row, "td") for row in self.rows)
        return f"<p><b>{escape(self.title)}</b></p><table>{head}<tbody>{body}</tbody></table>"


def sessions_table() -> Table:
    """The sessions of the server, the newest first.

    Raises:
        WaitTimeoutError: no server could be reached in time; the message says where it was looked for.
    """
    from wsmonitor.client import Target, connect
    from wsmonitor.protocol.ids import DIRECTORY

    with connect(Target(name="%wsmonitor sessions")) as connection:
        try:
            connection.wait_live(PATIENCE)
        except WaitTimeoutError as exc:
            looked = "; ".join(connection.status.looked)
            raise WaitTimeoutError(f"{exc}; looked: {looked}" if looked else str(exc)) from None
        subscription = connection.subscribe(DIRECTORY, lambda _: None)
        subscription.wait(lambda now: now.phase == "live", PATIENCE)
        state = subscription.snapshot()
    return listing_table(state.listings.values() if state is not None else ())


def listing_table(listings: Iterable[Listing], *, live: bool = True) -> Table:
    """`sessions_table` of what is known; *live*: whether the link to the server is there."""
    newest = sorted(listings, key=lambda item: (milliseconds(item.created) or 0, item.id), reverse=True)
    rows = tuple(
        (
            item.name,
            str(item.run),
            _state(item, live),
            ", ".join(f"{count} {look(state).word}" for state, count in ordered(item.counts)),
            one_line(item.problem, 60),
            item.id,
        )
        for item in newest
    )
    title = "no sessions yet" if not rows else "1 session" if len(rows) == 1 else f"{len(rows)} sessions"
    return Table(title, ("name", "run", "state", "steps", "problem", "id"), rows)


def _state(item: Listing, live: bool) -> str:
    """In the past tense where its producer, or the server, is not heard: it may have changed."""
    open_ = item.state in OPEN
    heard = item.liveness in ("", "live") or not open_
    words = f"{look(item.state).icon} {state_word(item.state, known=live and heard)}"
    return words if heard or not live else f"{words} (producer {item.liveness})"


def status_table() -> Table:
    """Which server, why, where it was looked for, versions, and whether a browser has answered."""
    import anywidget
    import ipywidgets

    from wsmonitor._version import __version__
    from wsmonitor.client import Target, connect

    from .observer import observers

    rows: list[tuple[str, str]] = []
    with connect(Target(name="%wsmonitor status")) as connection:
        try:
            # An attempt that has failed is an answer, too: nobody has to wait for the next.
            status = connection.wait_for(
                lambda now: now.phase in ("live", "waiting", "failed", "closed"), PATIENCE
            )
        except WsMonitorError:
            # Not even an attempt has ended: the status says what it is at.
            status = connection.status
    rows.append(("server", status.url or "none found"))
    # Looking ends where something is found: the last place says why it is this server.
    rows += [("looked", place) for place in status.looked]
    if status.live and status.looked:
        rows[-1] = ("because", status.looked[-1])
    rows.append(("link", status.phase + (f": {status.reason}" if status.reason else "")))
    if status.degraded is not None:
        rows.append(("degraded", f"it takes no changes: {status.degraded.reason} [{status.degraded.code}]"))
    if status.rtt is not None:
        rows.append(("round-trip", f"{status.rtt * 1000:.1f} ms"))
    if status.welcome is not None:
        welcome = status.welcome
        rows.append(("server version", f"{welcome.server}, protocol {welcome.major}.{welcome.minor}"))
        rows.append(("signed in as", f"{welcome.subject} ({welcome.role}: {', '.join(welcome.sessions)})"))
    versions = (
        f"wsmonitor {__version__}, ipywidgets {ipywidgets.__version__}, anywidget {anywidget.__version__}"
    )
    rows.append(("here", f"{versions}, Python {platform.python_version()}"))
    rows.append(("browser", browser_words([observer.browser_heard for observer in observers()])))
    return Table("wsmonitor", ("", ""), tuple(rows))


def browser_words(heard: list[float | None]) -> str:
    """Whether a front-end has answered, of the observers there are, in words with what to do."""
    if not heard:
        return "nothing is watched from this kernel yet"
    answered = [age for age in heard if age is not None]
    if answered:
        return f"a front-end answered {min(answered):.0f} s ago"
    return (
        "no front-end has answered yet: if the output stays empty, the environment that runs JupyterLab "
        "needs anywidget (pip install anywidget there, and reload the page)"
    )
