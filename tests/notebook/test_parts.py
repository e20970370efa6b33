"""The small widgets: what they know, what they send, and whose observer they close."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

import wsmonitor as wm
from wsmonitor.client import connections
from wsmonitor.notebook import kernel_channel
from wsmonitor.notebook.observer import observers
from wsmonitor.notebook.parts import Chosen, Part
from wsmonitor_server.embedded import EmbeddedServer

PARTS = [wm.ConnectionStatus, wm.Heartbeat, wm.EventLog, wm.SessionTree]


def eventually(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait until *condition* gives something true, and give that."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not (result := condition()):
        assert time.monotonic() < deadline, what
        pause.wait(0.005)
    return result


@pytest.fixture
def place() -> Iterator[dict[str, Any]]:
    with EmbeddedServer.in_thread() as server:
        yield {"url": server.url, "token": server.token(sub="ada", role="admin")}
        for observer in observers():
            observer.close()


def run(place: dict[str, Any], name: str = "job") -> None:
    with wm.session(name, **place) as session, session.chain("load") as chain, chain.step("read"):
        pass


def test_a_part_takes_an_observer_or_what_watch_takes_and_shares_it(place: dict[str, Any]) -> None:
    observer = wm.watch("job", **place)
    for cls in PARTS:
        part = cls(observer)
        assert part.observer is observer
        assert cls("job", **place) is part, "the same call gives the same part"
        assert cls("job", new=True, **place) is not part
    assert len(observers()) == 1
    assert connections() == 1
    with pytest.raises(TypeError, match="url cannot be changed"):
        wm.Heartbeat(observer, url="ws://127.0.0.1:1")
    with pytest.raises(wm.UsageError, match="not a session's name"):
        wm.Heartbeat("a\nb")
    observer.close()
    with pytest.raises(wm.UsageError, match="closed"):
        wm.Heartbeat(observer)


def test_what_the_parts_know_when_waiting_has_ended(place: dict[str, Any]) -> None:
    observer = wm.watch("job", **place)
    status, heart, log, tree = (cls(observer) for cls in PARTS)
    run(place)
    observer.wait(30)
    assert (status.phase, status.live, status.state, status.reason) == ("live", True, "succeeded", "")
    assert status.seq == heart.seq == log.seq == tree.seq == observer.seq
    assert tree.state == "succeeded"
    assert heart.producer == "closed"
    assert status.rtt is None or 0 <= status.rtt < 60
    assert 0 <= status.age == pytest.approx(heart.age, abs=30)
    assert log.last
    for part in (status, heart, log, tree):
        for name in ("phase", "live", "seq", "state"):
            if part.has_trait(name):
                with pytest.raises(Exception, match="read-only"):
                    setattr(part, name, "x")


def test_a_lost_link_is_told(place: dict[str, Any]) -> None:
    with EmbeddedServer.in_thread() as server:
        other = {"url": server.url, "token": server.token(sub="ada", role="admin")}
        status, heart = wm.ConnectionStatus("job", **other), wm.Heartbeat("job", **other)
        run(other)
        status.observer.wait(30)
        eventually(lambda: status.live, "it is live")
        seen: list[bool] = []
        status.observe(lambda change: seen.append(change["new"]), "live")
        server.stop()
        eventually(lambda: status.phase == "waiting", "the loss is told")
        assert (status.live, heart.live, heart.producer) == (False, False, "")
        assert status.reason
        assert seen == [False]
        heart.close()
        status.close()


def test_the_observer_goes_with_the_last_part_that_made_it_and_not_before(place: dict[str, Any]) -> None:
    status, heart = wm.ConnectionStatus("job", **place), wm.Heartbeat("job", **place)
    observer = status.observer
    status.close()
    status.close()
    assert not observer.closed
    heart.close()
    assert observer.closed
    assert (observers(), connections()) == ([], 0)

    status = wm.ConnectionStatus("job", **place)
    observer = wm.watch("job", **place)
    assert observer is status.observer
    status.close()
    assert not observer.closed, "somebody else has it now"
    tree = wm.SessionTree(observer)
    observer.close()
    assert tree.closed, "nothing is left to be shown"
    assert repr(tree) == "SessionTree('job'), closed"


def test_a_cell_that_is_run_a_hundred_times_leaves_one(place: dict[str, Any]) -> None:
    before = len(_instances)
    for _ in range(100):
        tree = wm.SessionTree("job", **place)
    assert tree.observer.companions == [tree]
    tree.close()
    assert len(_instances) == before, "the part, its layout, its observer and that one's layout are gone"


def test_what_changes_by_itself_is_never_sent_and_never_taken_from_a_browser(place: dict[str, Any]) -> None:
    observer = wm.watch("job", **place)
    parts = [cls(observer) for cls in PARTS]
    sent: list[tuple[str, Any]] = []
    for part in parts:
        part.send_state = lambda key=None, part=part: sent.append((type(part).__name__, key))
    run(place)
    observer.wait(30)
    assert sent == []
    status = parts[0]
    status.set_state({"live": False, "seq": 7, "phase": "closed", "age": 3})
    assert (status.live, status.phase, status.seq) == (True, "live", observer.seq)


def test_what_a_reader_chooses_arrives_on_the_callbacks_thread_and_is_not_sent_back(
    place: dict[str, Any],
) -> None:
    tree = wm.SessionTree("job", **place)
    run(place)
    snapshot = tree.observer.wait(30)
    step, chain = next(iter(snapshot.steps)), next(iter(snapshot.chains))
    sent: list[Any] = []
    tree.send_state = lambda key=None: sent.append(key)
    seen: list[tuple[str, str]] = []
    tree.observe(lambda change: seen.append((change["new"], threading.current_thread().name)), "selected")
    tree.hear({"do": "select", "row": f"s:{step}", "by": "b", "n": 2}, live=True)
    eventually(lambda: seen, "it is told")
    tree.hear({"do": "select", "row": "c:late", "by": "b", "n": 1}, live=False)
    assert seen == [(f"s:{step}", "wsmonitor-callbacks")]
    assert sent == []
    assert tree.record == snapshot.steps[step]
    tree.selected = f"c:{chain}"
    assert tree.record == snapshot.chains[chain]
    assert sent == ["selected"], "what the program chooses, the browser is told"
    tree.selected = "s:nothing"
    assert tree.record is None


def test_the_channel_finds_a_part_by_its_token(place: dict[str, Any]) -> None:
    tree = wm.SessionTree("job", **place)
    assert kernel_channel._listeners.get(tree._token) is tree
    tree.close()
    assert tree._token not in kernel_channel._listeners


def test_a_callback_that_fails_is_told_and_stops_nothing(place: dict[str, Any]) -> None:
    tree = wm.SessionTree("job", **place)
    tree.observe(lambda change: 1 / 0, "selected")
    tree.hear({"do": "select", "row": "s:x", "by": "b", "n": 1}, live=True)
    errors = eventually(lambda: tree.observer.errors, "it is told")
    assert errors[0].message == "ZeroDivisionError: division by zero"
    run(place)
    tree.observer.wait(30)
    assert tree.state == "succeeded"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": "select"},
        {"do": "select", "row": 1, "by": "b", "n": 1},
        {"do": "select", "row": "x" * 501, "by": "b", "n": 1},
        {"do": "select", "row": "x", "by": None, "n": 1},
        {"do": "select", "row": "x", "by": "b", "n": "1"},
    ],
)
def test_what_is_no_choice_is_none(message: dict[str, Any]) -> None:
    assert Chosen().take(message) is None


def test_choices_of_many_views_take_bounded_room() -> None:
    chosen = Chosen()
    for n in range(1_000):
        assert chosen.take({"do": "select", "row": "r", "by": str(n), "n": 1}) == "r"
    assert len(chosen._numbers) <= 50


@pytest.mark.parametrize("cls", PARTS)
def test_what_is_displayed_is_the_same_whatever_the_session_does(
    cls: type[Part], place: dict[str, Any]
) -> None:
    part = cls("a<b", **place)
    before = part._repr_mimebundle_()[0]
    assert before["text/plain"] == f"{cls.__name__}('a<b')"
    assert "a&lt;b" in before["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in before
    run(place, "a<b")
    part.observer.wait(30)
    assert part._repr_mimebundle_()[0]["text/html"] == before["text/html"]


def test_parts_compose_and_link(place: dict[str, Any]) -> None:
    status, tree = wm.ConnectionStatus("job", **place), wm.SessionTree("job", **place)
    label, text = ipywidgets.Label(), ipywidgets.Text()
    box = ipywidgets.VBox([status, tree, label])
    assert box.children[0] is status
    ipywidgets.jslink((status, "phase"), (label, "value"))
    traits = ["live", "seq", "phase", "reason", "attempt", "rtt", "age", "state", "watching"]
    assert all(status.trait_metadata(name, "sync") for name in traits)
    ipywidgets.link((tree, "selected"), (text, "value"))
    text.value = "s:here"
    assert tree.selected == "s:here"
    ipywidgets.dlink((status, "state"), (label, "value"))
    run(place)
    status.observer.wait(30)
    assert label.value == "succeeded"
