"""A session as one HTML file that stands alone.

No network: the style sheet and one small script are inside, allowed by their digests, and everything
else is forbidden by the page's own content security policy. All is there to be read without the script, which
filters, opens and prints. Every text of the session is escaped; HTML that a program published is
shown as the text in it, that of a recorded cell in a sealed frame (see `rendered`). Geometry is in SVG
attributes, because the policy forbids inline styles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from wsmonitor._version import __version__
from wsmonitor.protocol.entities import Chain, Session, Step
from wsmonitor.protocol.reducer import SessionState
from wsmonitor.protocol.states import TERMINAL

from .document import Logs, Origin
from .frames import Frames, digest
from .outline import Row, counts, outline, present, span, troubles
from .pieces import error_html, escaped, headline, log_html, progress_words, scalar, value_html
from .recording import OUTPUTS, Fetch
from .rendered import rendered
from .words import OPEN, OVER, between, duration, look, moment, number, one_line, ordered, plural, state_word

_DEEPEST: Final = 8  # rows beyond this depth are not indented further
_NESTING: Final = 64  # parsers limit how deeply elements nest (Chromium: 512): deeper rows are siblings
_LOUD: Final = 5  # failures that are named at the top
_ERRORS: Final = 20  # earlier attempts of a step whose errors are told
_BARS: Final = 500  # attempts of a step that are drawn
ROW_LIMIT: Final = 10_000
"""Rows of the file: what failed, what is open and what stands above these come first."""


def to_html(
    state: SessionState,
    origin: Origin,
    logs: Logs | None = None,
    fetch: Fetch | None = None,
    *,
    row_limit: int = ROW_LIMIT,
) -> str:
    """The page of *state* as text, to be written as UTF-8.

    Args:
        logs: the steps' log records.
        fetch: gives large values, for the outputs of recorded cells; without it they are said to be missing.
        row_limit: how many rows the file has at the most; what is left out is counted in it.
    """
    return "".join(_Page(state, origin, logs or {}, fetch, row_limit).parts())


@cache
def _inside(name: str) -> str:
    """A file of this package that is put into the page."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


