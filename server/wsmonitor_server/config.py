"""What a server is configured with: a TOML file, and above it the command line.

Unknown keys are refused, because a misspelt limit that is silently ignored protects nobody.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from wsmonitor.host import is_loopback
from wsmonitor.protocol.defaults import AUDIENCE, ISSUER, TENANT, Limits, Timing
from wsmonitor.protocol.errors import ConfigurationError

from .logs import LogFormat
from .retention import Retention
from .stores.redis.address import SCHEMES, parse
from .tenants import TenantLimits

DEFAULT_PORT: Final = 8765

_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9_.-]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")

_DEFAULT: Final = "tenant_limits"

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class AuthConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tokens are verified: with a secret (``key_file``, HS256), or with public keys (JWKS).

    Exactly one of ``key_file``, ``jwks_file`` and ``jwks_url`` is used. Without any, the key file ``key`` in
    the data directory is, and it is made when it is not there.
    """

    key_file: str = ""
    jwks_file: str = ""
    jwks_url: str = ""
    algorithms: tuple[Algorithm, ...] = ()  # for key sets; default: RS256, ES256 and EdDSA
    audience: str = AUDIENCE
    issuer: str = ISSUER
    tenant_claim: str = TENANT


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server's configuration.

    Attributes:
        host: the address to listen at.
        port: 0 for any free one; a local server takes any free one whatever is said here.
        store: ``memory``, ``sqlite:PATH``, or ``redis://HOST:PORT/DB`` (also ``rediss://``, ``unix://``,
            ``redis+sentinel://``), which any number of servers share; by default memory, for a
            local server SQLite in its data directory.
        synchronous: with ``full`` the SQLite store waits for the disk at every commit, so that the loss of
            power takes nothing back; with ``normal`` it is noticed, and begins a new epoch.
        data_dir: where the key, the database and large values lie.
        local: the local server of one user: lock, discovery file, idle exit, proof.
        behind_proxy: a proxy in front ends TLS; its ``X-Forwarded-For`` is believed for the log.
        tls_cert, tls_key: PEM files.
        insecure: tokens may travel unencrypted: only in a network where nobody else can listen.
        origins: browser origins that may connect, e.g. ``https://hub.example.org``. None by default: the
            kernel holds the WebSocket, not the page, so that no browser has to get in here.
        metrics: whether ``/metrics`` is served (without a token, as Prometheus asks).
        loop: whose event loop the process has: ``asyncio``, or ``uvloop``, if that is installed.
        log_format: ``text`` for people, or ``json``: one object per line.
        retention: what of ended sessions is kept, and how long.
        tenant_limits: what each tenant may have of this server.
        tenants: by name, of those that may have something else.
        drain_timeout: seconds that a stopping server waits for what it has begun, and for who does not read.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    store: str = ""
    synchronous: Literal["normal", "full"] = "normal"
    data_dir: str = ""
    local: bool = False
    behind_proxy: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    insecure: bool = False
    origins: tuple[str, ...] = ()
    metrics: bool = False
    loop: Literal["asyncio", "uvloop"] = "asyncio"
    log_format: LogFormat = "text"
    drain_timeout: float = 10.0
    auth: AuthConfig = AuthConfig()
    retention: Retention = Retention()
    timing: Timing = Timing()
    limits: Limits = Limits()
    tenant_limits: TenantLimits = TenantLimits()
    tenants: dict[str, TenantLimits] = {}


_STORES: Final = "the store has to be `memory`, `sqlite:PATH` or `redis://HOST:PORT`"


def load(path: Path | None, overrides: Mapping[str, Any]) -> ServerConfig:
    """Read a configuration file, and put *overrides* (by field name; None for "not given") above it.

    Raises:
        ConfigurationError: the file cannot be read, or something in it is wrong; the message says where.
    """
    table: dict[str, Any] = {}
    if path is not None:
        try:
            table = tomllib.loads(path.read_text("utf-8"))
        except OSError as exc:
            raise ConfigurationError(f"cannot read {path}: {exc.strerror or exc}") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
    sections = (("timing", Timing), ("limits", Limits), ("retention", Retention), (_DEFAULT, TenantLimits))
    for name, struct in sections:
        section = table.get(name, {})
        unknown = set(section) - set(struct.__struct_fields__) if isinstance(section, dict) else set()
        if unknown:
            raise ConfigurationError(f"{path}: unknown key `{name}.{sorted(unknown)[0]}`")
    _inherit(table)
    table.update({key: value for key, value in overrides.items() if value is not None})
    if table.get("store") == "":
        # As of a variable that is not set: nobody who names a store means the one that forgets.
        raise ConfigurationError(f"the store is empty: {_STORES}")
    try:
        config = msgspec.convert(table, ServerConfig)
    except msgspec.ValidationError as exc:
        raise ConfigurationError(f"{path or 'the configuration'}: {exc}") from exc
    validate(config)
    return config


