"""The list of sessions: its view by itself, and the widget against a real server."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances

import wsmonitor as wm
from tests.notebook.samples import T0, live_status, ns
from wsmonitor.client import connections
from wsmonitor.notebook.listings import Listings, listing_row
from wsmonitor.notebook.observer import observers
from wsmonitor.notebook.sender import Large
from wsmonitor.notebook.view import Now
from wsmonitor.protocol.entities import Listing
from wsmonitor_server.embedded import EmbeddedServer

NOW = Now(1000.0, T0 + 134)


def eventually(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait until *condition* gives something true, and give that."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        pause.wait(0.005)
    return result


def listing(n: int, **more: Any) -> Listing:
    return Listing(
        **{"id": f"job~{n:026}", "name": "job", "run": n, "state": "succeeded", "created": ns(n), **more}
    )


def test_a_row_says_what_there_is_and_leaves_out_the_rest() -> None:
    assert listing_row(listing(1)) == {
        "id": f"job~{1:026}", "name": "job", "run": 1, "state": "succeeded", "at": round((T0 + 1) * 1000),
    }  # fmt: skip
    row = listing_row(
        listing(
            2, state="running", liveness="lost", counts={"running": 1, "failed": 0}, problem="no\ngood",
            reason="r", kind="etl", started=ns(3),
        )
    )  # fmt: skip
    assert (row["liveness"], row["counts"], row["problem"]) == ("lost", {"running": 1}, "no good")
    assert "liveness" not in listing_row(listing(3, liveness="lost")), "after the end it means nothing"


def test_changes_are_told_once_and_nothing_is_told_when_nothing_changed() -> None:
    view = Listings()
    view.connection(live_status(NOW))
    view.subscription("live", "")
    view.replace([listing(1), listing(2)])
    view.position("e", 2)
    first = view.frame(NOW)
    assert first is not None
    assert [row["run"] for row in first["rows"]] == [2, 1]
    assert (first["head"]["total"], first["head"]["states"]) == (2, {"succeeded": 2})
    assert view.frame(Now(NOW.mono + 5, NOW.wall + 5.0004)) is None
    view.put(listing(2, state="failed"))
    view.drop(listing(1).id)
    change = view.frame(NOW)
    assert change is not None
    assert ([row["state"] for row in change["rows"]], change["gone"]) == (["failed"], [listing(1).id])
    key = view.key(NOW)
    assert (key["n"], key["log"], [row["run"] for row in key["rows"]]) == (2, [], [2])
    view.drop(listing(1).id)
    assert view.frame(NOW) is None, "it was not there any more"


def test_very_many_travel_by_pages_the_open_and_the_newest_first() -> None:
    view = Listings()
    assert isinstance(view, Large)
    view.replace([*(listing(n) for n in range(2, 20_000)), listing(1, state="running")])
    frame = view.frame(NOW)
    assert frame is not None
    assert "rows" not in frame
    key = view.key(NOW)
    assert len(json.dumps(key)) < 100_000
    assert (key["head"]["total"], key["head"]["shown"]) == (19_999, 5_000)
    assert key["pages"] == frame["pages"] == [1] * view.pages
    told = [row["run"] for page in range(view.pages) for row in view.page(page)]
    assert sorted(told) == [1, *range(15_001, 20_000)]
    view.put(listing(19_999, state="failed"))
    view.drop(listing(19_998).id)
    change = view.frame(NOW)
    assert change is not None
    assert [row["run"] for row in change["rows"]] == [19_999, 15_000]
    assert len(change["on"]) == 2
    assert change["gone"] == [listing(19_998).id]
    assert len([row for page in range(view.pages) for row in view.page(page)]) == 5_000
    assert view.page(99) == []


def test_while_nobody_looks_the_rows_wait() -> None:
    view = Listings()
    view.replace([listing(1)])
    view.frame(NOW)
    assert view.glance(NOW) is None
    view.put(listing(2, state="running"))
    glance = view.glance(NOW)
    assert glance is not None
    assert (glance["head"]["total"], glance["behind"], "rows" in glance) == (2, 1, False)
    frame = view.frame(NOW)
    assert frame is not None
    assert [row["run"] for row in frame["rows"]] == [2]


@pytest.fixture
def server() -> Iterator[Any]:
    with EmbeddedServer.in_thread() as running:
        yield running
        for observer in observers():
            observer.close()


@pytest.fixture
def place(server: Any) -> dict[str, Any]:
    return {"url": server.url, "token": server.token(sub="ada", role="admin")}


def run(name: str, place: dict[str, Any], *, fail: bool = False) -> str:
    with wm.session(name, **place) as session:
        try:
            with session.chain("load") as chain, chain.step("read"):
                if fail:
                    raise ValueError("no good")
        except ValueError:
            pass
    return session.id


def test_sessions_appear_change_and_go(place: dict[str, Any]) -> None:
    board = wm.SessionList(**place)
    assert (board.count, board.sessions) == (0, ())
    eventually(lambda: board.live, "it is verified")
    seen: list[int] = []
    board.observe(lambda change: seen.append(change["new"]), "count")
    with wm.session("etl", **place) as session:
        eventually(lambda: board.states == {"running": 1}, "it appears")
    run("report", place)
    eventually(lambda: board.states == {"succeeded": 2}, "it ends")
    assert [one.name for one in board.sessions] == ["report", "etl"]
    assert board.sessions[1].id == session.id
    assert seen == sorted(seen)
    board.close()
    assert repr(board) == "SessionList()"


def test_the_same_call_is_the_same_list_and_nothing_remains_after_it(place: dict[str, Any]) -> None:
    before = len(_instances)
    board = wm.SessionList(**place)
    assert all(wm.SessionList(**place) is board for _ in range(100))
    only = wm.SessionList("etl", **place)
    assert only is not board
    other = wm.SessionList(new=True, **place)
    assert wm.SessionList(**place) is board
    assert connections() == 1
    for each in (board, only, other):
        each.close()
        each.close()
    assert connections() == 0
    assert len(_instances) == before
    assert wm.SessionList(**place) is not board
    wm.SessionList(**place).close()
    with pytest.raises(wm.UsageError, match="not a session's name"):
        wm.SessionList("a\nb", **place)


def test_one_name_lists_its_runs_only(place: dict[str, Any]) -> None:
    board = wm.SessionList("etl", **place)
    run("report", place)
    run("etl", place)
    run("etl", place)
    eventually(lambda: board.count == 2, "both runs are listed")
    assert [one.run for one in board.sessions] == [2, 1]
    assert repr(board) == "SessionList('etl')"
    board.close()


def test_only_what_the_token_covers_is_listed(server: Any, place: dict[str, Any]) -> None:
    narrow = server.token(sub="bob", role="observe", sessions=["etl*"])
    board = wm.SessionList(url=server.url, token=narrow)
    run("report", place)
    run("etl", place)
    eventually(lambda: board.count == 1, "one is listed")
    assert [one.name for one in board.sessions] == ["etl"]
    head = eventually(lambda: board._key.get("head", {}).get("total") and board._key["head"], "it is sent")
    assert head["link"]["covers"] == ["etl*"]
    board.close()


def test_choosing_calls_back_on_the_callbacks_thread(place: dict[str, Any]) -> None:
    ident = run("etl", place)
    board = wm.SessionList(**place)
    with pytest.raises(wm.UsageError, match="no session is chosen"):
        board.watch()
    seen: list[tuple[str, str]] = []

    def choose(chosen: str) -> None:
        seen.append((chosen, threading.current_thread().name))

    board.on_select(lambda chosen: 1 / 0)
    board.on_select(choose)
    sent: list[Any] = []
    board.send_state = lambda key=None: sent.append(key)
    board.hear({"do": "select", "row": ident, "by": "b", "n": 1}, live=True)
    eventually(lambda: seen, "it is told")
    assert seen == [(ident, "wsmonitor-callbacks")]
    assert board.selected == ident
    assert "selected" not in sent
    eventually(lambda: any("ZeroDivisionError" in error.message for error in board.errors), "it is told")
    observer = board.watch()
    assert observer.wait(30).id == ident
    board.on_select(choose, remove=True)
    board.selected = ""
    board.selected = ident
    assert len(seen) == 1
    board.close()
    assert not observer.closed, "it is the caller's"


def test_opened_it_shows_the_chosen_session_and_closes_what_it_opened(place: dict[str, Any]) -> None:
    first, second = run("etl", place), run("report", place)
    board = wm.SessionList(open=True, **place)
    board._ipython_display_()
    panel = board._panel
    assert panel is not None
    assert panel.children == (board,)
    board.selected = first
    opened = panel.children[1]
    assert opened.target == first
    board.selected = second
    assert opened.closed
    assert panel.children[1].target == second
    mine = wm.watch(second, **{**place, "name": board._place["name"]})
    assert mine is panel.children[1]
    board.selected = ""
    assert panel.children == (board,)
    assert not mine.closed, "somebody else has it"
    board.close()


def test_thousands_reach_the_browser_in_small_messages(place: dict[str, Any]) -> None:
    board = wm.SessionList(**place)
    eventually(lambda: board.live, "it is verified")
    sent: list[tuple[dict[str, Any], list[bytes]]] = []
    board.send_message = lambda message, buffers=None: sent.append((message, list(buffers or [])))
    with board._lock:
        board._whole = [listing(n) for n in range(1, 4_001)]
    board.hear({"do": "hello"}, live=True)
    board.changed()
    asked = {"do": "pages", "want": list(range(8))}

    def came() -> set[int]:
        return {part["p"] for message, _ in sent if message["type"] == "page" for part in message["pages"]}

    eventually(lambda: "pages" in board._key, "the key frame tells the pages")
    board.hear(asked, live=True)
    eventually(lambda: came() == set(range(8)), "all pages come")
    for message, buffers in sent:
        assert len(json.dumps(message)) + sum(map(len, buffers)) < 256 * 1024
    rows = {
        row["id"]
        for message, buffers in sent
        if message["type"] == "page"
        for buffer in buffers
        for row in json.loads(zlib.decompress(buffer))
    }
    assert len(rows) == 4_000
    board.close()


def test_a_lost_server_is_told(place: dict[str, Any]) -> None:
    with EmbeddedServer.in_thread() as server:
        board = wm.SessionList(url=server.url, token=server.token(sub="ada", role="admin"))
        eventually(lambda: board.live, "it is verified")
        server.stop()
        eventually(lambda: not board.live, "the loss is told")
        eventually(lambda: board.errors, "it is among the errors")
        html = board._static_copy(board.sessions)
        assert "Nothing newer was heard from the server: this is what was known at 20" in html
        board.close()


def test_the_static_copy_has_its_time(place: dict[str, Any]) -> None:
    from wsmonitor.notebook.trace import BEGIN, END

    run("a<b", place)
    board = wm.SessionList(**place)
    eventually(lambda: board.count == 1, "it is listed")
    html = board._static_copy(board.sessions)
    assert "1 session, as of 20" in html
    assert "UTC" in html
    assert "a&lt;b" in html
    assert html.index(BEGIN) < html.index("a&lt;b") < html.index(END)
    bundle = board._repr_mimebundle_()[0]
    assert bundle["text/plain"] == "SessionList()"
    board.close()
