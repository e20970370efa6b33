"""The browser's words are those of the terminal and of the files: one table for both."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any
from urllib.parse import quote

import pytest

from wsmonitor.export import words
from wsmonitor.notebook.bundle import static

SECONDS = [0, 0.0004, 0.42, 0.9994, 0.99951, 1, 4.26, 9.94, 9.96, 37.4, 59.4, 59.7, 60, 134, 3599.4, 3723,
           86_399, 90_000, 172_799, 172_801, 270_000]  # fmt: skip
AGES = [1, 8, 59, 61, 119, 121, 3599, 7199, 7201, 172_799, 172_801, 1_036_800]
SIZES = [0, 1, 512, 1023, 1024, 1536, 4096, 10_240, 1_048_575, 1_048_576, 19_084_000, 2**40, 2**50]
PROGRAM = """
const { ORDER, STATES, age, bytes, duration } = await import(process.argv[1]);
const [seconds, ages, sizes] = JSON.parse(process.argv[2]);
console.log(JSON.stringify({
  states: STATES, order: ORDER,
  durations: seconds.map((s) => duration(s * 1000)),
  ages: ages.map((s) => age(s * 1000)),
  sizes: sizes.map(bytes),
}));
"""


@pytest.fixture(scope="module")
def browser() -> Any:
    """What the front-end's modules say."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed: .ci/run installs it")
    files = (static() / name for name in ("format.js", "texts.js"))
    source = quote("".join(file.read_text(encoding="utf-8") for file in files))
    done = subprocess.run(
        [node, "--input-type=module", "-e", PROGRAM, f"data:text/javascript,{source}",
         json.dumps([SECONDS, AGES, SIZES])],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_states_have_the_same_icon_and_the_same_words(browser: Any) -> None:
    told = {name: (one["icon"], one["word"], one["past"]) for name, one in browser["states"].items()}
    assert told == {
        name: (look.icon, look.word, words.state_word(name, known=False))
        for name, look in words.STATES.items()
        if name != "absent"  # a session's, and not a step's: the browser says it in its strip
    }
    assert {name for name, one in browser["states"].items() if one.get("open")} == words.OPEN


def test_states_are_counted_in_the_same_order(browser: Any) -> None:
    assert tuple(browser["order"]) == words.ORDER
    assert set(words.ORDER) == words.STATES.keys() - {"absent"}
    assert words.ordered({"of a later version": 1, "failed": 2, "skipped": 0, "succeeded": 3}) == [
        ("succeeded", 3), ("failed", 2), ("of a later version", 1),
    ]  # fmt: skip


def test_states_have_the_same_colours(browser: Any) -> None:
    tones = {"good": "good", "bad": "bad", "run": "busy", "warn": "wait", "dim": "idle"}
    assert {name: tones[one["tone"]] for name, one in browser["states"].items()} == {
        name: look.tone for name, look in words.STATES.items() if name != "absent"
    }


def test_durations_ages_and_sizes_are_written_alike(browser: Any) -> None:
    assert browser["durations"] == [words.duration(s) for s in SECONDS]
    assert browser["ages"] == [words.age(s) for s in AGES]
    assert browser["sizes"] == [words.size(n) for n in SIZES]
