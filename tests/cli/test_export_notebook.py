"""``wsmonitor export -o FILE.ipynb``: against a real server, with values that are uploaded and fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.export.recorded import PNG, Values, display, ran, stream
from wsmonitor.cli.failures import Exit
from wsmonitor.protocol.changes import ChainChange, SessionChange, StepChange
from wsmonitor.protocol.entities import Step

from .conftest import Cli, Start


@pytest.fixture
def values() -> Values:
    return Values()


@pytest.fixture
def recording(program: Start, values: Values) -> Any:
    """Publishes cells as a recording named ``analysis``."""

    def publish(*steps: Step) -> None:
        running = program("analysis~1", SessionChange(name="analysis", kind="notebook", state="running"))
        for digest, data in values.kept.items():
            assert running.publication.submit_value(data, digest)
        running.publish(ChainChange(id="nb", name="analysis", kind="notebook", state="running"))
        for step in steps:
            running.publish(change_of(step))

    return publish


def change_of(step: Step) -> StepChange:
    return StepChange(
        id=step.id,
        chain=step.chain,
        name=step.name,
        kind=step.kind,
        state=step.state,
        input=step.input,
        output=step.output,
        attributes=step.attributes,
        started=step.started,
        ended=step.ended,
    )


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def test_a_recording_becomes_a_notebook(cli: Cli, recording: Any, values: Values, tmp_path: Path) -> None:
    text = "x" * 600_000 + "\n"  # more than two pages
    image = values.reference(PNG.encode() * 2000, "image/png")
    recording(
        ran(values, 1, "print('a')", [stream("a\n")]),
        ran(values, 2, "much()", [stream(text), display(image_png=image)]),
    )
    out = tmp_path / "out.ipynb"
    done = cli("export", "analysis", "-o", str(out))
    assert done.status == 0, done.err
    assert "2 cells with recorded outputs" in done.err
    first, second = read(out).cells
    assert first.outputs == [stream("a\n")]
    assert second.outputs[0].text == text
    assert second.outputs[1].data["image/png"] == PNG * 2000


def test_into_a_notebook_keeps_what_is_its_own(
    cli: Cli, recording: Any, values: Values, tmp_path: Path
) -> None:
    recording(ran(values, 1, "a()", [stream("A")]), ran(values, 2, "b()", [stream("B")]))
    original = tmp_path / "analysis.ipynb"
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": "m", "metadata": {}, "source": "# Title"},
        *(
            {
                "cell_type": "code", "id": ident, "metadata": {}, "execution_count": None,
                "outputs": [], "source": source,
            }
            for ident, source in (("c1", "a()"), ("c2", "b() + 1"))
        ),
    ]  # fmt: skip
    original.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    before = original.read_bytes()
    out = tmp_path / "restored.ipynb"
    done = cli("export", "analysis", "-o", str(out), "--into", str(original))
    assert done.status == 0, done.err
    assert "1 cell left alone: it was edited" in done.err
    title, first, second = read(out).cells
    assert title.source == "# Title"
    assert first.outputs == [stream("A")]
    assert second.outputs == []
    assert original.read_bytes() == before


def test_a_session_that_is_no_recording_says_so_and_what_to_do(
    cli: Cli, program: Start, tmp_path: Path
) -> None:
    program("etl~1")
    out = tmp_path / "out.ipynb"
    done = cli("export", "etl", "-o", str(out))
    assert done.status == Exit.USAGE
    assert "[not_recorded]" in done.err
    assert "%wsmonitor record" in done.err
    assert not out.exists()


def test_into_without_a_notebook_is_refused(cli: Cli, recording: Any, values: Values, tmp_path: Path) -> None:
    recording(ran(values, 1, "a()"))
    text = tmp_path / "x.txt"
    text.write_text("hello")
    done = cli("export", "analysis", "-o", str(tmp_path / "out.ipynb"), "--into", str(text))
    assert done.status == Exit.USAGE
    assert "x.txt is no notebook" in done.err
    done = cli("export", "analysis", "-o", str(tmp_path / "out.html"), "--into", str(text))
    assert done.status == Exit.USAGE
    assert "--into" in done.err
    assert list(tmp_path.iterdir()) == [text]


def test_to_standard_output(cli: Cli, recording: Any, values: Values) -> None:
    recording(ran(values, 1, "a()", [stream("é")]))
    done = cli("export", "analysis", "-o", "-", "--format", "ipynb")
    assert done.status == 0
    assert json.loads(done.out)["cells"][0]["outputs"] == [{**stream(""), "text": ["é"]}]


def test_what_the_server_no_longer_keeps_is_said_in_the_file_and_by_the_status(
    cli: Cli, recording: Any, values: Values, tmp_path: Path
) -> None:
    image = values.reference(b"x" * 5000, "image/png")
    values.kept.clear()
    recording(ran(values, 1, "show()", [display(image_png=image), stream("after")]))
    out = tmp_path / "out.ipynb"
    done = cli("export", "analysis", "-o", str(out))
    assert done.status == Exit.FAILED
    assert "1 output no longer kept" in done.err
    assert "no longer kept" in read(out).cells[0].outputs[-1].text
