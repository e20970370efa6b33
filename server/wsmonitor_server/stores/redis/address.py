"""Where a Redis is: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with all that a URL may say."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from wsmonitor.protocol.errors import ConfigurationError

SCHEMES: Final = ("redis", "rediss", "unix")
PREFIX: Final = "wsm:"

_PORT: Final = 6379
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS: Final = ("prefix", "db", "password_file")


@dataclass(frozen=True, slots=True)
class Address:
    """What a store's URL says.

    Attributes:
        shown: the URL as people and logs may see it: without password and options.
        password_file: a file whose first line is the password; it is read at every connection, so that the
            password can be changed while the server runs.
        prefix: what the name of every key begins with.
        tls: redis-py's settings for certificates.
    """

    shown: str
    scheme: str
    host: str = ""
    port: int = _PORT
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    prefix: str = PREFIX
    tls: tuple[tuple[str, str], ...] = ()

    def secret(self) -> str:
        """The password, or "". Raises `ConfigurationError` when its file cannot be read."""
        if not self.password_file:
            return self.password
        try:
            lines = Path(self.password_file).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"the password of {self.shown}: cannot read {self.password_file}: {exc}"
            ) from exc
        return lines[0] if lines else ""


def parse(url: str) -> Address:
    """Read a store's URL.

    Raises:
        ConfigurationError: it is none; the message never has the password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise ConfigurationError(f"the store's URL cannot be read: {exc}") from None
    if parts.scheme not in SCHEMES:
        raise ConfigurationError("the store's URL has to begin with redis://, rediss:// or unix://")
    unix = parts.scheme == "unix"
    path = unquote(parts.path)
    if unix and not (path.startswith("/") and len(path) > 1):
        raise ConfigurationError(
            "unix:// needs the socket's absolute path, as in unix:///run/redis/redis.sock"
        )
    if not unix and not host:
        raise ConfigurationError(f"{parts.scheme}:// needs a host, as in {parts.scheme}://localhost:6379/0")
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _OPTIONS and not (name in _TLS and parts.scheme == "rediss"):
            known = ", ".join((*_OPTIONS, *(_TLS if parts.scheme == "rediss" else ())))
            raise ConfigurationError(f"the store's URL: unknown option {name!r} (known: {known})")
        if not value:
            raise ConfigurationError(f"the store's URL: option {name!r} is empty")
        options[name] = value
    if parts.password and "password_file" in options:
        raise ConfigurationError("the store's URL: give the password, or password_file, not both")
    db = options.get("db", "") if unix else (path.strip("/") or options.get("db", ""))
    if db and not db.isdecimal():
        raise ConfigurationError(f"the store's URL: the database has to be a number, not {db!r}")
    where = path if unix else (f"[{host}]" if ":" in host else host) + f":{port or _PORT}"
    return Address(
        shown=f"{parts.scheme}://{where}" + (f"/{db}" if db and not unix else ""),
        scheme=parts.scheme,
        host=host,
        port=port or _PORT,
        path=path if unix else "",
        db=int(db or 0),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        password_file=options.get("password_file", ""),
        prefix=options.get("prefix", PREFIX),
        tls=tuple((name, options[name]) for name in _TLS if name in options),
    )
