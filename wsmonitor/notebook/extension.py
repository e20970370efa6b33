"""``%load_ext wsmonitor``: the magics ``%wsmonitor`` and ``%%wsmonitor``.

Thin: what there is, is in `subcommands`; what the magics say is made in `reports`, what they do is the public
API.
"""

from __future__ import annotations

import sys
from typing import Any

from . import kernel_channel
from .magics import WsmonitorMagics, complete

COMPLETED = ("%wsmonitor", "%%wsmonitor", "wsmonitor")
"""Behind which words Tab asks us; the last is what automagic makes of the first."""


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics, and the way for what a browser says while a cell runs."""
    ipython.register_magics(WsmonitorMagics(ipython))
    for word in COMPLETED:
        ipython.set_hook("complete_command", complete, str_key=word)
    kernel_channel.install()
    if "WsMonitor" in ipython.config:
        from .recorder.starting import configured

        configured(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """End the recording, close the observers of this kernel, and take the magics away."""
    recording = sys.modules.get(f"{__package__}.recorder.starting")
    if recording is not None:
        recording.stop("the extension was unloaded")
    from .observer import observers

    for observer in observers():
        observer.close()
    restoring = sys.modules.get("wsmonitor.notebook.restore.widget")
    if restoring is not None:
        restoring.close()
    for kind in ("line", "cell"):
        ipython.magics_manager.magics[kind].pop("wsmonitor", None)
    hooks = ipython.strdispatchers["complete_command"].strs
    for word in COMPLETED:
        hooks.pop(word, None)
