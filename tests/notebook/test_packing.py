"""Rows of many pages in few messages, each with a bound."""

from __future__ import annotations

import json
import zlib
from hashlib import shake_128
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from wsmonitor.notebook.packing import CYCLE, MESSAGE_BYTES, PACK_FROM, Wanted, packed


def rows(page: int, count: int, size: int = 10) -> list[dict[str, Any]]:
    # Digits of a hash deflate badly, as real values do.
    return [
        {"id": f"{page}.{number}", "v": shake_128(b"%d" % number).hexdigest(size // 2)}
        for number in range(count)
    ]


def opened(buffer: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(zlib.decompress(buffer))
    return found


def test_only_long_rows_are_packed() -> None:
    assert packed({"type": "x"}) == ({"type": "x"}, [])
    assert packed({"type": "x", "rows": []}) == ({"type": "x", "rows": []}, [])
    short = {"type": "x", "rows": rows(0, 3)}
    assert packed(short) == (short, [])
    long = {"type": "x", "rows": rows(0, 3, PACK_FROM)}
    message, [buffer] = packed(long)
    assert message == {"type": "x", "packed": True}
    assert opened(buffer) == long["rows"]


def drained(wanted: Wanted, held: dict[int, list[dict[str, Any]]]) -> dict[int, list[dict[str, Any]]]:
    """All that is sent, put together again by page; each message within its bound."""
    found: dict[int, list[dict[str, Any]]] = {}
    parts: dict[int, int] = {}
    number = 0
    while wanted:
        number += 1
        made = wanted.message(lambda page: held[page], number, 5)
        assert made is not None
        message, buffers = made
        assert (message["type"], message["n"], message["at"]) == ("page", number, 5)
        assert len(buffers) == 1 or sum(map(len, buffers)) <= MESSAGE_BYTES
        for item, buffer in zip(message["pages"], buffers, strict=True):
            assert item["part"] == parts.get(item["p"], 0)
            parts[item["p"]] = item["part"] + 1
            found.setdefault(item["p"], []).extend(opened(buffer))
            assert item["last"] == (found[item["p"]] == held[item["p"]])
    return found


def test_pages_that_are_asked_for_come_whole_and_in_order() -> None:
    wanted, held = Wanted(), {page: rows(page, 40, 20_000) for page in range(3)}
    assert not wanted
    wanted.want([2, 0, 2])
    assert wanted
    assert drained(wanted, held) == {2: held[2], 0: held[0]}
    assert not wanted
    assert wanted.message(lambda page: held[page], 9, 5) is None


def test_a_cycle_goes_through_all_pages_in_turn() -> None:
    wanted, held = Wanted(), {page: rows(page, 1) for page in range(CYCLE + 2)}
    wanted.cycle(len(held))
    assert list(drained(wanted, held)) == list(range(CYCLE))
    wanted.cycle(len(held))
    assert list(drained(wanted, held)) == [CYCLE, CYCLE + 1, *range(CYCLE - 2)]
    wanted.cycle(0)
    assert not wanted


def test_who_looks_away_is_sent_nothing_any_more() -> None:
    wanted, held = Wanted(), {0: rows(0, 40, 20_000)}
    wanted.want([0])
    assert wanted.message(lambda page: held[page], 1, 5) is not None
    assert wanted
    wanted.clear()
    assert not wanted


@given(st.lists(st.lists(st.integers(0, 60_000), max_size=6), max_size=5))
def test_whatever_the_rows_are_they_arrive(sizes: list[list[int]]) -> None:
    held = {
        page: [{"id": f"{page}.{number}", "v": "é" * size} for number, size in enumerate(group)]
        for page, group in enumerate(sizes)
    }
    wanted = Wanted()
    wanted.want(held)
    assert {page: found for page, found in drained(wanted, held).items() if found} == {
        page: group for page, group in held.items() if group
    }
