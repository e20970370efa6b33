"""Facts about this machine and its processes, as the discovery file uses them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from wsmonitor.protocol.discovery import Discovery


def boot_id() -> str:
    """The operating system's boot id; "" where there is none."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


def process_started(pid: int) -> float | None:
    """When process *pid* started, in seconds since boot; None when it is gone or that cannot be told."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    if fields[0] in ("Z", "X"):
        return None  # it has ended, and nobody has asked for its status yet
    # proc(5): the name, in parentheses, may hold spaces; the start time is field 22, the name field 2.
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def why_stale(discovery: Discovery) -> str:
    """Why the process that wrote *discovery* cannot be there any more; "" when it may be."""
    here = boot_id()
    if discovery.boot_id and here and discovery.boot_id != here:
        return "written before this machine was started"
    if sys.platform.startswith("linux"):
        started = process_started(discovery.pid)
        if started is None:
            return f"its process {discovery.pid} has ended"
        if discovery.process_started and started != discovery.process_started:
            return f"its process {discovery.pid} has ended, and another has that number"
        return ""
    if os.name == "posix":
        try:
            os.kill(discovery.pid, 0)
        except ProcessLookupError:
            return f"its process {discovery.pid} has ended"
        except PermissionError:
            return f"process {discovery.pid} is another user's"
    return ""
