"""What the command line says when something goes wrong, and how it ends.

Every failure is told in three parts on stderr: what happened, its code, what to do about it. A
traceback is shown with ``WSMONITOR_DEBUG=1`` only.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from wsmonitor.protocol.errors import ConfigurationError, RequestError, UsageError, WsMonitorError, in_words


class Exit(IntEnum):
    """Exit statuses, the same for every command."""

    OK = 0
    FAILED = 1  # it was done, and it failed: a command rejected, another terminal state, a fault
    USAGE = 2  # the command line or a setting is wrong
    NO_SERVER = 3  # no server was found, or it could not be reached
    REFUSED = 4  # the server refused: token, role, no such session
    TIMEOUT = 124  # as timeout(1)
    INTERRUPTED = 130  # Ctrl-C


class Failure(Exception):
    """A failure that is told to the user as it is.

    Attributes:
        code: a code of the catalogue, or of the command line's own.
        message: what happened.
        hint: what to do about it; "" for the hint that belongs to the code.
        status: how the process ends.
    """

    def __init__(self, message: str, *, code: str = "", hint: str = "", status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint or HINTS.get(code, "")
        self.status = status


REFUSALS: Final = frozenset(
    {"unauthorized", "token_expired", "token_revoked", "forbidden", "origin_forbidden", "not_available"}
)
_UNREACHABLE: Final = frozenset(
    {"connection_lost", "no_server", "draining", "handshake_timeout", "tls_failed"}
)

HINTS: Final[dict[str, str]] = {
    "no_server": "the local server starts by itself when a program publishes; another one is named by --url",
    "connection_lost": "is the server running there? wsmonitor status tells where it was looked for",
    "tls_failed": "--ca FILE names the authority to check the server against; wsmonitor status tells more",
    "insecure": "--url wss://…, or --insecure inside a network that you trust",
    "unauthorized": "give a token: --token-file FILE or WSMONITOR_TOKEN; wsmonitor token issue makes one",
    "token_expired": "make a new one: wsmonitor token issue",
    "token_revoked": "make a new one: wsmonitor token issue",
    "forbidden": "this needs a token with another role: wsmonitor token issue --role ROLE",
    "not_available": "wsmonitor sessions lists the sessions that this token may see",
    "unsupported_version": "install the same version of wsmonitor on both sides; wsmonitor status shows both",
    "command_unsupported": "wsmonitor export SESSION -o - shows the commands that the session takes",
    "not_recorded": "%wsmonitor record records a notebook; -o FILE.html or FILE.json writes any session",
    "rate_limited": "wait a moment, then try again",
    "draining": "the server is stopping; try again when it is back",
}


def explain(error: Exception) -> Failure:
    """*error* as a `Failure`, with the hint and the exit status that belong to its code."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, RequestError):
        return Failure(in_words(error.info), code=error.code, status=status_of(error.code))
    if isinstance(error, ConfigurationError | UsageError):
        return Failure(str(error), code=error.code, status=Exit.USAGE)
    if isinstance(error, WsMonitorError):
        return Failure(str(error), code=error.code, status=status_of(error.code))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror or error}", code="os_error")
    hint = "this is a fault of wsmonitor; WSMONITOR_DEBUG=1 shows where"
    return Failure(f"{type(error).__name__}: {error}", code="internal", hint=hint)


def status_of(code: str) -> Exit:
    """The exit status of an error code."""
    if code in REFUSALS:
        return Exit.REFUSED
    if code in ("configuration", "insecure"):
        return Exit.USAGE
    return Exit.NO_SERVER if code in _UNREACHABLE else Exit.FAILED
