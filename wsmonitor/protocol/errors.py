"""Every error of wsmonitor, in one place.

::

    WsMonitorError
    ├── UsageError                  you called us wrongly
    │   ├── InvalidIdError          also a ValueError
    │   └── NotRecordedError        the session is no recorded notebook
    ├── ConfigurationError          a setting, a file or an address is wrong
    ├── ProtocolError               the peer misbehaved; carries the code to answer with
    ├── StateError                  the reducer was given an event that does not fit; nothing was changed
    │   ├── OutOfOrderError         not the next sequence number, or another epoch
    │   └── DigestMismatchError     same position, other content
    ├── RequestError                the server refused a request; carries the server's `ErrorInfo`
    ├── ConnectionFailedError       the link is down for good (credentials, version), with the reason
    ├── SessionFailed               `wait()`: the session ended, but did not succeed
    └── WaitTimeoutError            also a TimeoutError

    Cancelled, Rejected             BaseException: raised only by `checkpoint()` and `track()`, so that a
                                    user's `except Exception` does not swallow a cancellation

The wire's error codes are in `CATALOGUE`. "You misused us" and "the peer misbehaved" are
different classes because different people have to mend them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from .entities import ErrorInfo


class CatalogueEntry(NamedTuple):
    """What is known of an error code before it happens."""

    meaning: str
    retryable: bool
    http_status: int


CATALOGUE: Final[dict[str, CatalogueEntry]] = {
    # Form
    "bad_json": CatalogueEntry("The message is not a JSON text.", False, 400),
    "bad_message": CatalogueEntry("A field is missing, has the wrong type or is out of range.", False, 400),
    "unknown_type": CatalogueEntry("The message's type is not one that the server knows.", False, 400),
    "bad_id": CatalogueEntry("An id has characters or a length that ids may not have.", False, 400),
    "binary_message": CatalogueEntry("The protocol uses text messages only.", False, 400),
    "message_too_large": CatalogueEntry("The message is larger than the server accepts.", False, 413),
    "unexpected_message": CatalogueEntry("The message does not fit the state of the connection.", False, 409),
    "unsupported_version": CatalogueEntry("Client and server speak versions that do not fit.", False, 426),
    "bad_subprotocol": CatalogueEntry("The handshake did not offer the wsmonitor subprotocol.", False, 400),
    # Who may do what
    "unauthorized": CatalogueEntry("No token, or one that is not valid here.", False, 401),
    "token_expired": CatalogueEntry("The token has expired; refresh it.", True, 401),
    "token_revoked": CatalogueEntry("The token has been revoked.", False, 401),
    "forbidden": CatalogueEntry("The token's role does not allow this.", False, 403),
    "origin_forbidden": CatalogueEntry("This browser origin is not on the server's allow-list.", False, 403),
    "not_available": CatalogueEntry(
        "No such session, or not for this token; which of the two is not told.", False, 404
    ),
    # Publishing
    "illegal_transition": CatalogueEntry("The state machine has no such transition.", False, 409),
    "not_owner": CatalogueEntry("Only the producer that created an entity may write it.", False, 403),
    "fenced": CatalogueEntry(
        "A newer holder of this producer id has taken over, or the session was removed.", False, 409
    ),
    "out_of_sequence": CatalogueEntry("Not the next producer sequence number.", True, 409),
    "value_too_large": CatalogueEntry("A value is above the inline limit; upload it first.", False, 413),
    "event_too_large": CatalogueEntry("The entity would be larger than one event may be.", False, 413),
    "value_missing": CatalogueEntry("The change refers to a value that was not uploaded.", True, 409),
    "value_mismatch": CatalogueEntry("The uploaded bytes do not have the digest that was named.", True, 409),
    "gone": CatalogueEntry("What was asked for is no longer kept.", False, 410),
    "session_ended": CatalogueEntry("The session has ended.", False, 409),
    # Commands
    "command_unsupported": CatalogueEntry("The producer does not take this command here.", False, 409),
    "command_expired": CatalogueEntry("The command's deadline passed before it was accepted.", False, 408),
    "key_conflict": CatalogueEntry("The idempotency key was used for another command.", False, 409),
    # The server
    "limit_exceeded": CatalogueEntry("A configured limit was reached; the message names it.", True, 429),
    "rate_limited": CatalogueEntry("Too many messages in too short a time.", True, 429),
    "handshake_timeout": CatalogueEntry("The handshake took too long.", True, 408),
    "read_only": CatalogueEntry("The store cannot take writes at present.", True, 503),
    "store_failed": CatalogueEntry("The store failed; nothing of this change was kept.", True, 503),
    "draining": CatalogueEntry("The server is stopping; reconnect.", True, 503),
    "internal": CatalogueEntry("A fault of the server; it is logged under the correlation id.", True, 500),
    # What a client or producer says of itself
    "skipped": CatalogueEntry("The producer's spool overflowed; changes were dropped and counted.", False, 0),
    "spool_unavailable": CatalogueEntry("A spool on disk cannot be written or read now.", True, 0),
    "spool_in_use": CatalogueEntry("The program that the spool belongs to is still running.", True, 0),
    "spool_damaged": CatalogueEntry("A spool on disk is damaged; it was set aside.", False, 0),
    "callback_failed": CatalogueEntry("An observer's own callback raised.", False, 0),
    "connection_lost": CatalogueEntry("The link to the server is down.", True, 0),
    "tls_failed": CatalogueEntry(
        "No TLS connection: a certificate is not accepted, or one is wanted; the message says which.", True, 0
    ),
    "insecure": CatalogueEntry(
        "The address is another machine's and not encrypted: no token was sent there.", False, 0
    ),
    "step_failed": CatalogueEntry("A step raised an exception.", False, 0),
    "producer_error": CatalogueEntry("The publishing program reported an error.", False, 0),
    "capture_failed": CatalogueEntry("A value could not be shown.", False, 0),
    "timeout": CatalogueEntry("What was waited for did not happen in the time given.", True, 0),
    "not_recorded": CatalogueEntry("The session is no recorded notebook.", False, 0),
    "configuration": CatalogueEntry("A setting, a file or an address is wrong.", False, 0),
    # What the command line says of its surroundings
    "ambiguous": CatalogueEntry("A name fits more than one; give the id.", False, 0),
    "no_server": CatalogueEntry("No server was found; where it was looked for is told.", True, 0),
    "os_error": CatalogueEntry("A file could not be read or written.", False, 0),
}


class WsMonitorError(Exception):
    """Base of every error that wsmonitor raises on purpose."""

    code: str = "internal"


class UsageError(WsMonitorError):
    """wsmonitor was called in a way that cannot work."""

    code = "bad_message"


class InvalidIdError(UsageError, ValueError):
    """An id has characters or a length that ids may not have."""

    code = "bad_id"


class NotRecordedError(UsageError):
    """A recorded notebook was asked for, and the session is none."""

    code = "not_recorded"


class ConfigurationError(WsMonitorError):
    """A setting, a file or an address is wrong; the message says which and what would be right."""

    code = "configuration"


class ProtocolError(WsMonitorError):
    """The peer sent something that it must not send.

    Attributes:
        code: one of `CATALOGUE`, to be sent back.
        request: the offending message's ``request``, or None where it could not be read.
        fatal: whether the connection must be closed (the framing can no longer be trusted).
    """

    def __init__(self, code: str, message: str, *, request: int | None = None, fatal: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.request = request
        self.fatal = fatal


class StateError(WsMonitorError):
    """An event does not fit the state that it was applied to. The state is unchanged."""


class OutOfOrderError(StateError):
    """Not the next sequence number of this epoch.

    Attributes:
        expected: the position ``(epoch, seq)`` that would have fitted.
        got: the event's position.
    """

    def __init__(self, expected: tuple[str, int], got: tuple[str, int]) -> None:
        super().__init__(f"expected {expected[0]}:{expected[1]}, got {got[0]}:{got[1]}")
        self.expected = expected
        self.got = got


class DigestMismatchError(StateError):
    """Two replicas at one position differ."""


def in_words(info: ErrorInfo) -> str:
    """What *info* says, with the id by which whoever runs the server finds it in its log."""
    return f"{info.message} (server log: {info.correlation})" if info.correlation else info.message


class RequestError(WsMonitorError):
    """The server refused a request.

    Attributes:
        info: the server's error, with code, message and context.
    """

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(f"{in_words(info)} [{info.code}]")
        self.info = info
        self.code = info.code


class ConnectionFailedError(WsMonitorError):
    """The link is down and will not be tried again without a change (credentials, version, address)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SessionFailed(WsMonitorError):
    """`wait()`: the session reached a terminal state other than ``succeeded`` or ``skipped``.

    Attributes:
        session_id: the session.
        state: the terminal state.
    """

    code = "step_failed"

    def __init__(self, session_id: str, state: str, detail: str = "") -> None:
        super().__init__(f"session {session_id!r} ended as {state}" + (f": {detail}" if detail else ""))
        self.session_id = session_id
        self.state = state


class WaitTimeoutError(WsMonitorError, TimeoutError):
    """`wait()`: the condition was not reached on verified data within the timeout."""

    code = "timeout"


class Cancelled(BaseException):
    """Raised by ``checkpoint()`` and ``track()`` where a cancel command takes effect.

    A `BaseException`, as `asyncio.CancelledError` is, and for the same reason: code that
    catches `Exception` around a work item must not turn a cancellation into a retry.
    """


class Rejected(BaseException):
    """Raised by ``checkpoint(approve=...)`` when an observer rejected what was asked."""
