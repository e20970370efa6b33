"""What the end of a program costs, and what it says."""

from __future__ import annotations

from pathlib import Path

from wsmonitor.client import keeper, runner
from wsmonitor.client.keeper import Kept
from wsmonitor.publish import registry

from .fake import Fake


def test_harmless_the_parts_of_the_end_are_no_more_than_a_second() -> None:
    assert registry.EXIT_SECONDS + keeper.DISK_TIMEOUT + runner.EXIT_TIMEOUT < 1.0


def test_what_is_left_is_added_up_by_where_it_is(fake: Fake) -> None:
    channels = []
    for name, left, trouble in (
        ("a", Kept(1200, Path("/s/1.sqlite3")), "nothing listens"),
        ("b", Kept(4, Path("/s/2.sqlite3")), "nothing listens"),
        ("c", Kept(1, problem="the disk is full"), ""),
        ("d", Kept(0), ""),
    ):
        session = fake.session(name)
        session._run.channel.left = left
        session._run.channel.trouble = trouble
        channels.append(session._run.channel)
    assert registry.what_is_left(channels) == (
        "wsmonitor: 1,205 changes had not reached the server when the program ended: nothing listens\n"
        "  1,204 changes kept in /s; `wsmonitor spool flush` delivers them\n"
        "  1 change lost: the disk is full"
    )
    assert registry.what_is_left(channels[3:]) == ""
