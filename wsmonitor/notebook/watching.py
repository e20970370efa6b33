"""`watch`: from a name to an observer."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from wsmonitor.protocol.errors import UsageError
from wsmonitor.protocol.ids import MAX_ID_LENGTH, NAME_PATTERN

if TYPE_CHECKING:
    from wsmonitor.client.types import Ssl

    from .observer import Observer

ROW_LIMIT: Final = 100_000
"""How many rows a browser is given, if nothing else is said."""

_numbers = count(1)


def _target(target: Any) -> str:
    """A name or an id, as it was given or as the ``id`` of what was given (a publisher's session).

    Raises:
        TypeError: it is neither.
        UsageError: it can be no name and no id.
    """
    found = target if isinstance(target, str) else getattr(target, "id", None)
    if not isinstance(found, str):
        raise TypeError(f"watch() takes a session's name or id, or a session, not {type(target).__name__}")
    return check_name(found)


def check_name(found: str) -> str:
    """*found*, which must be able to be a session's name or id.

    Raises:
        UsageError: it is not.
    """
    import re

    if not 1 <= len(found) <= MAX_ID_LENGTH or re.fullmatch(NAME_PATTERN, found) is None:
        raise UsageError(f"not a session's name or id: {found!r}")
    return found


def person() -> str:
    """What others see in the list of who watches, if nothing else is said."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user, as in many containers
        return "notebook"


def watch(
    target: Any,
    *,
    url: str | None = None,
    token: str | Callable[[], str] | None = None,
    name: str | None = None,
    new: bool = False,
    row_limit: int = ROW_LIMIT,
    ssl: Ssl | None = None,
    insecure: bool | None = None,
) -> Observer:
    """Observe a session, live. Returns at once: what is not there yet is waited for, visibly.

    The same arguments give the same observer, so that a cell that is run again leaves one, not two.

    Args:
        target: a session's name (its newest run is followed, and switched to when there is a newer one),
            an id such as ``nightly~01J…`` (pinned), or a session that this program publishes.
        url: the server, ``ws://…`` or ``wss://…``; default: ``WSMONITOR_URL``, else the running local server.
        token: a token, or a function that gives a fresh one; default: ``WSMONITOR_TOKEN``, else minted with
            the local server's key.
        name: what others see in the list of who watches; default: the user's name.
        new: make another observer, also where there is one.
        row_limit: how many rows a browser is given at the most.
        ssl: what a ``wss://`` server's certificate is checked against: an `ssl.SSLContext`, or the path of a
            PEM file with an authority of your own; default: ``WSMONITOR_CA``, else what the system trusts.
        insecure: True to let the token go unencrypted (``ws://``) to another machine, which is refused
            otherwise; default: ``WSMONITOR_INSECURE``.

    Raises:
        TypeError, UsageError: the target can be no name and no id.
        ConfigurationError: a URL or a setting that cannot be right, or a token that would go unencrypted to
            another machine.
    """
    found = _find(
        target, url=url, token=token, name=name, new=new, row_limit=row_limit, ssl=ssl, insecure=insecure
    )
    found.borrowed = False
    return found


def borrow(target: Any, **options: Any) -> Observer:
    """`watch` for a part: an observer that is made here is closed with the last part that uses it.

    Raises:
        TypeError, UsageError, ConfigurationError: as `watch`.
    """
    return _find(target, **{"url": None, "token": None, "name": None, "row_limit": ROW_LIMIT, **options})


def _find(
    target: Any,
    *,
    url: str | None,
    token: str | Callable[[], str] | None,
    name: str | None,
    row_limit: int,
    new: bool = False,
    ssl: Ssl | None = None,
    insecure: bool | None = None,
) -> Observer:
    from .observer import Observer, remembered
    from .source import ClientSource

    wanted = _target(target)
    if row_limit < 1:
        raise UsageError(f"row_limit must be at least 1, not {row_limit}")
    who = name if name is not None else person()

    def make() -> Observer:
        source = ClientSource(wanted, url=url, token=token, name=who, ssl=ssl, insecure=insecure)
        made = Observer(wanted, source, row_limit=row_limit)
        made.borrowed = True
        return made

    server = url or os.environ.get("WSMONITOR_URL", "")
    key: tuple[Any, ...] = (wanted, server, token, who, row_limit, ssl, insecure)
    if new:
        key = (*key, next(_numbers))
    return remembered(key, make)
