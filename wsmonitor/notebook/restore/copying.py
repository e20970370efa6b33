"""A restored copy of the notebook's file, for front-ends that do not let their document be changed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from wsmonitor.export.notebook import Report, notebook_file, notebook_into, read_notebook
from wsmonitor.export.recording import Fetch, Logs, Recording


def original_of(recording: Recording, path: str) -> Path | None:
    """The notebook's file on this machine: where the kernel runs it, else where it was recorded."""
    for candidate in (path, recording.path):
        if candidate.endswith(".ipynb") and Path(candidate).is_file():
            return Path(candidate)
    return None


def write_copy(recording: Recording, fetch: Fetch, logs: Logs, path: str) -> tuple[Path, Report]:
    """Write ``NAME-restored.ipynb`` next to the notebook, never over a file that is there.

    Without the notebook's file, the recorded cells alone are written, into the current folder.

    Args:
        path: the notebook's path as the kernel knows it, or "".

    Raises:
        OSError: it cannot be written there.
        ConfigurationError: the notebook's file cannot be read as one.
    """
    original = original_of(recording, path)
    report = Report()
    if original is None:
        folder, name = Path.cwd(), recording.file_name
        pieces = notebook_file(recording, fetch, logs, report)
    else:
        folder, name = original.parent, original.stem
        notebook = read_notebook(original.read_bytes(), original.name)
        pieces = notebook_into(recording, fetch, logs, notebook, report)
    handle, made = tempfile.mkstemp(dir=folder, prefix=".restored-", suffix=".ipynb")
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
        mask = os.umask(0)
        os.umask(mask)
        Path(made).chmod(0o666 & ~mask)
        return _placed(Path(made), folder, name), report
    finally:
        Path(made).unlink(missing_ok=True)


def _placed(made: Path, folder: Path, name: str) -> Path:
    """Give *made* the first name that is free, without a moment in which another could take it."""
    number = 1
    while True:
        target = folder / f"{name}-restored{'' if number == 1 else f'-{number}'}.ipynb"
        try:
            # Unlike a renaming, this fails if the name is taken.
            target.hardlink_to(made)
            return target
        except FileExistsError:
            number += 1
        except OSError:
            # A file system without hard links, as on some sticks and shares.
            if not target.exists():
                return made.rename(target)
            number += 1
