"""WebSocket close codes. The range decides what a client does: 40xx reconnect, 45xx do not."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a connection was closed.

    Standard codes (1000 normal, 1001 going away, 1006 no close frame, 1009 too big …) may come
    from the WebSocket layer or a proxy; `may_reconnect` says what to do with those.
    """

    NORMAL = 1000
    DRAINING = 4001  # the server is stopping
    INTERNAL = 4002  # a fault of the server
    TOKEN_EXPIRED = 4003  # refresh the token, then reconnect
    TOO_SLOW = 4004  # the control lane overflowed
    HEARTBEAT_TIMEOUT = 4005  # nothing was heard for the timeout
    RATE_LIMITED = 4006
    TOO_MANY_CONNECTIONS = 4007
    STATE_RESET = 4008  # the server restored its store
    BAD_REQUEST = 4500
    UNAUTHORIZED = 4501
    FORBIDDEN = 4502
    UNSUPPORTED_VERSION = 4503
    REPLACED = 4504  # a newer holder of the same producer took over


def may_reconnect(code: int) -> bool:
    """Whether a client should try again after *code*.

    Our own codes say it by their range. Of the standard ones, only those that would repeat
    for ever (1002 protocol error, 1003 unsupported data, 1007 bad text, 1009 too big,
    1010 missing extension) stop: Centrifugo's clients once looped on a 6 MB message.
    """
    if 4500 <= code < 5000:
        return False
    return code not in {1002, 1003, 1007, 1009, 1010}
