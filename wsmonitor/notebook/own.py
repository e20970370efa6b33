"""Whether a session is the one into which this very kernel is being recorded."""

from __future__ import annotations

import sys
from typing import Final

_RECORDER: Final = f"{__package__}.recorder.starting"


def own_recording() -> tuple[str, str]:
    """Id and name of the session into which this kernel is recorded now; ("", "") where it is not."""
    # Not imported for this: where nobody has started a recording there is none.
    starting = sys.modules.get(_RECORDER)
    recorder = None if starting is None else starting.current()
    return ("", "") if recorder is None else (recorder.session.id, recorder.session.name)


def is_own(target: str, session_id: str) -> bool:
    """Whether an observer of *target*, which shows *session_id* ("" while it shows none), shows it."""
    own_id, name = own_recording()
    return bool(own_id) and (own_id == session_id or (not session_id and target in (own_id, name)))
