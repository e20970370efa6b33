"""The JSON document and the HTML page."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser

import msgspec
import pytest

from wsmonitor.export import Origin, from_json, to_html, to_json
from wsmonitor.export.document import FORMAT
from wsmonitor.export.frames import HIGHEST, LOWEST, STYLES
from wsmonitor.export.pieces import text_of_html
from wsmonitor.protocol.entities import (
    Chain,
    Entity,
    Failure,
    LogRecord,
    Producer,
    Progress,
    Session,
    Step,
)
from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.reducer import SessionState

from .samples import etl, ns, value

LIVE = Origin(exported=ns(141), as_of=ns(140), server="ws://127.0.0.1:4711", version="0.1")
LOST = Origin(exported=ns(191), as_of=ns(140), live=False)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in {"meta", "rect", "input", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def test_the_document_writes_every_field_and_reads_back_as_the_same_records() -> None:
    state = etl()
    told = msgspec.json.decode(to_json(state, LIVE))
    assert told["format"] == FORMAT
    assert told["position"] == {"epoch": "7f3a", "seq": 40, "digest": state.digest}
    assert told["session"]["reason"] == ""
    assert {step["id"] for step in told["steps"]} == set(state.steps)
    again = SessionState.restore(
        state.topic,
        "7f3a",
        40,
        [
            ("session", msgspec.convert(told["session"], Session)),
            *(("step", msgspec.convert(step, Step)) for step in told["steps"]),
            *(("chain", msgspec.convert(chain, Chain)) for chain in told["chains"]),
        ],
    )
    assert again.steps == state.steps
    assert again.chains == state.chains
    assert again.session == state.session


def test_the_document_is_read_back_whole_and_a_damaged_one_is_refused() -> None:
    state = etl()
    logs = {"s5": [LogRecord(n=1, at=ns(110), text="batch 1")]}
    data = to_json(state, LOST, logs)
    again, origin, lines = from_json(data)
    assert (again.topic, again.epoch, again.seq, again.digest) == (state.topic, "7f3a", 40, state.digest)
    assert (origin, lines) == (LOST, logs)
    assert to_json(again, origin, lines) == data
    with pytest.raises(UsageError, match="damaged"):
        from_json(data.replace(b"read manifest", b"read something"))
    for other in (
        b"{",
        b"[]",
        b'{"format": "x"}',
        data[: len(data) // 2],
        b'{"format": "wsmonitor.session/1"}',
    ):
        with pytest.raises(UsageError, match="not a session's document"):
            from_json(other)


def test_the_document_holds_the_log_records_it_is_given() -> None:
    logs = {"s5": [LogRecord(n=1, at=ns(110), text="batch 1")]}
    told = msgspec.json.decode(to_json(etl(), LIVE, logs))
    assert told["logs"] == {
        "s5": [{"n": 1, "at": ns(110), "level": "info", "text": "batch 1", "truncated": False}]
    }


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_page_stands_alone_and_its_policy_allows_what_is_in_it_only() -> None:
    page = to_html(etl(), LIVE)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert style is not None
    assert script is not None
    policy = next(attrs["content"] for tag, attrs in _tags(page) if "http-equiv" in attrs)
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{_digest(style[1])}'; "
        f"script-src 'sha256-{_digest(script[1])}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    for tag, attrs in _tags(page):
        assert tag not in {"link", "img", "iframe", "a", "object"}
        assert not set(attrs) & {"style", "src", "href"}
        assert not any(name.startswith("on") for name in attrs)
    assert "url(" not in page


def test_no_text_of_a_session_becomes_markup() -> None:
    evil = "<script>alert(1)</script>\"'&\x00\x1b[31m"
    step = Step(
        id="s", chain="c", name=evil, state="failed", reason=evil, attributes={evil: evil}, tags=(evil,),
        input=value(evil, mime="text/plain"), output=value(f"<b onclick=x>{evil}</b>", mime="text/html"),
        log_count=1, log_last=evil,
    )  # fmt: skip
    state = SessionState.restore(
        "s",
        "e",
        3,
        [
            ("session", Session(id="s", name=evil, reason=evil)),
            ("chain", Chain(id="c", name=evil)),
            ("step", step),
        ],
    )
    page = to_html(state, LIVE)
    assert page.count("<script") == 1
    assert "\x00" not in page
    assert "\x1b" not in page
    assert "onclick" not in page
    assert {tag for tag, _ in _tags(page)} <= {
        "html", "head", "meta", "title", "style", "body", "main", "div", "h1", "h2", "h3", "span", "p", "b",
        "svg", "rect", "details", "summary", "pre", "table", "tr", "th", "td", "footer", "code",
        "input", "select", "option", "button", "script",
    }  # fmt: skip


def test_a_copy_made_while_the_link_was_down_says_so_and_speaks_in_the_past_tense() -> None:
    page = to_html(etl(), LOST)
    assert "Nothing newer was heard from the server." in page
    assert "was running" in page
    assert ">running<" not in page
    assert "not known" in page  # the producer's liveness


def test_a_live_copy_of_an_open_session_says_that_it_may_have_ended_since() -> None:
    assert "may have ended since" in to_html(etl(), LIVE)
    assert "may have ended since" not in to_html(etl(state="succeeded"), LIVE)


def test_a_copy_made_while_a_program_was_not_heard_says_since_when_and_speaks_in_the_past_tense() -> None:
    state = etl()
    state.put("producer", Producer(id="p1", since=ns(120), liveness="lost"))
    page = to_html(state, LIVE)
    assert "<b>A program was not heard</b> since 2026-11-18 11:08:40 UTC" in page
    assert "▶ was running" in page
    assert "1 was running" in page
    assert "<span class=soft>2:00</span>" in page


def test_of_a_session_that_has_ended_nothing_is_said_to_run() -> None:
    page = to_html(etl(state="failed"), LIVE)
    assert "✕ failed" in page
    assert "1 was running" in page
    assert "was not heard" not in page


def test_what_is_cut_says_how_much_is_missing() -> None:
    page = to_html(etl(), LIVE)
    assert "the first 14 B of 18.1 MiB" in page
    assert "only the last line is in this file" in page


def test_a_session_that_is_not_there_gives_a_page_that_says_so() -> None:
    assert "No such session as of" in to_html(SessionState("ghost", "e"), LIVE)


def test_a_very_deep_tree_does_not_nest_deeper_than_parsers_allow() -> None:
    steps = [Step(id=str(n), chain="c", parent=str(n - 1) if n else "", name=str(n)) for n in range(800)]
    state = SessionState.restore(
        "s", "e", 1, [("chain", Chain(id="c", name="c")), *(("step", step) for step in steps)]
    )
    page = to_html(state, LIVE)
    assert page.count("<div class=row ") + page.count("<summary class=row ") == 801
    depth = deepest = 0
    for mark in re.findall(r"</?details", page):
        depth += 1 if mark == "<details" else -1
        deepest = max(deepest, depth)
    assert depth == 0
    assert deepest < 100


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<table><tr><th>a<th>b</tr><tr><td>1</td><td>2</td></tr></table>", "ab\n1\t2"),
        ("<style>p{}</style><p>one</p><p>two &lt;3</p><script>x</script>", "one\ntwo <3"),
    ],
)
def test_html_that_was_published_is_shown_as_its_text(source: str, text: str) -> None:
    assert text_of_html(source) == text


def recorded(*outputs: dict[str, object], state: str = "succeeded") -> SessionState:
    document = msgspec.json.encode({"outputs": outputs, "dropped": {}}).decode()
    cell = Step(
        id="s", chain="c", name="cell", kind="cell", state=state, started=ns(0), ended=ns(1),  # type: ignore[arg-type]
        output=value(document, mime="application/vnd.wsmonitor.outputs+json"),
    )  # fmt: skip
    entities = [("session", Session(id="s", name="s", kind="notebook")), ("chain", Chain(id="c", name="c"))]
    return SessionState.restore("s", "e", 1, [*entities, ("step", cell)])


def shown(**data: object) -> dict[str, object]:
    mimes = {name.replace("__", "+").replace("_", "/", 1): datum for name, datum in data.items()}
    return {"output_type": "display_data", "data": mimes, "metadata": {}}


def test_outputs_of_recorded_cells_are_shown_and_can_do_no_harm() -> None:
    state = recorded(
        {"output_type": "stream", "name": "stdout", "text": "\x1b[31mred\x1b[0m <b>"},
        {
            "output_type": "error", "ename": "KeyError", "evalue": "x",
            "traceback": ["\x1b[0;31mTrace\x1b[0m", "<i>"],
        },
        shown(image_png="iVBORw0K\nGgo=", text_plain="<figure>"),
        shown(image_svg__xml="<svg><script>alert(1)</script></svg>"),
        shown(text_html="<script>alert(1)</script><table>", text_plain="t"),
        shown(text_plain="<plain>"),
        shown(image_png='"><script>alert(1)</script>', text_plain="not a picture"),
        shown(**{"application_x-odd": "<odd>"}),
    )  # fmt: skip
    page = to_html(state, LIVE)
    assert "<pre>red &lt;b&gt;</pre>" in page
    assert "<pre class=bad>Trace\n&lt;i&gt;</pre>" in page
    assert '<img src="data:image/png;base64,iVBORw0KGgo=" alt="&lt;figure&gt;">' in page
    assert '<img src="data:image/svg+xml;base64,' in page
    frames = [attrs for tag, attrs in _tags(page) if tag == "iframe"]
    assert [set(attrs) for attrs in frames] == [{"sandbox", "srcdoc", "height", "title"}]
    assert not frames[0]["sandbox"]
    assert str(frames[0]["srcdoc"]).endswith("</style><script>alert(1)</script><table>")
    assert "<pre>&lt;plain&gt;</pre>" in page
    assert "<pre>not a picture</pre>" in page
    assert "<pre>&lt;odd&gt;</pre>" in page
    assert page.count("<script") == 1


def _styled(*pages: str) -> tuple[str, list[str]]:
    """The file of a cell with these HTML outputs: its policy's word on styles, and the frames' heights."""
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": page}} for page in pages]
    tags = _tags(to_html(recorded(*outputs), LIVE))
    policy = next(str(attrs["content"]) for _, attrs in tags if "http-equiv" in attrs)
    told = re.search(r"style-src ([^;]*);", policy)
    assert told is not None
    return told[1], [str(attrs["height"]) for tag, attrs in tags if tag == "iframe"]


def test_the_styles_of_recorded_html_are_named_by_the_policy_and_no_others() -> None:
    sheet, attribute = "\n.a > b { color: red }\r\n", 'color: blue; content: "é"'
    page = f"<style scoped>{sheet}</style><p style='{html.escape(attribute)}'>x</p><i style>y</i>"
    told, _ = _styled(page)
    assert f"'sha256-{_digest(sheet.replace(chr(13), ''))}'" in told
    assert f"'sha256-{_digest(attribute)}'" in told
    assert "'unsafe-hashes'" in told
    assert told.count("sha256-") == 4, "the page's own, that of all frames, and these two"
    assert "unsafe-inline" not in told
    plain, _ = _styled("<p>x</p>")
    assert plain.count("sha256-") == 2
    assert "unsafe" not in plain


def test_a_table_with_very_many_styles_does_not_make_the_policy_longer_than_its_bound() -> None:
    told, _ = _styled("".join(f"<p style='width: {n}px'>x</p>" for n in range(STYLES * 2)))
    assert told.count("sha256-") == STYLES + 1


def test_a_frame_is_about_as_high_as_what_is_in_it() -> None:
    _, (low, some, high) = _styled("<b>x</b>", "<table>" + "<tr><td>1" * 6, "<table>" + "<tr><td>1" * 500)
    assert (int(low), int(high)) == (LOWEST, HIGHEST)
    assert 150 <= int(some) <= 220


def test_of_thousands_of_attempts_the_newest_are_told_and_the_rest_counted() -> None:
    attempts = [
        Step(
            id=f"s{n}", chain="c", name="again", step_key="k", attempt=n, state="failed",
            started=ns(n), ended=ns(n + 1), error=Failure(type="E", message=f"try {n}."),
        )
        for n in range(1, 3001)
    ]  # fmt: skip
    whole = [("session", Session(id="s~1", name="s")), ("chain", Chain(id="c", name="c"))]
    state = SessionState.restore("s~1", "e", 1, [*whole, *(("step", one) for one in attempts)])
    page = to_html(state, LIVE)
    assert len(page) < 200_000
    assert "2,979 attempts that failed before are not told" in page
    assert "try 2999." in page
    assert "try 2979." not in page


def test_large_outputs_are_fetched_and_what_is_not_there_is_said() -> None:
    data = b"iVBORw0KGgo="
    digest = hashlib.sha256(data).hexdigest()
    large = {"$value": {"sha256": digest, "size": len(data), "mime": "image/png"}}
    state = recorded(shown(image_png=large, text_plain="a figure"))
    assert "no longer kept" in to_html(state, LIVE)
    page = to_html(state, LIVE, fetch=lambda sha256, size: data if sha256 == digest else None)
    assert '<img src="data:image/png;base64,iVBORw0KGgo=" alt="a figure">' in page


def test_of_very_many_rows_the_failed_and_the_open_are_kept_and_the_rest_is_counted() -> None:
    steps = [
        Step(
            id=f"s{n}",
            chain="c",
            name=f"step {n}",
            created=ns(n),
            state="failed" if n == 990 else "succeeded",
        )
        for n in range(1_000)
    ]
    under = Step(id="u", chain="c", parent="s999", name="under", created=ns(1_001), state="running")
    state = SessionState.restore(
        "s", "e", 1, [("chain", Chain(id="c", name="c")), *(("step", step) for step in [*steps, under])]
    )
    page = to_html(state, LIVE, row_limit=100)
    assert page.count("class=row ") == 100
    assert "902 rows of 1,002 are not in this file" in page
    for name in ("step 990", "step 999", "under", "step 0"):
        assert f">{name}</span>" in page
    assert "are not in this file" not in to_html(state, LIVE)


# ---------------------------------------------------------------------- parts of the page


def test_of_many_failures_the_first_are_told_and_the_rest_counted() -> None:
    entities: list[tuple[str, Entity]] = [
        ("session", Session(id="s", name="s", state="running", metrics={"rows": 12_345})),
        ("chain", Chain(id="c", name="load")),
        *(
            (
                "step",
                Step(id=f"s{n}", chain="c", name=f"part {n}", state="failed", error=Failure(message=f"m{n}")),
            )
            for n in range(20)
        ),
    ]
    page = "".join(to_html(SessionState.restore("s", "e", 9, entities), LIVE))
    _tags(page)
    alarm = page.partition('role="note"')[2].partition("</div>")[0]
    told = alarm.count("✕ part")
    assert 0 < told < 20
    assert f"and {20 - told} more failures, marked ✕ below" in alarm


def test_a_session_of_which_nothing_has_arrived_is_a_page() -> None:
    page = "".join(to_html(SessionState("s", "e"), LIVE))
    _tags(page)
    assert "The session itself" not in page


def test_what_is_told_of_the_session_itself_stands_below_its_steps() -> None:
    session = Session(id="s", name="s", state="running", attributes={"seed": 4711}, metrics={"rows": 3})
    page = "".join(to_html(SessionState.restore("s", "e", 1, [("session", session)]), LIVE))
    _tags(page)
    own = text_of_html(page.partition("The session itself")[2])
    assert "seed" in own
    assert "4711" in own
    assert "rows" not in own, "metrics stand above"


def test_a_step_of_unknown_end_has_no_time_and_one_with_lines_says_how_many() -> None:
    steps = [
        Step(id="a", chain="c", name="lost", state="crashed", started=ns(1)),
        Step(id="b", chain="c", name="wordy", state="succeeded", started=ns(1), ended=ns(3), log_count=1234),
        Step(
            id="d",
            chain="c",
            parent="gone",
            name="stray",
            started=ns(1),
            state="running",
            progress=Progress(done=3, total=4),
        ),
    ]
    state = SessionState.restore("s", "e", 1, [("step", step) for step in steps])
    page = "".join(to_html(state, LIVE))
    text = text_of_html(page)
    for words in ("1,234 log lines", "chain not known", "parent not known", "3 of 4"):
        assert words in text, words
