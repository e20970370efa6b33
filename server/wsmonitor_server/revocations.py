"""Tokens that are no longer valid, though they have not expired."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .replies import store_refusal
from .stores.base import Store, StoreError


class Revocations:
    """What is known of them here; the store keeps them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._expiries: dict[str, int] = {}  # by jti: seconds UTC; 0 where that is not known
        self._callbacks: list[Callable[[str], None]] = []

    def __contains__(self, jti: object) -> bool:
        return jti in self._expiries

    def __iter__(self) -> Iterator[str]:
        return iter(self._expiries)

    async def load(self) -> None:
        """Learn what the store knows. Raises `StoreError`."""
        self._expiries |= await self._store.revoked()

    async def revoke(self, jti: str, expires: int) -> None:
        """Revoke a token for good. Raises `Refusal`."""
        try:
            await self._store.revoke(jti, expires)
        except StoreError as exc:
            raise store_refusal(exc, "") from exc
        self.take(jti, expires)

    def take(self, jti: str, expires: int) -> None:
        """A token is revoked from now on; whoever wants to know is told in this turn."""
        if jti not in self._expiries:
            self._expiries[jti] = expires
            for callback in self._callbacks:
                callback(jti)

    def listen(self, callback: Callable[[str], None]) -> None:
        """Have *callback* told of each jti that is revoked from here on."""
        self._callbacks.append(callback)

    def forget(self, before: int) -> None:
        """Tokens that have expired before then (seconds UTC) are refused for that."""
        self._expiries = {jti: at for jti, at in self._expiries.items() if at == 0 or at >= before}
