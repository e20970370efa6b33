"""What the file system beneath a store is, and whether it has room.

SQLite's WAL does not work on network file systems (sqlite.org/wal.html, section 1).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from .base import StoreError

NETWORK: Final = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fuse.ceph", "fuse.cvmfs", "fuse.davfs2",
        "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs",
        "gpfs", "lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "smb2", "smb3",
        "smbfs",
    }
)  # fmt: skip


def network_type(path: Path, mounts: str) -> str | None:
    """The type of the network file system that *path* is on, or None.

    Args:
        path: absolute and resolved.
        mounts: the text of ``/proc/mounts``.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        # The kernel writes space, tab, newline and backslash as octal escapes.
        point = Path(parts[1].encode().decode("unicode_escape").encode("latin-1").decode(errors="replace"))
        # Of two mounts on one point the later one covers the earlier.
        if (path == point or point in path.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), parts[2]
    return kind if kind in NETWORK else None


def mounts() -> str:
    """The text of ``/proc/mounts``; empty where there is no such file (macOS, Windows)."""
    try:
        return Path("/proc/mounts").read_text(errors="replace")
    except OSError:
        return ""


def is_read_only(path: Path) -> bool:
    """Whether *path* lies on a file system that is mounted read-only (False where that cannot be told)."""
    if not hasattr(os, "statvfs"):
        return False
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def find_room(path: Path, size: int) -> None:
    """Raise `StoreError` when *size* bytes more cannot be had; *path* is made for it, and goes again.

    It is tried, not asked: quotas and limits are not in what `statvfs` says.
    """
    try:
        fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, size)
            else:
                for _ in range(0, size, 65_536):
                    os.write(fd, bytes(65_536))
        finally:
            os.close(fd)
            path.unlink()
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
        why = "the disk is full" if full else f"the system refuses to write: {exc.strerror or exc}"
        raise StoreError(why, code="read_only", place=str(path)) from exc
