"""Puts the parts together: which store, which session side, for a configuration."""

from __future__ import annotations

from pathlib import Path

from .clock import Clock
from .config import ServerConfig
from .engine import SessionEngine
from .stores.base import Store
from .stores.memory import MemoryStore


def make_store(config: ServerConfig) -> Store:
    """The store that *config* names.

    Raises:
        ConfigurationError: its directory cannot be used.
    """
    kind, _, path = config.store.partition(":")
    if kind == "sqlite":
        from .stores.sqlite import SqliteStore

        return SqliteStore(
            Path(path).expanduser().absolute(),
            log_records=config.limits.log_records,
            synchronous=config.synchronous,
        )
    return MemoryStore(log_records=config.limits.log_records)


def make_engine(config: ServerConfig, clock: Clock) -> SessionEngine:
    """The session side on that store."""
    return SessionEngine(
        make_store(config),
        timing=config.timing,
        limits=config.limits,
        retention=config.retention,
        clock=clock,
    )
