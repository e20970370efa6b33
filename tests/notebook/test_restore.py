"""``%wsmonitor restore`` in the kernel: which recording, what is answered, the copy, nothing left behind."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import nbformat
import pytest

from tests.export.recorded import PNG, Values, display, ran, recorded, stream
from wsmonitor.client import Connection, PublicationListener, Target, connect
from wsmonitor.export.recording import is_own_magic, recording_of
from wsmonitor.notebook.requests import RefusedError
from wsmonitor.notebook.restore import copying, finding, widget
from wsmonitor.notebook.restore.answers import PAGE, Answers
from wsmonitor.notebook.restore.plan import places
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Listing, Step
from wsmonitor.protocol.errors import NotRecordedError, UsageError
from wsmonitor_server.embedded import EmbeddedServer, ThreadedServer

from .samples import ns


@pytest.fixture
def server() -> Iterator[ThreadedServer]:
    with EmbeddedServer.in_thread() as running:
        yield running


@pytest.fixture
def ada(server: ThreadedServer) -> Iterator[Connection]:
    with connect(Target(url=server.url, token=server.token(sub="ada"), name="ada")) as handle:
        handle.wait_live(10)
        yield handle


def publish(
    connection: Connection, session: str, values: Values, *steps: Step, kind: str = "notebook", path: str = ""
) -> None:
    name = session.partition("~")[0]
    publication = connection.publication(session, "p", PublicationListener(), agent="test")
    publication.submit(SessionChange(name=name, kind=kind, state="running", started=ns(0)))
    for digest, data in values.kept.items():
        assert publication.submit_value(data, digest)
    attributes: dict[str, Any] = {"notebook": path} if path else {}
    publication.submit(
        ChainChange(id="nb", name=name, kind="notebook", state="running", attributes=attributes)
    )
    for step in steps:
        names = ("id", "chain", "name", "kind", "state", "input", "output", "attributes", "started", "ended")
        publication.submit(StepChange(**{field: getattr(step, field) for field in names}))
    assert publication.flush(20)


def cells(*given: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"id": ident, "source": source, "code": True} for ident, source in given]


# -- which recording


@pytest.mark.parametrize(
    ("source", "own"),
    [
        ("%load_ext wsmonitor", True),
        ("# begin\n%load_ext wsmonitor\n%wsmonitor record mine", True),
        ("%wsmonitor restore", True),
        ("%wsmonitor restore\nx = 1", False),
        ("%wsmonitor watch x", False),
        ("", False),
        ("# only words", False),
    ],
)
def test_cells_that_only_record_or_restore_are_known(source: str, own: bool) -> None:
    assert is_own_magic(source) is own


def test_the_notebooks_own_recordings_come_first_and_the_newest_of_them() -> None:
    def listing(name: str, run: int, created: float) -> Listing:
        return Listing(id=f"{name}~{run}", name=name, run=run, kind="notebook", created=ns(created))

    given = [listing("a", 1, 1), listing("b", 1, 9), listing("a", 2, 5)]
    assert [one.id for one in finding.ordered(given, "work/a.ipynb")] == ["a~2", "a~1", "b~1"]
    assert [one.id for one in finding.ordered(given, "")] == ["b~1", "a~2", "a~1"]


@pytest.mark.parametrize(
    ("recorded_as", "path", "same"),
    [
        ("work/a.ipynb", "/home/ada/work/a.ipynb", True),
        ("/home/ada/work/a.ipynb", "work/a.ipynb", True),
        ("other/a.ipynb", "/home/ada/work/a.ipynb", False),
        ("a.ipynb", "/home/ada/aa.ipynb", False),
        ("C:\\work\\a.ipynb", "work/a.ipynb", True),
    ],
)
def test_whether_two_paths_are_one_file(recorded_as: str, path: str, same: bool) -> None:
    assert finding.same_file(recorded_as, path) is same


def test_the_last_recording_in_which_something_ran_is_found(ada: Connection) -> None:
    values = Values()
    publish(ada, "nb~1", values, ran(values, 1, "f()", [stream("1")]))
    publish(ada, "nb~2", values, ran(values, 1, "%load_ext wsmonitor\n%wsmonitor record"))
    publish(ada, "etl~1", values, kind="pipeline")
    assert finding.find(ada, "", "nb.ipynb", 20).session == "nb~1"
    assert finding.find(ada, "nb~2", "", 20).session == "nb~2"
    assert finding.find(ada, "nb", "", 20).session == "nb~1"


def test_of_two_notebooks_recorded_under_one_name_this_one_s_is_meant(ada: Connection) -> None:
    values = Values()
    publish(ada, "lab~1", values, ran(values, 1, "f()", [stream("1")]), path="work/a.ipynb")
    publish(ada, "lab~2", values, ran(values, 1, "f()", [stream("2")]), path="work/b.ipynb")
    assert finding.find(ada, "lab", "/home/ada/work/a.ipynb", 20).session == "lab~1"
    assert finding.find(ada, "lab", "/home/ada/work/b.ipynb", 20).session == "lab~2"
    # Another notebook asks by the name: then it is the newest.
    assert finding.find(ada, "lab", "/home/ada/work/c.ipynb", 20).session == "lab~2"


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("", "no recorded notebook: %wsmonitor record"),
        ("none", "no session 'none'"),
        ("none~1", "no session 'none~1'"),
        ("etl", "no recorded notebook"),
        ("etl~1", "no recorded notebook"),
    ],
)
def test_what_is_not_there_is_said(ada: Connection, wanted: str, why: str) -> None:
    publish(ada, "etl~1", Values(), kind="pipeline")
    with pytest.raises(NotRecordedError, match=why):
        finding.find(ada, wanted, "nb.ipynb", 20)


def test_the_notebooks_path_is_what_its_front_end_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert finding.notebook_path() == ""
    assert finding.notebook_path({"__vsc_ipynb_file__": "/w/v.ipynb"}) == "/w/v.ipynb"
    monkeypatch.setenv("JPY_SESSION_NAME", "/w/j.ipynb")
    assert finding.notebook_path({"__vsc_ipynb_file__": "/w/v.ipynb"}) == "/w/j.ipynb"


# -- what is answered


def answers(values: Values, *steps: Step, own: bool = True) -> Answers:
    recording = recording_of(recorded(*steps))

    def no_copy(_: Any) -> Any:
        raise AssertionError("not asked for")

    return Answers(lambda: recording, values.fetch, values.logs, lambda _: own, no_copy)


def asked(desk: Answers, do: str, **fields: Any) -> tuple[dict[str, Any], list[bytes]]:
    answer = desk.questions()[do].handle({"do": do, "id": "1", **fields})
    assert not hasattr(answer, "result")
    return answer.body, answer.buffers


def test_the_plan_has_a_row_for_each_recorded_cell_in_the_notebooks_order() -> None:
    values = Values()
    desk = answers(
        values,
        ran(values, 1, "\n  first()\nmore()", [stream("1")], cell_id="a"),
        ran(values, 2, "%wsmonitor restore", cell_id="r"),
        ran(values, 3, "second()", [stream("x" * 9000)], cell_id="b"),
        ran(values, 4, "lost()", cell_id="zz"),
        own=False,
    )
    body, _ = asked(desk, "plan", cells=cells(("b", "second()"), ("a", "\n  first()\nmore()"), ("r", "x")))
    rows = [(row["n"], row["how"], row["place"], row["label"], row["outputs"]) for row in body["rows"]]
    assert rows == [
        (2, "id", 0, "second()", None),
        (0, "id", 1, "first()", 1),
        (3, "absent", None, "lost()", 0),
    ]
    assert body["recording"]["own"] is False
    assert body["recording"]["subjects"] == ["ada"]
    json.dumps(body)


def test_a_cell_of_which_little_is_known_is_in_the_plan_with_what_is_known() -> None:
    values = Values()
    silent = ran(values, 1, "\n\n", None, cell_id="a")
    strange = msgspec.structs.replace(
        ran(values, 2, "x", cell_id="b"), output=values.add("not JSON", "text/plain")
    )
    body, _ = asked(answers(values, silent, strange), "plan", cells=cells(("a", "\n\n"), ("b", "x")))
    assert [(row["label"], row["outputs"], row["size"]) for row in body["rows"]] == [
        ("", 0, 0),
        ("x", None, 8),
    ]


def test_outputs_come_page_by_page_and_together_are_what_was_recorded() -> None:
    values = Values()
    text = "ü" * PAGE
    desk = answers(values, ran(values, 7, "x", [stream(text), display(image_png=PNG)]))
    asked(desk, "plan", cells=[])
    body, (page,) = asked(desk, "outputs", n=0, offset=0)
    data = page
    while len(data) < body["size"]:
        _, (page,) = asked(desk, "outputs", n=0, offset=len(data))
        assert 0 < len(page) <= PAGE
        data += page
    found = json.loads(data)
    assert found["outputs"] == [stream(text), display(image_png=PNG)]
    assert found["count"] == 7
    assert found["notes"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 5, "offset": 0},
        {"n": "0", "offset": 0},
        {"n": 0, "offset": -1},
        {"n": 0},
        {"n": None, "offset": 0},
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(fields: dict[str, Any]) -> None:
    values = Values()
    desk = answers(values, ran(values, 1, "x"))
    with pytest.raises(RefusedError, match="before the plan"):
        asked(desk, "outputs", n=0, offset=0)
    asked(desk, "plan", cells=[])
    with pytest.raises(RefusedError):
        asked(desk, "outputs", **fields)


@pytest.mark.parametrize("told", [None, "x", [1], [{}], [{"source": 1}], [{"source": "x"}] * 20_001])
def test_cells_that_are_told_otherwise_are_refused(told: Any) -> None:
    with pytest.raises(UsageError):
        places(told)


# -- the copy


def test_the_copy_is_written_beside_the_notebook_and_over_nothing(tmp_path: Path) -> None:
    values = Values()
    recording = recording_of(recorded(ran(values, 1, "x", [stream("1")])))
    original = tmp_path / "a.ipynb"
    cell = {
        "cell_type": "code",
        "id": "c1",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": "x",
    }
    original.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    first, report = copying.write_copy(recording, values.fetch, values.logs, str(original))
    second, _ = copying.write_copy(recording, values.fetch, values.logs, str(original))
    assert (first.name, second.name) == ("a-restored.ipynb", "a-restored-2.ipynb")
    assert report.cells == 1
    assert nbformat.read(first, as_version=4).cells[0].outputs == [stream("1")]
    assert {path.name for path in tmp_path.iterdir()} == {"a.ipynb", first.name, second.name}


def test_without_the_file_the_recorded_cells_are_written_into_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = Values()
    recording = recording_of(recorded(ran(values, 1, "x", [stream("1")])))
    path, _ = copying.write_copy(recording, values.fetch, values.logs, "nowhere/b.ipynb")
    assert path == tmp_path / "analysis-restored.ipynb"
    assert nbformat.read(path, as_version=4).cells[0].source == "x"


# -- the widget


class Sent:
    """What a widget sends, instead of to a browser."""

    def __init__(self) -> None:
        self.messages: list[tuple[dict[str, Any], list[bytes]]] = []
        self.arrived = threading.Condition()

    def __call__(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        with self.arrived:
            self.messages.append((content, buffers or []))
            self.arrived.notify_all()

    def answer(self, ident: str) -> tuple[dict[str, Any], list[bytes]]:
        def found() -> list[tuple[dict[str, Any], list[bytes]]]:
            return [one for one in self.messages if one[0].get("to") == ident]

        with self.arrived:
            assert self.arrived.wait_for(found, 60)
            return found()[0]


@pytest.fixture
def here(server: ThreadedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WSMONITOR_URL", server.url)
    monkeypatch.setenv("WSMONITOR_TOKEN", server.token(sub="ada"))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    yield
    widget.close()


@pytest.mark.usefixtures("here")
def test_a_browser_gets_the_plan_the_outputs_and_a_copy(
    ada: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    values = Values()
    image = values.reference(base64.b64encode(bytes(3000)), "image/png")
    publish(ada, "nb~1", values, ran(values, 1, "x", [stream("y" * 300_000), display(image_png=image)]))
    shown = widget.restore()
    sent = Sent()
    monkeypatch.setattr(shown, "send", sent)
    shown.hear({"do": "plan", "id": "p", "cells": cells(("c1", "x"))}, live=True)
    plan, _ = sent.answer("p")
    assert plan["ok"], plan
    assert [(row["how"], row["place"]) for row in plan["rows"]] == [("id", 0)]
    assert plan["recording"]["own"] is True
    data, size = b"", 1
    while len(data) < size:
        ident = f"o{len(data)}"
        shown.hear({"do": "outputs", "id": ident, "n": 0, "offset": len(data)}, live=False)
        page, buffers = sent.answer(ident)
        size = page["size"]
        data += buffers[0]
    outputs = json.loads(data)["outputs"]
    assert outputs[0] == stream("y" * 300_000)
    assert base64.b64decode(outputs[1]["data"]["image/png"]) == bytes(3000)
    shown.hear({"do": "copy", "id": "c"}, live=True)
    copied, _ = sent.answer("c")
    assert Path(copied["path"]) == tmp_path / "analysis-restored.ipynb"
    shown.hear({"do": "nonsense", "id": "n"}, live=True)
    refused, _ = sent.answer("n")
    assert refused["ok"] is False


@pytest.mark.usefixtures("here")
def test_there_is_one_widget_at_a_time_and_nothing_is_left_of_it(ada: Connection) -> None:
    values = Values()
    publish(ada, "nb~1", values, ran(values, 1, "x"))
    publish(ada, "nb~2", values, ran(values, 1, "x"))
    first = widget.restore("nb~1")
    assert widget.restore("nb~1") is first
    second = widget.restore("nb~2")
    assert first.closed
    assert not second.closed
    assert "wsmonitor export 'nb~2' -o analysis-restored.ipynb --into work/analysis.ipynb" in repr(second)
    data, _ = second._repr_mimebundle_()
    assert data["text/plain"] == repr(second)
    threads = {thread for thread in threading.enumerate() if thread.name == "wsmonitor-restore"}
    widget.close()
    assert second.closed
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.usefixtures("here")
def test_the_magic_says_what_is_wrong_in_a_line(ada: Connection) -> None:
    from wsmonitor.notebook.subcommands import Call, table

    command = table()["restore"]
    with pytest.raises(NotRecordedError, match="no session 'none'"):
        command.run(Call("restore", ("none",)))
    with pytest.raises(UsageError, match="cannot make sense of"):
        command.run(Call("restore", ("a", "b")))
    assert "Undo" in command.help()
