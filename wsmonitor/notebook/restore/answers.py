"""What the browser asks while it restores, and the answers.

===========  =============================  ====================================================
``do``       takes                          answers
===========  =============================  ====================================================
``plan``     ``cells``: see `plan.places`   ``rows``: see `plan.plan`, ``recording``
``outputs``  ``n``, ``offset``              ``size``, ``offset``; a page of JSON as a buffer:
                                            ``{"outputs", "count", "notes"}``
``copy``                                    ``path`` of the file, ``cells``, ``lines`` about it
===========  =============================  ====================================================

How requests and answers travel is told in `wsmonitor.notebook.requests`. All of it runs on one thread, and
may block: values are fetched from the server.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from wsmonitor.export.cells import outputs_of
from wsmonitor.export.matching import Executed
from wsmonitor.export.notebook import Report, executed
from wsmonitor.export.recording import Fetch, Logs, Recording
from wsmonitor.notebook.requests import Answer, Question, RefusedError, Request
from wsmonitor.notebook.rows import milliseconds

from .plan import places, plan

PAGE: Final = 192 * 1024
"""Bytes of outputs in one message."""

KEPT_BYTES: Final = 32 * 1024 * 1024
"""How many bytes of outputs, made ready for the browser, are kept between the questions for their pages."""


class Answers:
    """See the module's docstring.

    Args:
        read: gives the recording as it is now.
        fetch, logs: see `recording.Fetch` and `recording.Logs`.
        own: whether the recording was written by the one who restores it.
        copy: writes the restored copy; gives its path, and what is to be said about it.
    """

    def __init__(
        self,
        read: Callable[[], Recording],
        fetch: Fetch,
        logs: Logs,
        own: Callable[[Recording], bool],
        copy: Callable[[Recording], tuple[Path, Report]],
    ) -> None:
        self._read = read
        self._fetch = fetch
        self._logs = logs
        self._own = own
        self._copy = copy
        self._recording: Recording | None = None
        self._ready: OrderedDict[int, bytes] = OrderedDict()

    def questions(self) -> Mapping[str, Question]:
        """What may be asked."""
        return {
            "plan": Question(self._plan),
            "outputs": Question(self._outputs),
            "copy": Question(self._write, once=True),
        }

    def _plan(self, request: Request) -> Answer:
        cells = places(request.get("cells"))
        recording = self._read()
        self._recording = recording
        self._ready.clear()
        ran: list[Executed] = [executed(run, self._fetch) for run in recording.runs]
        return Answer(
            {
                "rows": plan(recording, ran, cells),
                "recording": {
                    "session": recording.session,
                    "name": recording.name,
                    "run": recording.run,
                    "state": recording.state,
                    "path": recording.path,
                    "began": milliseconds(recording.began),
                    "own": self._own(recording),
                    "subjects": list(recording.subjects)[:5],
                },
            }
        )

    def _outputs(self, request: Request) -> Answer:
        number, offset = request.get("n"), request.get("offset")
        recording = self._recording
        if recording is None:
            raise RefusedError("bad_message", "outputs were asked for before the plan")
        if not isinstance(number, int) or not 0 <= number < len(recording.runs):
            raise RefusedError("bad_message", f"the recording has no execution {number!r}")
        if not isinstance(offset, int) or offset < 0:
            raise RefusedError("bad_message", f"not an offset: {offset!r}")
        data = self._ready.get(number)
        if data is None:
            run = recording.runs[number]
            made = outputs_of(run, self._fetch, self._logs)
            data = msgspec.json.encode({"outputs": made.outputs, "count": run.count, "notes": made.notes})
            self._ready[number] = data
            while len(self._ready) > 1 and sum(map(len, self._ready.values())) > KEPT_BYTES:
                self._ready.popitem(last=False)
        else:
            self._ready.move_to_end(number)
        return Answer({"size": len(data), "offset": offset}, [data[offset : offset + PAGE]])

    def _write(self, request: Request) -> Answer:
        path, report = self._copy(self._read())
        return Answer({"path": str(path), "cells": report.cells, "lines": report.told()})
