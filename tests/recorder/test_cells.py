"""A cell's outputs, log lines, progress, and when they are published: no kernel, the test's own clock."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from wsmonitor.export.outputs import decode, references
from wsmonitor.notebook.recorder.cells import FIRST, LINES, VIEW, Begin, Cell, Ending, Failed, Lines
from wsmonitor.notebook.recorder.outcomes import outcome
from wsmonitor.notebook.recorder.progress import Bars, Progress, tqdm_text
from wsmonitor.notebook.recorder.titles import title
from wsmonitor.notebook.recorder.turns import LONG, PATIENT, SHORT, Turns
from wsmonitor.publish.redaction import Redactor


def cell() -> Cell:
    return Cell(Begin("m", "print()", "c1", 1, 0), Redactor().text)


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"name": name, "text": text}


class TestWhenItIsPublished:
    def test_soon_after_the_first_output_and_not_without_one(self) -> None:
        one = cell()
        assert one.due is None
        one.take("stream", stream("a"), 10.0)
        one.take("stream", stream("b"), 10.1)
        assert one.due == 10.0 + FIRST
        document, parts, new = one.publication(10.3)
        assert decode(document).outputs[0]["text"] == "ab"
        assert (parts, new, one.due, one.changed) == ({}, {}, None, False)

    def test_the_bytes_of_a_long_and_loud_cell_stay_within_a_rate(self) -> None:
        one, now, total = cell(), 0.0, 0
        for _ in range(3_600):
            now += 1.0
            one.take("stream", stream("x" * 2_000 + "\n"), now)
            if one.due is not None and one.due <= now:
                total += len(one.publication(now)[0])
        assert total < 20 * one.outputs.weight

    def test_a_quiet_update_is_no_reason_but_goes_with_the_next(self) -> None:
        one = cell()
        shown = {"data": {"text/plain": "1"}, "transient": {"display_id": "d"}}
        one.take("display_data", shown, 0.0)
        one.publication(1.0)
        one.update({**shown, "data": {"text/plain": "2"}}, 2.0, quiet=True)
        assert (one.due, one.changed) == (None, False)
        one.update({**shown, "data": {"text/plain": "3"}}, 3.0, quiet=False)
        assert one.due is not None
        assert one.changed

    def test_a_picture_is_handed_over_once_and_one_that_was_replaced_never(self) -> None:
        one = cell()
        for number in range(3):
            data = base64.b64encode(bytes([number]) * 30_000).decode()
            one.take("clear_output", {"wait": True}, 0.0)
            one.take("display_data", {"data": {"image/png": data}}, 0.0)
        document, parts, new = one.publication(1.0)
        (reference,) = references(decode(document).outputs)
        assert parts == {reference.sha256: 30_000}
        assert new == {reference.sha256: b"\x02" * 30_000}
        one.take("stream", stream("more"), 2.0)
        _, parts, new = one.publication(3.0)
        assert (list(parts), new) == ([reference.sha256], {})


class TestLines:
    def test_whole_lines_only_until_the_end(self) -> None:
        lines = Lines(Redactor().text)
        lines.feed("a\nb")
        assert lines.take() == (["a"], 0)
        lines.feed("c\n\nd")
        assert lines.take() == (["bc", ""], 0)
        assert lines.take(last=True) == (["d"], 0)
        assert lines.take(last=True) == ([], 0)

    def test_of_many_the_newest_and_how_many_were_passed_over(self) -> None:
        lines = Lines(Redactor().text)
        lines.feed("".join(f"{number}\n" for number in range(1_000)))
        taken, skipped = lines.take()
        assert taken == [str(number) for number in range(1_000 - LINES, 1_000)]
        assert skipped == 1_000 - LINES

    def test_no_part_of_a_key_block_is_logged(self) -> None:
        block = [f"MIIEowIBAAKCAQEA{number}" for number in range(3 * LINES)]
        text = "\n".join(
            ["a", "-----BEGIN RSA PRIVATE KEY-----", *block, "-----END RSA PRIVATE KEY-----", "b", ""]
        )
        for size in (7, 64, 10_000):
            lines, taken = Lines(Redactor().text), []
            for at in range(0, len(text), size):
                lines.feed(text[at : at + size])
                taken += lines.take()[0]
            taken += lines.take(last=True)[0]
            assert taken == ["a", "[redacted]", "b"]

    def test_a_secret_on_the_line_after_its_name_is_not_logged(self) -> None:
        lines = Lines(Redactor().text)
        lines.feed("one:\npassword:\n")
        assert lines.take() == (["one:"], 0)
        lines.feed("hunter2secret\ntwo\n")
        shown, skipped = lines.take()
        assert "hunter2secret" not in " ".join(shown)
        assert (shown[-1], skipped) == ("two", 0)
        lines.feed("token:\n")
        assert lines.take() == ([], 0)
        assert lines.take(last=True) == (["token:"], 0)

    def test_what_was_overwritten_and_colours_are_not_in_the_log(self) -> None:
        lines = Lines(Redactor().text)
        lines.feed("10%\r20%\r\x1b[31mdone\x1b[0m\n")
        assert lines.take() == (["done"], 0)


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("\r 45%|████▌     | 45/100 [00:01<00:01, 44.01it/s]", Progress(45, 100, "it")),
        ("\r10%|█| 1.20k/12.0k [00:01<00:09, 1.2kB/s]", Progress(1200, 12000, "kB")),
        ("load:  3%|▎ | 3/90 [00:00<?, ?files/s]\r", Progress(3, 90, "files")),
        ("1%|a| 1/9 [0<1, 1it/s]\r2%|a| 2/9 [0<1, 1it/s]", Progress(2, 9, "it")),
        ("\r50%|█| 1/2 [0<1, 1it/s]\r\n 5%|inner| 1/20 [0<1, 1it/s]", Progress(1, 2, "it")),
        ("a line with 45%| in it", None),
        ("100 % of nothing", None),
        ("%|" * 10_000, None),
    ],
)
def test_tqdm_s_text_is_read(text: str, progress: Progress | None) -> None:
    assert tqdm_text(text) == progress


def test_bars_among_widgets() -> None:
    bars = Bars()

    def opened(model: str, **state: Any) -> Progress | None:
        return bars.opened({"comm_id": model, "data": {"state": {"_model_name": model, **state}}})

    def changed(ident: str, **state: Any) -> Progress | None:
        return bars.changed({"comm_id": ident, "data": {"method": "update", "state": state}})

    assert not bars.knows(b'{"comm_id": "x"}')
    assert opened("TextModel", value="x") is None
    assert opened("IntProgressModel", value=2, max=8) == Progress(2, 8)
    assert changed("IntProgressModel", value=6) == Progress(6, 8)
    assert changed("IntProgressModel", description="x") is None
    assert changed("IntProgressModel", value="x", min=4) == Progress(2, 4)
    assert changed("other", value=1) is None
    bars.closed({"comm_id": "IntProgressModel"})
    assert changed("IntProgressModel", value=7) is None
    assert bars.opened({"data": "nonsense"}) is None


@pytest.mark.parametrize(
    ("source", "called"),
    [
        ("fit(model)\nplot()", "fit(model)"),
        ("\n\n  x = 1", "x = 1"),
        ("# Fit the model\nfit()", "Fit the model"),
        ("# %% Fit\nfit()", "Fit"),
        ("# %%\nfit()", "fit()"),
        ("####\n# more\nfit()", "fit()"),
        ("#!shebang\nfit()", "!shebang"),
        ("import os\nfrom a.b import (\n    c,\n    d)\n%matplotlib inline\n\nfit()  # x", "fit()  # x"),
        ("import os\n# now\nfit()", "fit()"),
        ("import os, sys", "import os, sys"),
        ("%load_ext wsmonitor\n%wsmonitor record", "%wsmonitor record"),
        ("from_here = 1", "from_here = 1"),
        ("important()", "important()"),
        ("%%time", "%%time"),
        ("%%time\nimport os\nfit()", "%%time · fit()"),
        ("%%bash\n# build\nmake", "%%bash · build"),
        ("x" * 200, "x" * 79 + "…"),
        ("# only a comment", "only a comment"),
        ("#", "#"),
        ("", "(empty)"),
    ],
)
def test_what_a_cell_is_called(source: str, called: str) -> None:
    assert title(source, 0) == called
    assert title(source, 7) == f"[7] {called}"


def test_the_text_for_a_widget_of_tqdm_is_what_it_shows_last() -> None:
    bars = Bars()

    def opened(ident: str, model: str, **state: Any) -> None:
        bars.opened({"comm_id": ident, "data": {"state": {"_model_name": model, **state}}})

    opened("left", "HTMLModel", value="")
    opened("bar", "FloatProgressModel", max=30.0)
    opened("right", "HTMLModel", value="")
    opened("box", "HBoxModel", children=["IPY_MODEL_left", "IPY_MODEL_bar", "IPY_MODEL_right"])
    opened("alone", "HTMLModel", value="just words")
    one = Cell(Begin("m", "", "c", 1, 0), Redactor().text, widget=bars.text)
    for ident in ("box", "alone"):
        data = {"text/plain": "  0%|          | 0/30", VIEW: {"model_id": ident}}
        one.take("display_data", {"data": data}, 0.0)
    one.publication(1.0)
    for ident, value in (
        ("left", "password=hunter2: 50%"),
        ("bar", 15),
        ("right", " 15/30 [00:01&lt;00:01]"),
    ):
        content = {"comm_id": ident, "data": {"state": {"value": value}}}
        assert bars.has(content)
        bars.changed(content)
        bars.closed(content)
    one.widget_changed(2.0)
    assert one.changed
    box, alone = decode(one.publication(5.0)[0]).outputs
    assert box["data"]["text/plain"] == "password=[redacted] 50%|█████     | 15/30 [00:01<00:01]"
    assert alone["data"]["text/plain"] == "  0%|          | 0/30", "no bar: left as it was"


SHOWN = Failed("ValueError", "bad", "Traceback")


@pytest.mark.parametrize(
    ("ending", "shown", "state", "reason", "failed"),
    [
        (Ending(1), None, "succeeded", "", None),
        (
            Ending(1),
            SHOWN,
            "succeeded",
            "",
            None,
        ),  # an error that code of the cell showed, not the cell's own
        (Ending(1, "ValueError", "bad"), SHOWN, "failed", "", SHOWN),
        (Ending(1, "KeyError", "k"), SHOWN, "failed", "", Failed("KeyError", "k", "")),
        (Ending(1, "KeyboardInterrupt", "interrupted by ada"), None, "cancelled", "interrupted by ada", None),
        (Ending(1, "KeyboardInterrupt", ""), None, "cancelled", "interrupted", None),
        (Ending(1, "CancelledError", ""), None, "cancelled", "cancelled", None),
        (None, SHOWN, "failed", "", SHOWN),
        (None, None, "succeeded", "", None),
    ],
)
def test_how_a_step_ends(
    ending: Ending | None, shown: Failed | None, state: str, reason: str, failed: Failed | None
) -> None:
    assert outcome(ending, shown) == (state, reason, failed)


def test_a_secret_in_a_long_text_is_found_wherever_it_stands() -> None:
    filler = "x" * 99 + "\n"
    for shift in range(0, 300, 23):
        text = filler * 327 + "y" * shift + "\n" + "password:\n  hunter2secret\n" + filler * 700
        one = cell()
        one.take("stream", stream(text), 0.0)
        assert "hunter2secret" not in one.publication(1.0)[0].decode()


class TestTurns:
    def test_work_goes_in_short_turns_and_in_longer_ones_when_there_is_much(self) -> None:
        now, slept = 0.0, []

        def sleep(seconds: float) -> None:
            nonlocal now
            slept.append(seconds)
            now += seconds

        turns = Turns(lambda: now, sleep)
        now = 100.0  # as long as nothing was to be done
        turns.begin()
        turns.pause()
        assert slept == []
        counts = []
        while now < 100.0 + 2 * PATIENT:
            before = len(slept)
            for _ in range(1_000):
                now += 0.00001
                turns.pause()
            counts.append(len(slept) - before)
        assert counts[0] >= 10e-3 / SHORT * 0.9, "of 10 ms"
        assert counts[-1] <= 10e-3 / LONG + 1
