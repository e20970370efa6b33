"""Servers that are measured beside ours, each with what its clients say."""

from __future__ import annotations

from . import installing
from .base import Peer, Server
from .broadcast import BROADCAST
from .floor import FLOOR, FLOOR_TEN
from .ours import OURS, OURS_SQLITE, OURS_UVLOOP
from .packaged import PACKAGED

__all__ = ["PEERS", "Peer", "Server", "show"]

PEERS: dict[str, Peer] = {
    peer.name: peer for peer in (OURS, OURS_UVLOOP, OURS_SQLITE, FLOOR, FLOOR_TEN, BROADCAST, *PACKAGED)
}


def show(*, install: bool) -> None:
    """Say which peers can be run here, and how to get the others; first get those of PyPI and npm."""
    if install:
        installing.install()
    for peer in PEERS.values():
        print(f"{peer.name:26} {peer.available() or 'is there'}")
