"""The discovery file of a local server: its form, its name, and the proof that a server is its writer.

The server writes it, private to the user, after it listens; clients read it at every attempt.
A client sends its token only after the server has proved that it knows the file's secret: to
the challenge (a random nonce) it answers ``HMAC-SHA256(secret, "wsmonitor-challenge|" + nonce + "|" +
host + ":" + port)``, in hexadecimal. The address is in it so that another process on another
port cannot relay the question to the true server.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

import msgspec

CHALLENGE_PATH: Final = "/.well-known/wsmonitor-challenge"
"""``GET {CHALLENGE_PATH}?nonce=HEX`` answers ``{"proof": HEX, "instance": …}``."""


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """What a local server tells its user's programs about itself."""

    url: str  # ws://127.0.0.1:PORT
    instance: str  # one per server process
    version: str
    major: int
    minor: int
    pid: int
    boot_id: str  # the operating system's: after a reboot the file is stale
    started: str  # nanoseconds UTC
    process_started: float  # the process's own start time, so that a reused pid is not taken for it
    store: str  # what `--store` was
    data_dir: str  # where database, blobs, key and log are
    log: str
    key_file: str  # the signing key, readable by the user alone
    secret: str = msgspec.field(default="")  # for the challenge

    def __repr__(self) -> str:
        # The secret must not appear in a log or a traceback.
        return f"Discovery(url={self.url!r}, instance={self.instance!r}, pid={self.pid})"


def file_name(host: str, major: int) -> str:
    """The discovery file's name: home directories are shared between hosts, so the host is in it."""
    return f"wsmonitor-v{major}-{re.sub(r'[^A-Za-z0-9.-]', '_', host)}.json"


def proof(secret: str, nonce: str, host: str, port: int) -> str:
    """The answer to a challenge."""
    text = f"wsmonitor-challenge|{nonce}|{host}:{port}"
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def proof_agrees(expected: str, given: str) -> bool:
    """Compare two proofs in constant time."""
    return hmac.compare_digest(expected.encode(), given.encode())
