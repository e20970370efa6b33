"""Where a Redis is: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with all that a URL may say.

``redis+sentinel://HOST:PORT,HOST:PORT/NAME`` (``rediss+sentinel://``: TLS, to both) says where Sentinels are,
who know where the primary that they call NAME is at present.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from wsmonitor.protocol.errors import ConfigurationError

SENTINEL: Final = "+sentinel"
SCHEMES: Final = ("redis", "rediss", "unix", "redis" + SENTINEL, "rediss" + SENTINEL)
PREFIX: Final = "wsm:"

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS: Final = ("prefix", "db", "password_file")
_SENTINEL_OPTIONS: Final = ("sentinel_username", "sentinel_password_file")

_ENCODED: Final = (
    "in user, password and path blanks and @ : / ? # % [ ] have to be percent-encoded (@ is %40)"
)


@dataclass(frozen=True, slots=True)
class Address:
    """What a store's URL says.

    Attributes:
        shown: the URL as people and logs may see it: without password and options.
        password_file: a file whose first line is the password; it is read at every connection, so that the
            password can be changed while the server runs.
        prefix: what the name of every key begins with.
        tls: redis-py's settings for certificates.
        sentinels: hosts and ports of those who know where the primary is; then there is no host.
        primary: what they call it.
        sentinel_username: with `sentinel_secret`, who one is to them; "" for nobody.
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
    sentinels: tuple[tuple[str, int], ...] = ()
    primary: str = ""
    sentinel_username: str = ""
    sentinel_password_file: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme.startswith("rediss")

    @property
    def hosts(self) -> tuple[str, ...]:
        """Who is asked over the network."""
        return tuple(host for host, _ in self.sentinels) or ((self.host,) if self.host else ())

    def secret(self) -> str:
        """The password, or "". Raises `ConfigurationError` when its file cannot be read."""
        return self._read(self.password_file) if self.password_file else self.password

    def sentinel_secret(self) -> str:
        """The password for the Sentinels, or "". Raises `ConfigurationError` when its file cannot be read."""
        return self._read(self.sentinel_password_file) if self.sentinel_password_file else ""

    def _read(self, file: str) -> str:
        try:
            lines = Path(file).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"the password of {self.shown}: cannot read {file}: {exc}") from exc
        return lines[0] if lines else ""


def parse(url: str) -> Address:
    """Read a store's URL.

    Raises:
        ConfigurationError: it is none; the message never has the password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        # Why, Python says with a part of the URL, which may be one of the password.
        raise ConfigurationError(
            f"the store's URL cannot be read: an IPv6 address stands in brackets, {_ENCODED}"
        ) from None
    scheme = parts.scheme
    if scheme not in SCHEMES:
        raise ConfigurationError("the store's URL has to begin with redis://, rediss:// or unix://")
    _refuse_what_is_lost(url, parts)
    host, port = "", _PORT
    sentinels: tuple[tuple[str, int], ...] = ()
    where = parts.netloc.rpartition("@")[2]
    unix = scheme == "unix"
    path = unquote(parts.path)
    if unix:
        if where or not path.startswith("/") or path == "/":
            raise ConfigurationError(
                "unix:// needs the socket's absolute path, and so three slashes, as in "
                "unix:///run/redis/redis.sock"
            )
    elif scheme.endswith(SENTINEL):
        sentinels = tuple(_place(one, _SENTINEL_PORT, "a Sentinel") for one in where.split(","))
    elif not where:
        raise ConfigurationError(f"{scheme}:// needs a host, as in {scheme}://localhost:6379/0")
    else:
        host, port = _place(where, _PORT, "the store's URL")
    options = _options(parts)
    primary, _, number = path.strip("/").partition("/") if sentinels else ("", "", path.strip("/"))
    if sentinels and not primary:
        raise ConfigurationError(
            f"{scheme}:// needs the primary's name, as in {scheme}://one:26379,two:26379/mymaster"
        )
    if not unix and number and options.get("db", number) != number:
        raise ConfigurationError(f"the store's URL names two databases: {number!r} and {options['db']!r}")
    db = options.get("db", "") if unix else (number or options.get("db", ""))
    if db and not (db.isdecimal() and db.isascii()):
        raise ConfigurationError(f"the store's URL: the database has to be a number, not {db!r}")
    shown = path if unix else ",".join(_spelled(*one) for one in sentinels or ((host, port),))
    behind = [primary] * bool(primary) + [db] * bool(db and not unix)
    return Address(
        shown="/".join([f"{scheme}://{shown}", *behind]),
        scheme=scheme,
        host=host,
        port=port,
        path=path if unix else "",
        db=int(db or 0),
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        password_file=options.get("password_file", ""),
        prefix=options.get("prefix", PREFIX),
        tls=tuple((name, options[name]) for name in _TLS if name in options),
        sentinels=sentinels,
        primary=primary,
        sentinel_username=options.get("sentinel_username", ""),
        sentinel_password_file=options.get("sentinel_password_file", ""),
    )


def _refuse_what_is_lost(url: str, parts: SplitResult) -> None:
    """What would be passed over, or taken for something else. None of it is repeated: it may be secret."""
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigurationError(f"the store's URL has a blank in it: {_ENCODED}")
    if "#" in url or "@" in parts.path + parts.query:
        raise ConfigurationError(f"the store's URL cannot be read: {_ENCODED}")


def _options(parts: SplitResult) -> dict[str, str]:
    known = (
        *_OPTIONS,
        *(_TLS if parts.scheme.startswith("rediss") else ()),
        *(_SENTINEL_OPTIONS if parts.scheme.endswith(SENTINEL) else ()),
    )
    options: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            only = " (for rediss:// only)" if name in _TLS else ""
            raise ConfigurationError(
                f"the store's URL: unknown option {name!r}{only} (known: {', '.join(known)})"
            )
        if not value:
            raise ConfigurationError(f"the store's URL: option {name!r} is empty")
        if name in options:
            raise ConfigurationError(f"the store's URL: option {name!r} is given twice")
        options[name] = value
    if parts.password and "password_file" in options:
        raise ConfigurationError("the store's URL: give the password, or password_file, not both")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigurationError("the store's URL: ssl_keyfile is of no use without ssl_certfile")
    return options


def _place(text: str, default: int, what: str) -> tuple[str, int]:
    """Host and port. What is wrong is not repeated: without an ``@`` it may be a password."""
    host, bracket, port = text.rpartition("]")
    if bracket:
        host, colon, port = host.removeprefix("["), port[:1], port[1:]
        if colon not in ("", ":") or ":" not in host:
            raise ConfigurationError(f"{what}: an IPv6 address stands in brackets, as in [::1]:6379")
    else:
        host, colon, port = text.partition(":")
        if ":" in port:
            raise ConfigurationError(f"{what}: an IPv6 address stands in brackets, as in [::1]:6379")
    if not host:
        raise ConfigurationError(f"{what} has no host")
    if not colon:
        return host.lower(), default
    if not (port.isdecimal() and port.isascii() and 1 <= int(port) <= 65535):
        raise ConfigurationError(f"{what}: the port has to be a number from 1 to 65535 ({_ENCODED})")
    return host.lower(), int(port)


def _spelled(host: str, port: int) -> str:
    return (f"[{host}]" if ":" in host else host) + f":{port}"
