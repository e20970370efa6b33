"""A small disk of one's own: a file system in memory, which can be filled, and mounted read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.conftest import ELSEWHERE

_BLOCK: Final = 4096


class Disk:
    """A file system of *size* bytes at *folder*."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._size = size
        self._filler = folder / "filler"

    def mount(self) -> bool:
        """Whether it could be mounted: that is the administrator's right, and not in every container."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "none"]
        try:
            done = subprocess.run([*command, str(self.folder)], capture_output=True, check=False)
        except FileNotFoundError:
            return False
        return done.returncode == 0

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=True, capture_output=True)

    def read_only(self, yes: bool) -> None:
        """From now on it can be read only, or again be written. Nobody may have a file open for writing."""
        mode = "ro" if yes else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True, capture_output=True)

    def grow(self, size: int) -> None:
        """It has *size* bytes from now on."""
        options = f"remount,size={size}"
        subprocess.run(["mount", "-o", options, str(self.folder)], check=True, capture_output=True)

    def fill(self) -> None:
        """Leave no free byte."""
        with self._filler.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(os.urandom(_BLOCK))
                except OSError:
                    return

    def free(self) -> None:
        """Take away what `fill` has put there."""
        self._filler.unlink()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of *size* bytes at *folder*; skips the test where none can be mounted."""
    folder.mkdir()
    disk = Disk(folder, size)
    if not disk.mount():
        pytest.skip(f"{ELSEWHERE}mounting a file system needs root and the capability SYS_ADMIN")
    try:
        yield disk
    finally:
        disk.unmount()
