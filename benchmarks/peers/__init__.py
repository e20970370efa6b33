"""Servers that are measured beside ours, each with what its clients say."""

from __future__ import annotations

from .base import Peer, Server
from .broadcast import BROADCAST
from .floor import FLOOR, FLOOR_TEN
from .ours import OURS, OURS_SQLITE

__all__ = ["PEERS", "Peer", "Server"]

PEERS: dict[str, Peer] = {peer.name: peer for peer in (OURS, OURS_SQLITE, FLOOR, FLOOR_TEN, BROADCAST)}
