"""Whether a client that came now would be served right: what ``/readyz`` says.

The store is asked, and the answer is believed for a moment, so that strangers who ask all the time cannot
keep it busy. All who ask meanwhile wait for the one question, and none of them for long: a store that does
not answer is not ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from wsmonitor.protocol.entities import ErrorInfo

from .replies import error_info
from .stores.base import StoreError

if TYPE_CHECKING:
    from .app import Server

_LOG: Final = logging.getLogger(__name__)

FRESH: Final = 0.5
"""Seconds for which an answer of the store is believed."""

WITHIN: Final = 2.0
"""Seconds after which a store that does not answer is not ready, and a key set that does not come missing."""


class Verdict(NamedTuple):
    """What was found.

    Attributes:
        problem: the first thing that is wrong; None when clients are served.
        checks: each thing that was looked at: ``ok``, or the code of what is wrong with it.
    """

    problem: ErrorInfo | None
    checks: dict[str, str]


class Readiness:
    """See the module's text."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._asking: asyncio.Task[ErrorInfo | None] | None = None
        self._store: ErrorInfo | None = None
        self._asked_at = float("-inf")

    def known(self) -> ErrorInfo | None:
        """What is wrong as far as is known without asking anybody; None while nothing is."""
        server = self._server
        if server.draining:
            return error_info("draining", "the server is stopping")
        if len(server.peers) >= server.limits.connections:
            return server.limit("connections")
        if not server.auth.has_keys:
            return error_info("unauthorized", "the key set that tokens are verified with cannot be fetched")
        degraded = server.engine.degraded
        return None if degraded is None else error_info(degraded.code, degraded.reason)

    async def look(self) -> Verdict:
        """Look at everything that a client needs."""
        server = self._server
        checks: dict[str, ErrorInfo | None] = {
            "running": error_info("draining", "the server is stopping") if server.draining else None,
            "room": server.limit("connections") if len(server.peers) >= server.limits.connections else None,
            "keys": await self._keys(),
            "store": None if server.draining else await self._ask_store(),
        }
        problem = next((info for info in checks.values() if info is not None), None)
        return Verdict(problem, {name: "ok" if info is None else info.code for name, info in checks.items()})

    async def stop(self) -> None:
        """Ask nothing any more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _keys(self) -> ErrorInfo | None:
        server = self._server
        if not server.auth.has_keys and server.auth.wants_keys(server.clock.monotonic()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WITHIN):
                    await server.fetch_keys()
        if server.auth.has_keys:
            return None
        return error_info("unauthorized", "the key set that tokens are verified with cannot be fetched")

    async def _ask_store(self) -> ErrorInfo | None:
        clock = self._server.clock
        if self._asking is None and clock.monotonic() - self._asked_at >= FRESH:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        if self._asking is None:
            return self._store
        done, _ = await asyncio.wait((self._asking,), timeout=WITHIN)
        if not done:
            return error_info("store_failed", f"the store has not answered within {WITHIN:g} s")
        return self._store

    async def _ask(self) -> ErrorInfo | None:
        try:
            await self._server.engine.ready()
            self._store = None
        except StoreError as exc:
            self._store = error_info(exc.code, exc.message)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged, and the answer is no
            _LOG.exception("whether the store can be written is not known")
            self._store = error_info("store_failed", "the store failed")
        finally:
            self._asking = None
        self._asked_at = self._server.clock.monotonic()
        return self._store
