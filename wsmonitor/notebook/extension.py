"""``%load_ext wsmonitor``: the line magic ``%wsmonitor``.

Thin: what the magics say is made in `reports`, what they do is the public API.
"""

from __future__ import annotations

from typing import Any

from . import kernel_channel
from .magics import WsmonitorMagics


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics, and the way for what a browser says while a cell runs."""
    ipython.register_magics(WsmonitorMagics(ipython))
    kernel_channel.install()


def unload_ipython_extension(ipython: Any) -> None:
    """Close the observers of this kernel, and take the magics away."""
    from .observer import observers

    for observer in observers():
        observer.close()
    ipython.magics_manager.magics["line"].pop("wsmonitor", None)
