"""Puts the parts together: which store, which session side, for a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .clock import Clock
from .config import ServerConfig
from .engine import SessionEngine
from .stores.base import Store
from .stores.bus import Shared
from .stores.memory import MemoryStore
from .stores.redis.address import SCHEMES


def make_store(config: ServerConfig) -> Store:
    """The store that *config* names, for one server alone.

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


def make_shared(config: ServerConfig, mark: Callable[[], str]) -> Shared | None:
    """The store that *config* names, where it is one that other servers use, too."""
    if config.store.partition(":")[0] not in SCHEMES:
        return None
    from .stores.redis.store import RedisStore

    return RedisStore(config.store, log_records=config.limits.log_records, mark=mark)


def make_engine(config: ServerConfig, clock: Clock, *, mark: Callable[[], str] = lambda: "") -> SessionEngine:
    """The session side on that store.

    Args:
        mark: what tokens are verified with (`auth.Authenticator.mark`), for the servers that share the store.
    """
    shared = make_shared(config, mark)
    return SessionEngine(
        make_store(config) if shared is None else shared,
        shared=shared,
        timing=config.timing,
        limits=config.limits,
        retention=config.retention,
        clock=clock,
    )
