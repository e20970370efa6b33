"""The client layer's own exceptions; the others are in `wsmonitor.protocol.errors`.

::

    WsMonitorError
    ├── RequestTimeoutError         the server did not answer a request in time; also a TimeoutError
    ├── NotLocatedError             no server is there at present; it will be looked for again
    └── ConfigurationError
        ├── NoTokenError            there is an address, but no token for it
        ├── InsecureError           a token would travel unencrypted to another machine
        └── NoServerError           no server can be there with these settings; says where it was looked
"""

from __future__ import annotations

from wsmonitor.protocol.errors import ConfigurationError, WsMonitorError


class RequestTimeoutError(WsMonitorError, TimeoutError):
    """The server did not answer a request in time."""

    code = "timeout"


class NotLocatedError(WsMonitorError):
    """No server is there at present.

    Attributes:
        looked: where it was looked for, in words.
    """

    code = "connection_lost"

    def __init__(self, message: str, looked: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.looked = looked


class NoTokenError(ConfigurationError):
    """There is a server's address, but no token for it."""

    code = "unauthorized"


class InsecureError(ConfigurationError):
    """The server's address is of another machine, and without encryption: no token goes there."""

    code = "insecure"


class NoServerError(ConfigurationError):
    """With these settings no server will ever be found.

    Attributes:
        looked: where it was looked for, in words.
    """

    def __init__(self, message: str, looked: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.looked = looked