class _Page:
    def __init__(
        self, state: SessionState, origin: Origin, logs: Logs, fetch: Fetch | None, row_limit: int
    ) -> None:
        self.state = state
        self.origin = origin
        self.logs = logs
        self.as_of = int(origin.as_of)
        self.frames = Frames(_inside("frame.css"))
        self.fetch: Fetch = fetch or (lambda sha256, size: None)
        self.rows = outline(state)
        self.kept = _kept(self.rows, row_limit)
        self.known, self.until = present(
            state.session, state.producers.values(), self.as_of, live=origin.live
        )
        self.first, self.last = span(state, self.until)
        self.earlier = {row.attempts[-1].id: row.attempts[:-1] for row in self.rows if row.attempts}

    def parts(self) -> Iterator[str]:
        style, script = _inside("page.css"), _inside("page.js")
        # First, because the policy names the styles that are in it.
        body = [*self.head(), *self.alarms(), *self.sums(), *self.tree(), *self.own_facts()]
        body += [*self.commands(), *self.problems(), *self.producers()]
        styles = " ".join((digest(style), *self.frames.styles))
        name = self.state.session.name if self.state.session else self.state.topic
        yield (
            "<!doctype html>\n"
            '<html lang="en"><head><meta charset="utf-8">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            f"style-src {styles}; script-src {digest(script)}; img-src data:; "
            "base-uri 'none'; form-action 'none'\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            f"<title>{escaped(name)} · wsmonitor</title><style>{style}</style></head>\n<body><main>\n"
        )
        yield from body
        origin = self.origin
        yield (
            "<footer>"
            f"wsmonitor {escaped(__version__)} · session <code>{escaped(self.state.topic)}</code> · "
            f"epoch <code>{escaped(self.state.epoch)}</code> · event {self.state.seq:,} · "
            f"digest <code>{self.state.digest}</code>"
            + (f" · from <code>{escaped(origin.server)}</code>" if origin.server else "")
            + (f" (server {escaped(origin.version)})" if origin.version else "")
            + f"</footer>\n</main><script>{script}</script></body></html>\n"
        )

    # -- the top

    def head(self) -> Iterator[str]:
        session = self.state.session
        if session is None:
            yield (
                f"<div class=head><h1>{escaped(self.state.topic)}</h1></div>"
                f"<p class=under>No such session as of {moment(self.as_of)}.</p>"
            )
            return
        appearance = look(session.state)
        known = self.known or session.state in TERMINAL
        elapsed = between(session.started, session.ended or self.until)
        run = f"<span class=soft>run {session.run}</span>" if session.run else ""
        yield (
            f"<div class=head><h1>{escaped(session.name)}</h1>{run}"
            f'<span class="state {self.tone(session.state)}">{appearance.icon} '
            f"{state_word(session.state, known=known)}</span>"
            + (f"<span class=soft>{duration(elapsed)}</span>" if elapsed is not None else "")
            + "</div>"
        )
        times = [
            f"{word} {moment(ns)}"
            for word, ns in (("started", session.started), ("ended", session.ended))
            if ns
        ]
        told = [*times, *([escaped(one_line(session.reason))] if session.reason else [])]
        told += [escaped(tag) for tag in session.tags]
        yield f"<p class=under>{' · '.join(told)}</p>" if told else ""
        yield f"<p class=under>Copied {moment(self.origin.exported)}"
        yield " from a verified, live view.</p>" if self.origin.live else ".</p>"
        if not self.origin.live:
            yield (
                f"<p class=note><b>Nothing newer was heard from the server.</b> This is what was known at "
                f"{moment(self.as_of)}; what happened since is not in here.</p>"
            )
        elif session.state in OPEN and not self.known:
            yield (
                f"<p class=note><b>A program was not heard</b> since {moment(self.until)}: what went on then "
                "may have ended.</p>"
            )
        elif session.state in OPEN:
            yield (
                f"<p class=note>The session was <b>{state_word(session.state)}</b> when this copy was made; "
                "it may have ended since.</p>"
            )

    def alarms(self) -> Iterator[str]:
        standing = troubles(self.state, self.rows)
        if not standing:
            return
        yield '<div class="alarm" role="note">'
        for trouble in standing[:_LOUD]:
            told = escaped(one_line(headline(trouble.error)))
            yield (
                f"<p><b class=bad>✕ {escaped(trouble.name)}</b> failed: {told}"
                + (f" <span class=soft>{escaped(trouble.where)}</span>" if trouble.where else "")
                + (f" <span class=soft>{moment(trouble.ended, date=False)}</span>" if trouble.ended else "")
                + "</p>"
            )
        if len(standing) > _LOUD:
            yield f"<p class=soft>and {plural(len(standing) - _LOUD, 'more failure')}, marked ✕ below</p>"
        yield "</div>"

    def sums(self) -> Iterator[str]:
        tally = counts(self.rows)
        total = sum(tally.values())
        if not total:
            return
        yield '<div class=sums><svg aria-hidden="true">'
        place = 0.0
        for state, count in ordered(tally):
            width = 100 * count / total
            yield f'<rect class={self.tone(state)} x="{place:.3f}%" width="{width:.3f}%" height="10"/>'
            place += width
        over = sum(tally[state] for state in OVER)
        yield f"</svg><span><b>{over:,}</b>/{plural(total, 'step')}</span>"
        for state, count in ordered(tally):
            word = state_word(state, known=self.known)
            yield f"<span class={self.tone(state)}>{look(state).icon} {count:,} {word}</span>"
        session = self.state.session
        for key, value in (session.metrics if session else {}).items():
            yield f"<span>{escaped(key)} <b>{number(value)}</b></span>"
        yield "</div>"

    def own_facts(self) -> Iterator[str]:
        session = self.state.session
        if session is None:
            return
        inside = "".join(self.facts(session, metrics=False))
        if inside:
            yield f"<h2>The session itself</h2><div class=tree><div class=body>{inside}</div></div>"

    # -- the tree

    def tree(self) -> Iterator[str]:
        if not self.rows:
            return
        yield "<h2>Steps</h2>"
        yield from self.tools()
        yield (
            "<div class=tree><div class='row axis'><span>Step</span><span>State</span>"
            "<span class=time>Time</span><span class=when>"
            f"<span>{moment(self.first, date=False)}</span><span>{moment(self.last, date=False)} UTC</span>"
            "</span></div>\n"
        )
        open_at: list[int] = []  # depths of the <details> that are still open
        for place, row in enumerate(self.kept):
            above = place + 1 < len(self.kept) and self.kept[place + 1].depth > row.depth
            while open_at and open_at[-1] >= row.depth:
                open_at.pop()
                yield "</details>"
            inside = "".join(self.facts(row.item)) if row.item is not None else ""
            css = "chain" if row.depth == 0 else "step"
            line = f'class=row data-state="{row.state}"'
            if above and row.depth < _NESTING:
                yield f"<details open class={css}><summary {line}>{self.cells(row, twist=True)}</summary>"
                if inside:
                    yield "<details class=facts><summary>details</summary>"
                    yield f"<div class=body>{inside}</div></details>"
                open_at.append(row.depth)
                yield "\n"
            elif inside:
                yield (
                    f"<details class={css}><summary {line}>{self.cells(row, twist=True)}</summary>"
                    f"<div class=body>{inside}</div></details>\n"
                )
            else:
                yield f"<div class={css}><div {line}>{self.cells(row, twist=False)}</div></div>\n"
        yield "</details>" * len(open_at) + "</div>"

    def tools(self) -> Iterator[str]:
        """What the script needs, hidden where there is none; and what is not in the file."""
        left = len(self.rows) - len(self.kept)
        if left:
            yield (
                f"<p class=note><b>{plural(left, 'row')} of {len(self.rows):,} are not in this file</b>, to "
                "keep it readable: what failed and what was open is. "
                "<code>wsmonitor export -o FILE.json</code> writes all of them.</p>"
            )
        states = dict.fromkeys(row.state for row in self.kept if row.attempts)
        words = {state: state_word(state, known=self.known) for state in states}
        options = "".join(
            f'<option value="{state}">{escaped(word)}</option>' for state, word in words.items()
        )
        yield (
            "<div class=tools id=tools hidden>"
            '<input type=search id=words placeholder="filter, e.g. failed read" aria-label="Filter rows">'
            f'<select id=state aria-label="State"><option value="">all states</option>{options}</select>'
            "<button type=button id=open>Open all</button> <button type=button id=close>Close all</button>"
            "<span class=soft id=hits role=status></span></div>"
        )

    def tone(self, state: str) -> str:
        """The colour of *state*: none where it may have changed since it was last known."""
        return "idle" if state in OPEN and not self.known else look(state).tone

    def cells(self, row: Row, *, twist: bool) -> str:
        item = row.item
        icon, tone = look(row.state).icon, self.tone(row.state)
        tags: list[tuple[str, str]] = []
        if len(row.attempts) > 1:
            tags.append(("", f"attempt {row.attempts[-1].attempt}"))
        if row.orphan:
            tags.append(("", "chain not known" if row.depth == 0 else "parent not known"))
        if item is not None and item.progress is not None and item.state in OPEN:
            tags.append(("", progress_words(item)))
        if item is not None and item.error is not None and row.attempts:
            tags.append((" bad", one_line(headline(item.error), 80)))
        if isinstance(item, Step) and item.log_count:
            tags.append(("", plural(item.log_count, "log line")))
        elapsed = between(item.started, item.ended or self.until) if item is not None else None
        if item is not None and item.state == "crashed" and item.ended == "":
            elapsed = None  # when it really ended is not known
        return (
            f'<span class="name d{min(row.depth, _DEEPEST)}"><span class=twist>'
            + ("" if twist else "&nbsp;")
            + f'</span><span class="icon {tone}">{icon}</span>'
            f'<span class=label title="{escaped(one_line(row.name))}">{escaped(one_line(row.name))}</span>'
            + "".join(f'<span class="tag{css}">{escaped(text)}</span>' for css, text in tags)
            + f"</span><span class={tone}>{state_word(row.state, known=self.known)}</span>"
            f"<span class=time>{duration(elapsed) if elapsed is not None else ''}</span>{self.bars(row)}"
        )

    def bars(self, row: Row) -> str:
        items: list[Step | Chain] = list(row.attempts) or ([row.item] if row.item is not None else [])
        width = max(self.last - self.first, 1)
        rects: list[str] = []
        for item in items[-_BARS:]:
            if item.started == "":
                continue
            start = int(item.started)
            end = int(item.ended) if item.ended else max(start, self.until) if item.state in OPEN else start
            x = min(100 * (start - self.first) / width, 99.5)
            extent = max(100 * (end - start) / width, 0.5)
            css = self.tone(item.state) + (" open" if not item.ended else "")
            extent = min(extent, 100 - x)
            rects.append(
                f'<rect class="{css}" x="{x:.2f}%" y="2" width="{extent:.2f}%" height="10" rx="2.5"/>'
            )
        return f'<svg aria-hidden="true">{"".join(rects)}</svg>'

    # -- what is known of one item

    def facts(self, item: Session | Chain | Step, *, metrics: bool = True) -> Iterator[str]:
        if item.error is not None:
            yield "<h3>Error</h3>" + error_html(item.error)
        if isinstance(item, Step):
            earlier = self.earlier.get(item.id, ())
            failed = [(one.attempt, one.error) for one in earlier if one.error is not None]
            left = len(failed) - _ERRORS
            if left > 0:
                yield f"<p class=cut>{plural(left, 'attempt')} that failed before are not told</p>"
            for attempt, error in failed[-_ERRORS:]:
                yield f"<h3>Error of attempt {attempt}</h3>" + error_html(error)
        for title, value in (("Input", item.input), ("Output", item.output)):
            if value is None:
                continue
            yield f"<h3>{title}</h3>"
            if value.mime == OUTPUTS and isinstance(item, Step):
                heard = any(
                    one.liveness == "live" and not one.closed for one in self.state.producers.values()
                )
                lines = self.logs.get(item.id, ())
                shown = list(rendered(item, self.fetch, lines, escaped, self.frames, heard=heard))
                yield from shown or ["<p class=soft>none</p>"]
            else:
                yield value_html(value)
        pairs: list[tuple[str, str]] = []
        if metrics:
            pairs += [(key, number(value)) for key, value in item.metrics.items()]
        if isinstance(item, Step | Chain) and item.reason:
            pairs.append(("reason", item.reason))
        if item.progress is not None:
            pairs.append(("progress", progress_words(item)))
        if not isinstance(item, Session) and item.tags:
            pairs.append(("tags", ", ".join(item.tags)))
        pairs += [(key, scalar(value)) for key, value in item.attributes.items()]
        # As text, not as links: a published address is not to be one click away from a trusted file.
        pairs += [(link.title or link.rel, link.href) for link in item.links]
        if pairs:
            yield "<h3>Facts</h3><table class=pairs>"
            yield from (f"<tr><th>{escaped(key)}</th><td>{escaped(value)}</td></tr>" for key, value in pairs)
            yield "</table>"
        if isinstance(item, Step) and item.log_count:
            yield from log_html(item, self.logs.get(item.id, ()))

    # -- the tables

    def commands(self) -> Iterator[str]:
        rows: list[tuple[str, ...]] = []
        for record in sorted(self.state.commands.values(), key=lambda c: (int(c.requested), c.id)):
            step = self.state.steps.get(record.step)
            chain = self.state.chains.get(record.chain)
            target = step.name if step else chain.name if chain else "session"
            args = ", ".join(f"{key}={scalar(value)}" for key, value in record.args.items())
            took = between(record.requested, record.ended)
            by = f"{record.actor} via {record.via}" if record.via else record.actor
            became = record.state + (f" in {duration(took)}" if took is not None else "")
            became += f": {record.reason}" if record.reason else ""
            when = moment(record.requested, date=False)
            rows.append((when, f"{record.name} {args}".strip(), target, by, became))
        yield _table("Commands", ("When", "Command", "Target", "By", "Became"), rows)

    def problems(self) -> Iterator[str]:
        rows = [
            (moment(record.at, date=False), record.severity, record.code, record.message)
            for record in sorted(self.state.problems.values(), key=lambda p: (int(p.at), p.id))
        ]
        yield _table("Errors around the session", ("When", "Severity", "Code", "Message"), rows)

    def producers(self) -> Iterator[str]:
        rows: list[tuple[str, ...]] = []
        for record in sorted(self.state.producers.values(), key=lambda p: (int(p.since), p.id)):
            heard: str = "said goodbye" if record.closed else record.liveness
            if not self.origin.live and not record.closed:
                heard = "not known"
            if heard != "not known":
                heard += f", since {moment(record.since)}"
            rows.append((record.agent or record.id, record.subject, heard))
        yield _table("Producers", ("Program", "Subject", "Heard"), rows)


def _kept(rows: list[Row], limit: int) -> list[Row]:
    """The rows that are written: all, or what failed and what is open with all above it, then the first."""
    if len(rows) <= limit:
        return rows
    path: list[int] = []
    above: list[tuple[int, ...]] = []
    for place, row in enumerate(rows):
        del path[row.depth :]
        above.append(tuple(path[-_NESTING:]))
        path.append(place)
    kept: set[int] = set()
    urgent = [
        place for place, row in enumerate(rows) if row.state in OPEN or row.state in ("failed", "crashed")
    ]
    places = iter((*urgent, *range(len(rows))))
    while len(kept) < limit:  # there are more rows than that
        place = next(places)
        kept.update(above[place], (place,))
    return [row for place, row in enumerate(rows) if place in kept]


def _table(title: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{title}</h2><div class=wide role=region tabindex=0 aria-label="{title}">'
        f"<table><tr>{head}</tr>{body}</table></div>\n"
    )