def _inherit(table: dict[str, Any]) -> None:
    """What a tenant's table does not say holds for it as for all."""
    common, named = table.get(_DEFAULT, {}), table.get("tenants", {})
    if isinstance(common, dict) and isinstance(named, dict):
        table["tenants"] = {
            name: {**common, **one} if isinstance(one, dict) else one for name, one in named.items()
        }


def validate(config: ServerConfig) -> None:
    """Refuse what cannot work, or what must not.

    Raises:
        ConfigurationError: the message says which setting, and what would be right.
    """
    if not 0 <= config.port <= 65535:
        raise ConfigurationError(f"the port has to be 0 to 65535, not {config.port}")
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigurationError("TLS needs both a certificate (--tls-cert) and its key (--tls-key)")
    if not (is_loopback(config.host) or config.tls_cert or config.behind_proxy or config.insecure):
        raise ConfigurationError(
            f"{config.host} can be reached from other machines: tokens would travel in clear text. "
            "Give --tls-cert and --tls-key, or say --behind-proxy when a proxy ends TLS, "
            "or --insecure in a network where nobody else can listen, or listen at 127.0.0.1"
        )
    if config.insecure and config.tls_cert:
        raise ConfigurationError("insecure = true says that there is no TLS, and tls_cert that there is")
    _validate_store(config.store)
    auth = config.auth
    if sum(map(bool, (auth.key_file, auth.jwks_file, auth.jwks_url))) > 1:
        raise ConfigurationError("auth: give one of `key_file`, `jwks_file` and `jwks_url`")
    if "HS256" in auth.algorithms and (auth.jwks_file or auth.jwks_url):
        raise ConfigurationError("auth: HS256 needs a secret (`key_file`), not a set of public keys")
    if config.local and not is_loopback(config.host):
        raise ConfigurationError("a local server listens at a loopback address only")
    _validate_origins(config.origins)
    _validate_timing(config.timing)
    for name in Limits.__struct_fields__:
        if not 0 < getattr(config.limits, name) < math.inf:
            raise ConfigurationError(f"limits.{name} has to be above 0")
    if not config.auth.tenant_claim and config.tenants:
        raise ConfigurationError("tenants: nobody is one of them, because auth.tenant_claim is empty")
    named = {f"tenants.{name}": limits for name, limits in config.tenants.items()}
    for table, limits in {_DEFAULT: config.tenant_limits, **named}.items():
        for name in TenantLimits.__struct_fields__:
            if not 0 <= getattr(limits, name) < math.inf:
                raise ConfigurationError(f"{table}.{name} has to be 0 (no limit) or above")
    for name in Retention.__struct_fields__:
        if not 0 <= getattr(config.retention, name) < math.inf:
            raise ConfigurationError(f"retention.{name} has to be 0 (no limit) or above")
    if not config.retention.interval:
        raise ConfigurationError("retention.interval has to be above 0")
    if not 0 <= config.drain_timeout < math.inf:
        raise ConfigurationError("drain_timeout has to be 0 or above")


def _validate_store(store: str) -> None:
    if not store or re.fullmatch(r"memory|sqlite:.+", store):
        return
    scheme, separator, _ = store.partition("://")
    if not separator or scheme not in SCHEMES:
        # What stands behind the scheme may have a password in it.
        given = scheme + "://…" * bool(separator) if separator or "@" not in store else "…"
        near = get_close_matches(scheme.strip().lower().replace("valkey", "redis"), SCHEMES, 1, 0.7)
        hint = f" (perhaps {near[0]}://…)" * bool(separator) if near else ""
        raise ConfigurationError(f"{_STORES}, not {given!r}{hint}")
    parse(store)


def _validate_origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        if _ORIGIN.fullmatch(origin) is None:
            raise ConfigurationError(
                f"origins: {origin!r} is not an origin: write it as browsers send it, scheme and host in "
                "lower case and the port unless it is the default one, e.g. 'https://hub.example.org'; "
                "there is no wildcard"
            )


def _validate_timing(timing: Timing) -> None:
    for name in Timing.__struct_fields__:
        # Not a number is not above zero, and no timer waits for ever.
        if not 0 < getattr(timing, name) < math.inf:
            raise ConfigurationError(f"timing.{name} has to be above 0")
    if timing.heartbeat_timeout <= timing.heartbeat_interval:
        raise ConfigurationError(
            f"timing.heartbeat_timeout ({timing.heartbeat_timeout:g} s) has to be above "
            f"timing.heartbeat_interval ({timing.heartbeat_interval:g} s)"
        )
