"""The options that commands share: which server, with what credentials, and how output is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args

import click
import msgspec

from wsmonitor.protocol.states import State

from .failures import Exit, Failure, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from rich.console import Console

    from wsmonitor.client import Connection
    from wsmonitor.client.types import ConnectionStatus

if TYPE_CHECKING:
    FloatType = click.ParamType[float]
    IntType = click.ParamType[int]
    StringType = click.ParamType[str]
else:
    # Generic only in newer versions of click.
    FloatType = IntType = StringType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE: Final = 10.0
"""Seconds that a command waits for the server, and for each of its answers."""

_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZES: Final = {"": 1, "b": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


@dataclass(frozen=True, slots=True)
class Server:
    """Which server a command speaks to.

    Attributes:
        url: None to look for one (see ``wsmonitor status``).
        token: None to mint one from the local server's key.
        timeout: seconds to wait for the connection and for each answer.
        ca: a PEM file to check a ``wss://`` server against; "" for what the environment or the system says.
        insecure: whether a token may go unencrypted to another machine; None for what the environment says.
    """

    url: str | None
    token: str | None = field(repr=False)
    timeout: float = PATIENCE
    ca: str = ""
    insecure: bool | None = None

    def handle(self, name: str) -> Connection:
        """A connection that is being made; *name* is what others see in the presence list."""
        from wsmonitor.client import Target, connect

        who = f"{_me()} ({name})"
        return connect(
            Target(url=self.url, token=self.token, name=who, ssl=self.ca or None, insecure=self.insecure)
        )

    def connected(self, name: str) -> AbstractContextManager[Connection]:
        """A connection that is live, for commands that ask and end.

        Raises:
            Failure: there is no server, it cannot be reached, or it refused.
        """
        from contextlib import contextmanager

        @contextmanager
        def connecting() -> Iterator[Connection]:
            with self.handle(name) as connection:
                self._await_live(connection)
                yield connection

        return connecting()

    def _await_live(self, connection: Connection) -> None:
        from wsmonitor.protocol.errors import WaitTimeoutError

        # The first failure is told at once: a command that asks and ends is not a monitor.
        over = ("live", "waiting", "failed", "closed")
        try:
            status = connection.wait_for(lambda s: s.phase in over, self.timeout)
        except WaitTimeoutError as exc:
            raise Failure(str(exc), code="connection_lost", status=Exit.NO_SERVER) from exc
        if status.phase != "live":
            raise no_connection(status)


def no_connection(status: ConnectionStatus) -> Failure:
    """Why there is no connection, as a failure with everything that is known."""
    found = status.url is not None
    # That a token is wanting is known before any server is asked.
    known = status.code and (found or status.phase == "failed" or status_of(status.code) is Exit.REFUSED)
    code = status.code if known else "no_server"
    told = status.reason or ("the server cannot be reached" if found else "no server was found")
    if not found and status.looked:
        told += "".join(f"\n  looked at {place}" for place in status.looked)
    # Without a link nothing was refused by a session: what is not a refusal of the token is "no server".
    ends = status_of(code)
    return Failure(told, code=code, status=ends if ends in (Exit.REFUSED, Exit.USAGE) else Exit.NO_SERVER)


def server_options(function: F) -> F:
    """Add ``--timeout`` to `target_options`: for commands that ask and end."""
    return click.option(
        "--timeout",
        type=Span(),
        default=PATIENCE,
        show_default=f"{PATIENCE:g}s",
        help="How long to wait for the server, and for each of its answers.",
    )(target_options(function))


def target_options(function: F) -> F:
    """Add ``--url``, ``--token``, ``--token-file``, ``--ca`` and ``--insecure``; the command gets
    ``server: Server``."""

    @wraps(function)
    def gather(
        *args: Any,
        url: str | None,
        token: str | None,
        token_file: Path | None,
        ca: Path | None,
        insecure: bool | None,
        **kwargs: Any,
    ) -> Any:
        if token_file is not None:
            token = _read_token(token_file)
        timeout = kwargs.pop("timeout", PATIENCE)
        server = Server(url or None, token or None, timeout, str(ca) if ca else "", insecure)
        return function(*args, server=server, **kwargs)

    # The environment is read by the client, which knows that its token is for its server only.
    for option in (
        click.option(
            "--insecure", is_flag=True, default=None,
            help="Let the token go unencrypted (ws://) to another machine: only where nobody else can "
            "listen. Also WSMONITOR_INSECURE=1.",
        ),
        click.option(
            "--ca", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="PEM file of the authority to check a wss:// server against, in place of the system's. "
            "Also WSMONITOR_CA.",
        ),
        click.option(
            "--token-file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
            help="A file holding the token; - for standard input.",
        ),
        click.option(
            "--token", metavar="TOKEN",
            help="The token. Others on this machine can see a command line: prefer a file, or the "
            "variable WSMONITOR_TOKEN (it goes to the server of WSMONITOR_URL only).",
        ),
        click.option(
            "--url", metavar="URL",
            help="The server, ws:// or wss://. Default: WSMONITOR_URL, else the local server; "
            "see `wsmonitor status`.",
        ),
    ):  # fmt: skip
        gather = option(gather)
    return gather  # type: ignore[return-value]  # click calls it with the options as keywords


def json_option(function: F) -> F:
    """Add ``--json``; the command gets ``as_json: bool``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON instead of text (docs/reference/cli.md)."
    )(function)


def _me() -> str:
    from wsmonitor.client.resolve import local_user

    return local_user()


def _read_token(path: Path) -> str:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        why = getattr(exc, "strerror", None) or exc
        raise Failure(f"cannot read {path}: {why}", code="configuration", status=Exit.USAGE) from exc
    if not text.strip():
        raise Failure(f"{path}: the file is empty", code="configuration", status=Exit.USAGE)
    return text.strip()


class Span(FloatType):
    """A duration: ``90``, ``90s``, ``15min``, ``2h``, ``7d``, ``2w``; seconds as a float."""

    name = "DURATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value).strip().lower()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz").strip()
        unit = text[len(number) :].strip() or "s"
        try:
            seconds = float(number) * _UNITS[unit]
            timedelta(seconds=seconds)
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is not a duration: 90, 90s, 15min, 2h, 7d", param, ctx)
        if seconds < 0:
            self.fail("a duration is not negative", param, ctx)
        return seconds


class StateName(StringType):
    """A state of a session."""

    name = "STATE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in get_args(State):
            self.fail(f"{value!r} is not a state: {', '.join(get_args(State))}", param, ctx)
        return str(value)


class Bytes(IntType):
    """A size: ``4096``, ``500kB``, ``10MB``, ``1GiB``; bytes as an int."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz").strip()
        unit = text[len(number) :].strip().removesuffix("b")
        try:
            return int(float(number) * _SIZES[unit])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is not a size: 4096, 500kB, 10MB, 1GiB", param, ctx)


def emit(value: Any) -> None:
    """Print *value* (plain JSON values) as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def console(*, stderr: bool = False) -> Console:
    """A console that interprets nothing in what it prints: names and messages are other people's."""
    from rich.console import Console

    made = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = 1000  # a pipe has no width: nothing is folded or cut for the reader's program
    return made
