"""Large values: uploaded in pages, verified by their SHA-256, then immutable.

Two places with one contract. In memory, and as files: ``values/<digest of the session id>/<sha256>``,
an upload that is not complete as ``<sha256>.part``. Files, because a database that holds 100 MB
values makes every backup, every checkpoint and every vacuum pay for them.

All methods block; the store calls them on a thread of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from .base import StoreError

_OPEN_HASHES: Final = 64
"""Uploads whose running digest is kept in memory; an older one is computed again from its file."""


class Blobs(Protocol):
    """What both places do."""

    def begin(self, session: str, sha256: str, total: int) -> int: ...
    def write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool: ...
    def has(self, session: str, sha256: str) -> bool: ...
    def read(self, session: str, sha256: str, offset: int, length: int) -> tuple[bytes, int] | None: ...
    def remove_session(self, session: str) -> None: ...
    def sweep(self, referenced: set[tuple[str, str]], older_than: float) -> int:
        """Delete what is not in *referenced* (session, sha256) and untouched for so many seconds."""

    def size(self) -> int: ...


def _expect(offset: int, received: int, length: int, total: int) -> None:
    if offset != received:
        raise StoreError(f"the upload stands at {received}, not at {offset}", code="out_of_sequence")
    if offset + length > total:
        raise StoreError(f"more than the {total} bytes that were announced", code="value_mismatch")


class MemoryBlobs:
    """Values in memory."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._parts: dict[tuple[str, str], bytearray] = {}
        self._whole: dict[tuple[str, str], bytes] = {}
        self._touched: dict[tuple[str, str], float] = {}

    def begin(self, session: str, sha256: str, total: int) -> int:
        key = (session, sha256)
        if key in self._whole:
            self._touched[key] = self._clock()
            return len(self._whole[key])
        return len(self._parts.get(key, b""))

    def write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        key = (session, sha256)
        if key in self._whole:
            return True
        part = self._parts.get(key, bytearray())
        _expect(offset, len(part), len(data), total)
        self._parts[key] = part
        part += data
        self._touched[key] = self._clock()
        if len(part) < total:
            return False
        del self._parts[key]
        if hashlib.sha256(part).hexdigest() != sha256:
            del self._touched[key]
            raise StoreError("the bytes do not have the digest that was named", code="value_mismatch")
        self._whole[key] = bytes(part)
        return True

    def has(self, session: str, sha256: str) -> bool:
        return (session, sha256) in self._whole

    def read(self, session: str, sha256: str, offset: int, length: int) -> tuple[bytes, int] | None:
        whole = self._whole.get((session, sha256))
        return None if whole is None else (whole[offset : offset + length], len(whole))

    def _delete(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            self._parts.pop(key, None)
            self._whole.pop(key, None)
            self._touched.pop(key, None)

    def remove_session(self, session: str) -> None:
        self._delete([key for key in self._touched if key[0] == session])

    def sweep(self, referenced: set[tuple[str, str]], older_than: float) -> int:
        limit = self._clock() - older_than
        old = [key for key, when in self._touched.items() if key not in referenced and when <= limit]
        self._delete(old)
        return len(old)

    def size(self) -> int:
        return sum(map(len, self._whole.values())) + sum(map(len, self._parts.values()))


class FileBlobs:
    """Values as files under *root* (created when the first value comes, private to the user)."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self.root = root
        self._clock = clock
        self._hashes: dict[Path, tuple[int, hashlib._Hash]] = {}

    def _folder(self, session: str) -> Path:
        # Ids may hold what file names may not; and a digest has a fixed length.
        return self.root / hashlib.sha256(session.encode()).hexdigest()[:32]

    def _paths(self, session: str, sha256: str) -> tuple[Path, Path]:
        folder = self._folder(session)
        return folder / sha256, folder / f"{sha256}.part"

    def begin(self, session: str, sha256: str, total: int) -> int:
        whole, part = self._paths(session, sha256)
        if whole.exists():
            self._touch(whole)
            return whole.stat().st_size
        if not part.exists():
            return 0
        received = part.stat().st_size
        if received >= total:
            # The process died between the last page and the verification: begin again.
            self._hashes.pop(part, None)
            part.unlink()
            return 0
        self._touch(part)
        return received

    def _touch(self, path: Path) -> None:
        now = self._clock()
        os.utime(path, (now, now))

    def write(self, session: str, sha256: str, total: int, offset: int, data: bytes) -> bool:
        whole, part = self._paths(session, sha256)
        if whole.exists():
            return True
        try:
            part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("ab") as file:
                received = file.tell()
                _expect(offset, received, len(data), total)
                running = self._running(part, received)
                file.write(data)
                running.update(data)
                received += len(data)
                if received == total:
                    # The event that refers to this value may be acknowledged next.
                    file.flush()
                    os.fsync(file.fileno())
            self._touch(part)
            if received < total:
                self._hashes[part] = (received, running)
                return False
            self._hashes.pop(part, None)
            if running.hexdigest() != sha256:
                part.unlink()
                raise StoreError("the bytes do not have the digest that was named", code="value_mismatch")
            part.rename(whole)
        except OSError as exc:
            self._hashes.pop(part, None)
            raise StoreError(f"the value cannot be written: {exc}", code="read_only") from exc
        return True

    def _running(self, part: Path, received: int) -> hashlib._Hash:
        """The digest over what is there, taken out of the table (a failed write must not leave it)."""
        known = self._hashes.pop(part, None)
        if known is not None and known[0] == received:
            return known[1]
        while len(self._hashes) >= _OPEN_HASHES:
            self._hashes.pop(next(iter(self._hashes)))
        running = hashlib.sha256()
        with part.open("rb") as file:
            while chunk := file.read(1 << 20):
                running.update(chunk)
        return running

    def has(self, session: str, sha256: str) -> bool:
        return self._paths(session, sha256)[0].exists()

    def read(self, session: str, sha256: str, offset: int, length: int) -> tuple[bytes, int] | None:
        path = self._paths(session, sha256)[0]
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
                return data, os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StoreError(f"the value cannot be read: {exc}") from exc

    def remove_session(self, session: str) -> None:
        folder = self._folder(session)
        self._hashes = {path: known for path, known in self._hashes.items() if path.parent != folder}
        shutil.rmtree(folder, ignore_errors=True)

    def sweep(self, referenced: set[tuple[str, str]], older_than: float) -> int:
        keep = {self._paths(session, sha256)[0] for session, sha256 in referenced}
        limit = self._clock() - older_than
        count = 0
        for path in self._files():
            if path not in keep and path.stat().st_mtime <= limit:
                path.unlink()
                self._hashes.pop(path, None)
                count += 1
        return count

    def size(self) -> int:
        return sum(path.stat().st_size for path in self._files())

    def _files(self) -> list[Path]:
        return list(self.root.glob("*/*")) if self.root.is_dir() else []
