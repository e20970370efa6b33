"""Files that commands write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def write_whole(path: Path, pieces: Iterable[bytes]) -> int:
    """Write the file in one step: a reader sees the old one or the new one, never half of it.

    Returns:
        how many bytes it has.

    Raises:
        OSError: naming the file that was asked for.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as exc:
        # The name of the file that was asked for, not of the one that was to be renamed to it.
        raise OSError(exc.errno, exc.strerror, str(path)) from exc
    try:
        written = 0
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                written += file.write(piece)
        # mkstemp makes it private; an export is a file like any other.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return written
