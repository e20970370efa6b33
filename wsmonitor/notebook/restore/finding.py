"""Which recording is meant: a named one, or the last of this notebook."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from wsmonitor.export.recording import SESSION_KIND, Recording, recording_of, stem
from wsmonitor.protocol.entities import Listing
from wsmonitor.protocol.errors import NotRecordedError, WaitTimeoutError
from wsmonitor.protocol.ids import DIRECTORY
from wsmonitor.protocol.reducer import SessionState

if TYPE_CHECKING:
    from wsmonitor.client import Connection

LOOKED_AT: Final = 8
"""How many recordings are looked into at the most, from the newest on, for one that is worth restoring."""

_SETTLED: Final = ("live", "absent", "not_available", "closed")


def notebook_path(names: dict[str, Any] | None = None) -> str:
    """The path of the notebook that this kernel runs, as its front-end tells it; "" if it does not.

    Args:
        names: the user's names in the kernel: VS Code puts the path there.
    """
    # Jupyter Server sets it for the kernels that it starts for a document.
    found = os.environ.get("JPY_SESSION_NAME", "")
    if not found and names is not None and isinstance(names.get("__vsc_ipynb_file__"), str):
        found = names["__vsc_ipynb_file__"]
    return found


def state_of(connection: Connection, topic: str, patience: float) -> SessionState:
    """A verified copy of what *topic* is now. Blocks: not on the runner's thread.

    Raises:
        WaitTimeoutError: it did not come within *patience* seconds.
        NotRecordedError: there is no such session, or not for this token.
    """
    with connection.subscribe(topic) as subscription:
        subscription.wait(lambda now: now.phase in _SETTLED, patience)
        state = subscription.snapshot()
        if subscription.phase not in ("live", "absent") or state is None:
            what = "list of sessions" if topic.startswith(DIRECTORY) else f"session {topic!r}"
            raise NotRecordedError(f"there is no {what}, or not for this token")
        return state


def await_live(connection: Connection, patience: float) -> None:
    """Wait for the link.

    Raises:
        WaitTimeoutError: no server in time; the message says where it was looked for.
        ConnectionFailedError: the server refused.
    """
    try:
        connection.wait_live(patience)
    except WaitTimeoutError as exc:
        looked = "; ".join(connection.status.looked)
        raise WaitTimeoutError(f"{exc}; looked: {looked}" if looked else str(exc)) from None


def find(connection: Connection, wanted: str, path: str, patience: float) -> Recording:
    """The recording to restore.

    Args:
        wanted: a session's id or name (of several notebooks that were recorded under one name, this one's
            goes before the others'); "" for the last recording of the notebook at *path*, or, if there
            is none, the last of all. One in which nothing but the recording itself was run is passed over.

    Raises:
        NotRecordedError: there is none, or what is named is no recording.
        WaitTimeoutError: the server did not answer in time.
    """
    if "~" in wanted:
        return recording_of(state_of(connection, wanted, patience))
    listings = list(state_of(connection, DIRECTORY, patience).listings.values())
    if wanted:
        named = [one for one in listings if wanted in (one.name, one.id)]
        if not named:
            raise NotRecordedError(f"there is no session {wanted!r}, or not for this token")
        recordings = [one for one in named if one.kind == SESSION_KIND]
        return _best(connection, recordings or named, path, patience)
    recordings = [one for one in listings if one.kind == SESSION_KIND]
    if not recordings:
        raise NotRecordedError(
            "this server has no recorded notebook: %wsmonitor record begins a recording, "
            "and what ran before it was not recorded"
        )
    return _best(connection, recordings, path, patience)


def _best(connection: Connection, listings: list[Listing], path: str, patience: float) -> Recording:
    first: Recording | None = None
    other: Recording | None = None
    for listing in ordered(listings, path)[:LOOKED_AT]:
        recording = recording_of(state_of(connection, listing.id, patience))
        first = first or recording
        if not recording.worth_restoring():
            continue
        # Notebooks in two folders may have one name.
        if not path or not recording.path or same_file(recording.path, path):
            return recording
        other = other or recording
    found = other or first
    assert found is not None, "there is a listing"
    return found


def ordered(listings: Iterable[Listing], path: str) -> list[Listing]:
    """Those named as the notebook first, and of these the newest."""
    name = stem(path)
    born: Callable[[Listing], tuple[int, int, str]] = lambda one: (  # noqa: E731 - one key, used once
        int(one.created or one.started or 0), one.run, one.id,
    )  # fmt: skip
    newest = sorted(listings, key=born, reverse=True)
    return sorted(newest, key=lambda one: not name or one.name != name)


def same_file(recorded: str, path: str) -> bool:
    """Whether two paths of a notebook are the same file, where one may be relative to a folder not known."""
    short, long = sorted(
        (recorded.replace("\\", "/").strip("/"), path.replace("\\", "/").strip("/")), key=len
    )
    return long == short or long.endswith("/" + short)
