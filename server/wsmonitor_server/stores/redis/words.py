"""What is wrong with a Redis, or the way to it, in words for people."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from wsmonitor.protocol.errors import ConfigurationError
from wsmonitor_server.stores.base import StoreError

from .address import Address

_TRANSIENT: Final = frozenset({"ReadOnlyError", "BusyLoadingError", "MasterDownError", "TryAgainError"})
"""redis-py's names of answers that say: not now, or not here. Nothing was done then."""

_TRANSIENT_WORDS: Final = ("UNBLOCKED", "READONLY", "LOADING", "MASTERDOWN", "BUSY ")


def kind(reply: object) -> str:
    """Its type's name: redis-py is not loaded before it is used."""
    return type(reply).__name__


def transient(reply: Exception) -> bool:
    """Whether another connection, or the same question later, may do better."""
    return kind(reply) in _TRANSIENT or str(reply).startswith(_TRANSIENT_WORDS)


def explain(exc: Exception, place: str) -> StoreError:
    """What Redis answered. Of these answers each says that nothing was done."""
    text = str(exc)
    name = kind(exc)
    # redis-py takes the word off some answers, and makes a type of its own of it.
    if name == "OutOfMemoryError" or text.startswith("OOM"):
        return StoreError("Redis is at its memory limit (maxmemory)", code="read_only", place=place)
    if name == "ReadOnlyError" or text.startswith("READONLY"):
        return StoreError("Redis is a read-only replica", code="read_only", place=place)
    if text.startswith("MISCONF"):
        return StoreError("Redis cannot save to its disk, and takes no writes", code="read_only", place=place)
    if text.startswith("NOREPLICAS"):
        return StoreError("Redis has too few replicas, and takes no writes", code="read_only", place=place)
    if name == "BusyLoadingError" or text.startswith("LOADING"):
        return StoreError("Redis is still loading its data", place=place)
    if text.startswith("BUSY "):
        return StoreError("Redis is busy with somebody's script", place=place)
    if (
        name == "NoPermissionError"
        or "NOPERM" in text
        or "can't run this command" in text
        or "no permissions to" in text
    ):
        return StoreError(f"Redis does not permit it: {text}", place=place)
    if name == "AuthenticationError" or text.startswith(("WRONGPASS", "NOAUTH")):
        return StoreError(f"Redis refuses the user or the password ({text})", place=place)
    return StoreError(f"Redis: {text}", place=place)


def check_files(address: Address) -> None:
    """Look at the certificates that *address* names: redis-py would not say which of them is wrong.

    Raises:
        ConfigurationError: one cannot be read, or is none.
    """
    files = dict(address.tls)
    context = ssl.create_default_context()
    for option, file in files.items():
        try:
            with Path(file).open("rb"):
                pass
        except OSError as exc:
            raise ConfigurationError(
                f"{address.shown}: {option}: cannot read {file}: {exc.strerror}"
            ) from exc
    authority = files.get("ssl_ca_certs")
    if authority is not None:
        try:
            context.load_verify_locations(authority)
        except ssl.SSLError as exc:
            raise ConfigurationError(
                f"{address.shown}: ssl_ca_certs: no PEM certificate in {authority}"
            ) from exc
    own, key = files.get("ssl_certfile"), files.get("ssl_keyfile")
    if own is not None:
        try:
            # A key that is encrypted would ask for its password at the terminal.
            context.load_cert_chain(own, key, password="")
        except ssl.SSLError as exc:
            raise ConfigurationError(
                f"{address.shown}: {own} and {key or own} are not a PEM certificate and its unencrypted key "
                f"({getattr(exc, 'reason', '') or exc})"
            ) from exc


def unreachable(
    exc: BaseException, address: Address, timeout: float, *, new: bool
) -> tuple[StoreError, bool]:
    """Why there is no connection to the Redis at *address*, or none any more.

    Args:
        timeout: seconds that were waited for it.
        new: there has never been one, so the address itself may be wrong.

    Returns:
        What to say, and whether only somebody's hand can change it.
    """
    chain = list(_chain(exc))
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            authority = dict(address.tls).get("ssl_ca_certs")
            against = authority or "the system's authorities (another: ssl_ca_certs=FILE)"
            return StoreError(
                f"Redis' certificate is not accepted: {one.verify_message}",
                place=f"{address.shown} (checked against {against})",
            ), True
    why = next((said for said in map(_reason, chain) if said), str(exc) or kind(exc))
    if isinstance(exc, TimeoutError):
        why = f"no answer within {timeout:g} s"
    if new:
        why += _hint(exc, chain, address)
    return StoreError(f"Redis cannot be reached: {why}", place=address.shown), False


def _hint(exc: BaseException, chain: list[BaseException], address: Address) -> str:
    if isinstance(exc, TimeoutError):
        return "; to rediss:// a Redis without TLS does not answer either" if address.encrypted else ""
    # It was there, and hung up; how one hears of that depends on who was quicker.
    ended = all(
        isinstance(one, ConnectionResetError | BrokenPipeError) for one in chain if isinstance(one, OSError)
    )
    if address.encrypted:
        if ended or any("CERTIFICATE_REQUIRED" in str(one) for one in chain):
            return "; perhaps it wants a client's certificate (ssl_certfile, ssl_keyfile)"
    elif ended and address.scheme != "unix":
        return "; perhaps it speaks TLS only (rediss://)"
    return ""


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """*exc* and what led to it: redis-py wraps most errors, with a text that is not for people."""
    seen: BaseException | None = exc
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _reason(exc: BaseException) -> str:
    """Of the system's own errors, what it says; else nothing."""
    if isinstance(exc, socket.gaierror):
        return f"its name is not known ({exc.strerror})"
    if isinstance(exc, ssl.SSLError):
        return f"TLS: {getattr(exc, 'reason', '') or exc}"
    if isinstance(exc, OSError) and exc.errno:
        return os.strerror(exc.errno).lower()
    if isinstance(exc, ConnectionError | EOFError):
        return "the connection was lost"
    return ""
