"""Signing keys in files: private to their owner, made once and kept, so that tokens outlast a restart."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from wsmonitor.host import NotPrivateError, read_private
from wsmonitor.protocol.errors import ConfigurationError

from .auth import KEY_ALGORITHMS, KeySource, SecretKey, key_set_from_file, key_set_from_url
from .config import AuthConfig


def key_source(auth: AuthConfig, data_dir: Path | None) -> KeySource:
    """The keys that *auth* names; without a name, the key file of *data_dir*.

    Raises:
        ConfigurationError: a file cannot be read, or others may read it.
    """
    algorithms = frozenset(auth.algorithms) or KEY_ALGORITHMS
    if auth.jwks_file:
        return key_set_from_file(Path(auth.jwks_file), algorithms)
    if auth.jwks_url:
        return key_set_from_url(auth.jwks_url, algorithms)
    if auth.key_file:
        return SecretKey(read_key(Path(auth.key_file)))
    if data_dir is None:
        raise ConfigurationError(
            "tokens need a key: give `auth.key_file`, `auth.jwks_file` or `auth.jwks_url`, "
            "or a data directory"
        )
    return SecretKey(read_or_make_key(data_dir / "key"))


def read_key(path: Path) -> bytes:
    """The secret in *path*, without white space at its ends.

    Raises:
        ConfigurationError: it cannot be read, or it is not its owner's alone (see `read_private`).
    """
    try:
        return read_private(path).strip()
    except OSError as exc:
        raise ConfigurationError(f"cannot read the key file {path}: {exc.strerror or exc}") from exc
    except NotPrivateError as exc:
        raise ConfigurationError(
            f"the key file {path} is not private: {exc}. Whoever reads it can make tokens: make it 600 and "
            "your own, and make a new key if it may have been read"
        ) from exc


def read_or_make_key(path: Path) -> bytes:
    """The secret in *path*; a new one, of 32 random bytes in hexadecimal, when there is no such file."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_hex(32).encode())
                file.flush()
                os.fsync(file.fileno())
            # A link, not a rename: of two who make it at the same time, the first one's stays.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
    return read_key(path)
