"""A recorded notebook as a notebook file: valid whatever was published, and honest about what is missing."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.export.recorded import PNG, Values, display, ran, recorded, stream
from tests.export.samples import ns
from wsmonitor.export.cells import MARK, outputs_of
from wsmonitor.export.notebook import Report, notebook_file, notebook_into, read_notebook
from wsmonitor.export.recording import Run, recording_of, stem
from wsmonitor.protocol.entities import LogRecord, Step
from wsmonitor.protocol.errors import ConfigurationError, NotRecordedError
from wsmonitor.protocol.reducer import SessionState


def written(state: SessionState, values: Values, report: Report | None = None) -> Any:
    """The file as Jupyter reads it, found valid."""
    data = b"".join(notebook_file(recording_of(state), values.fetch, values.logs, report or Report()))
    return checked(data)


def put_into(state: SessionState, values: Values, original: Any, report: Report | None = None) -> Any:
    data = b"".join(
        notebook_into(recording_of(state), values.fetch, values.logs, original, report or Report())
    )
    return checked(data)


def checked(data: bytes) -> Any:
    notebook = nbformat.reads(data.decode(), as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    # It is written as Jupyter itself would write it: opening and saving it changes nothing.
    assert nbformat.writes(notebook, version=nbformat.NO_CONVERT) + "\n" == data.decode()
    return notebook


def opened(*cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}
    return read_notebook(json.dumps(found).encode(), "analysis.ipynb")


def code(cell_id: str, source: str, outputs: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": cell_id,
        "metadata": {},
        "execution_count": None,
        "outputs": outputs or [],
        "source": source,
        **more,
    }


def test_the_cells_that_ran_with_sources_counts_and_outputs() -> None:
    values = Values()
    error = {
        "output_type": "error",
        "ename": "ValueError",
        "evalue": "no",
        "traceback": ["\x1b[31mno\x1b[0m"],
    }
    result = {
        "output_type": "execute_result",
        "execution_count": 2,
        "data": {"text/plain": "42", "text/html": "<b>42</b>"},
        "metadata": {"text/html": {"isolated": True}},
    }
    steps = (
        ran(values, 1, "print('a')\nprint('b')", [stream("a\nb\n"), stream("oh\n", "stderr")]),
        ran(values, 2, "6 * 7", [display(image_png=PNG), result]),
        ran(values, 3, "raise ValueError('no')", [error], state="failed"),
        ran(values, 4, "pass"),
    )
    report = Report()
    notebook = written(recorded(*steps), values, report)
    assert [cell.source for cell in notebook.cells] == [
        "print('a')\nprint('b')",
        "6 * 7",
        "raise ValueError('no')",
        "pass",
    ]
    assert [cell.id for cell in notebook.cells] == ["c1", "c2", "c3", "c4"]
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3, 4]
    assert notebook.cells[0].outputs == [stream("a\nb\n"), stream("oh\n", "stderr")]
    assert notebook.cells[1].outputs == [display(image_png=PNG), result]
    assert notebook.cells[2].outputs == [error]
    assert notebook.cells[3].outputs == []
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.wsmonitor.session == "analysis~1"
    assert notebook.cells[2].metadata.wsmonitor.state == "failed"
    assert (report.cells, report.partial, report.missing) == (4, 0, 0)


def test_a_cell_that_ran_again_stands_once_with_what_it_gave_last() -> None:
    values = Values()
    steps = (
        ran(values, 1, "f()", [stream("old")], cell_id="a"),
        ran(values, 2, "g()", [stream("g")], cell_id="b"),
        ran(values, 3, "f2()", [stream("new")], cell_id="a"),
    )
    notebook = written(recorded(*steps), values)
    assert [(cell.source, cell.execution_count) for cell in notebook.cells] == [("f2()", 3), ("g()", 2)]
    assert notebook.cells[0].outputs == [stream("new")]
    assert notebook.cells[0].metadata.wsmonitor.executions == 2


def test_cells_without_ids_get_valid_ones_and_no_id_occurs_twice() -> None:
    values = Values()
    steps = (
        ran(values, 1, "f()", cell_id=""),
        ran(values, 2, "g()", cell_id="not an id!"),
        ran(values, 3, "h()", cell_id="x" * 65),
    )
    ids = [cell.id for cell in written(recorded(*steps), values).cells]
    assert len(set(ids)) == 3


def test_large_sources_outputs_and_parts_of_outputs_are_fetched() -> None:
    values = Values()
    text, image, table = "line\n" * 10_000, b"\x89PNG" + bytes(range(256)) * 40, {"rows": list(range(2000))}
    data = {
        "image/png": values.reference(base64.b64encode(image), "image/png"),
        "image/jpeg": values.reference(image, "image/jpeg", "base64"),
        "application/json": values.reference(json.dumps(table).encode(), "application/json", "json"),
        "text/html": values.reference(b"<p>x</p>", "text/html"),
    }
    source = "# long\n" * 2000
    step = ran(
        values, 1, source, [stream(text), {"output_type": "display_data", "data": data, "metadata": {}}]
    )
    (cell,) = written(recorded(step), values).cells
    assert cell.source == source
    assert cell.outputs[0].text == text
    assert base64.b64decode(cell.outputs[1].data["image/png"]) == image
    assert base64.b64decode(cell.outputs[1].data["image/jpeg"]) == image
    assert cell.outputs[1].data["application/json"] == table
    assert cell.outputs[1].data["text/html"] == "<p>x</p>"


def test_what_is_no_longer_kept_is_said_where_it_is_missing_and_counted() -> None:
    values = Values()
    gone = values.reference(b"x" * 5000, "image/png")
    steps = (
        ran(
            values,
            1,
            "show()",
            [stream("before\n"), display(image_png=gone, text_plain="<Figure>"), stream("after\n")],
        ),
        ran(values, 2, "much()", [stream("y" * 10_000)]),
        ran(values, 3, "# long\n" * 2000, [stream("z")]),
    )
    values.kept.clear()
    report = Report()
    first, second, third = written(recorded(*steps), values, report).cells
    assert [output.output_type for output in first.outputs] == ["stream", "display_data", "stream", "stream"]
    assert first.outputs[1].data == {"text/plain": "<Figure>"}
    assert first.outputs[-1].name == "stderr"
    assert first.outputs[-1].text == f"{MARK}an output (image/png, 4.9 KiB) is no longer kept\n"
    assert "no longer kept" in second.outputs[0].text
    assert third.source.startswith("# long")
    assert "only the beginning" in third.outputs[-1].text
    assert second.metadata.wsmonitor.partial == [second.outputs[0].text.removeprefix(MARK).strip()]
    assert (report.cells, report.partial, report.missing) == (3, 3, 3)


def test_what_was_dropped_running_or_cut_off_by_a_crash_is_said() -> None:
    values = Values()
    steps = (
        ran(
            values, 1, "flood()", [stream("some")], dropped={"characters": 1200, "outputs": 0, "bytes": 2048}
        ),
        ran(values, 2, "fit()", [stream("epoch 1\n")], state="crashed"),
        ran(values, 3, "wait()", [], state="running"),
    )
    report = Report()
    notes = [cell.outputs[-1].text for cell in written(recorded(*steps), values, report).cells]
    assert "too much: 1,200 characters\n" in notes[0]
    assert "too much: 2 KiB\n" in notes[0]
    assert "kernel was lost" in notes[1]
    assert "still running" in notes[2]
    assert (report.partial, report.missing) == (3, 0)


def log(*lines: str, level: str = "info") -> list[LogRecord]:
    return [LogRecord(at=ns(0), level=level, text=line) for line in lines]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("outputs", "lines", "shown"),
    [
        ([], log("a", "b"), [stream("a\nb\n")]),
        ([stream("a\nb\n")], log("a", "b"), [stream("a\nb\n")]),
        ([stream("a\nb\n")], log("a", "b", "c"), [stream("a\nb\nc\n")]),
        ([stream("a\nb\n")], log("b", "c"), [stream("a\nb\nc\n")]),
        ([stream("a\nb")], log("a", "beta", "c"), [stream("a\nbeta\nc\n")]),
        ([stream(".\n.\n")], log(".", ".", "x"), [stream(".\n.\nx\n")]),
        ([stream("a\nb\nc\n")], log("a", "d"), [stream("a\nb\nc\nd\n")]),
        ([stream("\x1b[31ma\x1b[0m\n")], log("a", "b"), [stream("\x1b[31ma\x1b[0m\nb\n")]),
        (
            [stream("a\n"), stream("w\n", "stderr")],
            [
                *log("a"),
                *log("w", level="warning"),
                *log("v", level="warning"),
                *log("7 passed over", level="debug"),
            ],
            [stream("a\n"), stream("w\nv\n", "stderr")],
        ),
        ([display(text_plain="x")], log("a"), [display(text_plain="x"), stream("a\n")]),
    ],
)
def test_of_a_kernel_that_died_the_log_has_what_the_outputs_lack(
    outputs: list[Any], lines: list[LogRecord], shown: list[Any]
) -> None:
    values = Values()
    values.lines["s1"] = lines
    step = ran(values, 1, "fit()", outputs, state="crashed", log_count=len(lines))
    found = written(recorded(step), values).cells[0].outputs
    note = f"{MARK}the kernel was lost while this cell ran: this is what was recorded until then\n"
    texts = "".join(one.text for one in found if one.output_type == "stream").replace(note, "")
    expected = "".join(one["text"] for one in shown if one["output_type"] == "stream")
    assert texts == expected
    assert note in found[-1].text


def test_whether_a_cell_runs_or_its_kernel_was_lost_is_told_by_who_is_heard() -> None:
    values = Values()
    for liveness, cut in (("live", False), ("stale", True), ("lost", True)):
        state = recorded(ran(values, 1, "wait()", [], state="running"), liveness=liveness)
        (run,) = recording_of(state).runs
        assert (run.cut, run.open) == (cut, not cut)


def test_a_session_that_is_no_recording_is_refused_with_its_kind() -> None:
    with pytest.raises(NotRecordedError, match=r"etl~1.*'pipeline'.*%wsmonitor record"):
        recording_of(recorded(kind="pipeline", name="etl"))
    with pytest.raises(NotRecordedError, match="there is no session"):
        recording_of(SessionState("none~1", "e"))


def test_an_empty_recording_is_a_valid_notebook_without_cells() -> None:
    assert written(recorded(), Values()).cells == []


# -- into a notebook


def test_outputs_go_into_the_notebook_and_the_rest_of_it_stays() -> None:
    values = Values()
    original = opened(
        {"cell_type": "markdown", "id": "m", "metadata": {"tags": ["x"]}, "source": ["# Title\n", "text"]},
        code("c2", "b()", [stream("old")], metadata={"collapsed": True}),
        code("new", "a()"),
        code("c9", "never()", [stream("kept\n")]),
        code("c3", "edited()", [stream("its own")]),
        metadata={"title": "Analysis", "kernelspec": {"name": "r", "display_name": "R"}},
    )
    steps = (
        ran(values, 1, "a()", [stream("A")]),
        ran(values, 2, "b()", [stream("B")]),
        ran(values, 3, "c()", [stream("C")]),
        ran(values, 4, "d()", [stream("D")]),
    )
    report = Report()
    notebook = put_into(recorded(*steps), values, original, report)
    assert [cell.source for cell in notebook.cells] == ["# Title\ntext", "b()", "a()", "never()", "edited()"]
    assert notebook.cells[0].metadata == {"tags": ["x"]}
    assert notebook.metadata == original["metadata"]
    assert [cell.outputs[0].text for cell in notebook.cells[1:]] == ["B", "A", "kept\n", "its own"]
    assert notebook.cells[1].execution_count == 2
    assert notebook.cells[1].metadata.collapsed is True
    assert notebook.cells[1].metadata.wsmonitor.session == "analysis~1"
    assert notebook.cells[3].metadata == {}
    assert (report.cells, report.by_source, report.changed, report.absent) == (2, 1, 1, 1)


def test_a_guess_is_not_written_into_a_notebook() -> None:
    values = Values()
    original = opened(code("n1", "x"), code("n2", "x"))
    report = Report()
    notebook = put_into(recorded(ran(values, 1, "x", [stream("1")])), values, original, report)
    assert [cell.outputs for cell in notebook.cells] == [[], []]
    assert (report.cells, report.unsure) == (0, 1)


def test_a_notebook_without_cell_ids_is_matched_by_source() -> None:
    values = Values()
    cell = code("", "x")
    del cell["id"]
    notebook = put_into(recorded(ran(values, 1, "x", [stream("1")])), values, opened(cell, nbformat_minor=4))
    assert notebook.nbformat_minor == 4
    assert notebook.cells[0].outputs == [stream("1")]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xfe\x00", "is no notebook"),
        (b"not json", "is no notebook"),
        (b"[]", "no nbformat"),
        (b'{"nbformat": 3, "worksheets": []}', "format 3, and not 4"),
        (b'{"nbformat": 4}', "no list of cells"),
        (b'{"nbformat": 4, "cells": [1]}', "no list of cells"),
    ],
)
def test_what_is_no_notebook_is_refused_in_words(data: bytes, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        read_notebook(data, "x.ipynb")


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b/c.ipynb", "c"), ("C:\\work\\c.ipynb", "c"), ("c", "c"), ("", ""), ("a b/ü.ipynb", "ü")],
)
def test_a_notebooks_name(path: str, name: str) -> None:
    assert stem(path) == name


# -- whatever is published

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
mimes = st.sampled_from(
    ["text/plain", "image/png", "application/json", "application/vnd.x+json", "odd", "a/b", "/"]
)
output_like = st.fixed_dictionaries(
    {"output_type": st.sampled_from(["stream", "display_data", "execute_result", "error", "other", None])},
    optional={
        "name": anything,
        "text": anything | st.text(),
        "data": st.dictionaries(mimes, anything | st.just({"$value": {"sha256": "0" * 64, "size": 3}}))
        | anything,
        "metadata": anything | st.dictionaries(st.text(max_size=3), anything),
        "execution_count": anything,
        "traceback": anything,
        "ename": anything,
        "evalue": anything,
        "transient": anything,
    },
)


@given(st.lists(output_like | anything, max_size=4), anything)
def test_whatever_was_published_becomes_a_valid_notebook(outputs: list[Any], dropped: Any) -> None:
    values = Values()
    step = ran(values, 1, "x", outputs, dropped=dropped)
    report = Report()
    (cell,) = written(recorded(step), values, report).cells
    assert report.partial == int("partial" in cell.metadata.wsmonitor)


@given(st.binary(max_size=50))
def test_an_output_value_of_any_bytes_is_survived(data: bytes) -> None:
    values = Values()
    reference = values.reference(data, "x/y")["$value"]
    step = ran(values, 1, "x", [stream("y" * 5000)])
    assert step.output is not None
    values.kept = {step.output.sha256: data.ljust(step.output.size)}
    made = outputs_of(run_of(step), values.fetch, values.logs)
    assert made.missing == len(made.notes)
    assert reference["size"] == len(data)


def run_of(step: Step) -> Run:
    return recording_of(recorded(step)).runs[0]


# -- by hand


def test_what_is_no_list_of_outputs_is_said_and_counted() -> None:
    values = Values()
    step = msgspec.structs.replace(ran(values, 1, "x"), output=values.add("[1]", "x/y"))
    report = Report()
    (cell,) = written(recorded(step), values, report).cells
    assert "cannot be read: not recorded outputs" in cell.outputs[0].text
    assert (report.missing, report.partial) == (1, 1)


def test_a_cell_that_put_nothing_out_has_no_outputs() -> None:
    values = Values()
    assert written(recorded(ran(values, 1, "x", None)), values).cells[0].outputs == []


def test_odd_outputs_become_what_a_notebook_may_hold() -> None:
    values = Values()
    given: list[Any] = [
        {"output_type": "error", "ename": 7, "evalue": None, "traceback": "no list"},
        {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a", None, 3]},
        {"output_type": "stream", "name": "odd", "text": ["a", "b"]},
        {"output_type": "display_data", "data": {"odd": "x", "text/plain": 7, "application/json": [1]}},
        {"output_type": "display_data", "data": 7, "metadata": 7},
        {"output_type": "execute_result", "data": {"text/plain": ["a\n", "b"]}, "execution_count": True},
        {"output_type": "execute_result", "data": {}, "execution_count": 9},
        {"output_type": "hologram"},
    ]
    report = Report()
    (cell,) = written(recorded(ran(values, 5, "x", given, dropped={"outputs": -3})), values, report).cells
    error, again, text, display_, empty, result, counted, note = cell.outputs
    assert (error.ename, error.evalue, error.traceback) == ("7", "", [])
    assert again.traceback == ["a", "", "3"]
    assert (text.name, text.text) == ("stdout", "ab")
    assert display_.data == {"text/plain": "7", "application/json": [1]}
    assert (empty.data, empty.metadata) == ({}, {})
    assert (result.data, result.execution_count) == ({"text/plain": "a\nb"}, 5)
    assert counted.execution_count == 9
    assert note.text == f"{MARK}an output of a kind that is not known was left out\n"
    assert report.missing == 1


@pytest.mark.parametrize(
    ("reference", "data", "said"),
    [
        ({"sha256": "no digest", "size": 3}, None, "(image/png, 3 B) is no longer kept"),
        ({"sha256": "a" * 64, "size": -1}, None, "is no longer kept"),
        ({"sha256": "a" * 64, "size": 3}, None, "is no longer kept"),
        ({"sha256": "a" * 64, "size": 2, "form": "json"}, b"{x", "(image/png) cannot be read"),
        ({"sha256": "a" * 64, "size": 1, "form": "json"}, b"7", ""),
    ],
)
def test_a_part_that_cannot_be_had_is_said(reference: dict[str, Any], data: bytes | None, said: str) -> None:
    values = Values()
    if data is not None:
        values.kept[reference["sha256"]] = data
    bundle = {"image/png": {"$value": {"mime": "image/png", **reference}}, "text/plain": "x"}
    step = ran(values, 1, "x", [{"output_type": "display_data", "data": bundle, "metadata": {}}])
    (cell,) = written(recorded(step), values).cells
    assert cell.outputs[0].data == {"text/plain": "x"} | ({} if said else {"image/png": "7"})
    assert [said in one.text for one in cell.outputs[1:]] == ([True] if said else [])


def test_texts_of_one_stream_are_one_and_a_note_begins_a_line() -> None:
    values = Values()
    step = ran(values, 1, "x", [stream("a"), stream("b"), stream("w", "stderr")], dropped={"characters": 3})
    first, second = written(recorded(step), values).cells[0].outputs
    assert first.text == "ab"
    assert second.text == f"w\n{MARK}not recorded, because it was too much: 3 characters\n"


def test_of_a_kernel_that_died_before_it_printed_anything_nothing_is_asked() -> None:
    values = Values()
    made = outputs_of(
        run_of(ran(values, 1, "x", [], state="crashed")), values.fetch, lambda *_: pytest.fail("asked")
    )
    assert len(made.outputs) == 1


def test_log_lines_that_are_not_where_the_outputs_end_are_new() -> None:
    values = Values()
    values.lines["s1"] = log("x", "y")
    step = ran(values, 1, "f()", [stream("other\n")], state="crashed", log_count=2)
    (output, _) = written(recorded(step), values).cells[0].outputs
    assert output.text == "other\nx\ny\n"


def test_what_a_person_is_told_of_a_file() -> None:
    assert Report(cells=3).told() == []
    assert Report(by_source=1, unsure=2, changed=1, absent=1, partial=2, missing=1).told() == [
        "1 cell found by its source, not by its id",
        "2 cells left alone: several cells have their source, and which of them ran is not known",
        "1 cell left alone: it was edited since it was recorded",
        "1 cell of the recording is not in the notebook",
        "2 cells have less than came out: they say so, and why",
        "1 output no longer kept by the server, or unreadable [gone]",
    ]


def test_a_cell_of_which_nothing_is_known_is_a_cell_all_the_same() -> None:
    values = Values()
    bare = Step(id="bare step!", chain="nb", name="x", kind="cell")
    first, second = written(recorded(bare, ran(values, 1, "x", cell_id="bare-step-")), values).cells
    assert (first.id, first.source, first.execution_count) == ("bare-step-", "", None)
    assert second.id == "bare-step--2", "no id occurs twice"
    assert "only the beginning" in first.outputs[-1].text
    about = first.metadata.wsmonitor
    assert (about.step, about.state) == ("bare step!", "pending")
    assert "started" not in about
    assert "ended" not in about


def test_that_a_cell_ran_later_with_another_source_is_said() -> None:
    values = Values()
    steps = (
        ran(values, 1, "old()", [stream("old")], cell_id="a"),
        ran(values, 2, "new()", [stream("new")], cell_id="a"),
    )
    notebook = put_into(recorded(*steps), values, opened(code("a", "old()")))
    about = notebook.cells[0].metadata.wsmonitor
    assert notebook.cells[0].outputs == [stream("old")]
    assert about.later_with_other_source == 1


def test_what_stands_oddly_in_a_notebook_file_stays_as_it_is() -> None:
    values = Values()
    strange = code("q", "untouched()", ["no output"], metadata=None)
    plain = {"cell_type": "code", "id": "r", "source": None, "outputs": None}
    target = code("c1", "", metadata=7)
    target["source"] = ["x", 7, "\n", "y"]
    original = opened(strange, plain, target)
    data = b"".join(
        notebook_into(
            recording_of(recorded(ran(values, 1, "x\ny", [stream("1")]))),
            values.fetch, values.logs, original, Report(),
        )
    )  # fmt: skip
    found = json.loads(data)["cells"]
    assert found[:2] == [{**strange, "source": ["untouched()"]}, plain]
    assert found[2]["outputs"][0]["text"] == ["1"]
    assert found[2]["metadata"]["wsmonitor"]["step"] == "s1"


def test_a_recording_is_called_by_its_file_or_else_by_its_session() -> None:
    values = Values()
    assert recording_of(recorded(ran(values, 1, "x"))).file_name == "analysis"
    bare = Step(id="s", chain="nb", name="x", kind="cell", started=ns(0))
    assert recording_of(recorded(bare, name="lab")).file_name == "lab"


def test_what_only_began_a_recording_is_not_worth_restoring() -> None:
    values = Values()
    only = recorded(
        ran(values, 1, "%load_ext wsmonitor\n%wsmonitor record"),
        ran(values, 2, "# again\n%wsmonitor restore"),
    )
    assert not recording_of(only).worth_restoring()
    for more in (
        ran(values, 3, "x"),
        ran(values, 3, "# words"),
        Step(id="s", chain="nb", name="x", kind="cell"),
    ):
        assert recording_of(recorded(*only.steps.values(), more)).worth_restoring()


def test_a_recording_whose_chain_has_not_arrived_tells_what_its_session_and_cells_do() -> None:
    values = Values()
    whole = recorded(ran(values, 1, "x"))
    without = SessionState.restore(
        whole.topic, "e", 9, [(kind, entity) for kind, entity in whole if kind != "chain"]
    )
    found = recording_of(without)
    assert (found.path, found.kernel, len(found.runs)) == ("work/analysis.ipynb", "", 1)
